//! Two engines on one arena with a live call between them, and bytes as their input from the world: datagrams from anywhere,
//! authentic RTP and RTCP of any content from either client, commands, and time. Asserts that strangers get no answer, that
//! nothing we make is too large, that an address which nobody proved gets three times what it sent at most, and that no engine spins. Read `core/src/engine/mod.rs` next.
//!
//! An operation is its kind, a place (slot, address or id), a length in bytes times four, and so many bytes.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::OnceLock;

use millrace_arena::{Arena, Parameters};
use millrace_core::command::{
    Attach, CloseTransport, Codec, CodecName, Command, Detach, DtlsRole, Encoding, Extension, ExtensionKind,
    FingerprintHash, Format, MediaKind, MoveTransport, OpenTransport, Publish, ReportTransport, RestartIce, SaveRecord,
    Subscribe, TrackCodec, Unpublish, Unsubscribe,
};
use millrace_core::config::EngineConfig;
use millrace_core::engine::Engine;
use millrace_core::outbox::{Outbox, Path, SocketIndex};
use millrace_core::time::{Span, Time};
use millrace_core::transport::stun::{self, Integrity, attribute};
use millrace_core::transport::stun_writer::Writer;
use millrace_core::transport::{DtlsContexts, Limits, SEAL_ROOM, Transport};
use openssl::hash::MessageDigest;
use openssl::x509::X509;

use super::dtls_in::run_step;

const PWD: &str = "a password of enough characters";
const THEIR_PWD: &str = "another password of some length";
const PUBLISHER: u64 = 1;
const VIEWER: u64 = 2;
/// More rounds at one moment than this are a busy loop.
const MAX_ROUNDS: usize = 64;
/// Operations of one input. Longer inputs find nothing more and take long.
const MAX_OPERATIONS: usize = 200;

pub fn run(bytes: &[u8]) {
    let mut call = Call::begin();
    let mut rest = bytes;
    for _ in 0..MAX_OPERATIONS {
        let Some((&[kind, place, quads], after)) = rest.split_first_chunk::<3>() else { break };
        let len = (usize::from(quads) * 4).min(after.len());
        call.operate(kind, place, &after[..len]);
        rest = &after[len..];
    }
    for _ in 0..40 {
        call.pass(Span::from_secs(1));
    }
}

struct Client {
    transport: Transport,
    path: Path,
    index: u64,
}

struct Call {
    now: Time,
    engines: [Engine; 2],
    /// The publisher, on slot 0, and the viewer, on slot 1.
    clients: [Client; 2],
    strangers: Vec<SocketAddr>,
    /// Addresses that may have been proven. The others get three times what they sent, at most.
    proven: Vec<SocketAddr>,
    /// Bytes from and to each of them.
    exchanged: HashMap<SocketAddr, (usize, usize)>,
    /// Requests of an engine that nobody has answered, the last ones.
    asked: Vec<(usize, SocketAddr, Vec<u8>)>,
}

const SERVER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 7_882));

/// A client's answer to a request of ours; `None` to anything else.
fn answer_to(request: &[u8], mapped: Option<SocketAddr>) -> Option<Vec<u8>> {
    let message = stun::Message::parse(request).ok().filter(stun::Message::is_binding_request)?;
    let mut buffer = [0; 128];
    let writer = Writer::new(&mut buffer, stun::BINDING_SUCCESS, message.transaction());
    let writer = if let Some(mapped) = mapped { writer.xor_mapped_address(mapped) } else { writer };
    let len = writer.finish(&Integrity::new(THEIR_PWD.as_bytes()))?;
    Some(buffer[..len].to_vec())
}

fn identity() -> &'static (String, String, Vec<u8>) {
    static IDENTITY: OnceLock<(String, String, Vec<u8>)> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let (certificate, key) = super::dtls_in::certificate().expect("OpenSSL makes a certificate");
        let parsed = X509::from_pem(certificate.as_bytes()).expect("OpenSSL takes its own certificate");
        let digest = parsed.digest(MessageDigest::sha256()).expect("every certificate has a digest");
        (certificate, key, digest.to_vec())
    })
}

fn engine(slot: u8, arena: &Arena) -> Engine {
    let (certificate_pem, private_key_pem, _) = identity().clone();
    let config = EngineConfig {
        slot,
        slots: 2,
        adopts: true,
        certificate_pem,
        private_key_pem,
        max_transports: 8,
        max_handshakes: 4,
        max_addresses: 3,
        max_streams: 8,
        ice_timeout_ms: 10_000,
        handshake_timeout_ms: 10_000,
        consent_timeout_ms: 30_000,
        media_timeout_ms: 10_000,
        repair_delay_ms: 200,
        advertised: vec!["192.0.2.1:7882".to_owned()],
    };
    Engine::new(config, arena.clone()).expect("a good configuration")
}

fn ufrag(slot: u8, id: u64) -> String {
    format!("{slot:02x}fuzz{id:04}")
}

fn open(id: u64, slot: u8, dtls_role: DtlsRole) -> OpenTransport {
    OpenTransport {
        transport: id,
        local_ufrag: ufrag(slot, id),
        local_pwd: PWD.to_owned(),
        remote_ufrag: "theirs".to_owned(),
        remote_pwd: THEIR_PWD.to_owned(),
        dtls_role,
        fingerprint_hash: FingerprintHash::Sha256,
        fingerprints: vec![serde_bytes::ByteBuf::from(identity().2.clone())],
        expects_media: false,
    }
}

fn check(ufrag: &str) -> Vec<u8> {
    let mut buffer = [0; 128];
    let len = Writer::new(&mut buffer, stun::BINDING_REQUEST, &[0; 12])
        .attribute(attribute::USERNAME, format!("{ufrag}:theirs").as_bytes())
        .attribute(attribute::USE_CANDIDATE, &[])
        .finish(&Integrity::new(PWD.as_bytes()))
        .expect("a check is small");
    buffer[..len].to_vec()
}

fn video(payload_type: u8) -> Codec {
    let rtx_payload_type = Some(payload_type + 1);
    Codec { name: CodecName::Vp8, payload_type, rtx_payload_type, clock_rate: 90_000 }
}

fn extensions() -> Vec<Extension> {
    let kinds =
        [ExtensionKind::Mid, ExtensionKind::Rid, ExtensionKind::TransportCc, ExtensionKind::DependencyDescriptor];
    kinds.into_iter().zip(1..).map(|(kind, id)| Extension { id, kind }).collect()
}

fn publish(publication: u64, transport: u64, logs: impl Iterator<Item = u32>) -> Command {
    let encodings = logs.map(|log| Encoding { rid: None, ssrc: Some(0x0101_0101), rtx_ssrc: Some(0x0202_0202), log });
    Command::Publish(Publish {
        publication,
        transport,
        kind: MediaKind::Video,
        mid: "v".to_owned(),
        codec: video(96),
        encodings: encodings.collect(),
        extensions: extensions(),
        nack: true,
        pli: true,
        fir: false,
        codecs: [96, 98].map(|number| TrackCodec { codec: video(number), nack: true, pli: true, fir: false }).to_vec(),
        parameter_sets: Default::default(),
    })
}

fn subscribe(subscription: u64, transport: u64) -> Command {
    Command::Subscribe(Subscribe {
        subscription,
        transport,
        kind: MediaKind::Video,
        mid: "w".to_owned(),
        ssrc: 0x0303_0303,
        rtx_ssrc: Some(0x0404_0404),
        cname: "c".to_owned(),
        extensions: extensions(),
    })
}

fn attach(subscription: u64, publication: u64, logs: impl Iterator<Item = u32>) -> Command {
    let source_extensions = extensions();
    let formats = vec![Format { payload_type: 96, codec: video(100) }];
    let logs = logs.collect();
    Command::Attach(Attach { subscription, publication, logs, codec: video(100), source_extensions, formats })
}

fn path(place: u8) -> Path {
    Path { socket: SocketIndex(0), remote: ([192, 0, 2, place & 7], 4_000).into() }
}

impl Call {
    fn begin() -> Call {
        let parameters = Parameters { slots: 2, logs_per_slot: 4, log_packets: 16, ..Parameters::SMALL };
        let arena = Arena::in_memory(parameters);
        let now = Time(1_000_000);
        let (certificate, key, _) = identity();
        let contexts = DtlsContexts::new(certificate, key).expect("OpenSSL takes its own certificate");
        let seconds = Span::from_secs;
        let limits = Limits {
            max_addresses: 2,
            max_streams: 64,
            ice_timeout: seconds(10_000),
            handshake_timeout: seconds(10_000),
            consent_timeout: seconds(10_000),
            media_timeout: seconds(10_000),
        };
        let client = |id, place| Client {
            transport: Transport::new(now, &open(id, 9, DtlsRole::Client), &contexts, &limits).expect("a good command"),
            path: path(place),
            index: 1_000,
        };
        let mut call = Call {
            now,
            engines: [engine(0, &arena), engine(1, &arena)],
            clients: [client(PUBLISHER, 0), client(VIEWER, 1)],
            proven: Vec::new(),
            exchanged: HashMap::new(),
            asked: Vec::new(),
            strangers: (2..8).map(|place| path(place).remote).collect(),
        };
        for (slot, id) in [(0, PUBLISHER), (1, VIEWER)] {
            call.engines[slot].handle_command(now, Command::OpenTransport(open(id, slot as u8, DtlsRole::Server)));
            call.shake_hands(slot, id);
        }
        call.engines[0].handle_command(now, publish(1, PUBLISHER, 0..1));
        call.engines[1].handle_command(now, subscribe(1, VIEWER));
        call.engines[1].handle_command(now, attach(1, 1, 0..1));
        call.run_until_idle();
        call
    }

    fn shake_hands(&mut self, slot: usize, id: u64) {
        let server = path(7);
        let mut out = Outbox::new(64 * 1024, 64);
        let Client { path, .. } = &self.clients[slot];
        let (path, now) = (*path, self.now);
        let checked = check(&ufrag(slot as u8, id));
        self.engines[slot].handle_datagram(now, path, &mut checked.clone());
        for (_, datagram) in taken(self.engines[slot].outbox()) {
            if let Some(mut answer) = answer_to(&datagram, Some(SERVER)) {
                self.engines[slot].handle_datagram(now, path, &mut answer);
            }
        }
        self.proven.push(path.remote);
        let transport = &mut self.clients[slot].transport;
        transport.handle_stun(self.now, server, &check(&ufrag(9, id)), &mut out).expect("an authentic check");
        transport.vouch_for(now, server, &mut out);
        run_step(transport, self.now, &mut out);
        for _ in 0..6 {
            for mut datagram in taken(&mut out).into_iter().map(|(_, bytes)| bytes).filter(|bytes| bytes[0] >= 20) {
                self.engines[slot].handle_datagram(self.now, path, &mut datagram);
                run_steps(&mut self.engines[slot], self.now);
            }
            for (_, datagram) in taken(self.engines[slot].outbox()) {
                let _ = transport.handle_dtls(self.now, server, &datagram, &mut out);
                run_step(transport, self.now, &mut out);
            }
        }
        assert!(transport.is_connected());
    }

    fn operate(&mut self, kind: u8, place: u8, bytes: &[u8]) {
        let slot = usize::from(place & 1);
        let id = u64::from(place >> 1 & 7);
        let now = self.now;
        let number = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let logs = || bytes.iter().take(usize::from(number(5) % 5)).map(|byte| u32::from(byte % 10));
        match kind % 16 {
            0 => self.inject(slot, path(place >> 1), bytes),
            1 => self.send(slot, bytes, false),
            2 => self.send(slot, bytes, true),
            3 => self.pass(Span::from_millis(u64::from(place))),
            4 if number(1) & 3 == 1 => self.answer(number(2)),
            4 => self.inject(slot, path(number(0)), &check(&ufrag(slot as u8, id))),
            5 => {
                let role = if number(0) & 1 == 0 { DtlsRole::Server } else { DtlsRole::Client };
                self.engines[slot].handle_command(now, Command::OpenTransport(open(id, slot as u8, role)));
            }
            6 => self.engines[slot].handle_command(now, Command::CloseTransport(CloseTransport { transport: id })),
            7 => {
                let restart = RestartIce {
                    transport: id,
                    local_ufrag: ufrag(slot as u8, u64::from(number(0)) & 15),
                    local_pwd: PWD.to_owned(),
                    remote_ufrag: "r".to_owned(),
                    remote_pwd: "p".to_owned(),
                };
                self.engines[slot].handle_command(now, Command::RestartIce(restart));
            }
            8 => self.engines[slot].handle_command(now, publish(id, u64::from(number(4)) & 7, logs())),
            9 => self.engines[slot].handle_command(now, Command::Unpublish(Unpublish { publication: id })),
            10 => self.engines[slot].handle_command(now, subscribe(id, u64::from(number(0)) & 7)),
            11 | 12 => self.engines[slot].handle_command(now, attach(id, u64::from(number(4)) & 7, logs())),
            13 => self.engines[slot].handle_command(now, Command::Detach(Detach { subscription: id })),
            14 => self.engines[slot].handle_command(now, Command::Unsubscribe(Unsubscribe { subscription: id })),
            _ if number(0) & 1 == 1 => {
                let save = SaveRecord { transport: id, record: bytes.to_vec().into() };
                self.engines[slot].handle_command(now, Command::SaveRecord(save));
                let command = MoveTransport { transport: id, slot: number(1) & 3 };
                self.engines[slot].handle_command(now, Command::MoveTransport(command));
            }
            _ => {
                let ask = ReportTransport { transport: id, request: 1 };
                self.engines[slot].handle_command(now, Command::ReportTransport(ask));
            }
        }
        self.run_until_idle();
    }

    fn inject(&mut self, slot: usize, path: Path, bytes: &[u8]) {
        // Whoever has made an authentic check from there is no stranger.
        if bytes.first().is_some_and(|first| *first < 4) {
            self.strangers.retain(|stranger| *stranger != path.remote);
        }
        self.exchanged.entry(path.remote).or_default().0 += bytes.len();
        self.engines[slot].handle_datagram(self.now, path, &mut bytes.to_vec());
    }

    /// An answer to an engine's last request: from the address asked or another, at any slot, naming us, another or nobody.
    fn answer(&mut self, how: u8) {
        let Some((slot, remote, request)) = self.asked.pop() else { return };
        let mapped = [Some(SERVER), None, Some(remote)][usize::from(how >> 2 & 3) % 3];
        let Some(answer) = answer_to(&request, mapped) else { return };
        let from = if how & 2 == 0 { remote } else { path(how >> 4).remote };
        if from == remote {
            self.proven.push(remote);
        }
        self.inject(slot ^ usize::from(how & 1), Path { socket: SocketIndex(0), remote: from }, &answer);
    }

    /// Any content, sealed by a client whose keys are good.
    fn send(&mut self, slot: usize, bytes: &[u8], is_rtcp: bool) {
        let client = &mut self.clients[slot];
        let mut buffer = bytes.to_vec();
        buffer.resize(bytes.len() + SEAL_ROOM, 0);
        let sealed = if is_rtcp {
            client.transport.seal_rtcp(&mut buffer, bytes.len())
        } else {
            let Some(wire) = bytes.get(2..4) else { return };
            // The content chooses its own sequence number: forward, as far as it likes.
            let ahead = u16::from_be_bytes([wire[0], wire[1]]).wrapping_sub(client.index as u16);
            client.index += u64::from(ahead);
            client.transport.seal_rtp(client.index, &mut buffer, bytes.len())
        };
        if let Ok(len) = sealed {
            self.engines[slot].handle_datagram(self.now, client.path, &mut buffer[..len]);
        }
    }

    /// Advances the time, deadline by deadline.
    fn pass(&mut self, span: Span) {
        let until = self.now + span;
        let mut rounds = 0;
        loop {
            let next = self.engines.iter_mut().filter_map(Engine::next_deadline).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            rounds = if next > self.now { 0 } else { rounds + 1 };
            assert!(rounds < MAX_ROUNDS, "an engine spins");
            self.now = self.now.max(next);
            for engine in &mut self.engines {
                engine.handle_deadlines(self.now);
            }
            self.run_until_idle();
        }
        self.now = until;
    }

    fn run_until_idle(&mut self) {
        for _ in 0..4 {
            for (slot, engine) in self.engines.iter_mut().enumerate() {
                engine.handle_inbox(self.now);
                run_steps(engine, self.now);
                let mut full = true;
                while full {
                    full = engine.flush(self.now);
                    for (remote, bytes) in taken(engine.outbox()) {
                        assert!(!self.strangers.contains(&remote), "an answer to a stranger");
                        let is_media = (128..192).contains(&bytes[0]) && !(192..224).contains(&bytes[1]);
                        assert!(is_media || bytes.len() <= 1_200);
                        let (received, sent) = self.exchanged.entry(remote).or_default();
                        *sent += bytes.len();
                        assert!(self.proven.contains(&remote) || *sent <= *received * 3, "{sent} bytes for {received}");
                        if bytes.starts_with(&[0, 1]) {
                            self.asked.push((slot, remote, bytes));
                        }
                    }
                }
                while engine.take_event().is_some() || engine.take_steering().is_some() {}
                engine.take_doorbells();
            }
        }
    }
}

fn run_steps(engine: &mut Engine, now: Time) {
    while let Some(step) = engine.take_step() {
        engine.handle_step(now, step.run());
    }
}

fn taken(outbox: &mut Outbox) -> Vec<(SocketAddr, Vec<u8>)> {
    let (datagrams, bytes) = outbox.queued();
    let taken = datagrams.iter().map(|d| (d.path.remote, bytes[d.start..d.start + d.len].to_vec())).collect();
    outbox.clear();
    taken
}
