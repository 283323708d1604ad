"""An engine that moves no packet: it carries out commands on plain tables, and fails the test at an impossible one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from millrace.relay.contract.commands import (
    MAX_RECORD_BYTES,
    Attach,
    CloseTransport,
    Command,
    Detach,
    MoveTransport,
    OpenTransport,
    Publish,
    ReportTransport,
    RestartIce,
    SaveRecord,
    SetWish,
    Subscribe,
    Unpublish,
    Unsubscribe,
)
from millrace.relay.contract.events import AdoptionDone, Event, TransportAdopted
from millrace.relay.contract.ids import PublicationId, SubscriptionId, TransportId


@dataclass
class FakeEngine:
    """One worker's; dies with it."""

    slot: int
    logs_per_slot: int
    transports: set[int] = field(default_factory=set)
    publications: dict[int, Publish] = field(default_factory=dict)
    subscriptions: dict[int, Subscribe] = field(default_factory=dict)
    attached: dict[int, Attach] = field(default_factory=dict)
    records: dict[int, bytes] = field(default_factory=dict)
    given: list[MoveTransport] = field(default_factory=list)
    """To be looked at by the box."""
    feedings: int = 0
    """How often anything was attached or detached."""

    def successor(self, lost: Iterable[int] = ()) -> tuple["FakeEngine", list[Event]]:
        """The engine of the next life with what it adopts, and what it says first. `lost` were in their handshakes."""
        engine = FakeEngine(self.slot, self.logs_per_slot)
        engine.transports = set(self.transports)
        engine.publications, engine.subscriptions = dict(self.publications), dict(self.subscriptions)
        engine.attached, engine.records = dict(self.attached), dict(self.records)
        lost = list(lost)
        for transport in lost:
            engine.close(transport)
        events: list[Event] = [engine.adopted(transport) for transport in sorted(engine.transports)]
        return engine, [*events, AdoptionDone(len(events), len(lost))]

    def adopted(self, transport: int) -> TransportAdopted:
        publications = [number for number, one in self.publications.items() if one.transport == transport]
        subscriptions = [number for number, one in self.subscriptions.items() if one.transport == transport]
        return TransportAdopted(
            TransportId(transport),
            self.records.get(transport, b""),
            tuple(PublicationId(number) for number in publications),
            tuple(SubscriptionId(number) for number in subscriptions),
            connected=True,
        )

    def submit(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        match command:
            case OpenTransport():
                assert command.transport not in self.transports
                assert command.local_ufrag.startswith(f"{self.slot:02x}")
                self.transports.add(command.transport)
            case RestartIce() | ReportTransport():
                assert command.transport in self.transports
            case CloseTransport():
                self.close(command.transport)
            case Publish():
                self._publish(command)
            case Unpublish():
                del self.publications[command.publication]
            case Subscribe():
                assert command.transport in self.transports
                mine = [other for other in self.subscriptions.values() if other.transport == command.transport]
                assert command.ssrc not in {other.ssrc for other in mine}
                self.subscriptions[command.subscription] = command
            case SetWish():
                assert command.subscription in self.subscriptions
            case Attach():
                assert command.subscription in self.subscriptions
                assert command.logs
                self.attached[command.subscription] = command
                self.feedings += 1
            case Detach():
                del self.attached[command.subscription]
                self.feedings += 1
            case SaveRecord():
                assert command.transport in self.transports
                assert 0 < len(command.record) <= MAX_RECORD_BYTES
                self.records[command.transport] = command.record
            case MoveTransport():
                # Between the command and its outcome nothing is left of the transport here.
                assert command.transport in self.transports
                self.given.append(command)
            case Unsubscribe():
                del self.subscriptions[command.subscription]
                self.attached.pop(command.subscription, None)

    def _publish(self, command: Publish) -> None:
        assert command.transport in self.transports
        wanted = {one.log for one in command.encodings}
        assert not wanted & self.logs()
        assert {log // self.logs_per_slot for log in wanted} == {self.slot}
        self.publications[command.publication] = command

    def logs(self) -> set[int]:
        """Those of all publications that are here."""
        return {one.log for publish in self.publications.values() for one in publish.encodings}

    def take_out(self, transport: int) -> "FakeEngine":
        """One transport with all that belongs to it, which is then no longer here."""
        parcel = FakeEngine(self.slot, self.logs_per_slot)
        parcel.transports = {transport}
        parcel.publications = {n: one for n, one in self.publications.items() if one.transport == transport}
        parcel.subscriptions = {n: one for n, one in self.subscriptions.items() if one.transport == transport}
        parcel.attached = {n: one for n, one in self.attached.items() if n in parcel.subscriptions}
        parcel.records = {transport: self.records.get(transport, b"")}
        self.close(transport)
        return parcel

    def put_in(self, parcel: "FakeEngine") -> None:
        """The other half of `take_out`."""
        self.transports |= parcel.transports
        self.publications |= parcel.publications
        self.subscriptions |= parcel.subscriptions
        self.attached |= parcel.attached
        self.records |= parcel.records

    def close(self, transport: int) -> None:
        """With all its publications and subscriptions."""
        self.transports.remove(transport)
        self.records.pop(transport, None)
        for number, publish in list(self.publications.items()):
            if publish.transport == transport:
                del self.publications[number]
        for number, subscribe in list(self.subscriptions.items()):
            if subscribe.transport == transport:
                del self.subscriptions[number]
                self.attached.pop(number, None)
