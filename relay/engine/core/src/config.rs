//! The engine's configuration, given once at its start. Owns the shape; must never hold a default, which belongs to
//! `relay/config/model.py`. `relay/contract/engine_config.py` is the other side.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// This worker's fixed number, and how many there are; at most 64.
    pub slot: u8,
    pub slots: u8,
    /// Whether the sessions of the slot's last worker are adopted. Otherwise they are dropped, as workers crashed of them.
    pub adopts: bool,
    pub certificate_pem: String,
    pub private_key_pem: String,
    pub max_transports: u32,
    /// Handshakes under way at once; further DTLS is dropped until one ends.
    pub max_handshakes: u32,
    /// Remote addresses of one transport; one more evicts the address that was checked longest ago.
    pub max_addresses: u32,
    /// SSRCs that a client may send over one transport; packets of further ones are dropped.
    pub max_streams: u32,
    /// From opening to the first authenticated check.
    pub ice_timeout_ms: u64,
    /// From the first authenticated check to the keys.
    pub handshake_timeout_ms: u64,
    /// From the last answer to a request of ours to the end (RFC 7675: 30 s).
    pub consent_timeout_ms: u64,
    /// From the keys to the report `no_srtp`, when the client should send.
    pub media_timeout_ms: u64,
    /// The playout delay that a viewer on a lossy path is asked for, on top of its round trip; 0 for none.
    pub repair_delay_ms: u64,
    /// Where clients were told that we are, as `address:port` or `[address]:port`: what they name in their answers.
    pub advertised: Vec<String>,
}
