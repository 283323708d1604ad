import json
import logging

from workers.logs import Json, Plain


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "millrace", "levelno": 20, "levelname": "INFO", "msg": message})
    made.__dict__.update(fields)
    return made


def test_a_plain_line_shows_its_fields() -> None:
    line = Plain("worker-0").format(record("a client came", room="hall", session="00.abc"))
    assert line.endswith("INFO    worker-0 a client came room=hall session=00.abc")


def test_a_name_that_a_client_chose_cannot_forge_a_line() -> None:
    line = Plain("worker-0").format(record("a client came", room="x\n12:00 ERROR gone", participant="a b", cause=""))
    assert "\n" not in line
    assert 'room="x\\n12:00 ERROR gone" participant="a b" cause=""' in line


def test_a_json_line_is_one_object_with_its_fields() -> None:
    line = Json("worker-1").format(record("a client went", cause="closed"))
    content = json.loads(line)
    assert content["process"] == "worker-1"
    assert content["level"] == "info"
    assert content["cause"] == "closed"
    assert content["time"].endswith("Z")


def test_a_traceback_stays_with_its_line() -> None:
    try:
        raise ValueError("boom")
    except ValueError as error:
        failed = record("failed", exc_info=(ValueError, error, error.__traceback__))
    assert "ValueError: boom" in json.loads(Json("w").format(failed))["traceback"]
    assert Plain("w").format(failed).endswith("ValueError: boom")
