"""Follows the box's addresses where `media.bind` is a wildcard: binds those that came, and tells clients of no others.
Owns what workers get then; must never replace a worker. Read next: `master/master.py`, which has them replaced one
after another, so that calls go on.

Sockets of addresses that have gone stay bound: they may come back, and calls may use them until then.
"""

import logging
import os
from dataclasses import replace
from ipaddress import ip_address

from millrace.master.kernel.addresses import told_in_vain
from millrace.master.kernel.sockets import MOST_ADDRESSES, BindRefused, Group, bind_more, bind_more_tcp, media_addresses
from millrace.master.kernel.steering import Steered, steer_too
from millrace.master.start.prepare import Prepared, announced_candidates
from millrace.relay.contract.takeover import DOWN, ELIGIBLE, TCP, SocketGroup

log = logging.getLogger("millrace.master")


def follow(prepared: Prepared) -> Prepared | None:
    """Returns what workers are to get now that the box has other addresses; None when nothing is different for them.
    Raises BindRefused or OSError, and has changed nothing then.
    """
    config = prepared.config
    if not any(ip_address(each).is_unspecified for each in config.media.bind):
        return None
    wanted, _ = media_addresses(config.media.bind)
    bound = {group.address: group for group in prepared.sockets.media}
    new = [address for address in wanted if address not in bound]
    room = MOST_ADDRESSES - len(bound)
    if len(new) > room:
        log.warning("media.bind: no room for %s until the next start", ", ".join(new[room:]))
    followed = _with(prepared, new[:room])
    candidates = announced_candidates(followed.sockets, config)
    told = {each.bound for each in prepared.candidates}
    if followed is prepared and candidates == prepared.candidates:
        return None
    now = {each.bound for each in candidates}
    for came in sorted(now - told):
        log.info("media.bind: an address came, and clients are told of it", extra={"address": came})
    # Loopback stood in for all others.
    for gone in sorted(each for each in told - now if not ip_address(each).is_loopback):
        log.warning("media.bind: an address has gone, and clients are told of it no longer", extra={"address": gone})
    for warning in told_in_vain(wanted, config.media.bind, config.media.announced):
        log.warning(warning)
    return replace(followed, candidates=candidates)


def _with(prepared: Prepared, addresses: list[str]) -> Prepared:
    """Returns it with sockets for these addresses, too."""
    if not addresses:
        return prepared
    inherited, manifest = prepared.inherited, prepared.inherited.manifest
    port = prepared.sockets.media[0].port
    groups, warnings = bind_more(prepared.config, prepared.slots, addresses, port)
    try:
        if manifest.is_steered:
            by_name = inherited.by_name()
            if (down := by_name.get(DOWN)) is None:
                raise BindRefused("media.bind: the steering program of an earlier release takes no address more")
            steer_too([group.members for group in groups], Steered(by_name["flow-map"], by_name[ELIGIBLE], down))
    except BaseException:
        for group in groups:
            _close(group)
        raise
    tcp: tuple[Group, ...] = ()
    if prepared.sockets.tcp:
        tcp, more = bind_more_tcp(addresses, prepared.sockets.tcp[0].port)
        warnings += more
    for warning in warnings:
        log.warning(warning)
    added = [
        *(SocketGroup("media", group.address, group.port) for group in groups),
        *(SocketGroup(TCP, group.address, group.port) for group in tcp),
    ]
    first = len(manifest.groups)
    names = [name for at, group in enumerate(added) for name in group.names(first + at, prepared.slots)]
    changed = replace(
        manifest,
        groups=(*manifest.groups, *added),
        descriptors=(*manifest.names(), *names),
    )
    # Another file, as the present workers hold the one that names what they hold.
    file = os.memfd_create("millrace-manifest", os.MFD_CLOEXEC)
    os.pwrite(file, changed.pack(), 0)
    members = [member.fileno() for group in (*groups, *tcp) for member in group.members]
    descriptors = (file, *inherited.descriptors[1:], *members)
    sockets = replace(prepared.sockets, media=(*prepared.sockets.media, *groups), tcp=(*prepared.sockets.tcp, *tcp))
    prepared.eligible.change(sockets)
    return replace(prepared, sockets=sockets, inherited=replace(inherited, manifest=changed, descriptors=descriptors))


def _close(group: Group) -> None:
    for member in group.members:
        member.close()
