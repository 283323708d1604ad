//! One DTLS handshake, over datagrams in memory. Owns OpenSSL's connection, the check of the peer's fingerprint and
//! retransmission; must never know ICE or read a clock. Read `dtls_guard.rs` next: it decides what OpenSSL gets to see.
//!
//! Retransmission follows the time that we are told: a flight that brought no answer is sent again as it was, which on
//! the wire is a duplicate that the peer's replay check absorbs. OpenSSL also has a timer of its own, on its own clock;
//! `do_handshake` is called again on each deadline so that it may send its flight anew. Either is enough.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openssl::error::ErrorStack;
use openssl::srtp::SrtpProfileId;
use openssl::ssl::{ErrorCode, Ssl, SslStream, SslVerifyMode};

use super::dtls::{Established, Fingerprints, Plan, Progress};
use super::dtls_alerts::{AlertKeys, LastSealed};
use super::dtls_guard::Guard;
use super::dtls_settled::Settled;
use super::srtp::Keying;
use super::srtp_keys::{MasterKey, Profile};
use crate::command::DtlsRole;
use crate::drop::Drop;
use crate::event::Cause;
use crate::outbox::{Outbox, Path};
use crate::time::{Span, Time};

/// Bytes in a datagram of ours; with the IPv6 and UDP headers it stays under the smallest MTU of the Internet.
const MTU: u32 = 1200;
/// Above most round trips, far below a person's patience; doubles with each silence.
const FIRST_RETRANSMISSION: Span = Span::from_millis(400);
/// After a ClientHello of ours, which is small: ffmpeg answers a check some milliseconds before it listens for DTLS.
const FIRST_HELLO: Span = Span::from_millis(50);
const SLOWEST_RETRANSMISSION: Span = Span::from_millis(3_200);

/// What OpenSSL reads from and writes to: one datagram in, any number out.
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

pub(super) struct Handshake {
    stream: SslStream<Datagrams>,
    role: DtlsRole,
    fingerprints: Fingerprints,
    /// Set by the verify callback.
    mismatched: Arc<AtomicBool>,
    guard: Guard,
    received: bool,
    established: bool,
    /// What we sent last and may have to send again.
    flight: Vec<Vec<u8>>,
    last_sealed: LastSealed,
    retransmit_at: Option<Time>,
    pause: Span,
    last_flight_at: Time,
}

impl Handshake {
    pub fn new(plan: &Plan) -> Result<Handshake, ErrorStack> {
        let fingerprints = plan.fingerprints.clone();
        let mismatched = Arc::new(AtomicBool::new(false));
        let mut ssl = Ssl::new(&plan.context)?;
        ssl.set_mtu(MTU)?;
        ssl.set_verify_callback(
            SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
            verifier(fingerprints.clone(), mismatched.clone()),
        );
        match plan.role {
            DtlsRole::Server => ssl.set_accept_state(),
            DtlsRole::Client => ssl.set_connect_state(),
        }
        Ok(Handshake {
            stream: SslStream::new(ssl, Datagrams::default())?,
            role: plan.role,
            fingerprints,
            mismatched,
            guard: Guard::default(),
            received: false,
            established: false,
            flight: Vec::new(),
            last_sealed: LastSealed::default(),
            retransmit_at: None,
            pause: FIRST_RETRANSMISSION,
            last_flight_at: Time::default(),
        })
    }

    /// Sends the ClientHello; for the client role, once.
    pub fn start(&mut self, now: Time, path: Path, outbox: &mut Outbox) -> Progress {
        let progress = self.advance();
        self.send(now, path, outbox);
        self.pause = FIRST_HELLO;
        self.retransmit_at = self.retransmit_at.map(|_| now + self.pause);
        progress
    }

    pub fn handle_datagram(
        &mut self,
        now: Time,
        path: Path,
        datagram: &[u8],
        outbox: &mut Outbox,
    ) -> Result<Progress, Drop> {
        self.guard.admit(datagram)?;
        self.received = true;
        self.stream.get_mut().incoming = Some(datagram.to_vec());
        let progress = self.advance();
        // What it did not want must not wait for the next datagram.
        self.stream.get_mut().incoming = None;
        self.send(now, path, outbox);
        Ok(progress)
    }

    pub fn handle_deadline(&mut self, now: Time, path: Path, outbox: &mut Outbox) -> Progress {
        if self.retransmit_at.is_none_or(|at| now < at) {
            return Progress::Pending;
        }
        let progress = self.advance();
        let pause = Span((self.pause.0 * 2).min(SLOWEST_RETRANSMISSION.0));
        if self.stream.get_ref().outgoing.is_empty() {
            self.repeat_flight(now, path, outbox);
        } else {
            self.send(now, path, outbox);
        }
        if self.retransmit_at.is_some() {
            self.pause = pause;
            self.retransmit_at = Some(now + pause);
        }
        progress
    }

    pub fn next_deadline(&self) -> Option<Time> {
        self.retransmit_at
    }

    /// Whether any record of the peer has come.
    pub fn has_received(&self) -> bool {
        self.received
    }

    /// What is left to keep once the keys are there; OpenSSL's part is not needed any more.
    pub fn settle(&mut self) -> Settled {
        let keys = AlertKeys::export(self.stream.ssl(), self.role, self.last_sealed);
        Settled::new(&self.flight, keys, self.last_flight_at)
    }

    /// Lets OpenSSL take in what there is.
    fn advance(&mut self) -> Progress {
        match self.stream.do_handshake() {
            Ok(()) => self.establish(),
            Err(error) => self.judge(&error),
        }
    }

    fn judge(&self, error: &openssl::ssl::Error) -> Progress {
        match error.code() {
            ErrorCode::WANT_READ | ErrorCode::WANT_WRITE => Progress::Pending,
            ErrorCode::ZERO_RETURN => Progress::Ended(Cause::ClosedByPeer),
            _ if self.mismatched.load(Ordering::Relaxed) => Progress::Ended(Cause::FingerprintMismatch),
            _ => Progress::Ended(Cause::DtlsAlert),
        }
    }

    /// The handshake is complete as far as OpenSSL is concerned: now who is it, and what are the keys?
    fn establish(&mut self) -> Progress {
        self.established = true;
        self.retransmit_at = None;
        let ssl = self.stream.ssl();
        // The callback has looked already, so that the peer gets an alert; this is the check that counts.
        if !ssl.peer_certificate().is_some_and(|certificate| self.fingerprints.accept(&certificate)) {
            return self.refuse(Cause::FingerprintMismatch);
        }
        let Some(profile) = ssl.selected_srtp_profile().and_then(|selected| profile_of(selected.id())) else {
            return self.refuse(Cause::NoSrtpProfile);
        };
        let version = ssl.version_str();
        match self.export_keys(profile) {
            Some(keying) => Progress::Established(Box::new(Established { keying, version })),
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

    /// Sends what OpenSSL wrote: a whole flight, kept to be sent again. The last one of a server stays, since nothing tells
    /// whether it arrived.
    fn send(&mut self, now: Time, path: Path, outbox: &mut Outbox) {
        if !self.stream.get_ref().outgoing.is_empty() {
            self.flight.clone_from(&self.stream.get_ref().outgoing);
            self.last_flight_at = now;
            self.pause = FIRST_RETRANSMISSION;
            self.retransmit_at = (!self.established).then(|| now + self.pause);
        }
        if self.established && self.role == DtlsRole::Client {
            self.flight.clear();
        }
        // What does not fit the outbox counts as lost on the way.
        for datagram in self.stream.get_mut().outgoing.drain(..) {
            self.last_sealed.note(&datagram);
            outbox.push(path, &datagram);
        }
    }

    fn repeat_flight(&mut self, now: Time, path: Path, outbox: &mut Outbox) {
        self.last_flight_at = now;
        for datagram in &self.flight {
            outbox.push(path, datagram);
        }
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

/// Any chain is good; only the fingerprint of the peer's own certificate, at depth 0, matters. Refusing it here makes
/// OpenSSL send a fatal alert instead of finishing the handshake.
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
