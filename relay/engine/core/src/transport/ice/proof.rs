//! Our own Binding request to an address: the proof that who is there hears us. Owns its transaction id, which nobody can
//! guess, when it goes again, and which of our own addresses an answer may name; must never know what is at stake. Read
//! `asking.rs` next, which asks.
//!
//! ```text
//! asked ── 100 ms ── again ── 300 ms ── again ── 700 ms ── again ── 2 s ── given up      (all from the first)
//!   └──────── success: this transaction, from the address asked, signed by the client, naming our address ──► proven
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use ring::hmac;

use super::credentials::Remote;
use crate::outbox::Path;
use crate::time::{Span, Time};
use crate::transport::stun::{self, attribute};
use crate::transport::stun_writer::Writer;

/// A busy client answered after 185 ms; what comes later than this is not worth waiting for.
/// Each is counted from the request before, so that a worker that stood still gives the answers time to be read.
const PAUSES: [Span; 4] =
    [Span::from_millis(100), Span::from_millis(200), Span::from_millis(400), Span::from_millis(1_300)];
/// RFC 8445 section 5.1.2: what a peer-reflexive candidate of ours would have. Nobody decides anything by it.
const PRIORITY: u32 = 110 << 24 | 0xFFFF << 8 | 0xFF;
/// All but USERNAME's value: header, its own header, PRIORITY, ICE-CONTROLLED, MESSAGE-INTEGRITY, FINGERPRINT.
const REQUEST: usize = 20 + 4 + 8 + 12 + 24 + 8;

/// What all transports of a worker ask with.
pub struct Prover {
    secret: hmac::Key,
    /// Where clients were told that we are.
    advertised: Vec<SocketAddr>,
}

impl Prover {
    /// The secret is made from the certificate's key, which nobody else has either.
    pub fn new(private_key_pem: &str, advertised: Vec<SocketAddr>) -> Prover {
        let key = hmac::Key::new(hmac::HMAC_SHA256, private_key_pem.as_bytes());
        let secret = hmac::sign(&key, b"transaction ids of proofs");
        Prover { secret: hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref()), advertised }
    }

    /// Whether clients know us by this address. Another one means that somebody passed the request on.
    fn is_advertised(&self, mapped: SocketAddr) -> bool {
        // Neither a scope nor a flow label comes back.
        self.advertised.iter().any(|one| one.ip().to_canonical() == mapped.ip() && one.port() == mapped.port())
    }
}

/// What one transport asks with.
#[derive(Clone)]
pub(in crate::transport) struct Asker {
    prover: Arc<Prover>,
    /// Begins each transaction id, so that the answer finds its way to us wherever it comes in.
    number: u32,
    tie_breaker: [u8; 8],
}

impl Asker {
    pub fn new(prover: Arc<Prover>, number: u32, transport: u64) -> Asker {
        let tag = hmac::sign(&prover.secret, &transport.to_be_bytes());
        let tie_breaker = *tag.as_ref().first_chunk().expect("a tag of SHA-256 has 32 bytes");
        Asker { prover, number, tie_breaker }
    }

    pub fn is_advertised(&self, mapped: SocketAddr) -> bool {
        self.prover.is_advertised(mapped)
    }

    /// Of an address that is asked now. The time never comes again, so no answer of an earlier proof fits, not even after a death.
    pub fn begin(&self, now: Time, path: Path, nominated: bool) -> Proof {
        let mut context = hmac::Context::with_key(&self.prover.secret);
        context.update(&self.number.to_be_bytes());
        context.update(&now.0.to_be_bytes());
        context.update(&[path.socket.0]);
        context.update(&path.remote.port().to_be_bytes());
        match path.remote.ip() {
            std::net::IpAddr::V4(ip) => context.update(&ip.octets()),
            std::net::IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        let tag = context.sign();
        let mut transaction = [0; 12];
        transaction[..4].copy_from_slice(&self.number.to_be_bytes());
        transaction[4..].copy_from_slice(&tag.as_ref()[..8]);
        Proof { transaction, began_at: now, tried_at: now, attempts: 0, nominated }
    }

    /// A controlled agent's check without nomination: what every client answers (RFC 8445 sections 7.1.1 and 7.1.3). `None`
    /// when the buffer is too short.
    pub fn write(&self, proof: &Proof, remote: &Remote, buffer: &mut [u8]) -> Option<usize> {
        Writer::new(buffer, stun::BINDING_REQUEST, &proof.transaction)
            .attribute(attribute::USERNAME, remote.asked_as.as_bytes())
            .attribute(attribute::PRIORITY, &PRIORITY.to_be_bytes())
            .attribute(attribute::ICE_CONTROLLED, &self.tie_breaker)
            .finish(&remote.key)
    }
}

/// How long a request to this client is.
pub(super) fn request_len(remote: &Remote) -> usize {
    REQUEST + remote.asked_as.len().next_multiple_of(4)
}

/// An address that was asked and has not answered.
pub(in crate::transport) struct Proof {
    transaction: [u8; 12],
    pub began_at: Time,
    tried_at: Time,
    attempts: usize,
    /// Whether media is to go there when it answers, if the client's nomination still says so then.
    pub nominated: bool,
}

impl Proof {
    pub fn is(&self, transaction: &[u8; 12]) -> bool {
        self.transaction == *transaction
    }

    /// When to send it again, or to give up.
    pub fn next_at(&self) -> Time {
        self.attempts.checked_sub(1).map_or(self.began_at, |past| self.tried_at + PAUSES[past])
    }

    /// Counts one more attempt, whether it fits or not; false when it is time to give up.
    pub fn attempt(&mut self, now: Time) -> bool {
        if self.attempts == PAUSES.len() {
            return false;
        }
        self.attempts += 1;
        self.tried_at = now;
        true
    }

    /// So much later the address is asked again for its consent: 4 to 6 s (RFC 7675 section 5.1), by what nobody can guess.
    pub fn pause(&self) -> Span {
        let random = u16::from_be_bytes([self.transaction[4], self.transaction[5]]);
        Span::from_millis(4_000 + u64::from(random) % 2_000)
    }
}

/// Who is to get an answer: what a transaction id of ours begins with.
pub fn asker_of(transaction: &[u8; 12]) -> u32 {
    u32::from_be_bytes([transaction[0], transaction[1], transaction[2], transaction[3]])
}
