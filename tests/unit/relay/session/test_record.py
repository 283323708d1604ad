"""What a session's record holds, and how long it is."""

import msgpack

from millrace.relay.contract.commands import MAX_RECORD_BYTES, SaveRecord
from millrace.relay.session.record import unpack_session
from tests.unit.adoption_kit import plain
from tests.unit.control_kit import desk, offer


def test_the_record_of_a_session_without_a_restart_is_as_it_was_before_restarts_were_kept() -> None:
    worker = desk()
    worker.publish()
    (kept,) = worker.commands(SaveRecord)
    (session,) = worker.control.sessions.all()
    version, fields = msgpack.unpackb(kept.record)
    assert (version, list(fields)) == (1, ["etag", "remote_ufrag", "remote_pwd", "paused", "fed_from", "fixed"])
    assert plain(unpack_session(kept.record)) == plain(session)


def test_the_widest_session_fits_its_record() -> None:
    worker = desk()
    worker.watch("🎥" * 256, sdp=offer(kinds=["audio", "video"] * 8, direction="recvonly", codecs="both"))
    (kept,) = worker.commands(SaveRecord)
    assert 0 < len(kept.record) < MAX_RECORD_BYTES / 4
