//! A box of engines on one arena, its clients and the network between them, in virtual time and from a seed. Owns the
//! clock and every datagram under way; must never decide what is right: the tests do. Read `engine_peer.rs` next.
//!
//! ```text
//! peers ── up: loss, delay, jitter, duplicates ──► engines ── doorbells, rings ──► engines
//!   ▲─────── down: the same, the other way ─────────┘
//! ```

#![allow(dead_code)]
#![allow(clippy::unwrap_used)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::net::SocketAddr;

use millrace_arena::{Arena, Parameters};
use millrace_core::command::{
    Attach, Codec, CodecName, Command, DtlsRole, Encoding, Extension, ExtensionKind, FingerprintHash, Format,
    MediaKind, OpenTransport, Publish, Subscribe, TrackCodec,
};
use millrace_core::config::EngineConfig;
use millrace_core::drop::Drop;
use millrace_core::engine::Engine;
use millrace_core::event::{Cause, Event};
use millrace_core::outbox::{Path, SocketIndex};
use millrace_core::rtp::Header;
use millrace_core::stats::Counter;
use millrace_core::time::{Span, Time};
use millrace_core::transport::srtp::sha1_lanes::{Kernel, portable};
use millrace_core::transport::{DtlsContexts, Profile, Step};

use crate::peer::{Credentials, Peer, client_pwd};
use crate::support::{CLIENT_UFRAG, Identity, SERVER};

pub const VIDEO: Codec =
    Codec { name: CodecName::Vp8, payload_type: 96, rtx_payload_type: Some(97), clock_rate: 90_000 };
pub const AUDIO: Codec = Codec { name: CodecName::Opus, payload_type: 111, rtx_payload_type: None, clock_rate: 48_000 };
/// The viewers' extension ids.
pub const VIEWED_VIDEO: Codec = Codec { payload_type: 120, rtx_payload_type: Some(121), ..VIDEO };
pub const VIEWED_AUDIO: Codec = Codec { payload_type: 109, ..AUDIO };

/// Each codec as viewers number it.
fn viewed(name: CodecName) -> Codec {
    match name {
        CodecName::Opus => VIEWED_AUDIO,
        CodecName::Vp8 => VIEWED_VIDEO,
        name => Codec { name, payload_type: 122, rtx_payload_type: Some(123), ..VIEWED_VIDEO },
    }
}

pub const MID: u8 = 1;
pub const RID: u8 = 2;
pub const REPAIRED_RID: u8 = 3;
pub const TRANSPORT_CC: u8 = 5;
pub const ABS_SEND_TIME: u8 = 6;

/// The longest datagram that an engine may make, in bytes.
const MAX_MADE: usize = 1_200;
/// More rounds than this at one moment are an engine that spins.
const MAX_ROUNDS: usize = 200;

pub fn extensions() -> Vec<Extension> {
    let kinds = [
        (MID, ExtensionKind::Mid),
        (RID, ExtensionKind::Rid),
        (REPAIRED_RID, ExtensionKind::RepairedRid),
        (TRANSPORT_CC, ExtensionKind::TransportCc),
        (ABS_SEND_TIME, ExtensionKind::AbsSendTime),
    ];
    kinds.map(|(id, kind)| Extension { id, kind }).to_vec()
}

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        (self.next() >> 11) as f64 / ((1u64 << 53) as f64) < probability
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }
}

/// One direction of the network.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub loss: f64,
    pub duplicate: f64,
    pub delay: Span,
    /// Added at random, so that packets overtake each other.
    pub jitter: Span,
}

impl Link {
    pub const GOOD: Link = Link { loss: 0.0, duplicate: 0.0, delay: Span::from_millis(10), jitter: Span(0) };
}

enum Flight {
    /// Into the socket of this slot.
    Up(usize, SocketAddr, Vec<u8>),
    Down(SocketAddr, Vec<u8>),
}

/// Packets by who got them, SSRC and sequence number or SRTCP index, and whether they are RTCP.
pub type Sealed = HashMap<(SocketAddr, u32, u32, bool), Vec<u8>>;

/// When an engine dies.
#[derive(Clone, Copy, Debug)]
pub enum Fuse {
    /// After this many more datagrams came in, before their packets are fanned out.
    Received(u64),
    /// After this many more datagrams left, with others in its outbox.
    Sent(u64),
}

#[derive(Clone)]
pub struct Limits {
    pub max_transports: u32,
    pub max_handshakes: u32,
    pub max_addresses: u32,
    pub max_streams: u32,
    pub ice_timeout_ms: u64,
    pub handshake_timeout_ms: u64,
    pub consent_timeout_ms: u64,
    pub media_timeout_ms: u64,
    pub repair_delay_ms: u64,
    pub sessions_per_slot: u32,
    pub logs_per_slot: u32,
    /// What clients offer.
    pub profiles: &'static [Profile],
    /// As the shell finds it on a CPU that has lanes.
    pub kernel: Option<Kernel>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_transports: 100,
            max_handshakes: 100,
            max_addresses: 4,
            max_streams: 8,
            ice_timeout_ms: 15_000,
            handshake_timeout_ms: 10_000,
            consent_timeout_ms: 30_000,
            media_timeout_ms: 10_000,
            repair_delay_ms: 200,
            sessions_per_slot: 64,
            logs_per_slot: 8,
            profiles: &Profile::PREFERRED,
            kernel: Some(portable),
        }
    }
}

pub struct World {
    pub now: Time,
    pub arena: Arena,
    pub engines: Vec<Engine>,
    pub peers: Vec<Peer>,
    pub events: Vec<Vec<Event>>,
    pub up: Link,
    pub down: Link,
    pub random: Random,
    /// Datagrams that each engine sent, and those of them to addresses that no peer has.
    pub sent: Vec<u64>,
    pub sent_nowhere: u64,
    /// Bytes that went to each address, and the last of our requests among them.
    pub sent_to: HashMap<SocketAddr, usize>,
    pub asked: HashMap<SocketAddr, Vec<u8>>,
    /// How often an outbox filled up before everything was in it.
    pub full: u64,
    /// Moments at which something happened.
    pub wakeups: u64,
    /// How long a step of a handshake takes; an engine goes on meanwhile.
    pub computing: Span,
    /// Steps under way: when each is done, and its slot.
    steps: Vec<(Time, usize, Step)>,
    /// The slot of each flow, as the kernel was told.
    pub steered: BTreeMap<SocketAddr, u8>,
    /// Whether what clients send is recorded in `recorded`.
    pub recording: bool,
    pub recorded: Vec<Vec<u8>>,
    /// Slots whose doorbell rang.
    rung: u64,
    pub configs: Vec<EngineConfig>,
    profiles: &'static [Profile],
    kernel: Option<Kernel>,
    /// Slots without a living engine, one bit each; and what waits in their sockets.
    pub dead: u64,
    waiting: Vec<(usize, SocketAddr, Vec<u8>)>,
    pub fuse: Option<(usize, Fuse)>,
    /// Every packet that left, if they are recorded.
    pub sealed: Option<Sealed>,
    /// TCP connections by the client's end, each with the slot that has it; what others send there is lost.
    pub connections: HashMap<SocketAddr, usize>,
    identity: Identity,
    peer_identity: Identity,
    next_id: u64,
    next_flight: u64,
    flights: BinaryHeap<Reverse<(Time, u64)>>,
    flight_by_number: BTreeMap<u64, Flight>,
    /// The addresses of all clients, past ones included.
    known: HashSet<SocketAddr>,
    rounds: usize,
}

impl World {
    pub fn new(slots: u8, seed: u64) -> World {
        World::with_limits(slots, seed, &Limits::default())
    }

    pub fn with_limits(slots: u8, seed: u64, limits: &Limits) -> World {
        let arena = Arena::in_memory(Parameters {
            slots: slots.into(),
            logs_per_slot: limits.logs_per_slot,
            log_packets: 1024,
            handover_packets: 64,
            sessions_per_slot: limits.sessions_per_slot,
            session_bytes: 8_192,
            ..Parameters::SMALL
        });
        let identity = Identity::ecdsa();
        let config = |slot| EngineConfig {
            slot,
            slots,
            adopts: true,
            certificate_pem: identity.certificate_pem.clone(),
            private_key_pem: identity.private_key_pem.clone(),
            max_transports: limits.max_transports,
            max_handshakes: limits.max_handshakes,
            max_addresses: limits.max_addresses,
            max_streams: limits.max_streams,
            ice_timeout_ms: limits.ice_timeout_ms,
            handshake_timeout_ms: limits.handshake_timeout_ms,
            consent_timeout_ms: limits.consent_timeout_ms,
            media_timeout_ms: limits.media_timeout_ms,
            repair_delay_ms: limits.repair_delay_ms,
            advertised: vec![SERVER.to_owned()],
        };
        let configs: Vec<_> = (0..slots).map(config).collect();
        let engine = |config: &EngineConfig| start(config, &arena, limits.kernel);
        World {
            now: Time(3_600_000_000),
            engines: configs.iter().map(engine).collect(),
            configs,
            profiles: limits.profiles,
            kernel: limits.kernel,
            peers: Vec::new(),
            events: (0..slots).map(|_| Vec::new()).collect(),
            up: Link::GOOD,
            down: Link::GOOD,
            random: Random::new(seed),
            sent: vec![0; slots.into()],
            sent_nowhere: 0,
            sent_to: HashMap::new(),
            asked: HashMap::new(),
            full: 0,
            wakeups: 0,
            computing: Span(0),
            steps: Vec::new(),
            steered: BTreeMap::new(),
            recording: false,
            recorded: Vec::new(),
            rung: 0,
            dead: 0,
            waiting: Vec::new(),
            fuse: None,
            sealed: None,
            connections: HashMap::new(),
            identity,
            peer_identity: Identity::ecdsa(),
            next_id: 1,
            next_flight: 0,
            flights: BinaryHeap::new(),
            flight_by_number: BTreeMap::new(),
            known: HashSet::new(),
            rounds: 0,
            arena,
        }
    }

    /// Of the certificate that every client has.
    pub fn peer_fingerprint(&self) -> Vec<u8> {
        self.peer_identity.fingerprint.clone()
    }

    pub fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn command(&mut self, slot: usize, command: Command) {
        self.engines[slot].handle_command(self.now, command);
        self.pass_connections(slot);
        self.run_until_idle();
    }

    /// A client whose transport the engine of `slot` was told of, and which has not sent anything yet.
    pub fn open(&mut self, slot: usize, expects_media: bool) -> usize {
        let fingerprint = self.peer_identity.fingerprint.clone();
        self.open_with(slot, expects_media, DtlsRole::Server, &fingerprint)
    }

    pub fn open_with(&mut self, slot: usize, expects_media: bool, role: DtlsRole, fingerprint: &[u8]) -> usize {
        let transport = self.id();
        let at = self.peers.len();
        let credentials = Credentials::new(slot, transport);
        let command = OpenTransport {
            transport,
            local_ufrag: credentials.ufrag.clone(),
            local_pwd: credentials.pwd.clone(),
            remote_ufrag: CLIENT_UFRAG.into(),
            remote_pwd: client_pwd(transport),
            dtls_role: role,
            fingerprint_hash: FingerprintHash::Sha256,
            fingerprints: vec![serde_bytes::ByteBuf::from(fingerprint)],
            expects_media,
        };
        let theirs = DtlsContexts::with_profiles(
            &self.peer_identity.certificate_pem,
            &self.peer_identity.private_key_pem,
            self.profiles,
        );
        let address = SocketAddr::from(([10, 0, (at >> 8) as u8, at as u8], 4_000));
        self.known.insert(address);
        let role = if role == DtlsRole::Server { DtlsRole::Client } else { DtlsRole::Server };
        let contexts = theirs.unwrap();
        let peer =
            Peer::new(self.now, (slot, transport, address), credentials, role, &contexts, &self.identity.fingerprint);
        self.peers.push(peer);
        self.command(slot, Command::OpenTransport(command));
        at
    }

    /// A connected client on `slot`.
    pub fn connect(&mut self, slot: usize) -> usize {
        let at = self.open(slot, false);
        self.start(at);
        self.run_until(5_000, |world| world.is_connected(at));
        at
    }

    /// Has a client send its first check.
    pub fn start(&mut self, peer: usize) {
        self.peers[peer].check_at = Some(self.now);
    }

    pub fn is_connected(&self, peer: usize) -> bool {
        let Peer { slot, id, .. } = self.peers[peer];
        let is_ours = |event: &Event| matches!(event, Event::TransportConnected(event) if event.transport == id);
        self.peers[peer].transport.is_connected() && self.events[slot].iter().any(is_ours)
    }

    /// The cause with which the engine closed this client's transport.
    pub fn closed(&self, peer: usize) -> Option<Cause> {
        let Peer { slot, id, .. } = self.peers[peer];
        self.events[slot].iter().find_map(|event| match event {
            Event::TransportClosed(closed) if closed.transport == id => Some(closed.cause),
            _ => None,
        })
    }

    pub fn stalled(&self, peer: usize) -> Option<Cause> {
        let Peer { slot, id, .. } = self.peers[peer];
        self.events[slot].iter().find_map(|event| match event {
            Event::TransportStalled(stalled) if stalled.transport == id => Some(stalled.cause),
            _ => None,
        })
    }

    pub fn failures(&self) -> Vec<String> {
        let failed = self.events.iter().flatten().filter_map(|event| match event {
            Event::CommandFailed(failed) => Some(format!("{} {}: {}", failed.command, failed.id, failed.reason)),
            _ => None,
        });
        failed.collect()
    }

    /// A publication of one encoding of each of these rids.
    pub fn publish_with(&mut self, peer: usize, codec: Codec, mid: &str, rids: &[Option<&str>], log: u32) -> Publish {
        let publication = self.id();
        let is_audio = codec.name == CodecName::Opus;
        let encodings = rids.iter().zip(log..).map(|(rid, log)| Encoding {
            rid: rid.map(String::from),
            ssrc: None,
            rtx_ssrc: None,
            log,
        });
        let publish = Publish {
            publication,
            transport: self.peers[peer].id,
            kind: if is_audio { MediaKind::Audio } else { MediaKind::Video },
            mid: mid.into(),
            codec,
            encodings: encodings.collect(),
            extensions: extensions(),
            nack: true,
            pli: true,
            fir: false,
            codecs: vec![],
            parameter_sets: Default::default(),
        };
        self.command(self.peers[peer].slot, Command::Publish(publish.clone()));
        publish
    }

    pub fn publish(&mut self, peer: usize, codec: Codec, log: u32) -> Publish {
        let mid = if codec.name == CodecName::Opus { "a" } else { "v" };
        self.publish_with(peer, codec, mid, &[None], log)
    }

    /// A subscription that nothing is attached to; its SSRC is its id.
    pub fn subscribe(&mut self, peer: usize, kind: MediaKind) -> u64 {
        let subscription = self.id();
        let mut listed = extensions();
        listed.iter_mut().for_each(|extension| extension.id += 6);
        let subscribe = Subscribe {
            subscription,
            transport: self.peers[peer].id,
            kind,
            mid: "m".into(),
            ssrc: subscription as u32 + 1_000_000,
            rtx_ssrc: (kind == MediaKind::Video).then_some(subscription as u32 + 2_000_000),
            cname: "room".into(),
            extensions: listed,
        };
        self.peers[peer].expect(&subscribe);
        self.command(self.peers[peer].slot, Command::Subscribe(subscribe));
        subscription
    }

    pub fn attach(&mut self, peer: usize, subscription: u64, publish: &Publish) {
        let formats = publish
            .codecs
            .iter()
            .map(|TrackCodec { codec, .. }| Format { payload_type: codec.payload_type, codec: viewed(codec.name) });
        let attach = Attach {
            subscription,
            publication: publish.publication,
            logs: publish.encodings.iter().map(|encoding| encoding.log).collect(),
            codec: viewed(publish.codec.name),
            source_extensions: publish.extensions.clone(),
            formats: formats.collect(),
        };
        self.command(self.peers[peer].slot, Command::Attach(attach));
    }

    /// A subscription that takes this publication; its SSRC.
    pub fn watch(&mut self, peer: usize, publish: &Publish) -> u32 {
        let subscription = self.subscribe(peer, publish.kind);
        self.attach(peer, subscription, publish);
        subscription as u32 + 1_000_000
    }

    /// Changes a client's address, as a NAT does that forgot the old one.
    pub fn rebind(&mut self, peer: usize) -> SocketAddr {
        let old = self.peers[peer].address;
        let address = SocketAddr::new(old.ip(), old.port() + 1);
        self.peers[peer].address = address;
        self.known.insert(address);
        address
    }

    /// Has a client go on over a new TCP connection, which this slot accepts. What it had before is over.
    pub fn dial(&mut self, peer: usize, slot: usize) -> SocketAddr {
        self.hang_up(peer);
        let address = self.rebind(peer);
        self.connections.insert(address, slot);
        address
    }

    /// Ends a client's TCP connection, if it has one, and tells whoever has it.
    pub fn hang_up(&mut self, peer: usize) {
        let remote = self.peers[peer].address;
        if let Some(slot) = self.connections.remove(&remote).filter(|slot| !self.is_dead(*slot)) {
            self.engines[slot].handle_connection_closed(self.now, tcp_path(remote));
            self.run_until_idle();
        }
    }

    /// Passes connections on, as reactors do after each packet and each command.
    fn pass_connections(&mut self, slot: usize) -> Option<usize> {
        let mut target = None;
        while let Some(pass) = self.engines[slot].take_pass() {
            if let Some(holder) = self.connections.get_mut(&pass.path.remote).filter(|holder| **holder == slot) {
                *holder = pass.slot.into();
                target = Some(pass.slot.into());
            }
        }
        target
    }

    pub fn stat(&self, counter: Counter) -> u64 {
        self.engines.iter().map(|engine| engine.stats().get(counter)).sum()
    }

    pub fn drops(&self, drop: Drop) -> u64 {
        self.engines.iter().map(|engine| engine.stats().drops(drop)).sum()
    }

    /// Ends a slot's engine as a kill does: it sends nothing more, and what it held is lost.
    pub fn kill(&mut self, slot: usize) {
        self.dead |= 1 << slot;
        self.fuse = self.fuse.filter(|(fused, _)| *fused != slot);
        self.engines[slot].outbox().clear();
        self.steps.retain(|(_, whose, _)| *whose != slot);
    }

    /// A new engine in a dead one's place, which then reads what waits in the slot's socket.
    pub fn succeed(&mut self, slot: usize) {
        let config = self.configs[slot].clone();
        self.engines[slot] = start(&config, &self.arena, self.kernel);
        self.engines[slot].adopt(self.now);
        self.dead &= !(1 << slot);
        // A reactor looks into its inbox at its start.
        self.rung |= 1 << slot;
        let waiting = std::mem::take(&mut self.waiting);
        for (to, remote, bytes) in waiting {
            self.receive(to, remote, bytes);
        }
        self.run_until_idle();
    }

    fn is_dead(&self, slot: usize) -> bool {
        self.dead >> slot & 1 == 1
    }

    fn receive(&mut self, slot: usize, remote: SocketAddr, mut bytes: Vec<u8>) {
        if self.is_dead(slot) {
            return self.waiting.push((slot, remote, bytes));
        }
        if let Some(&holder) = self.connections.get(&remote) {
            if self.is_dead(holder) {
                return;
            }
            self.engines[holder].handle_datagram(self.now, tcp_path(remote), &mut bytes);
            if self.pass_connections(holder).is_some() {
                // With the packet at hand.
                self.receive(slot, remote, bytes);
            }
            return;
        }
        let path = Path { socket: SocketIndex(0), remote };
        self.engines[slot].handle_datagram(self.now, path, &mut bytes);
        match &mut self.fuse {
            Some((fused, Fuse::Received(0))) if *fused == slot => self.kill(slot),
            Some((fused, Fuse::Received(left))) if *fused == slot => *left -= 1,
            _ => {}
        }
    }

    /// Fails the test when one index covers two packets: with GCM that gives the key away.
    fn check_index(&mut self, remote: SocketAddr, bytes: &[u8]) {
        let Some(sealed) = self.sealed.as_mut().filter(|_| (128..192).contains(&bytes[0])) else { return };
        let is_rtcp = (192..224).contains(&bytes[1]);
        let word = |at: usize| u32::from_be_bytes(*bytes[at..].first_chunk().unwrap());
        // Clients of these tests take AES-GCM, whose SRTCP index comes last.
        let (ssrc, index) = if is_rtcp { (0, word(bytes.len() - 4)) } else { (word(8), u32::from(word(0) as u16)) };
        let before = sealed.insert((remote, ssrc, index, is_rtcp), bytes.to_vec());
        assert!(before.is_none_or(|before| before == bytes), "index {index} of {ssrc} was used twice");
    }

    /// Throws a datagram at a slot's socket from anywhere.
    pub fn inject(&mut self, slot: usize, remote: SocketAddr, bytes: &[u8]) {
        let path = Path { socket: SocketIndex(0), remote };
        self.engines[slot].handle_datagram(self.now, path, &mut bytes.to_vec());
        self.run_until_idle();
    }

    /// As `inject`, over a connection.
    pub fn inject_over_tcp(&mut self, remote: SocketAddr, bytes: &[u8]) {
        self.receive(0, remote, bytes.to_vec());
        self.run_until_idle();
    }

    pub fn run_for(&mut self, ms: u64) {
        let until = self.now + Span::from_millis(ms);
        while self.step(until) {}
    }

    /// Runs until `done` is true. Fails the test when that takes longer than this many milliseconds.
    #[track_caller]
    pub fn run_until(&mut self, ms: u64, done: impl Fn(&World) -> bool) {
        let until = self.now + Span::from_millis(ms);
        while !done(self) {
            assert!(self.step(until), "not within {ms} ms");
        }
    }

    /// Advances the time to the next moment at which something happens; at most to `until`, and then returns false.
    fn step(&mut self, until: Time) -> bool {
        let flight = self.flights.peek().map(|Reverse((at, _))| *at);
        let dead = self.dead;
        let alive = self.engines.iter_mut().enumerate().filter(|(slot, _)| dead >> slot & 1 == 0);
        let engines = alive.filter_map(|(_, engine)| engine.next_deadline());
        let peers = self.peers.iter().filter_map(Peer::next_deadline);
        let steps = self.steps.iter().map(|(at, _, _)| *at);
        let next = engines.chain(peers).chain(flight).chain(steps).min();
        let Some(next) = next.filter(|next| *next <= until) else {
            self.now = until;
            return false;
        };
        self.rounds = if next > self.now { 0 } else { self.rounds + 1 };
        assert!(self.rounds < MAX_ROUNDS, "time stands still");
        self.now = self.now.max(next);
        self.wakeups += 1;
        self.deliver();
        for peer in &mut self.peers {
            peer.handle_deadlines(self.now);
        }
        self.collect_from_peers();
        for (_, engine) in self.engines.iter_mut().enumerate().filter(|(slot, _)| dead >> slot & 1 == 0) {
            if engine.next_deadline().is_some_and(|at| at <= self.now) {
                engine.handle_deadlines(self.now);
            }
        }
        self.run_until_idle();
        true
    }

    fn deliver(&mut self) {
        while let Some(&Reverse((at, number))) = self.flights.peek() {
            if at > self.now {
                return;
            }
            self.flights.pop();
            match self.flight_by_number.remove(&number) {
                Some(Flight::Up(slot, remote, bytes)) => self.receive(slot, remote, bytes),
                Some(Flight::Down(remote, mut bytes)) => {
                    if let Some(peer) = self.peers.iter_mut().find(|peer| peer.address == remote) {
                        peer.handle_datagram(self.now, &mut bytes);
                    }
                }
                None => {}
            }
        }
    }

    fn collect_from_peers(&mut self) {
        for at in 0..self.peers.len() {
            for bytes in self.peers[at].take_sent() {
                let (slot, address) = (self.peers[at].enters_at, self.peers[at].address);
                let link = self.peers[at].up.unwrap_or(self.up);
                if self.recording {
                    self.recorded.push(bytes.clone());
                }
                self.send(link, |bytes| Flight::Up(slot, address, bytes), bytes);
            }
        }
    }

    fn send(&mut self, link: Link, flight: impl Fn(Vec<u8>) -> Flight, bytes: Vec<u8>) {
        let copies = if self.random.chance(link.loss) { 0 } else { 1 + u64::from(self.random.chance(link.duplicate)) };
        for _ in 0..copies {
            let at = self.now + link.delay + Span(self.random.below(link.jitter.0 + 1));
            self.next_flight += 1;
            self.flights.push(Reverse((at, self.next_flight)));
            self.flight_by_number.insert(self.next_flight, flight(bytes.clone()));
        }
    }

    /// Lets the engines finish what they have begun, as their reactors do after every wake-up: inboxes of those whose
    /// doorbell rang, fan-out, and the sending.
    pub fn run_until_idle(&mut self) {
        self.collect_from_peers();
        loop {
            for slot in 0..self.engines.len() {
                if self.is_dead(slot) {
                    self.rung &= !(1 << slot);
                    continue;
                }
                if self.rung & 1 << slot != 0 {
                    self.rung &= !(1 << slot);
                    self.engines[slot].handle_inbox(self.now);
                    self.rung |= u64::from(self.engines[slot].has_inbox()) << slot;
                }
                self.compute(slot);
                while !self.is_dead(slot) && self.engines[slot].flush(self.now) {
                    assert!(self.drain(slot) > 0 || self.is_dead(slot), "a full outbox with nothing in it");
                    self.full += 1;
                }
                self.drain(slot);
                if self.is_dead(slot) {
                    continue;
                }
                self.rung |= self.engines[slot].take_doorbells();
                self.events[slot].extend(std::iter::from_fn(|| self.engines[slot].take_event()));
                while let Some(steer) = self.engines[slot].take_steering() {
                    match steer.owner {
                        Some(owner) => self.steered.insert(steer.path.remote, owner),
                        None => self.steered.remove(&steer.path.remote),
                    };
                }
            }
            if self.rung == 0 {
                return;
            }
        }
    }

    /// What is due of handshakes; at once where that takes no time.
    fn compute(&mut self, slot: usize) {
        loop {
            let done = self.now + self.computing;
            self.steps.extend(std::iter::from_fn(|| self.engines[slot].take_step()).map(|step| (done, slot, step)));
            let is_due = |(at, whose, _): &(Time, usize, Step)| *whose == slot && *at <= self.now;
            let Some(position) = self.steps.iter().position(is_due) else { return };
            let (_, _, step) = self.steps.remove(position);
            self.engines[slot].handle_step(self.now, step.run());
        }
    }

    fn drain(&mut self, slot: usize) -> usize {
        let (datagrams, bytes) = self.engines[slot].outbox().queued();
        let (connections, dead) = (&self.connections, self.dead);
        let arrives = |path: &Path| {
            !path.socket.is_tcp() || dead >> slot & 1 == 0 && connections.get(&path.remote) == Some(&slot)
        };
        let sent = datagrams.iter().filter(|datagram| arrives(&datagram.path));
        let mut sent: Vec<_> = sent.map(|d| (d.path.remote, bytes[d.start..][..d.len].to_vec())).collect();
        let lost = datagrams.len() - sent.len();
        self.engines[slot].outbox().clear();
        self.engines[slot].handle_sent(self.now);
        let left = match self.fuse {
            Some((fused, Fuse::Sent(left))) if fused == slot => left,
            _ => u64::MAX,
        };
        let dies = left <= sent.len() as u64 && !sent.is_empty();
        sent.truncate(left.min(sent.len() as u64) as usize);
        if dies {
            self.kill(slot);
        } else if let Some((_, Fuse::Sent(left))) = self.fuse.as_mut().filter(|(fused, _)| *fused == slot) {
            *left -= sent.len() as u64;
        }
        for (remote, bytes) in &sent {
            self.check_index(*remote, bytes);
            let is_media = (128..192).contains(&bytes[0]) && !(192..224).contains(&bytes[1]);
            assert!(is_media || bytes.len() <= MAX_MADE, "{} bytes of our own making", bytes.len());
            self.sent[slot] += 1;
            self.sent_nowhere += u64::from(!self.known.contains(remote));
            *self.sent_to.entry(*remote).or_default() += bytes.len();
            if bytes.starts_with(&[0, 1]) {
                self.asked.insert(*remote, bytes.clone());
            }
        }
        let count = sent.len();
        for (remote, bytes) in sent {
            let peer = self.peers.iter().find(|peer| peer.address == remote);
            let link = peer.and_then(|peer| peer.down).unwrap_or(self.down);
            self.send(link, |bytes| Flight::Down(remote, bytes), bytes);
        }
        count + lost
    }
}

fn tcp_path(remote: SocketAddr) -> Path {
    Path { socket: SocketIndex(SocketIndex::TCP), remote }
}

fn start(config: &EngineConfig, arena: &Arena, kernel: Option<Kernel>) -> Engine {
    let mut engine = Engine::new(config.clone(), arena.clone()).unwrap();
    if let Some(kernel) = kernel {
        engine.use_lanes(kernel);
    }
    engine
}

/// The number that a payload carries (`engine_peer.rs` writes it).
pub fn number(packet: &[u8]) -> Option<u64> {
    let header = Header::parse(packet).ok()?;
    header.payload(packet).get(2..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}
