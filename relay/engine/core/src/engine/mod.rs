//! The three tables (clients, publications, subscriptions), and what a transport's events change in them. The transport half
//! and the forwarding half meet in this folder only; this file holds no protocol. Read `ingress.rs` next for a datagram's way
//! in, then `fan_out.rs` for a packet's way out.
//!
//! `Engine` is one struct, and each file has the methods of one task:
//!
//! | file | `impl Engine` for |
//! |---|---|
//! | this one | making, deadlines, a transport's events, the end of a client |
//! | `commands.rs` | commands of the control plane |
//! | `ingress.rs` | a datagram's way in, hand-over to other workers |
//! | `handshakes.rs` | the steps of DTLS handshakes |
//! | `eviction.rs` | which handshake makes room when there are too many |
//! | `feedback.rs` | RTCP, both ways |
//! | `fan_out.rs` | a packet's way out |
//! | `inbox.rs` | messages and datagrams of other workers |
//! | `records.rs` | saving sessions |
//! | `adoption.rs` | adopting saved sessions |
//! | `moves.rs` | moving a session to another worker |
//! | `connections.rs` | TCP connections: whose they are, which of them another worker needs |
//! | `rebinding.rs` | media from addresses that nobody knows |
//! | `silence.rs` | publishers that send nothing |
//!
//! `client.rs` and `tables.rs` have no method of `Engine`: a client, and the tables with their keys.

mod adoption;
mod client;
mod commands;
mod connections;
mod eviction;
mod fan_out;
mod feedback;
mod handshakes;
mod inbox;
mod ingress;
mod moves;
mod rebinding;
mod records;
mod silence;
pub mod tables;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use millrace_arena::Arena;

use self::client::Client;
use self::connections::Pass;
use self::eviction::Candidate;
use self::moves::Move;
use self::rebinding::Rebinding;
use self::records::Records;
use self::tables::{ClientKey, PublicationKey, SubscriptionKey, Table};
use crate::command::{Attach, Publish, Subscribe};
use crate::config::EngineConfig;
use crate::deadlines::Deadlines;
use crate::drop::Drop;
use crate::event::{Cause, Event, TransportClosed, TransportConnected, TransportStalled};
use crate::forward::feed::{Feed, Scratch};
use crate::forward::key_frames::Wish;
use crate::forward::publication::Publication;
use crate::forward::subscription::Subscription;
use crate::id_map::IdMap;
use crate::outbox::{Outbox, Path};
use crate::stats::{Counter, Histogram, Stats};
use crate::time::{Span, Time};
use crate::transport::proof::Prover;
use crate::transport::srtp::sha1_lanes::Kernel;
use crate::transport::{DtlsContexts, Limits, Step, Tags, TransportEvent};

/// Datagrams that the outbox holds. At 1,200 bytes each these are 40 frames of 100 packets, more than a wake-up brings in practice.
const OUTBOX_DATAGRAMS: usize = 4_096;
const OUTBOX_BYTES: usize = OUTBOX_DATAGRAMS * 1_280;
/// Packets of one log that are fanned out at a time.
const BATCH: usize = 32;
/// The least time between two looks at one client's deadlines: what could not be sent is not tried again in the same wake-up.
const MIN_WAKE_INTERVAL: Span = Span::from_millis(1);
/// Room for the largest datagram that is built here: a full track log entry with its headers and tag.
const DATAGRAM_ROOM: usize = 1_664;

/// What begins at zero with each worker.
const GAUGES: [Counter; 6] = [
    Counter::Transports,
    Counter::Publications,
    Counter::Subscriptions,
    Counter::Handshakes,
    Counter::PublishersSilent,
    Counter::TcpConnections,
];

/// A flow that the kernel should deliver to one worker from now on; `None` forgets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steer {
    pub path: Path,
    pub owner: Option<u8>,
}

/// A publication, and what belongs to it.
struct Published {
    publication: Publication,
    /// The command that opened it.
    publish: Publish,
    client: ClientKey,
    /// Waits in `advanced`.
    has_news: bool,
}

struct Subscribed {
    subscription: Subscription,
    /// The command that opened it.
    subscribe: Subscribe,
    /// The command that attached it last.
    attach: Option<Attach>,
    /// The number of its words among those beside the client's session record.
    words: Option<u32>,
    client: ClientKey,
}

/// A track log that this worker reads, and the subscriptions that it feeds.
struct Reading {
    feed: Feed,
    subscriptions: Vec<SubscriptionKey>,
    /// Waits in `dirty`.
    is_dirty: bool,
}

pub struct Engine {
    slot: u8,
    slots: u8,
    arena: Arena,
    contexts: DtlsContexts,
    limits: Limits,
    prover: Arc<Prover>,
    /// Whether the sessions of the slot's last worker are adopted. Otherwise they are dropped.
    adopts: bool,
    /// What a viewer's player is asked to wait on a lossy path.
    repair_delay: Span,
    max_transports: usize,
    max_handshakes: usize,
    stats: Stats,

    clients: Table<ClientKey, Client>,
    client_by_id: IdMap<u64, ClientKey>,
    client_by_ufrag: HashMap<String, ClientKey>,
    client_by_path: HashMap<Path, ClientKey>,
    rebinding: Rebinding,
    handshakes: usize,
    /// When a handshake that makes no progress is looked for again.
    next_eviction_at: Time,
    /// Room for that search, kept so that it allocates once.
    candidates: Vec<Candidate>,
    /// Publishers of whose silence the control plane was told.
    silent: u64,
    /// Steps of handshakes that are to be run.
    steps: VecDeque<Step>,
    records: Records,
    /// Moves to other slots whose outcome is not known yet.
    moves: Vec<Move>,
    /// Clients whose session record has to be written.
    unsaved: Vec<ClientKey>,

    publications: Table<PublicationKey, Published>,
    publication_by_id: IdMap<u64, PublicationKey>,
    publication_by_log: IdMap<u32, PublicationKey>,

    subscriptions: Table<SubscriptionKey, Subscribed>,
    subscription_by_id: IdMap<u64, SubscriptionKey>,
    readings: IdMap<u32, Reading>,

    /// Publications whose logs have advanced since their readers were told last.
    advanced: Vec<PublicationKey>,
    /// Logs with packets to fan out.
    dirty: VecDeque<u32>,
    /// The log whose batch lies in `batch`, and how many of its subscriptions have had it.
    fanning: Option<(u32, usize)>,
    /// Subscriptions that may have repairs or a replay to send.
    backlog: Vec<SubscriptionKey>,
    /// Logs of which a subscription waits for a key frame; their writers are to be told.
    wanted: Vec<Wish>,
    batch: Scratch,
    single: Scratch,
    /// How many packets in the outbox arrived at which time, for `handle_sent`.
    forwarded: Vec<(Time, u64)>,

    deadlines: Deadlines<ClientKey>,
    /// When to open again the logs that were not open yet when a subscription was attached.
    reconnect_at: Option<Time>,
    outbox: Outbox,
    /// Tags that packets in the outbox still lack. Empty between two calls.
    tags: Tags,
    events: VecDeque<Event>,
    steering: VecDeque<Steer>,
    /// TCP connections that other workers are to have.
    passes: VecDeque<Pass>,
    doorbells: u64,
}

impl Engine {
    /// An engine without clients; `adopt` adopts those of a predecessor. An error when the certificate or key does not parse, or
    /// the slot numbers do not fit the arena.
    pub fn new(config: EngineConfig, arena: Arena) -> Result<Engine, String> {
        let slots = arena.parameters().slots;
        if config.slot >= config.slots || u32::from(config.slots) != slots {
            return Err(format!("slot {} of {} does not fit an arena of {slots} slots", config.slot, config.slots));
        }
        let parsed: Result<Vec<SocketAddr>, _> = config.advertised.iter().map(|address| address.parse()).collect();
        let advertised = parsed.map_err(|_| format!("expected addresses with ports, not {:?}", config.advertised))?;
        let contexts = DtlsContexts::new(&config.certificate_pem, &config.private_key_pem)?;
        let limits = Limits {
            max_addresses: config.max_addresses as usize,
            max_streams: config.max_streams as usize,
            ice_timeout: Span::from_millis(config.ice_timeout_ms),
            handshake_timeout: Span::from_millis(config.handshake_timeout_ms),
            consent_timeout: Span::from_millis(config.consent_timeout_ms),
            media_timeout: Span::from_millis(config.media_timeout_ms),
        };
        let stats = Stats::new(arena.clone(), config.slot);
        for gauge in GAUGES {
            stats.set(gauge, 0);
        }
        Ok(Engine {
            slot: config.slot,
            slots: config.slots,
            contexts,
            prover: Arc::new(Prover::new(&config.private_key_pem, advertised)),
            limits,
            adopts: config.adopts,
            repair_delay: Span::from_millis(config.repair_delay_ms),
            max_transports: config.max_transports as usize,
            max_handshakes: config.max_handshakes as usize,
            stats,
            arena,
            clients: Table::default(),
            client_by_id: IdMap::default(),
            client_by_ufrag: HashMap::new(),
            client_by_path: HashMap::new(),
            rebinding: Rebinding::default(),
            handshakes: 0,
            next_eviction_at: Time::default(),
            candidates: Vec::new(),
            silent: 0,
            steps: VecDeque::new(),
            records: Records::new(config.slot),
            moves: Vec::new(),
            unsaved: Vec::new(),
            publications: Table::default(),
            publication_by_id: IdMap::default(),
            publication_by_log: IdMap::default(),
            subscriptions: Table::default(),
            subscription_by_id: IdMap::default(),
            readings: IdMap::default(),
            advanced: Vec::new(),
            dirty: VecDeque::new(),
            fanning: None,
            backlog: Vec::new(),
            wanted: Vec::new(),
            batch: Scratch::new(BATCH),
            single: Scratch::new(BATCH),
            forwarded: Vec::new(),
            deadlines: Deadlines::default(),
            reconnect_at: None,
            outbox: Outbox::new(OUTBOX_BYTES, OUTBOX_DATAGRAMS),
            tags: Tags::default(),
            events: VecDeque::new(),
            steering: VecDeque::new(),
            passes: VecDeque::new(),
            doorbells: 0,
        })
    }

    /// Computes tags side by side from now on, by code that suits this CPU.
    pub fn use_lanes(&mut self, kernel: Kernel) {
        self.tags = Tags::new(Some(kernel));
    }

    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    pub fn take_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The slots to ring the doorbell of if they sleep, one bit each.
    pub fn take_doorbells(&mut self) -> u64 {
        std::mem::take(&mut self.doorbells)
    }

    pub fn take_steering(&mut self) -> Option<Steer> {
        self.steering.pop_front()
    }

    /// When to call `handle_deadlines` at the latest.
    pub fn next_deadline(&mut self) -> Option<Time> {
        [self.deadlines.earliest(), self.reconnect_at, self.next_move_expiry()].into_iter().flatten().min()
    }

    /// Handles what is due: timeouts, consent, retransmission of handshakes, feedback to publishers, sender reports.
    pub fn handle_deadlines(&mut self, now: Time) {
        while let Some(key) = self.deadlines.take_due(now) {
            if !self.clients.contains(key) {
                continue;
            }
            self.clients[key].transport.handle_deadline(now, &mut self.outbox);
            self.handle_transport_events(now, key);
            if self.clients.contains(key) {
                self.end_publications(now, key);
                self.look_for_silence(now, key);
                self.report(now, key);
                self.repeat_wishes(now, key);
                self.schedule(now, key);
            }
        }
        if self.reconnect_at.is_some_and(|at| at <= now) {
            self.reconnect(now);
        }
        if self.next_move_expiry().is_some_and(|at| at <= now) {
            self.expire_moves(now);
        }
    }

    /// True while a client is between its first DTLS record and its keys.
    pub fn is_shaking_hands(&self) -> bool {
        self.handshakes > 0
    }

    /// Closes every transport: the outbox then holds BYE and close_notify for each client, and there is an event for each.
    pub fn close(&mut self, now: Time) {
        let keys: Vec<ClientKey> = self.clients.keys().collect();
        for key in keys {
            self.say_bye(key);
            self.clients[key].transport.close(now, &mut self.outbox);
            self.handle_transport_events(now, key);
        }
    }

    /// Has a client's transport ask new addresses back, under a number that leads the answers here.
    fn ask_with_prover(&mut self, key: ClientKey) {
        let number = u32::from(self.slot) << 24 | usize::from(key) as u32 & 0xFF_FFFF;
        self.clients[key].transport.ask_with(&self.prover, number);
    }

    fn schedule(&mut self, now: Time, key: ClientKey) {
        let client = &self.clients[key];
        let publications = client.publications.iter().map(|key| self.publications[*key].publication.next_deadline());
        let subscriptions =
            client.subscriptions.iter().map(|key| self.subscriptions[*key].subscription.next_deadline());
        let rest = [client.transport.next_deadline(), client.arrivals.next_deadline(), client.silence.next_deadline()];
        if let Some(at) = publications.chain(subscriptions).chain(rest).flatten().min() {
            self.deadlines.wake_by(key, at.max(now + MIN_WAKE_INTERVAL));
        }
    }

    /// Handles the events of a transport. To be called after every call of the transport that changes it.
    fn handle_transport_events(&mut self, now: Time, key: ClientKey) {
        while let Some(event) = self.clients[key].transport.next_event() {
            let transport = self.clients[key].transport.id();
            match event {
                TransportEvent::AddressChecked(path) => self.handle_checked(key, path),
                TransportEvent::AddressProven(path) => self.handle_proven(key, path),
                TransportEvent::AddressForgotten(path) => self.handle_forgotten(key, path),
                TransportEvent::TooManyAddresses => self.count_drop(Some(key), Drop::TooManyAddresses),
                TransportEvent::HeldBack => self.count_drop(Some(key), Drop::UnprovenAddress),
                TransportEvent::ProofAsked => self.stats.add(Counter::ProofsAsked, 1),
                TransportEvent::ProofAnswered => {
                    self.stats.add(Counter::ProofsAnswered, 1);
                    self.list_if_unchecked(now, key);
                }
                TransportEvent::ProofGivenUp => {
                    self.stats.add(Counter::ProofsGivenUp, 1);
                    self.list_if_unchecked(now, key);
                }
                TransportEvent::MoveRefused => self.stats.add(Counter::AddressMovesRefused, 1),
                TransportEvent::HabitLearnt => self.mark_unsaved(key),
                TransportEvent::UfragForgotten(ufrag) => {
                    self.clients[key].ufrags.retain(|known| *known != ufrag);
                    self.client_by_ufrag.remove(&ufrag);
                    self.disclaim_ufrag(&ufrag);
                    self.mark_unsaved(key);
                }
                TransportEvent::Connected { profile, dtls_version, handshake } => {
                    self.stats.add(Counter::HandshakesDone, 1);
                    self.stats.observe(Histogram::Handshake, handshake, 1);
                    self.clients[key].profile = Some(profile.name().to_owned());
                    self.mark_unsaved(key);
                    self.events.push_back(Event::TransportConnected(TransportConnected {
                        transport,
                        srtp_profile: profile.name().to_owned(),
                        dtls_version: dtls_version.to_owned(),
                        handshake_us: handshake.0,
                    }));
                    for subscription in self.clients[key].subscriptions.clone() {
                        self.join(now, subscription);
                    }
                }
                TransportEvent::Stalled(cause) => {
                    self.stats.count_failure(cause);
                    self.events.push_back(Event::TransportStalled(TransportStalled { transport, cause }));
                }
                TransportEvent::Closed(cause) => {
                    self.remove_client(key, cause);
                    return;
                }
            }
        }
        self.steps.extend(self.clients[key].transport.take_step());
        self.count_handshakes(key);
    }

    /// Its datagrams come here, unless they are somebody's already: a check proves nothing about its source.
    fn handle_checked(&mut self, key: ClientKey, path: Path) {
        self.clients[key].paths.push(path);
        self.mark_unsaved(key);
        if !self.client_by_path.contains_key(&path) && self.owner_of(path).is_none() {
            self.claim(key, path);
        }
    }

    fn handle_proven(&mut self, key: ClientKey, path: Path) {
        self.mark_unsaved(key);
        self.claim(key, path);
    }

    /// Makes the address this client's: in our own table, in the arena's and in the kernel's.
    fn claim(&mut self, key: ClientKey, path: Path) {
        self.client_by_path.insert(path, key);
        if !self.arena.addresses().insert(path.socket.0, path.remote, self.slot) {
            self.count_drop(Some(key), Drop::AddressTableFull);
        }
        self.steer(path, Some(self.slot));
    }

    fn handle_forgotten(&mut self, key: ClientKey, path: Path) {
        self.clients[key].paths.retain(|known| *known != path);
        self.mark_unsaved(key);
        if self.client_by_path.get(&path) == Some(&key) {
            self.client_by_path.remove(&path);
            // A NAT may have given the address to a client of another slot meanwhile. Then the flow is that slot's.
            if self.owner_of(path).is_none_or(|owner| owner == self.slot) {
                self.arena.addresses().remove(path.socket.0, &path.remote, self.slot);
                self.steer(path, None);
            }
        }
    }

    fn remove_client(&mut self, key: ClientKey, cause: Cause) {
        for publication in std::mem::take(&mut self.clients[key].publications) {
            self.remove_publication(publication);
        }
        for subscription in std::mem::take(&mut self.clients[key].subscriptions) {
            self.remove_subscription(subscription);
        }
        for path in self.clients[key].paths.clone() {
            self.handle_forgotten(key, path);
        }
        self.deadlines.forget(key);
        self.forget_silence(key);
        self.unlist(key);
        let client = self.clients.remove(key);
        if client.is_handshaking {
            self.handshakes -= 1;
            self.stats.set(Counter::Handshakes, self.handshakes as u64);
        }
        self.free_record(client.record);
        let transport = client.transport.id();
        self.client_by_id.remove(&transport);
        for ufrag in client.ufrags {
            self.client_by_ufrag.remove(&ufrag);
            self.disclaim_ufrag(&ufrag);
        }
        if cause.is_failure() {
            self.stats.count_failure(cause);
        }
        self.stats.set(Counter::Transports, self.clients.len() as u64);
        self.events.push_back(Event::TransportClosed(TransportClosed { transport, cause }));
    }

    /// Has the kernel deliver a flow to its owner. A connection has a descriptor instead.
    fn steer(&mut self, path: Path, owner: Option<u8>) {
        if !path.socket.is_tcp() {
            self.steering.push_back(Steer { path, owner });
        }
    }

    /// The slot of the client that proved this address last.
    fn owner_of(&self, path: Path) -> Option<u8> {
        self.arena.addresses().find(path.socket.0, &path.remote).filter(|owner| *owner < self.slots)
    }

    fn count_drop(&mut self, key: Option<ClientKey>, drop: Drop) {
        self.stats.count_drop(drop);
        if let Some(key) = key {
            self.clients[key].traffic.count_drop(drop);
        }
    }
}
