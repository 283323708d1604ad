"""An offer (RFC 8866, RFC 9429) as a value that cannot be in a bad state: `parse_offer` returns it, or why there is
none. Owns what m-lines must have in common; must never know what is published, or what the relay prefers. Read
`relay/negotiation/answering.py` next, which does, and `relay/sdp/media_section.py` for what is read of one m-line.

One pass over the lines, each handled in constant time.
"""

from dataclasses import dataclass

from millrace.relay.contract.commands import DtlsRole
from millrace.relay.contract.refusal import Refusal, RefusedError, malformed, unacceptable
from millrace.relay.sdp.lines import SdpLimits, attribute, ice_pwd, ice_ufrag, lines, token
from millrace.relay.sdp.media_section import FINGERPRINT_BYTES, MediaOffer, MediaReader, TransportLines


@dataclass(frozen=True, slots=True)
class Remote:
    """The client's side of ICE and DTLS, from the m-line that carries the bundle's transport."""

    ufrag: str
    pwd: str
    role: DtlsRole
    """Our role: client when the offer said `setup:passive`."""
    fingerprint_hash: str
    fingerprints: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """What a client offers. Every m-line that is not rejected is bundled, multiplexed with RTCP, and DTLS-SRTP."""

    media: tuple[MediaOffer, ...]
    """In the offer's order, also those that the client itself rejected."""
    bundle: tuple[str, ...] | None
    """The group's mids; None when there is no group (then only one m-line is alive)."""
    remote: Remote
    extmap_allow_mixed: bool


def parse_offer(text: str, limits: SdpLimits) -> Offer | Refusal:
    """The offer, or the first reason against it."""
    try:
        return _Reader(limits).read(text)
    except RefusedError as refused:
        return refused.refusal


class _Reader:
    def __init__(self, limits: SdpLimits) -> None:
        self.limits = limits
        self.session = TransportLines()
        self.bundle: tuple[str, ...] | None = None
        self.extmap_allow_mixed = False
        self.media: list[MediaReader] = []

    def read(self, text: str) -> Offer:
        first = True
        for letter, value in lines(text, self.limits):
            if first and (letter, value) != ("v", "0"):
                raise malformed("not-sdp", "The body does not begin with v=0.")
            first = False
            if letter == "m":
                if len(self.media) == self.limits.m_lines:
                    raise malformed("too-many-m-lines", f"There are more than {self.limits.m_lines} m-lines.")
                self.media.append(MediaReader(len(self.media), value))
            elif letter == "a":
                name, rest = attribute(value)
                if name == "crypto":
                    raise unacceptable("sdes", "a=crypto puts keys into signalling; only DTLS-SRTP is taken.")
                if self.media:
                    self.media[-1].handle(name, rest)
                else:
                    self._handle_session(name, rest)
        if first:
            raise malformed("not-sdp", "The body is empty.")
        if not self.media:
            raise malformed("no-media", "There is no m-line.")
        return self._finish()

    def _handle_session(self, name: str, value: str | None) -> None:
        if name == "group":
            self._handle_group(value or "")
        elif name == "extmap-allow-mixed":
            self.extmap_allow_mixed = True
        elif name == "ice-lite":
            # Two lite sides send no checks (RFC 8445 section 2.5), and we send to no address that no check proved.
            raise unacceptable("ice-lite", "The offer is ICE-lite, as this server is: nobody would send a check.")
        else:
            self.session.handle(name, value)

    def _handle_group(self, value: str) -> None:
        semantics, *mids = value.split()[: self.limits.m_lines + 1] or [""]
        # The m-lines of a second group would need a second transport; the answer rejects them.
        if semantics != "BUNDLE" or self.bundle is not None:
            return
        if any(token(mid) is None for mid in mids) or len(set(mids)) != len(mids):
            raise malformed("bad-bundle", "a=group:BUNDLE names a mid twice, or one that is no token.")
        self.bundle = tuple(mids)

    def _finish(self) -> Offer:
        inherits = self.session.direction
        named = [reader for reader in self.media if reader.mid is not None]
        by_mid = {reader.mid: reader for reader in named}
        if len(by_mid) != len(named):
            raise malformed("duplicate-mid", "Two m-lines have the same a=mid.")
        if self.bundle is not None:
            if any(mid not in by_mid for mid in self.bundle):
                raise malformed("bad-bundle", "a=group:BUNDLE names a mid that no m-line has.")
            bundled = [by_mid[mid] for mid in self.bundle if not by_mid[mid].rejected]
        else:
            bundled = [m for m in self.media if not m.rejected]
            if len(bundled) > 1:
                raise unacceptable("no-bundle", "Several m-lines need a=group:BUNDLE: there is one transport.")
        if not bundled:
            raise unacceptable("no-media", "Every m-line is rejected or outside the BUNDLE group.")
        allow_mixed = self.extmap_allow_mixed or any(m.extmap_allow_mixed for m in bundled)
        remote = self._remote(bundled)
        self._check_mux(bundled)
        self._check_extensions(bundled)
        self._check_ssrcs(bundled)
        inside = {reader.position for reader in bundled}
        return Offer(
            tuple(reader.finish(inherits, reader.position in inside) for reader in self.media),
            self.bundle,
            remote,
            allow_mixed,
        )

    def _check_mux(self, bundled: list[MediaReader]) -> None:
        """Requires a=rtcp-mux. It may stand only in the m-line that carries the bundle's transport (RFC 8843 section
        9.3).
        """
        if any(reader.is_rtp for reader in bundled) and not any(reader.rtcp_mux for reader in bundled):
            raise unacceptable("no-rtcp-mux", "a=rtcp-mux is missing: RTP and RTCP share one port here.")

    def _check_extensions(self, bundled: list[MediaReader]) -> None:
        """An id has one meaning throughout a bundle (RFC 8843 section 8), else packets could not be read."""
        uri_by_id: dict[int, str] = {}
        for reader in bundled:
            for line in reader.extensions:
                if line.kind is not None and uri_by_id.setdefault(line.id, line.uri) != line.uri:
                    raise malformed(
                        "extension-id-conflict", f"extmap id {line.id} has two meanings in one BUNDLE group."
                    )

    def _check_ssrcs(self, bundled: list[MediaReader]) -> None:
        """An SSRC belongs to one m-line (RFC 5576 section 4.1), else its packets could not be assigned."""
        owner_by_ssrc: dict[int, int] = {}
        for reader in bundled:
            for ssrc in reader.streams.all_ssrcs():
                if owner_by_ssrc.setdefault(ssrc, reader.position) != reader.position:
                    raise malformed("duplicate-ssrc", f"SSRC {ssrc} is listed in two m-lines.")

    def _remote(self, bundled: list[MediaReader]) -> Remote:
        """ICE and DTLS of the first m-line of the group that has them (RFC 8843 section 7.1), else of the session."""
        places = [*(reader.transport for reader in bundled), self.session]
        ufrag = ice_ufrag(_first(places, "ufrag", "no-ice-ufrag", "a=ice-ufrag is missing."))
        pwd = ice_pwd(_first(places, "pwd", "no-ice-pwd", "a=ice-pwd is missing."))
        setup = _first(places, "setup", "no-setup", "a=setup is missing.")
        fingerprints = next((place.fingerprints for place in places if place.fingerprints), None)
        if fingerprints is None:
            raise malformed("no-fingerprint", "a=fingerprint is missing.")
        by_hash: dict[str, list[bytes]] = {}
        for name, digest in fingerprints:
            by_hash.setdefault(name, []).append(digest)
        # All digests of a client are of the same certificate; the shortest strong one costs least.
        chosen = next((name for name in FINGERPRINT_BYTES if name in by_hash), None)
        if chosen is None:
            raise unacceptable("weak-fingerprint", "a=fingerprint must use sha-256, sha-384 or sha-512.")
        role = DtlsRole.CLIENT if setup == "passive" else DtlsRole.SERVER
        return Remote(ufrag, pwd, role, chosen, tuple(by_hash[chosen]))


def _first(places: list[TransportLines], field: str, reason: str, detail: str) -> str:
    for place in places:
        value: str | None = getattr(place, field)
        if value is not None:
            return value
    raise malformed(reason, detail)
