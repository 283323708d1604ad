"""How many descriptors a process of the server needs, and the refusal of a start that may not have them: else workers
would die of it one after the other, or turn everybody away. It must never open one. Read next:
`master/start/prepare.py`, which opens them.
"""

import resource

from millrace.master.kernel.sockets import BindRefused, media_addresses
from millrace.relay.config.model import Config

OWN = 48
"""Of a worker: streams, log, shared memory, maps, its engine's and its loop's, and ZeroMQ's. One of two
workers had 70, of which 14 were sockets and doorbells.
"""
PER_WORKER = 4
"""Of a worker for each other one: ZeroMQ's connections."""
CLIENTS = 16
"""Connections that have to fit at the least, beside `limits.spare_descriptors`."""


def check_descriptors(config: Config, slots: int, workers: int) -> None:
    """Raises BindRefused when this process and its workers may not have enough descriptors."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # One more of media is Firefox's, and each slot has a doorbell.
    media = len(media_addresses(config.media.bind)[0])
    sockets = slots * (len(config.http.bind) + 1 + media + 1 + 1)
    if config.media.tcp != "off":
        # All slots share the listeners, and each has two ends by which it is passed connections.
        sockets += media + 2 * slots
    wanted = sockets + OWN + PER_WORKER * workers + config.limits.spare_descriptors + CLIENTS
    if most != resource.RLIM_INFINITY and most < wanted:
        raise BindRefused(
            f"open files: found a hard limit of {most}, expected {wanted} or more: {sockets} for sockets and doorbells "
            f"of {slots} workers, {config.limits.spare_descriptors} for limits.spare_descriptors, and what processes "
            "need themselves; LimitNOFILE= or `ulimit -Hn` raises it"
        )
