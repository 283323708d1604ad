//! The engine's counters, kept in the slot's stats page of the arena so that any worker can read them and a respawn
//! does not lose them. Owns their numbering and names; must never know Prometheus. `workers/metrics.py` reads the names.

use millrace_arena::Arena;

use crate::drop::Drop;
use crate::event::Cause;

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
    /// System calls that sent something: the ratio to datagrams is what batching won.
    Sends => "sends",
    /// Datagrams that the kernel dropped from a full receive queue (SO_RXQ_OVFL).
    KernelDrops => "kernel_drops",
    StunRequests => "stun_requests",
    PacketsReceived => "packets_received",
    /// Packets written to subscribers, retransmissions included.
    PacketsForwarded => "packets_forwarded",
    PacketsRetransmitted => "packets_retransmitted",
    /// Packets missing upstream that came after all.
    PacketsRecovered => "packets_recovered",
    NacksReceived => "nacks_received",
    NacksSent => "nacks_sent",
    KeyFramesAsked => "key_frames_asked",
    KeyFrameRequests => "key_frame_requests",
    HandedOver => "handed_over",
    TakenOver => "taken_over",
    HandshakesDone => "handshakes_done",
    HandshakeMicroseconds => "handshake_microseconds",
    /// Sessions of a dead predecessor that went on, and those that could not.
    Adoptions => "adoptions",
    AdoptionsLost => "adoptions_lost",
    /// Gauges: how many are open now.
    Transports => "transports",
    Publications => "publications",
    Subscriptions => "subscriptions",
    /// Wake-ups of the reactor.
    Wakeups => "wakeups",
}

const DROPS_AT: usize = COUNTERS.len();
const FAILURES_AT: usize = DROPS_AT + Drop::ALL.len();
#[cfg(test)]
const TOTAL: usize = FAILURES_AT + Cause::ALL.len();

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
        self.arena.slot(self.slot).add(counter as usize, n);
    }

    pub fn set(&self, counter: Counter, value: u64) {
        self.arena.slot(self.slot).set(counter as usize, value);
    }

    pub fn get(&self, counter: Counter) -> u64 {
        self.arena.slot(self.slot).get(counter as usize)
    }

    pub fn count_drop(&self, drop: Drop) {
        self.count_drops(drop, 1);
    }

    pub fn count_drops(&self, drop: Drop, n: u64) {
        self.arena.slot(self.slot).add(DROPS_AT + drop as usize, n);
    }

    pub fn drops(&self, drop: Drop) -> u64 {
        self.arena.slot(self.slot).get(DROPS_AT + drop as usize)
    }

    pub fn count_failure(&self, cause: Cause) {
        self.arena.slot(self.slot).add(FAILURES_AT + cause as usize, 1);
    }

    /// Every counter of this slot under its name: `packets_received`, `drops.srtp_replay`, `failures.no_stun`.
    pub fn read(&self) -> Vec<(String, u64)> {
        let page = self.arena.slot(self.slot);
        names().enumerate().map(|(place, name)| (name, page.get(place))).collect()
    }
}

fn names() -> impl Iterator<Item = String> {
    let counters = COUNTERS.iter().map(|name| (*name).to_owned());
    let drops = Drop::ALL.iter().map(|drop| format!("drops.{}", drop.label()));
    let failures = Cause::ALL.iter().map(|cause| format!("failures.{}", cause.label()));
    counters.chain(drops).chain(failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_name_and_fits_the_page() {
        assert_eq!(names().count(), TOTAL);
        const { assert!(TOTAL <= 512, "the arena's stats page holds 512 counters") };
    }
}
