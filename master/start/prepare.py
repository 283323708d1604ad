"""Makes everything that workers inherit, before the first fork: sockets, steering, arena, doorbells, certificate; or
takes up what a dead master has left. It must never start a thread. Read next: `master/master.py`, which forks.
"""

import logging
import os
import resource
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from millrace.master.arena import Arena
from millrace.master.kernel.addresses import candidates
from millrace.master.kernel.eligible import Places
from millrace.master.kernel.sockets import Sockets, are_shared, bind_all, inherit_all
from millrace.master.kernel.steering import Steered, steer
from millrace.master.start.certificate import Certificate
from millrace.master.start.spawn import Child
from millrace.master.takeover.predecessor import Inherited, TakeoverRefused, find, understood
from millrace.master.takeover.runtime_directory import TAKEOVER_SOCKET, Runtime, claim, leave, living, remove_sockets
from millrace.relay.config.model import Config, is_loopback
from millrace.relay.config.parse import contradictions
from millrace.relay.config.rules import MAX_SLOTS
from millrace.relay.contract.boot import Boot, CandidateAddress, MediaSocket
from millrace.relay.contract.ids import Incarnation, Slot
from millrace.relay.contract.takeover import Manifest, fixed_at_start, with_inherited

log = logging.getLogger("millrace.master")


class SteeringRefused(Exception):
    """`media.steering` is `ebpf`, and the kernel does not take the program."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What there is before the first worker."""

    config: Config
    cores: tuple[int, ...]
    """One for each slot, or none when workers are not pinned."""
    certificate: Certificate
    sockets: Sockets
    candidates: tuple[CandidateAddress, ...]
    inherited: Inherited
    places: Places

    @property
    def slots(self) -> int:
        """How many workers there may be."""
        return self.inherited.manifest.slots

    @property
    def goal(self) -> int:
        """How many there shall be: as the last master had it, but for another wish in the configuration."""
        if self.config.workers.count == self.inherited.manifest.count:
            return self.arena.wanted(self.slots)
        return workers_wanted(self.config)

    @property
    def arena(self) -> Arena:
        """The slot table's."""
        return self.inherited.arena

    @property
    def is_steered(self) -> bool:
        """By the kernel."""
        return self.inherited.manifest.is_steered

    @property
    def is_urgent(self) -> bool:
        """Clients wait, and no worker lives."""
        return any(self.arena.incarnation(slot) for slot in range(self.slots)) and not living(self.lock)

    @property
    def lock(self) -> int:
        """Of the runtime directory."""
        return self.inherited.by_name()["lock"]

    def with_config(self, config: Config) -> "Prepared":
        """The same with another configuration, which asks for no other sockets and no other arena. Raises
        CertificateRefused. Configured files are read again; a certificate of our own making stays.
        """
        certificate = self.certificate
        if config.dtls.certificate or self.config.dtls.certificate:
            from millrace.master.start.x509 import certificate_for

            certificate = certificate_for(config.dtls)
        return replace(self, config=config, certificate=certificate, candidates=told(self.sockets, config))

    def child(self, slot: int, incarnation: int, adopts: bool = True) -> Child:
        """One worker's share. It keeps everything open, for whoever comes after a master that was killed."""
        return Child(self._boot(slot, incarnation, adopts), self.cores[slot] if self.cores else None, self.lock)

    def _boot(self, slot: int, incarnation: int, adopts: bool) -> Boot:
        by_name, manifest = self.inherited.by_name(), self.inherited.manifest
        return Boot(
            config=self.config,
            slot=Slot(slot),
            incarnation=Incarnation(incarnation),
            slots=self.slots,
            adopts=adopts,
            http_sockets=tuple(group.members[slot].fileno() for group in self.sockets.http),
            admin_sockets=tuple(group.members[slot].fileno() for group in self.sockets.admin),
            media_sockets=tuple(
                MediaSocket(group.members[slot].fileno(), group.address, group.port) for group in self.sockets.media
            ),
            candidates=self.candidates,
            master=os.getpid(),
            inherited=self.inherited.descriptors,
            takeover_socket=by_name.get("heirs"),
            arena=by_name["arena"],
            doorbells=tuple(by_name[f"doorbell-{each}"] for each in range(self.slots)),
            flow_map=by_name.get("flow-map"),
            certificate_pem=self.certificate.certificate_pem,
            private_key_pem=self.certificate.private_key_pem,
            fingerprint=self.certificate.fingerprint,
            runtime_directory=Path(manifest.directory),
            started_at=manifest.started_at,
            forked_at=time.monotonic(),
        )


@dataclass(frozen=True, slots=True)
class Left:
    """What may have come to us at our start."""

    before: Sequence[int] = ()
    """From the program that was this process before."""
    stored: Inherited | None = None
    """By the last master, kept by the service manager."""
    activated: Sequence[socket.socket] = ()
    """Bound by the service manager."""


@contextmanager
def prepare(config: Config, left: Left) -> Iterator[Prepared]:
    """Makes it all, or takes up what was left by the program before us, or by a dead master. Raises BindRefused,
    CertificateRefused, DirectoryRefused, TakeoverRefused or SteeringRefused.
    """
    # Sockets are slots times addresses times purposes, more than the usual soft limit for a large box.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if not config.is_open and not is_loopback(config.admin.bind):
        log.warning("admin.bind: %s can be reached by others, and it asks for no token", config.admin.bind)
    inherited = understood(left.before) if left.before else left.stored
    if left.before and inherited is not None:
        runtime = inherited.runtime()
    else:
        runtime = claim(config, Path(inherited.manifest.directory) if inherited else None)
    try:
        if inherited := inherited or find(runtime):
            prepared = inherit(config, inherited)
            # What the last master has told its workers.
            prepared.arena.set_drain(prepared.slots, 0)
            prepared.arena.set_log_level(prepared.slots, 0)
        else:
            prepared = make(config, runtime, left.activated)
        yield prepared
    finally:
        leave(runtime)


def make(config: Config, runtime: Runtime, activated: Sequence[socket.socket] = ()) -> Prepared:
    """Everything anew, but for sockets that the service manager has bound."""
    from millrace.master.start.x509 import certificate_for

    count = workers_wanted(config)
    # There may be one for each core later. A single worker can serve on sockets that are not shared, but no second.
    slots = max(count, min(cores(), MAX_SLOTS)) if count > 1 or are_shared(activated) else 1
    certificate = certificate_for(config.dtls)
    sockets = bind_all(config, slots, activated, count)
    remove_sockets(runtime.directory)
    named = list(sockets.named())
    steered_by = steering(config, sockets, slots)
    manifest = Manifest(
        slots=slots,
        count=config.workers.count,
        groups=tuple(name for name, _ in named),
        is_steered=steered_by is not None,
        has_takeover_socket=runtime.can_be_found,
        directory=str(runtime.directory),
        is_ours=runtime.is_ours,
        fixed=fixed_at_start(config),
        certificate_pem=certificate.certificate_pem,
        private_key_pem=certificate.private_key_pem,
        fingerprint=certificate.fingerprint,
        started_at=time.time(),
    )
    arena = Arena.make(slots, config.arena)
    arena.want(count)
    descriptors = [os.memfd_create("millrace-manifest", os.MFD_CLOEXEC), runtime.lock, arena.fd]
    os.pwrite(descriptors[0], manifest.pack(), 0)
    descriptors += (os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(slots))
    if runtime.can_be_found:
        descriptors.append(_hear_heirs(runtime.directory))
    if steered_by is not None:
        descriptors += (steered_by.flow_map, steered_by.places)
    descriptors += (member.fileno() for _, group in named for member in group.members)
    places = Places.fresh(sockets, slots, steered_by.places if steered_by else None)
    try:
        # Before the first client: it would wait where nobody is.
        places.tell(count, count)
    except OSError as error:
        raise SteeringRefused(
            f"workers.count: the kernel cannot leave {slots - count} of {slots} sockets out: {error}"
        ) from error
    return _prepared(config, Inherited(manifest, tuple(descriptors), arena), sockets, certificate, places)


def inherit(config: Config, inherited: Inherited) -> Prepared:
    """A predecessor's, with what of the configuration needs nothing new. Raises CertificateRefused or
    TakeoverRefused.
    """
    config, deferred = with_inherited(config, inherited.manifest)
    if problems := tuple(contradictions(config)):
        # No keys, say, on sockets that are open to everybody.
        raise TakeoverRefused(f"the configuration does not hold with what the last master has left: {problems[0]}")
    if deferred:
        log.warning("these keys wait for the next start: %s", ", ".join(deferred))
    manifest = inherited.manifest
    certificate = Certificate(manifest.certificate_pem, manifest.private_key_pem, manifest.fingerprint)
    if config.dtls.certificate:
        # Its import takes a tenth of a second, in which clients of a dead master's dead workers would wait.
        from millrace.master.start.x509 import certificate_for

        certificate = certificate_for(config.dtls)
    by_name = inherited.by_name()
    sockets = inherit_all(config, manifest, by_name)
    places = Places(sockets, manifest.slots, by_name.get("places"))
    return _prepared(config, inherited, sockets, certificate, places)


def workers_wanted(config: Config) -> int:
    """One for each core, if no number is asked for."""
    return config.workers.count or min(cores(), MAX_SLOTS)


def cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0))


def _prepared(
    config: Config, inherited: Inherited, sockets: Sockets, certificate: Certificate, places: Places
) -> Prepared:
    for warning in sockets.warnings:
        log.warning(warning)
    usable, slots = sorted(os.sched_getaffinity(0)), inherited.manifest.slots
    return Prepared(
        config=config,
        cores=tuple(usable[:slots]) if config.workers.pin and slots <= len(usable) else (),
        certificate=certificate,
        sockets=sockets,
        candidates=told(sockets, config),
        inherited=inherited,
        places=places,
    )


def _hear_heirs(directory: Path) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(directory / TAKEOVER_SOCKET))
        listener.listen()
        return listener.detach()


def told(sockets: Sockets, config: Config) -> tuple[CandidateAddress, ...]:
    """Where clients are told to send."""
    return candidates([(group.address, group.port) for group in sockets.media], config.media.announced)


def steering(config: Config, sockets: Sockets, slots: int) -> Steered | None:
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
