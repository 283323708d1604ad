//! One client: its transport, and the keys of its publications and subscriptions. Owns no table; must never touch another
//! client. Read `mod.rs` next, which has the table of clients.

use std::collections::VecDeque;

use millrace_arena::prefetch;

use super::silence::Silence;
use super::{PublicationKey, SubscriptionKey};
use crate::command::{ExtensionKind, Publish};
use crate::congestion::arrivals::Arrivals;
use crate::drop::Drop;
use crate::forward::publication::streams::Streams;
use crate::outbox::Path;
use crate::time::Time;
use crate::transport::Transport;

/// Datagrams that may wait for one step of a handshake: a frame of 64 packets; more are dropped. An answer to our last flight takes a
/// round trip, so that the queue is rarely used.
const MAX_EARLY: usize = 64;
/// What may wait for the proof of addresses beside it: the fragments of a ClientHello, twice.
const MAX_EARLY_OF_STRANGERS: usize = 8;

/// A row of the engine's table of clients.
pub struct Client {
    pub transport: Transport,
    /// Local ufrags that name this client: one, or two while ICE restarts.
    pub ufrags: Vec<String>,
    /// Known addresses, as announced to the address table and to steering.
    pub paths: Vec<Path>,
    /// The publication of each SSRC.
    pub streams: Streams,
    /// Transport-wide arrival times, for the publisher's congestion control.
    pub arrivals: Arrivals,
    /// The header extension that carries the transport-wide sequence number, once a publication has it.
    pub transport_cc: Option<u8>,
    /// The SSRC of the last packet, which transport-wide feedback has to name.
    pub media_ssrc: u32,
    /// SSRCs that lead to this client from unknown addresses, as it sends no checks.
    pub listed_ssrcs: Vec<u32>,
    /// Before this its packets from unknown addresses are not tried.
    pub next_trial_at: Time,
    /// When media came last.
    pub silence: Silence,
    /// Keys in the engine's tables.
    pub publications: Vec<PublicationKey>,
    pub subscriptions: Vec<SubscriptionKey>,
    pub traffic: Traffic,
    /// Datagrams that came during a step of the handshake, or before their address was proven, in order.
    early: VecDeque<(Path, Vec<u8>)>,
    /// Counted among the handshakes under way.
    pub is_handshaking: bool,
    pub profile: Option<String>,
    /// The control plane's own bytes about this client.
    pub control_record: Vec<u8>,
    /// The number of its session record among those of all slots; `None` when the slot that opened it had none left.
    pub record: Option<u32>,
    /// The record is out of date; the client waits in `unsaved`.
    pub is_unsaved: bool,
    /// From RTCP of either direction.
    pub round_trip_ms: Option<f64>,
}

/// What passed over one transport.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    pub packets_received: u64,
    pub bytes_received: u64,
    pub packets_sent: u64,
    pub bytes_sent: u64,
    drops: Vec<(Drop, u64)>,
}

impl Traffic {
    pub fn count_drop(&mut self, drop: Drop) {
        match self.drops.iter_mut().find(|(reason, _)| *reason == drop) {
            Some((_, count)) => *count += 1,
            None => self.drops.push((drop, 1)),
        }
    }

    pub fn drops(&self) -> Vec<(String, u64)> {
        self.drops.iter().map(|(reason, count)| (reason.label().to_owned(), *count)).collect()
    }
}

impl Client {
    pub fn new(transport: Transport, ufrag: String, max_streams: usize) -> Client {
        Client {
            transport,
            ufrags: vec![ufrag],
            paths: Vec::new(),
            streams: Streams::new(max_streams),
            arrivals: Arrivals::default(),
            transport_cc: None,
            media_ssrc: 0,
            listed_ssrcs: Vec::new(),
            next_trial_at: Time::default(),
            silence: Silence::default(),
            publications: Vec::new(),
            subscriptions: Vec::new(),
            traffic: Traffic::default(),
            early: VecDeque::new(),
            is_handshaking: false,
            profile: None,
            control_record: Vec::new(),
            record: None,
            is_unsaved: false,
            round_trip_ms: None,
        }
    }

    /// Notes what a new publication changes for the whole transport.
    pub fn handle_published(&mut self, publish: &Publish) {
        let transport_cc = publish.extensions.iter().find(|extension| extension.kind == ExtensionKind::TransportCc);
        self.transport_cc = self.transport_cc.or(transport_cc.map(|extension| extension.id));
    }

    /// Whether a datagram of DTLS, or of media, has to wait: for a step of the handshake, or for the proof of its address.
    pub fn must_wait(&self, path: Path, is_dtls: bool) -> bool {
        self.transport.is_busy() || (is_dtls && self.transport.must_wait(path))
    }

    /// Queues a datagram until it can be taken; false when the queue is full.
    pub fn queue_early(&mut self, path: Path, datagram: &[u8]) -> bool {
        let of_strangers = self.early.iter().filter(|(from, _)| self.transport.must_wait(*from)).count();
        let has_room = if self.transport.must_wait(path) {
            of_strangers < MAX_EARLY_OF_STRANGERS
        } else {
            self.early.len() - of_strangers < MAX_EARLY
        };
        if has_room {
            self.early.push_back((path, datagram.to_vec()));
        }
        has_room
    }

    /// The next queued datagram, unless a step is under way again.
    pub fn take_early(&mut self) -> Option<(Path, Vec<u8>)> {
        if self.early.is_empty() || self.transport.is_busy() {
            return None;
        }
        let next = self.early.iter().position(|(path, _)| !self.transport.must_wait(*path))?;
        self.early.remove(next)
    }

    /// Fetches what sending to this client will read.
    pub fn prefetch(&self) {
        self.transport.prefetch();
        prefetch(&self.traffic);
    }

    pub fn count_sent(&mut self, bytes: usize) {
        self.traffic.packets_sent += 1;
        self.traffic.bytes_sent += bytes as u64;
    }

    /// The SSRC under which the relay itself reports to this client.
    pub fn reporter_ssrc(&self) -> u32 {
        // Any value that is no SSRC of the client will do (RFC 3550 section 6.4); the transport id is random.
        self.transport.id() as u32 | 1
    }
}
