"""What tests of a takeover share: a configuration with free ports, and another process's descriptors."""

import os

from millrace.master.takeover.predecessor import Inherited
from millrace.relay.config.model import Config
from millrace.relay.config.parse import parse

SETTINGS = ("http.port=0", "admin.port=0", "media.port=0", "workers.count=2", "media.steering=handover")


def config(*settings: str) -> Config:
    parsed = parse("", [*SETTINGS, *settings])
    assert isinstance(parsed, Config)
    return parsed


def copies(inherited: Inherited) -> list[int]:
    """As another process has them."""
    return [os.dup(each) for each in inherited.descriptors]
