"""An engine that moves no packet: it carries out commands on plain tables, and fails the test at an impossible one."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from relay.commands import (
    Attach,
    CloseTransport,
    Command,
    Detach,
    OpenTransport,
    Publish,
    ReportTransport,
    RestartIce,
    Subscribe,
    Unpublish,
    Unsubscribe,
)


@dataclass
class FakeEngine:
    """One worker's; dies with it."""

    slot: int
    logs_per_slot: int
    transports: set[int] = field(default_factory=set)
    publications: dict[int, Publish] = field(default_factory=dict)
    subscriptions: dict[int, Subscribe] = field(default_factory=dict)
    attached: dict[int, Attach] = field(default_factory=dict)

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
                assert command.ssrc not in {other.ssrc for other in self.subscriptions.values()}
                self.subscriptions[command.subscription] = command
            case Attach():
                assert command.subscription in self.subscriptions
                assert command.logs
                self.attached[command.subscription] = command
            case Detach():
                del self.attached[command.subscription]
            case Unsubscribe():
                del self.subscriptions[command.subscription]
                self.attached.pop(command.subscription, None)

    def _publish(self, command: Publish) -> None:
        assert command.transport in self.transports
        busy = {one.log for publish in self.publications.values() for one in publish.encodings}
        wanted = {one.log for one in command.encodings}
        assert not wanted & busy
        assert {log // self.logs_per_slot for log in wanted} == {self.slot}
        self.publications[command.publication] = command

    def close(self, transport: int) -> None:
        """With all its publications and subscriptions."""
        self.transports.remove(transport)
        for number, publish in list(self.publications.items()):
            if publish.transport == transport:
                del self.publications[number]
        for number, subscribe in list(self.subscriptions.items()):
            if subscribe.transport == transport:
                del self.subscriptions[number]
                self.attached.pop(number, None)
