//! What a DTLS handshake starts from and what it ends in. Owns the check of the peer's fingerprint; must never know how a
//! handshake runs, so that every other file of this folder can use this one. Read `handshake.rs` next.

use openssl::hash::MessageDigest;
use openssl::ssl::SslContext;
use openssl::x509::X509Ref;
use subtle::{Choice, ConstantTimeEq};

use super::alerts::AlertKeys;
use crate::command::{DtlsRole, FingerprintHash, OpenTransport};
use crate::event::Cause;
use crate::transport::srtp::Keying;

/// What a handshake needs to begin.
#[derive(Clone)]
pub(super) struct Plan {
    pub context: SslContext,
    pub role: DtlsRole,
    pub fingerprints: Fingerprints,
}

/// What an established association has.
pub(in crate::transport) struct Established {
    pub keying: Keying,
    pub version: &'static str,
    pub(super) alerts: Option<AlertKeys>,
}

/// Where a handshake stands.
pub(in crate::transport) enum Progress {
    Pending,
    Established(Box<Established>),
    Ended(Cause),
}

/// The digests that the peer's SDP promised.
#[derive(Clone)]
pub(in crate::transport) struct Fingerprints {
    hash: FingerprintHash,
    promised: Vec<Vec<u8>>,
}

impl Fingerprints {
    /// An error when there is none or one has another length than its hash.
    pub fn new(command: &OpenTransport) -> Result<Fingerprints, String> {
        let hash = command.fingerprint_hash;
        let len = digest(hash).size();
        if command.fingerprints.is_empty() || command.fingerprints.iter().any(|promised| promised.len() != len) {
            return Err(format!("expected at least one fingerprint, each of {len} bytes"));
        }
        Ok(Fingerprints { hash, promised: command.fingerprints.iter().map(|promised| promised.to_vec()).collect() })
    }

    /// True when the certificate has one of the promised digests. Takes the same time whichever it is.
    pub fn accept(&self, certificate: &X509Ref) -> bool {
        let Ok(actual) = certificate.digest(digest(self.hash)) else { return false };
        let found = self.promised.iter().fold(Choice::from(0), |found, promised| found | actual.ct_eq(promised));
        found.into()
    }
}

fn digest(hash: FingerprintHash) -> MessageDigest {
    match hash {
        FingerprintHash::Sha256 => MessageDigest::sha256(),
        FingerprintHash::Sha384 => MessageDigest::sha384(),
        FingerprintHash::Sha512 => MessageDigest::sha512(),
    }
}
