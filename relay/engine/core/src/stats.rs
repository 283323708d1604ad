//! The engine's counters. They lie in the slot's stats page of the arena, so that any worker can read them and a respawn does not
//! reset them. Owns their numbers and names; must never know Prometheus. Read `workers/metrics/render.py` next, which names them.

use millrace_arena::Arena;

use crate::drop::Drop;
use crate::event::Cause;
use crate::outbox::SocketIndex;
use crate::time::Span;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)*) => {
        /// A counter by meaning; its label is what `Engine.stats()` calls it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter {
            $($(#[$doc])* $name,)*
        }

        const COUNTERS: &[&str] = &[$($label,)*];
    };
}

counters! {
    DatagramsReceived => "datagrams_received",
    BytesReceived => "bytes_received",
    DatagramsSent => "datagrams_sent",
    BytesSent => "bytes_sent",
    /// System calls that sent something. Datagrams a call is what batching wins.
    SendCalls => "send_calls",
    StunRequests => "stun_requests",
    PacketsReceived => "packets_received",
    /// Packets written to subscribers, retransmissions included.
    PacketsForwarded => "packets_forwarded",
    PacketsRetransmitted => "packets_retransmitted",
    /// Packets of publishers that were missing, were asked for, and came.
    PacketsRecovered => "packets_recovered",
    NacksReceived => "nacks_received",
    NacksSent => "nacks_sent",
    KeyFrameRequestsSent => "key_frame_requests_sent",
    KeyFrameRequestsReceived => "key_frame_requests_received",
    HandoversOut => "handovers_out",
    HandoversIn => "handovers_in",
    HandshakesDone => "handshakes_done",
    /// Sessions that were adopted from a dead predecessor, and those that could not be.
    SessionsAdopted => "sessions_adopted",
    SessionsLost => "sessions_lost",
    /// Sessions that moved in from another slot, that moved out to one, and moves that failed.
    MovesIn => "moves_in",
    MovesOut => "moves_out",
    MovesFailed => "moves_failed",
    /// Gauges from here on: how many are open now.
    Transports => "transports",
    Publications => "publications",
    Subscriptions => "subscriptions",
    Handshakes => "handshakes",
    /// Session records in use, of those that the arena has for the slot.
    SessionRecords => "session_records",
    /// Wake-ups of the reactor.
    Wakeups => "wakeups",
    /// Words of other engines that this release does not know.
    RingMessagesUnknown => "ring_messages_unknown",
    /// Requests of ours that ask an address back, those that proved it, and those that went unanswered for two seconds.
    ProofsAsked => "proofs_asked",
    ProofsAnswered => "proofs_answered",
    ProofsGivenUp => "proofs_given_up",
    /// Nominated addresses that were not proven: media stayed where it was.
    AddressMovesRefused => "address_moves_refused",
    /// Another gauge: clients with publications none of which has brought a packet for a while.
    PublishersSilent => "publishers_silent",
    /// Packets from addresses that nobody knows which were tried with the keys of the client that their SSRC names.
    UnknownSourcesTried => "unknown_sources_tried",
    /// Handshakes without progress that made room for others.
    HandshakesEvicted => "handshakes_evicted",
    /// A gauge: TCP connections of clients, those included that have shown no valid check yet.
    TcpConnections => "tcp_connections",
    TcpAccepted => "tcp_accepted",
    /// Connections that were closed at once, or made room for another, as there were too many.
    TcpRefused => "tcp_refused",
    /// Connections that were closed as no valid check came in time.
    TcpUnchecked => "tcp_unchecked",
    /// Connections that another worker was passed, as it has the session.
    TcpPassed => "tcp_passed",
}

/// A distribution by meaning; its label is what `Engine.stats()` calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Histogram {
    /// From a packet's arrival at its publisher's worker to its sending, on whichever worker: one count for each packet sent. All packets
    /// of a batch count as its oldest; replays and repairs do not count.
    Forwarding,
    /// How long a round of the reactor took, plus how late it began when a deadline woke it. No ready input waited longer.
    EngineLate,
    /// From the first DTLS record, either way, to the keys.
    Handshake,
    /// From a worker's last beat to the end of its successor's adoption.
    AdoptionGap,
}

const HISTOGRAMS: &[&str] = &["forwarding", "engine_late", "handshake", "adoption_gap"];
/// Upper bounds of the buckets, microseconds; one without a bound and the sum follow.
const BOUNDS: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000,
];
const HISTOGRAM_LEN: usize = BOUNDS.len() + 2;
/// Sockets with a counter of kernel drops; further ones share the last.
const SOCKETS: usize = 8;

/// Where one sort of figures lies on the page. Workers of two releases read each other's pages, and a successor counts on
/// where its predecessor stopped; so a figure never changes its position. Those of the layout's first release lie together
/// as they did; one that is added stands at the end of its list, and lies in the sort's second range.
struct Range {
    at: usize,
    first: usize,
    later_at: usize,
}

impl Range {
    const fn position(&self, index: usize) -> usize {
        if index < self.first { self.at + index } else { self.later_at + index - self.first }
    }
}

const COUNTERS_IN: Range = Range { at: 0, first: 28, later_at: 192 };
const DROPS_IN: Range = Range { at: 28, first: 29, later_at: 256 };
const FAILURES_IN: Range = Range { at: 57, first: 11, later_at: 320 };
/// By their first words.
const HISTOGRAMS_IN: Range = Range { at: 68, first: 4 * HISTOGRAM_LEN, later_at: 352 };
const KERNEL_DROPS_AT: usize = 136;

const fn histogram_at(histogram: usize) -> usize {
    HISTOGRAMS_IN.position(histogram * HISTOGRAM_LEN)
}

/// Writes one slot's counters. A single thread writes; anyone may read.
#[derive(Clone)]
pub struct Stats {
    arena: Arena,
    slot: u8,
}

impl Stats {
    pub fn new(arena: Arena, slot: u8) -> Stats {
        Stats { arena, slot }
    }

    pub fn add(&self, counter: Counter, n: u64) {
        self.arena.slot(self.slot).add(COUNTERS_IN.position(counter as usize), n);
    }

    pub fn set(&self, counter: Counter, value: u64) {
        self.arena.slot(self.slot).set(COUNTERS_IN.position(counter as usize), value);
    }

    pub fn get(&self, counter: Counter) -> u64 {
        self.arena.slot(self.slot).get(COUNTERS_IN.position(counter as usize))
    }

    pub fn count_drop(&self, drop: Drop) {
        self.count_drops(drop, 1);
    }

    pub fn count_drops(&self, drop: Drop, n: u64) {
        self.arena.slot(self.slot).add(DROPS_IN.position(drop as usize), n);
    }

    pub fn drops(&self, drop: Drop) -> u64 {
        self.arena.slot(self.slot).get(DROPS_IN.position(drop as usize))
    }

    pub fn count_failure(&self, cause: Cause) {
        self.arena.slot(self.slot).add(FAILURES_IN.position(cause as usize), 1);
    }

    /// Datagrams that the kernel dropped from a socket's full receive queue (SO_RXQ_OVFL).
    pub fn count_kernel_drops(&self, socket: SocketIndex, n: u64) {
        self.arena.slot(self.slot).add(KERNEL_DROPS_AT + usize::from(socket.0).min(SOCKETS - 1), n);
    }

    /// Counts `n` observations of this span.
    pub fn observe(&self, histogram: Histogram, span: Span, n: u64) {
        let page = self.arena.slot(self.slot);
        let first = histogram_at(histogram as usize);
        page.add(first + BOUNDS.partition_point(|bound| *bound < span.0), n);
        page.add(first + HISTOGRAM_LEN - 1, span.0 * n);
    }

    /// How many were observed, and their sum.
    pub fn observed(&self, histogram: Histogram) -> (u64, Span) {
        let page = self.arena.slot(self.slot);
        let first = histogram_at(histogram as usize);
        let last = first + HISTOGRAM_LEN - 1;
        ((first..last).map(|position| page.get(position)).sum(), Span(page.get(last)))
    }

    /// Every counter of this slot under its name: `packets_received`, `drops.in.srtp_replay`, `failures.no_stun`,
    /// `histogram.handshake.2500` (microseconds, not cumulative), `kernel_drops.0` (by socket).
    pub fn read(&self) -> Vec<(String, u64)> {
        let page = self.arena.slot(self.slot);
        names().map(|(position, name)| (name, page.get(position))).collect()
    }
}

/// Every figure's position and name.
fn names() -> impl Iterator<Item = (usize, String)> {
    let placed = |range: &'static Range| move |(i, name): (usize, String)| (range.position(i), name);
    let counters = COUNTERS.iter().map(|name| (*name).to_owned()).enumerate().map(placed(&COUNTERS_IN));
    let drops = Drop::ALL.iter().map(|drop| format!("drops.{}.{}", drop.direction(), drop.label()));
    let drops = drops.enumerate().map(placed(&DROPS_IN));
    let failures = Cause::ALL.iter().map(|cause| format!("failures.{}", cause.label()));
    let failures = failures.enumerate().map(placed(&FAILURES_IN));
    let bounds = || BOUNDS.iter().map(u64::to_string).chain(["inf".to_owned(), "sum".to_owned()]);
    let histogram = move |name: &&str| bounds().map(|bound| format!("histogram.{name}.{bound}")).collect::<Vec<_>>();
    let histograms = HISTOGRAMS.iter().flat_map(histogram).enumerate().map(placed(&HISTOGRAMS_IN));
    let kernel_drops = (0..SOCKETS).map(|socket| (KERNEL_DROPS_AT + socket, format!("kernel_drops.{socket}")));
    counters.chain(drops).chain(failures).chain(histograms).chain(kernel_drops)
}

#[cfg(test)]
mod tests {
    use millrace_arena::Parameters;

    use super::*;

    #[test]
    fn every_figure_has_a_position_of_its_own_on_the_page() {
        let mut positions: Vec<_> = names().map(|(position, _)| position).collect();
        positions.sort_unstable();
        positions.dedup();
        assert_eq!(positions.len(), names().count());
        assert!(positions.iter().all(|position| *position < millrace_arena::COUNTERS));
    }

    /// The last of each list as it was, and what came since: who adds a figure in the middle moves one of these.
    #[test]
    fn no_figure_has_changed_its_position_since_the_first_release() {
        let expected = [
            (0, "datagrams_received"),
            (27, "wakeups"),
            (28, "drops.in.not_demuxed"),
            (56, "drops.in.handover_full"),
            (57, "failures.closed"),
            (67, "failures.consent_lost"),
            (68, "histogram.forwarding.100"),
            (135, "histogram.adoption_gap.sum"),
            (136, "kernel_drops.0"),
            (192, "ring_messages_unknown"),
        ];
        for (position, name) in expected {
            assert!(names().any(|known| known == (position, name.to_owned())), "{name} is not at {position}");
        }
    }

    #[test]
    fn a_span_falls_into_the_first_bucket_that_holds_it() {
        let stats = Stats::new(Arena::in_memory(Parameters::SMALL), 0);
        stats.observe(Histogram::Handshake, Span(2_500), 1);
        stats.observe(Histogram::Handshake, Span(2_501), 2);
        stats.observe(Histogram::Handshake, Span(9_000_000), 1);
        stats.observe(Histogram::AdoptionGap, Span(0), 1);
        let found: Vec<_> = stats.read().into_iter().filter(|(name, n)| name.starts_with("hist") && *n > 0).collect();
        let expected = [
            ("histogram.handshake.2500", 1),
            ("histogram.handshake.5000", 2),
            ("histogram.handshake.inf", 1),
            ("histogram.handshake.sum", 2_500 + 2 * 2_501 + 9_000_000),
            ("histogram.adoption_gap.100", 1),
        ];
        assert_eq!(found, expected.map(|(name, n)| (name.to_owned(), n)));
        assert_eq!(stats.observed(Histogram::Handshake), (4, Span(9_007_502)));
    }
}
