"""Makes everything that workers inherit, before the first fork: sockets, steering, arena, doorbells, certificate. It
must never start a thread. Read next: `master/master.py`, which forks and waits.
"""

import logging
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from master.addresses import candidates
from master.arena import Arena
from master.certificate import Certificate, certificate_for
from master.runtime import runtime_directory
from master.sockets import Sockets, bind_all
from master.spawn import Child
from master.steering import steer
from relay.boot import Boot, CandidateAddress, MediaSocket
from relay.config import Config, is_loopback
from relay.ids import MAX_SLOTS, Incarnation, Slot

log = logging.getLogger("millrace.master")


class SteeringRefused(Exception):
    """`media.steering` is `ebpf`, and the kernel does not take the program."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What there is before the first worker."""

    config: Config
    slots: int
    cores: tuple[int, ...]
    """One for each slot, or none when workers are not pinned."""
    certificate: Certificate
    sockets: Sockets
    flow_map: int | None
    arena: Arena
    doorbells: tuple[int, ...]
    directory: Path
    candidates: tuple[CandidateAddress, ...]
    started_at: float

    def child(self, slot: int, incarnation: int) -> Child:
        """One worker's share."""
        own = set(self.sockets.of_slot(slot))
        others = [each for other in range(self.slots) for each in self.sockets.of_slot(other) if each not in own]

        def close_others() -> None:
            for each in others:
                each.close()

        return Child(self._boot(slot, incarnation), self.cores[slot] if self.cores else None, close_others)

    def _boot(self, slot: int, incarnation: int) -> Boot:
        return Boot(
            config=self.config,
            slot=Slot(slot),
            incarnation=Incarnation(incarnation),
            slots=self.slots,
            http_sockets=tuple(group.members[slot].fileno() for group in self.sockets.http),
            admin_sockets=tuple(group.members[slot].fileno() for group in self.sockets.admin),
            media_sockets=tuple(
                MediaSocket(group.members[slot].fileno(), group.address, group.port) for group in self.sockets.media
            ),
            candidates=self.candidates,
            arena=self.arena.fd,
            doorbells=self.doorbells,
            flow_map=self.flow_map,
            certificate_pem=self.certificate.certificate_pem,
            private_key_pem=self.certificate.private_key_pem,
            fingerprint=self.certificate.fingerprint,
            runtime_directory=self.directory,
            started_at=self.started_at,
            forked_at=time.monotonic(),
        )


@contextmanager
def prepare(config: Config) -> Iterator[Prepared]:
    """Makes it all, or raises BindRefused, CertificateRefused, DirectoryRefused or SteeringRefused."""
    # Sockets are slots times addresses times purposes, more than the usual soft limit for a large box.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    usable = sorted(os.sched_getaffinity(0))
    slots = config.workers.count or min(len(usable), MAX_SLOTS)
    certificate = certificate_for(config.dtls)
    sockets = bind_all(config, slots)
    for warning in sockets.warnings:
        log.warning(warning)
    if not config.is_open and not is_loopback(config.admin.bind):
        log.warning("admin.bind: %s can be reached by others, and it asks for no token", config.admin.bind)
    with runtime_directory(config.runtime.directory) as directory:
        yield Prepared(
            config=config,
            slots=slots,
            cores=tuple(usable[:slots]) if config.workers.pin and slots <= len(usable) else (),
            certificate=certificate,
            sockets=sockets,
            flow_map=flow_map(config, sockets, slots),
            arena=Arena(slots, config.arena),
            doorbells=tuple(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(slots)),
            directory=directory,
            candidates=candidates([(group.address, group.port) for group in sockets.media], config.media.announced),
            started_at=time.time(),
        )


def flow_map(config: Config, sockets: Sockets, slots: int) -> int | None:
    """Loads the steering program as the configuration says; None when workers hand over instead."""
    wanted = config.media.steering
    # One worker owns everything.
    if wanted == "handover" or (wanted == "auto" and slots == 1):
        return None
    try:
        return steer([group.members for group in sockets.media], config.arena.addresses)
    except OSError as error:
        if wanted == "ebpf":
            raise SteeringRefused(f"media.steering: the kernel does not take the steering program: {error}") from error
        log.warning(
            "media.steering: the kernel does not take the steering program (%s); workers hand over what is not theirs, "
            "which costs some processor time; CAP_BPF with CAP_NET_ADMIN allows it",
            os.strerror(error.errno or 0),
        )
        return None
