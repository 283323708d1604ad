//! OpenSSL's part of a handshake, a step at a time: a datagram in, datagrams out, and keys at the end. A step computes for half a
//! millisecond or more, as long as some hundred packets take to forward. So it holds all that it needs and can run on any thread.
//! Owns OpenSSL's connection and the check of the peer's fingerprint; must never read a clock or know ICE. Read `handshake.rs`
//! next: it says when a step is due.
//!
//! ```text
//!  Transport ── Step: connection, datagram ──► run, on any thread ── Stepped: connection, datagrams, progress ──► Transport
//! ```

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openssl::error::ErrorStack;
use openssl::srtp::SrtpProfileId;
use openssl::ssl::{ErrorCode, Ssl, SslStream, SslVerifyMode};

use super::alerts::{AlertKeys, LastSealed};
use super::plan::{Established, Fingerprints, Plan, Progress};
use crate::command::DtlsRole;
use crate::event::Cause;
use crate::outbox::Path;
use crate::transport::srtp::Keying;
use crate::transport::srtp::{MasterKey, Profile};

/// Bytes in a datagram of ours; with the IPv6 and UDP headers it stays under the smallest MTU of the Internet.
const MTU: u32 = 1200;

/// What is to be computed for one transport.
pub struct Step {
    pub(super) transport: u64,
    pub(super) attempt: u32,
    pub(in crate::transport) path: Path,
    pub(super) stage: Box<Stage>,
    /// `None` for a ClientHello of ours.
    pub(super) datagram: Option<Vec<u8>>,
}

/// The outcome of a `Step`.
pub struct Stepped {
    pub(super) transport: u64,
    pub(super) attempt: u32,
    pub(in crate::transport) path: Path,
    /// `None` when OpenSSL's part is over.
    pub(super) stage: Option<Box<Stage>>,
    /// The flight to be sent, if any.
    pub(super) datagrams: Vec<Vec<u8>>,
    pub(super) progress: Progress,
}

/// How far OpenSSL's part has come.
pub(super) enum Stage {
    Planned(Plan),
    Begun(Connection),
}

impl Step {
    /// Lets OpenSSL take in the datagram.
    pub fn run(self) -> Stepped {
        let Step { transport, attempt, path, stage, datagram } = self;
        let stepped = |stage, datagrams, progress| Stepped { transport, attempt, path, stage, datagrams, progress };
        let begun = match *stage {
            Stage::Begun(connection) => Ok(connection),
            Stage::Planned(plan) => Connection::new(plan),
        };
        let Ok(mut connection) = begun else {
            return stepped(None, Vec::new(), Progress::Ended(Cause::DtlsAlert));
        };
        let (datagrams, progress) = connection.advance(datagram);
        let goes_on = matches!(progress, Progress::Pending);
        stepped(goes_on.then(|| Box::new(Stage::Begun(connection))), datagrams, progress)
    }
}

impl Stepped {
    /// True when OpenSSL went on, or sends its last flight again.
    pub fn has_flight(&self) -> bool {
        !self.datagrams.is_empty()
    }

    /// The transport whose step it was.
    pub fn transport(&self) -> u64 {
        self.transport
    }
}

/// OpenSSL's side of the wire: one datagram in, any number out.
#[derive(Debug, Default)]
struct Datagrams {
    incoming: Option<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
}

impl Read for Datagrams {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.incoming.take().ok_or(io::ErrorKind::WouldBlock)?;
        let len = datagram.len().min(buffer.len());
        buffer[..len].copy_from_slice(&datagram[..len]);
        Ok(len)
    }
}

impl Write for Datagrams {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.outgoing.push(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) struct Connection {
    stream: SslStream<Datagrams>,
    role: DtlsRole,
    fingerprints: Fingerprints,
    /// Set by the verify callback.
    mismatched: Arc<AtomicBool>,
    last_sealed: LastSealed,
}

impl Connection {
    fn new(plan: Plan) -> Result<Connection, ErrorStack> {
        let Plan { context, role, fingerprints } = plan;
        let mismatched = Arc::new(AtomicBool::new(false));
        let mut ssl = Ssl::new(&context)?;
        ssl.set_mtu(MTU)?;
        ssl.set_verify_callback(
            SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
            verifier(fingerprints.clone(), mismatched.clone()),
        );
        match role {
            DtlsRole::Server => ssl.set_accept_state(),
            DtlsRole::Client => ssl.set_connect_state(),
        }
        let stream = SslStream::new(ssl, Datagrams::default())?;
        Ok(Connection { stream, role, fingerprints, mismatched, last_sealed: LastSealed::default() })
    }

    /// Returns the datagrams to be sent, and where the handshake stands.
    fn advance(&mut self, datagram: Option<Vec<u8>>) -> (Vec<Vec<u8>>, Progress) {
        self.stream.get_mut().incoming = datagram;
        let mut progress = match self.stream.do_handshake() {
            Ok(()) => self.establish(),
            Err(error) => self.judge(&error),
        };
        // A datagram that OpenSSL did not read must not wait for the next one.
        self.stream.get_mut().incoming = None;
        let datagrams = std::mem::take(&mut self.stream.get_mut().outgoing);
        for datagram in &datagrams {
            self.last_sealed.note(datagram);
        }
        if let Progress::Established(established) = &mut progress {
            established.alerts = AlertKeys::export(self.stream.ssl(), self.role, self.last_sealed);
        }
        (datagrams, progress)
    }

    fn judge(&self, error: &openssl::ssl::Error) -> Progress {
        match error.code() {
            ErrorCode::WANT_READ | ErrorCode::WANT_WRITE => Progress::Pending,
            ErrorCode::ZERO_RETURN => Progress::Ended(Cause::ClosedByPeer),
            _ if self.mismatched.load(Ordering::Relaxed) => Progress::Ended(Cause::FingerprintMismatch),
            _ => Progress::Ended(Cause::DtlsAlert),
        }
    }

    /// Checks the peer's fingerprint and exports the keys, when OpenSSL's part is complete.
    fn establish(&mut self) -> Progress {
        let ssl = self.stream.ssl();
        // The verify callback has checked already, so that the peer gets an alert. This check is the one that counts.
        if !ssl.peer_certificate().is_some_and(|certificate| self.fingerprints.accept(&certificate)) {
            return self.refuse(Cause::FingerprintMismatch);
        }
        let Some(profile) = ssl.selected_srtp_profile().and_then(|selected| profile_of(selected.id())) else {
            return self.refuse(Cause::NoSrtpProfile);
        };
        let version = ssl.version_str();
        match self.export_keys(profile) {
            Some(keying) => Progress::Established(Box::new(Established { keying, version, alerts: None })),
            None => self.refuse(Cause::DtlsAlert),
        }
    }

    fn refuse(&mut self, cause: Cause) -> Progress {
        let _ = self.stream.shutdown();
        Progress::Ended(cause)
    }

    /// RFC 5764 section 4.2: client key, server key, client salt, server salt.
    fn export_keys(&self, profile: Profile) -> Option<Keying> {
        let (key, salt) = (profile.key_len(), profile.salt_len());
        let mut material = vec![0; 2 * (key + salt)];
        self.stream.ssl().export_keying_material(&mut material, "EXTRACTOR-dtls_srtp", None).ok()?;
        let (keys, salts) = material.split_at(2 * key);
        let client = MasterKey::new(profile, &keys[..key], &salts[..salt])?;
        let server = MasterKey::new(profile, &keys[key..], &salts[salt..])?;
        Some(match self.role {
            DtlsRole::Server => Keying { profile, local: server, remote: client },
            DtlsRole::Client => Keying { profile, local: client, remote: server },
        })
    }
}

fn profile_of(id: SrtpProfileId) -> Option<Profile> {
    match id {
        SrtpProfileId::SRTP_AEAD_AES_128_GCM => Some(Profile::Aes128Gcm),
        SrtpProfileId::SRTP_AEAD_AES_256_GCM => Some(Profile::Aes256Gcm),
        SrtpProfileId::SRTP_AES128_CM_SHA1_80 => Some(Profile::Aes128CmSha1_80),
        _ => None,
    }
}

/// Accepts any chain: only the fingerprint of the peer's own certificate, at depth 0, matters. A refusal here makes OpenSSL send a
/// fatal alert instead of finishing the handshake.
fn verifier(
    fingerprints: Fingerprints,
    mismatched: Arc<AtomicBool>,
) -> impl Fn(bool, &mut openssl::x509::X509StoreContextRef) -> bool {
    move |_, store| {
        if store.error_depth() != 0 {
            return true;
        }
        let accepted = store.current_cert().is_some_and(|certificate| fingerprints.accept(certificate));
        if !accepted {
            mismatched.store(true, Ordering::Relaxed);
        }
        accepted
    }
}
