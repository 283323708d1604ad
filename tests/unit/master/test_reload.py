from dataclasses import replace

from millrace.master.reload import Change, compare
from millrace.relay.config.model import (
    AuthConfig,
    Config,
    HttpConfig,
    LimitsConfig,
    LogConfig,
    MediaConfig,
    WorkersConfig,
)


def changed(old: Config, new: Config) -> Change:
    change = compare(old, new)
    assert isinstance(change, Change)
    return change


def test_the_same_configuration_changes_nothing() -> None:
    assert compare(Config(), Config()) == Change(Config(), (), (), needs_workers=False)


def test_what_sockets_and_arena_are_made_for_waits_and_all_else_is_in_force() -> None:
    new = Config(log=LogConfig(level="debug", format="json"), limits=LimitsConfig(m_lines=2), media=MediaConfig(port=9))
    change = changed(Config(), new)
    assert change.applied == ("limits.m_lines", "log.level")
    assert change.deferred == ("media.port", "log.format")
    assert change.in_force == replace(Config(), log=LogConfig(level="debug"), limits=LimitsConfig(m_lines=2))


def test_what_is_deferred_is_said_again_until_the_next_start() -> None:
    new = Config(log=LogConfig(level="debug"), media=MediaConfig(port=9))
    again = changed(changed(Config(), new).in_force, new)
    assert (again.applied, again.deferred) == ((), ("media.port",))


def test_workers_are_replaced_only_for_what_they_have_a_copy_of() -> None:
    told = Config(log=LogConfig(level="debug"), workers=WorkersConfig(drain_seconds=1, stop_seconds=1))
    assert not changed(Config(), told).needs_workers
    assert not changed(Config(), Config(media=MediaConfig(port=9))).needs_workers
    count = changed(Config(), Config(workers=WorkersConfig(count=3)))
    assert (count.applied, count.needs_workers, count.in_force.workers.count) == (("workers.count",), False, 3)
    assert changed(Config(), Config(http=HttpConfig(cors_origins=()))).needs_workers
    assert changed(Config(), Config(workers=WorkersConfig(beat_seconds=9))).needs_workers


def test_keys_are_not_taken_away_while_the_sockets_are_open_to_everybody() -> None:
    old = Config(auth=AuthConfig(keys={"key": "secret"}), http=HttpConfig(bind=("0.0.0.0",)))
    refused = compare(old, Config())
    assert not isinstance(refused, Change)
    assert [problem.key for problem in refused] == ["http.bind"]
