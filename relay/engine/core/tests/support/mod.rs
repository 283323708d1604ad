//! A certificate, a client's checks and two transports on a wire in memory, for the tests of the transport half.
//! Must never send anything for real. Read `transport_handshake.rs` next.
// Each test file uses its part of this, and what fails here fails a test.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use millrace_core::command::{DtlsRole, FingerprintHash, OpenTransport};
use millrace_core::drop::Drop;
use millrace_core::outbox::{Outbox, Path, SocketIndex};
use millrace_core::time::{Span, Time};
use millrace_core::transport::proof::Prover;
use millrace_core::transport::stun::{self, Integrity, attribute};
use millrace_core::transport::stun_writer::Writer;
use millrace_core::transport::{DtlsContexts, Limits, Profile, Transport, TransportEvent};
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::X509;

pub const LIMITS: Limits = Limits {
    max_addresses: 4,
    max_streams: 8,
    ice_timeout: Span::from_secs(15),
    handshake_timeout: Span::from_secs(10),
    consent_timeout: Span::from_secs(30),
    media_timeout: Span::from_secs(10),
};

pub const SERVER_UFRAG: &str = "00abcdefgh";
pub const SERVER_PWD: &str = "server-password-24-chars";
pub const CLIENT_UFRAG: &str = "01zyxwvuts";
pub const CLIENT_PWD: &str = "client-password-24-chars";

pub struct Identity {
    pub certificate_pem: String,
    pub private_key_pem: String,
    pub fingerprint: Vec<u8>,
}

impl Identity {
    pub fn ecdsa() -> Identity {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        Identity::of(&PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap())
    }

    pub fn rsa() -> Identity {
        Identity::of(&PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap())
    }

    fn of(key: &PKey<Private>) -> Identity {
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(30).unwrap()).unwrap();
        builder.set_pubkey(key).unwrap();
        builder.sign(key, MessageDigest::sha256()).unwrap();
        let certificate = builder.build();
        Identity {
            certificate_pem: String::from_utf8(certificate.to_pem().unwrap()).unwrap(),
            private_key_pem: String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap(),
            fingerprint: certificate.digest(MessageDigest::sha256()).unwrap().to_vec(),
        }
    }

    pub fn contexts(&self, profiles: &[Profile]) -> DtlsContexts {
        DtlsContexts::with_profiles(&self.certificate_pem, &self.private_key_pem, profiles).unwrap()
    }
}

pub fn path(remote: &str) -> Path {
    Path { socket: SocketIndex(0), remote: remote.parse().unwrap() }
}

pub fn outbox() -> Outbox {
    Outbox::new(64 * 1024, 64)
}

/// An `OpenTransport` for a server that expects a peer with this fingerprint.
pub fn open_server(fingerprint: &[u8]) -> OpenTransport {
    OpenTransport {
        transport: 1,
        local_ufrag: SERVER_UFRAG.to_owned(),
        local_pwd: SERVER_PWD.to_owned(),
        remote_ufrag: CLIENT_UFRAG.to_owned(),
        remote_pwd: CLIENT_PWD.to_owned(),
        dtls_role: DtlsRole::Server,
        fingerprint_hash: FingerprintHash::Sha256,
        fingerprints: vec![serde_bytes::ByteBuf::from(fingerprint)],
        expects_media: true,
    }
}

/// The other end of `open_server`.
pub fn open_client(fingerprint: &[u8]) -> OpenTransport {
    OpenTransport {
        transport: 2,
        local_ufrag: CLIENT_UFRAG.to_owned(),
        local_pwd: CLIENT_PWD.to_owned(),
        remote_ufrag: SERVER_UFRAG.to_owned(),
        remote_pwd: SERVER_PWD.to_owned(),
        dtls_role: DtlsRole::Client,
        fingerprint_hash: FingerprintHash::Sha256,
        fingerprints: vec![serde_bytes::ByteBuf::from(fingerprint)],
        expects_media: false,
    }
}

/// A connectivity check as a controlling full agent sends it.
#[derive(Clone)]
pub struct Check {
    pub username: String,
    pub pwd: String,
    pub nominates: bool,
    pub priority: u32,
    pub transaction: [u8; 12],
    pub extra: Vec<(u16, Vec<u8>)>,
}

impl Check {
    pub fn to(ufrag: &str, pwd: &str) -> Check {
        let username = format!("{ufrag}:{CLIENT_UFRAG}");
        Check {
            username,
            pwd: pwd.to_owned(),
            nominates: true,
            priority: 1,
            transaction: *b"transaction!",
            extra: Vec::new(),
        }
    }

    /// From the client with this ufrag.
    pub fn from(mut self, ufrag: &str) -> Check {
        self.username = format!("{}:{ufrag}", self.username.split(':').next().unwrap());
        self
    }

    pub fn to_server() -> Check {
        Check::to(SERVER_UFRAG, SERVER_PWD)
    }

    pub fn without_nomination(mut self) -> Check {
        self.nominates = false;
        self
    }

    pub fn with_priority(mut self, priority: u32) -> Check {
        self.priority = priority;
        self
    }

    pub fn with(mut self, kind: u16, value: &[u8]) -> Check {
        self.extra.push((kind, value.to_vec()));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut buffer = [0; 600];
        let mut writer = Writer::new(&mut buffer, stun::BINDING_REQUEST, &self.transaction)
            .attribute(attribute::USERNAME, self.username.as_bytes())
            .attribute(attribute::PRIORITY, &self.priority.to_be_bytes());
        if self.nominates {
            writer = writer.attribute(attribute::USE_CANDIDATE, &[]);
        }
        for (kind, value) in &self.extra {
            writer = writer.attribute(*kind, value);
        }
        let len = writer.finish(&Integrity::new(self.pwd.as_bytes())).unwrap();
        buffer[..len].to_vec()
    }
}

/// Where clients were told that the box is.
pub const SERVER: &str = "192.0.2.1:7882";

/// What the box's transports ask with.
pub fn prover() -> Arc<Prover> {
    Arc::new(Prover::new("a certificate's key", vec![SERVER.parse().unwrap()]))
}

/// The answer of a client with this password to a request of ours, naming where the client sees us; `None` to anything else.
pub fn answer_to(request: &[u8], pwd: &str, mapped: Option<SocketAddr>) -> Option<Vec<u8>> {
    let message = stun::Message::parse(request).ok().filter(stun::Message::is_binding_request)?;
    if !message.is_authentic(&Integrity::new(pwd.as_bytes())) {
        return None;
    }
    assert!(message.claims_controlled() && message.priority().is_some() && !message.use_candidate());
    Some(answer_of(*message.transaction(), pwd, mapped))
}

/// As `answer_to`, whoever the request was for.
pub fn answer_with(request: &[u8], pwd: &str, mapped: Option<SocketAddr>) -> Vec<u8> {
    answer_of(*stun::Message::parse(request).unwrap().transaction(), pwd, mapped)
}

pub fn answer_of(transaction: [u8; 12], pwd: &str, mapped: Option<SocketAddr>) -> Vec<u8> {
    let mut buffer = [0; 128];
    let writer = Writer::new(&mut buffer, stun::BINDING_SUCCESS, &transaction);
    let writer = match mapped {
        Some(mapped) => writer.xor_mapped_address(mapped),
        None => writer,
    };
    let len = writer.finish(&Integrity::new(pwd.as_bytes())).unwrap();
    buffer[..len].to_vec()
}

/// An authentic error in answer to a request of ours.
pub fn error_to(request: &[u8], pwd: &str, code: u16) -> Vec<u8> {
    let mut buffer = [0; 128];
    let transaction = *stun::Message::parse(request).unwrap().transaction();
    let writer = Writer::new(&mut buffer, stun::BINDING_ERROR, &transaction).error_code(code);
    let len = writer.finish(&Integrity::new(pwd.as_bytes())).unwrap();
    buffer[..len].to_vec()
}

pub fn events(transport: &mut Transport) -> Vec<TransportEvent> {
    std::iter::from_fn(|| transport.next_event()).collect()
}

/// Runs the step of the handshake that is due, if one is.
pub fn run_step(transport: &mut Transport, now: Time, out: &mut Outbox) {
    if let Some(step) = transport.take_step() {
        transport.finish_step(now, step.run(), out);
    }
}

/// A datagram of DTLS, and the step that it leads to.
pub fn take_dtls(
    transport: &mut Transport,
    now: Time,
    path: Path,
    datagram: &[u8],
    out: &mut Outbox,
) -> Result<(), Drop> {
    transport.handle_dtls(now, path, datagram, out)?;
    run_step(transport, now, out);
    Ok(())
}

/// What an outbox holds, taken out.
pub fn drain(outbox: &mut Outbox) -> Vec<(SocketAddr, Vec<u8>)> {
    let (datagrams, bytes) = outbox.queued();
    let taken = datagrams.iter().map(|d| (d.path.remote, bytes[d.start..d.start + d.len].to_vec())).collect();
    outbox.clear();
    taken
}

/// Two transports and the datagrams between them, in virtual time.
pub struct Wire {
    pub now: Time,
    pub server: Transport,
    pub client: Transport,
    /// Where the server sees the client, and the client the server.
    pub client_path: Path,
    pub server_path: Path,
    pub to_server: VecDeque<Vec<u8>>,
    pub to_client: VecDeque<Vec<u8>>,
    /// Every datagram of the handshake, in order: from the client?, its length.
    pub sent: Vec<(bool, usize)>,
    /// Positions in `sent` that are lost on the way.
    pub lost: Vec<usize>,
}

impl Wire {
    pub fn new(server: Transport, client: Transport) -> Wire {
        Wire {
            now: Time(1_000_000),
            server,
            client,
            client_path: path("192.0.2.7:4000"),
            server_path: path(SERVER),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            sent: Vec::new(),
            lost: Vec::new(),
        }
    }

    pub fn between(server: &Identity, client: &Identity, profiles: &[Profile]) -> Wire {
        let opened = Time(1_000_000);
        Wire::new(
            Transport::new(opened, &open_server(&client.fingerprint), &server.contexts(profiles), &LIMITS).unwrap(),
            Transport::new(opened, &open_client(&server.fingerprint), &client.contexts(profiles), &LIMITS).unwrap(),
        )
    }

    /// Checks from both sides, as two full agents would send; the client's ClientHello is on its way after it.
    pub fn check(&mut self) {
        let mut out = outbox();
        self.server.handle_stun(self.now, self.client_path, &Check::to_server().bytes(), &mut out).unwrap();
        self.server.vouch_for(self.now, self.client_path, &mut out);
        out.clear();
        let check = Check::to(CLIENT_UFRAG, CLIENT_PWD).from(SERVER_UFRAG).bytes();
        self.client.handle_stun(self.now, self.server_path, &check, &mut out).unwrap();
        self.client.vouch_for(self.now, self.server_path, &mut out);
        run_step(&mut self.client, self.now, &mut out);
        let sent: Vec<_> = drain(&mut out).into_iter().filter(|(_, bytes)| bytes[0] >= 20).collect();
        self.carry(true, sent);
    }

    fn carry(&mut self, from_client: bool, datagrams: Vec<(SocketAddr, Vec<u8>)>) {
        for (_, bytes) in datagrams {
            let lost = self.lost.contains(&self.sent.len());
            self.sent.push((from_client, bytes.len()));
            match (lost, from_client) {
                (true, _) => {}
                (false, true) => self.to_server.push_back(bytes),
                (false, false) => self.to_client.push_back(bytes),
            }
        }
    }

    /// Delivers until nothing is under way.
    pub fn deliver(&mut self) {
        let mut out = outbox();
        loop {
            if let Some(bytes) = self.to_server.pop_front() {
                let _ = take_dtls(&mut self.server, self.now, self.client_path, &bytes, &mut out);
                let sent = drain(&mut out);
                self.carry(false, sent);
            } else if let Some(bytes) = self.to_client.pop_front() {
                let _ = take_dtls(&mut self.client, self.now, self.server_path, &bytes, &mut out);
                let sent = drain(&mut out);
                self.carry(true, sent);
            } else {
                return;
            }
        }
    }

    /// Goes on to the earliest deadline of the two; false when there is none.
    pub fn sleep(&mut self) -> bool {
        let deadlines = [self.server.next_deadline(), self.client.next_deadline()];
        let Some(next) = deadlines.into_iter().flatten().min() else { return false };
        self.now = self.now.max(next);
        let mut out = outbox();
        self.server.handle_deadline(self.now, &mut out);
        let sent = drain(&mut out);
        self.carry(false, sent);
        self.client.handle_deadline(self.now, &mut out);
        let sent = drain(&mut out);
        self.carry(true, sent);
        true
    }

    /// Until both are connected or one is closed.
    pub fn run(&mut self) {
        use millrace_core::transport::Phase;
        for _ in 0..100 {
            self.deliver();
            let phases = [self.server.phase(), self.client.phase()];
            if phases == [Phase::Connected; 2] || phases.contains(&Phase::Closed) || !self.sleep() {
                return;
            }
        }
    }
}

/// An RTP packet with a payload of `len` bytes.
pub fn rtp(ssrc: u32, sequence: u16, len: usize) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 9]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend((0..len).map(|i| i as u8));
    packet
}
