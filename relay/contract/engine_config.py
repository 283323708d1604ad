"""What the engine is told at its start, once. Owns the shape, which `relay/engine/core/src/config.rs` mirrors; must
never hold a default, which belongs to `relay/config/model.py`. Read `workers/media.py` next, which hands it over.
"""

from dataclasses import asdict, dataclass

from millrace.relay.contract.boot import Boot
from millrace.relay.contract.codec import pack_plain


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """In the order of the fields in `config.rs`."""

    slot: int
    slots: int
    adopts: bool
    certificate_pem: str
    private_key_pem: str
    max_transports: int
    max_handshakes: int
    max_addresses: int
    max_streams: int
    ice_timeout_ms: int
    handshake_timeout_ms: int
    consent_timeout_ms: int
    media_timeout_ms: int
    repair_delay_ms: int
    advertised: tuple[str, ...]
    """Where clients were told that we are: `address:port`, or `[address]:port` of IPv6."""


def engine_config(boot: Boot) -> EngineConfig:
    """What the engine of this worker is configured with."""
    limits, timeouts = boot.config.limits, boot.config.timeouts
    return EngineConfig(
        slot=boot.slot,
        slots=boot.slots,
        adopts=boot.adopts,
        certificate_pem=boot.certificate_pem,
        private_key_pem=boot.private_key_pem,
        max_transports=limits.sessions_per_worker,
        max_handshakes=limits.handshakes_per_worker,
        max_addresses=limits.addresses_per_session,
        max_streams=limits.streams_per_session,
        ice_timeout_ms=timeouts.ice_seconds * 1000,
        handshake_timeout_ms=timeouts.handshake_seconds * 1000,
        consent_timeout_ms=timeouts.consent_seconds * 1000,
        media_timeout_ms=timeouts.media_seconds * 1000,
        repair_delay_ms=boot.config.media.repair_delay_ms,
        advertised=tuple(
            f"[{each.address}]:{each.port}" if ":" in each.address else f"{each.address}:{each.port}"
            for each in boot.candidates
        ),
    )


def pack_engine_config(config: EngineConfig) -> bytes:
    """Packs the configuration as `Engine(...)` takes it."""
    return pack_plain(asdict(config))
