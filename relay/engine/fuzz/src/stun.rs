//! Bytes as one datagram from a stranger, taken for STUN. Asserts that a stranger never gets an answer and that what
//! parses stays inside its bounds. Read `core/src/transport/stun.rs` next.

use millrace_core::transport::demux::{Kind, classify};
use millrace_core::transport::stun::{Integrity, Message};

pub fn run(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    assert_eq!(classify(bytes), Kind::Stun);
    assert!(!message.is_authentic(&Integrity::new(b"a password that no seed was made with")));
    assert!(message.unknown_attributes().iter().all(|kind| *kind < 0x8000));
    if let (Some(ufrag), Some(username)) = (message.server_ufrag(), message.username()) {
        assert!(username.starts_with(ufrag));
    }
    let _ = (message.mapped_address(), message.error_code(), message.priority(), message.transaction());
}
