//! What the engine is told at its start, once. Owns the shape; must never hold a default, which belongs to
//! `relay/config/model.py`. `relay/contract/engine_config.py` is the other side.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// This worker's fixed number, and how many there are; at most 64.
    pub slot: u8,
    pub slots: u8,
    /// Whether it takes up the sessions that the slot's last worker left. Else they are given up: workers crashed of them.
    pub adopts: bool,
    pub certificate_pem: String,
    pub private_key_pem: String,
    pub max_transports: u32,
    /// Handshakes under way at once; further DTLS is dropped until one ends.
    pub max_handshakes: u32,
    /// Remote addresses per transport.
    pub max_addresses: u32,
    /// SSRCs that a transport may bring.
    pub max_streams: u32,
    /// From opening to the first authenticated check.
    pub ice_timeout_ms: u64,
    /// From the first authenticated check to the keys.
    pub handshake_timeout_ms: u64,
    /// From the last authenticated check to the end (RFC 7675: 30 s).
    pub consent_timeout_ms: u64,
    /// From the keys to `no_srtp` when the client should send.
    pub media_timeout_ms: u64,
    /// What a viewer's player is asked to wait on a lossy path, its round trip not counted; 0 for nothing.
    pub repair_delay_ms: u64,
}
