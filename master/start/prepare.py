"""Makes everything that workers get by the fork (sockets, steering, arena, doorbells, certificate), or inherits it
from another master. It must never start a thread, which would poison every later fork. Read next: `master/master.py`,
which forks.
"""

import logging
import math
import os
import resource
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from millrace.master.arena import Arena
from millrace.master.kernel.addresses import candidates, likeliest_first, told_in_vain
from millrace.master.kernel.eligible import EligibleSlots
from millrace.master.kernel.sockets import (
    Sockets,
    are_shared,
    bind_all,
    inherit_all,
    media_addresses,
    tcp_passage,
)
from millrace.master.kernel.steering import Steered, steer
from millrace.master.start.certificate import Certificate
from millrace.master.start.descriptors import check_descriptors
from millrace.master.start.https import Https, https_for
from millrace.master.start.spawn import Child
from millrace.master.takeover.predecessor import Inherited, TakeoverRefused, from_orphans, parse_inherited
from millrace.master.takeover.runtime_directory import Runtime, claim, leave, living, remove_sockets
from millrace.master.takeover.runtime_files import RuntimeFiles
from millrace.relay.config.model import Config, is_loopback, is_read_on_the_way
from millrace.relay.config.parse import contradictions
from millrace.relay.config.rules import MAX_SLOTS
from millrace.relay.contract.boot import Boot, CandidateAddress, MediaSocket, TcpMedia
from millrace.relay.contract.ids import Incarnation, Slot
from millrace.relay.contract.takeover import DOWN, ELIGIBLE, TAKEOVER_SOCKET, Manifest, fixed_at_start, with_inherited
from millrace.workers.control_groups import cpu_quota

log = logging.getLogger("millrace.master")


class SteeringRefused(Exception):
    """The kernel does not take a steering program that the configuration cannot do without."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that there is before the first worker."""

    config: Config
    cores: tuple[int, ...]
    """One for each slot, or none when workers are not pinned."""
    certificate: Certificate
    https: Https | None
    """None when the public port speaks HTTP."""
    sockets: Sockets
    candidates: tuple[CandidateAddress, ...]
    inherited: Inherited
    """What the next master is passed: inherited from the last one, or made now."""
    eligible: EligibleSlots

    @property
    def slots(self) -> int:
        """How many workers there may be."""
        return self.inherited.manifest.slots

    @property
    def goal(self) -> int:
        """How many workers there are to be: as the last master had it, unless `workers.count` has changed since."""
        if self.config.workers.count == self.inherited.manifest.count:
            return self.arena.wanted(self.slots)
        return workers_wanted(self.config)

    @property
    def arena(self) -> Arena:
        """The shared memory."""
        return self.inherited.arena

    @property
    def is_steered(self) -> bool:
        """True when the kernel delivers datagrams to their owner."""
        return self.inherited.manifest.is_steered

    @property
    def is_urgent(self) -> bool:
        """True when sessions wait in the arena and no worker lives."""
        return any(self.arena.incarnation(slot) for slot in range(self.slots)) and not living(self.lock)

    @property
    def lock(self) -> int:
        """The descriptor of the runtime directory's lock file."""
        return self.inherited.by_name()["lock"]

    def files(self, at: int = 0) -> RuntimeFiles:
        """Returns what looks after a byte's lock in the runtime directory: the master's, or 1 + slot."""
        return RuntimeFiles(Path(self.inherited.manifest.directory), self.lock, at, os.getpid())

    def with_config(self, config: Config) -> "Prepared":
        """Returns a copy with another configuration, which asks for no other sockets and no other arena. Configured
        certificate files are read again; a certificate that we made stays. Raises CertificateRefused.
        """
        certificate = self.certificate
        if config.dtls.certificate or self.config.dtls.certificate:
            from millrace.master.start.x509 import certificate_for

            certificate = certificate_for(config.dtls)
        return replace(
            self,
            config=config,
            certificate=certificate,
            https=https_for(config.http, self.https),
            candidates=announced_candidates(self.sockets, config),
        )

    def child(self, slot: int, incarnation: int, adopts: bool = True) -> Child:
        """Returns what a worker is forked with. It holds all descriptors open for the next master."""
        return Child(self._boot(slot, incarnation, adopts), self.cores[slot] if self.cores else None, self.lock)

    def _boot(self, slot: int, incarnation: int, adopts: bool) -> Boot:
        by_name, manifest = self.inherited.by_name(), self.inherited.manifest
        return Boot(
            config=self.config,
            slot=Slot(slot),
            incarnation=Incarnation(incarnation),
            slots=self.slots,
            adopts=adopts,
            http_sockets=self.sockets.by_slot("http", self.slots),
            public_tls=self.https,
            admin_sockets=self.sockets.by_slot("admin", self.slots),
            media_sockets=tuple(
                MediaSocket(group.members[slot].fileno(), group.address, group.port) for group in self.sockets.media
            ),
            candidates=self.candidates,
            master=os.getpid(),
            inherited=self.inherited.descriptors,
            takeover_socket=by_name.get(TAKEOVER_SOCKET),
            arena=by_name["arena"],
            doorbells=tuple(by_name[f"doorbell-{each}"] for each in range(self.slots)),
            flow_map=by_name.get("flow-map"),
            certificate_pem=self.certificate.certificate_pem,
            private_key_pem=self.certificate.private_key_pem,
            fingerprint=self.certificate.fingerprint,
            runtime_directory=Path(manifest.directory),
            runtime_lock=self.files(1 + slot),
            started_at=manifest.started_at,
            forked_at=time.monotonic(),
            tcp=self._tcp(slot),
        )

    def _tcp(self, slot: int) -> TcpMedia | None:
        if not self.sockets.tcp:
            return None
        by_name = self.inherited.by_name()
        return TcpMedia(
            listeners=tuple(group.members[0].fileno() for group in self.sockets.tcp),
            inbox=by_name[f"tcp-inbox-{slot}"],
            doors=tuple(by_name[f"tcp-door-{each}"] for each in range(self.slots)),
        )


@dataclass(frozen=True, slots=True)
class Passed:
    """Descriptors that this process was started with: by the program before it, from the descriptor store, or by socket
    activation.
    """

    reexec: Sequence[int] = ()
    """From the program that was this process before; in the manifest's order."""
    fdstore: Inherited | None = None
    """From a master that died; the service manager stored them."""
    activated: Sequence[socket.socket] = ()
    """Sockets that the service manager has bound."""


@contextmanager
def prepare(config: Config, passed: Passed) -> Iterator[Prepared]:
    """Inherits from the program before us or from a dead master, else makes everything anew. Raises BindRefused,
    CertificateRefused, DirectoryRefused, SteeringRefused or TakeoverRefused.
    """
    # Sockets are slots times addresses times purposes, more than the usual soft limit for a large box.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if not config.is_open and not is_loopback(config.admin.bind):
        log.warning("admin.bind: other machines can reach %s, and it asks for no token", config.admin.bind)
    if is_read_on_the_way(config.auth.hook):
        log.warning("auth.hook: tokens go to %s without encryption, over the network", config.auth.hook)
    inherited = parse_inherited(passed.reexec) if passed.reexec else passed.fdstore
    if passed.reexec and inherited is not None:
        runtime = inherited.runtime()
    else:
        runtime = claim(config, Path(inherited.manifest.directory) if inherited else None)
    try:
        if inherited := inherited or from_orphans(runtime):
            inherited.use_lock(runtime.lock)
            prepared = inherit(config, inherited)
            # Undoes what the last master has asked of its workers.
            prepared.arena.set_drain(prepared.slots, 0)
            prepared.arena.set_log_level(prepared.slots, 0)
        else:
            prepared = make(config, runtime, passed.activated)
        yield prepared
    finally:
        leave(runtime)


def make(config: Config, runtime: Runtime, activated: Sequence[socket.socket] = ()) -> Prepared:
    """Makes everything anew, except sockets that the service manager has bound. Raises BindRefused, CertificateRefused
    or SteeringRefused.
    """
    from millrace.master.start.x509 import certificate_for

    count = workers_wanted(config)
    # Room for one worker per core later. On sockets that are not shared only a single worker can serve.
    slots = max(count, min(cores(), MAX_SLOTS)) if count > 1 or are_shared(activated) else 1
    check_descriptors(config, slots, count)
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
        has_down=steered_by is not None,
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
    if not config.workers.count and count < min(cores(), MAX_SLOTS):
        log.info("workers.count: %s, as control groups allow the time of %.2f cores", count, cpu_quota() or 0)
    descriptors = [os.memfd_create("millrace-manifest", os.MFD_CLOEXEC), runtime.lock, arena.fd]
    os.pwrite(descriptors[0], manifest.pack(), 0)
    descriptors += (os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(slots))
    if runtime.can_be_found:
        descriptors.append(_listen_for_takeover(runtime.directory))
    if steered_by is not None:
        assert steered_by.down is not None, "our own program has one"
        descriptors += (steered_by.flow_map, steered_by.eligible, steered_by.down)
    descriptors += (member.fileno() for _, group in named for member in group.members)
    if sockets.tcp:
        descriptors += (each for _ in range(slots) for each in tcp_passage())
    eligible = EligibleSlots.fresh(sockets, slots, steered_by)
    try:
        # Before the first client, which would else wait at a slot without a worker.
        eligible.tell(count, count)
    except OSError as error:
        raise SteeringRefused(
            f"workers.count: the kernel does not leave {slots - count} of {slots} sockets out: {error}"
        ) from error
    return _prepared(config, Inherited(manifest, tuple(descriptors), arena), sockets, certificate, eligible)


def inherit(config: Config, inherited: Inherited) -> Prepared:
    """Goes on with what another master has passed. Configuration keys that would need other sockets or another arena
    wait for the next start. Raises CertificateRefused or TakeoverRefused.
    """
    config, deferred = with_inherited(config, inherited.manifest)
    if problems := tuple(contradictions(config)):
        # For example no keys, on inherited sockets that other machines can reach.
        raise TakeoverRefused(f"the configuration does not fit what the last master has passed on: {problems[0]}")
    if deferred:
        log.warning("these keys wait for the next start: %s", ", ".join(deferred))
    manifest = inherited.manifest
    if foreign := manifest.foreign_names():
        log.info("descriptors of another release are kept open for it: %s", ", ".join(foreign))
    certificate = Certificate(manifest.certificate_pem, manifest.private_key_pem, manifest.fingerprint)
    if config.dtls.certificate:
        # Its import takes a tenth of a second, in which clients of a dead master's dead workers would wait.
        from millrace.master.start.x509 import certificate_for

        certificate = certificate_for(config.dtls)
    by_name = inherited.by_name()
    sockets = inherit_all(config, manifest, by_name)
    steered = Steered(by_name["flow-map"], by_name[ELIGIBLE], by_name.get(DOWN)) if manifest.is_steered else None
    eligible = EligibleSlots(sockets, manifest.slots, steered)
    return _prepared(config, inherited, sockets, certificate, eligible)


def workers_wanted(config: Config) -> int:
    """Returns `workers.count`; when that is 0, one for each core that control groups leave time for."""
    if config.workers.count:
        return config.workers.count
    quota = cpu_quota()
    return min(cores(), MAX_SLOTS, max(1, math.ceil(quota)) if quota is not None else MAX_SLOTS)


def cores() -> int:
    """Returns how many cores this process may run on."""
    return len(os.sched_getaffinity(0))


def _prepared(
    config: Config, inherited: Inherited, sockets: Sockets, certificate: Certificate, eligible: EligibleSlots
) -> Prepared:
    bound = [group.address for group in sockets.media]
    for warning in (*sockets.warnings, *told_in_vain(bound, config.media.bind, config.media.announced)):
        log.warning(warning)
    usable, slots = sorted(os.sched_getaffinity(0)), inherited.manifest.slots
    return Prepared(
        config=config,
        cores=tuple(usable[:slots]) if config.workers.pin and slots <= len(usable) else (),
        certificate=certificate,
        https=https_for(config.http, None),
        sockets=sockets,
        candidates=announced_candidates(sockets, config),
        inherited=inherited,
        eligible=eligible,
    )


def _listen_for_takeover(directory: Path) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(directory / TAKEOVER_SOCKET))
        listener.listen()
        return listener.detach()


def announced_candidates(sockets: Sockets, config: Config) -> tuple[CandidateAddress, ...]:
    """Returns the addresses that clients are told to send to, UDP before TCP. Listed ones keep the order of the list;
    of a wildcard's, those that the box has no longer are left out.
    """
    is_any = any(ip_address(address).is_unspecified for address in config.media.bind)
    has = {each for addresses in media_addresses(config.media.bind) for each in addresses} if is_any else set()
    told: list[CandidateAddress] = []
    for protocol, groups in (("udp", sockets.media), ("tcp", sockets.tcp)):
        bound = [(group.address, group.port) for group in groups]
        if is_any:
            bound = likeliest_first([each for each in bound if each[0] in has] or bound)
        named = candidates(bound, config.media.announced)
        told += named if protocol == "udp" else (replace(each, protocol="tcp") for each in named)
    return tuple(told)


def steering(config: Config, sockets: Sockets, slots: int) -> Steered | None:
    """Loads the steering program as the configuration says; returns None when workers hand over instead. Raises
    SteeringRefused.
    """
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
            "media.steering: the kernel does not take the steering program (%s), so workers hand over datagrams, which "
            "costs processor time; CAP_BPF and CAP_NET_ADMIN would allow it",
            os.strerror(error.errno or 0),
        )
        return None
