from dataclasses import replace

from master.reload import compare
from relay.config import Config, LimitsConfig, LogConfig, MediaConfig


def test_the_same_configuration_changes_nothing() -> None:
    change = compare(Config(), Config())
    assert (change.in_force, change.applied, change.deferred) == (Config(), (), ())


def test_only_what_needs_no_new_worker_is_in_force() -> None:
    new = Config(log=LogConfig(level="debug", format="json"), limits=LimitsConfig(m_lines=2), media=MediaConfig(port=9))
    change = compare(Config(), new)
    assert change.applied == ("log.level",)
    assert change.deferred == ("media.port", "limits.m_lines", "log.format")
    assert change.in_force == replace(Config(), log=LogConfig(level="debug"))


def test_what_is_deferred_is_said_again_until_the_next_start() -> None:
    new = Config(log=LogConfig(level="debug"), media=MediaConfig(port=9))
    again = compare(compare(Config(), new).in_force, new)
    assert (again.applied, again.deferred) == ((), ("media.port",))
