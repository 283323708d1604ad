"""The records that one Control saves, and a successor that adopts its sessions from them alone."""

from dataclasses import fields
from typing import Any

from millrace.relay.contract.commands import SaveRecord
from millrace.relay.contract.events import AdoptionDone, TransportAdopted
from millrace.relay.contract.inputs import EngineSaid
from millrace.relay.session.sessions import Session
from tests.unit.control_kit import Desk, desk


class Recorder:
    """Keeps what control asks the engine to keep, over many inputs."""

    def __init__(self) -> None:
        self.records: dict[int, bytes] = {}

    def see(self, worker: Desk) -> None:
        for command in worker.commands(SaveRecord):
            self.records[command.transport] = command.record


def adoptions(worker: Desk, recorder: Recorder) -> list[TransportAdopted]:
    """What the engine says of the sessions that this worker has now."""
    return [
        TransportAdopted(
            session.transport,
            recorder.records[session.transport],
            tuple(session.publications),
            tuple(one.subscription for one in session.receiving),
            session.connected,
        )
        for session in worker.control.sessions.all()
    ]


def successor(events: list[TransportAdopted], slot: int = 0, done: bool = True) -> Desk:
    worker = desk(slot=slot, incarnation=2, seed=99)
    for event in events:
        worker.handle(EngineSaid(event))
    if done:
        worker.handle(EngineSaid(AdoptionDone(len(events), 0)))
    return worker


def plain(session: Session) -> dict[str, Any]:
    """All but what a successor has by itself."""
    values = {field.name: getattr(session, field.name) for field in fields(session)}
    streams = [(one.subscription, one.receiver, one.publication) for one in values["receiving"]]
    return values | {"receiving": streams, "adopted": None}
