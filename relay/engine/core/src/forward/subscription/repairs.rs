//! Which NACKs of a viewer are answered (RFC 4585 section 6.2.1): within a budget, and no packet twice within half a round trip. Owns
//! the queue and the budget; must never read a log. Read `mod.rs` next, which writes the answers.
//!
//! A NACK of 20 bytes can ask for 17 packets of 1,200. Without a bound a viewer could flood its own path, or a spoofed one.

use std::collections::VecDeque;

use crate::time::{Span, Time};

/// Packets in the queue; further requests are refused. So many at once are an outage, which a key frame mends better.
const MAX_PENDING: usize = 256;
/// Answers that are remembered: about the packets of one round trip.
const MAX_RECENT: usize = 128;
/// The least time between two answers about one packet, for a viewer whose round trip is unknown or tiny.
const REPEAT_FLOOR: Span = Span::from_millis(20);
/// Bytes of repair that may be saved up: every byte of media allows one. It is a third of a second of loss at 12 Mbit/s.
const MAX_BUDGET: i64 = 512 * 1024;

#[derive(Debug)]
pub struct Repairs {
    pending: VecDeque<u64>,
    /// Outgoing indexes answered last, and when; one entry per index modulo the length. Empty until the first NACK.
    recent: Vec<(u64, Time)>,
    budget: i64,
}

impl Default for Repairs {
    fn default() -> Repairs {
        Repairs { pending: VecDeque::new(), recent: Vec::new(), budget: MAX_BUDGET }
    }
}

impl Repairs {
    /// Adds the bytes of media that were sent to the budget.
    pub fn handle_sent(&mut self, bytes: usize) {
        self.budget = (self.budget + bytes as i64).min(MAX_BUDGET);
    }

    /// Queues a packet that a viewer asked for, `times` times if there is room. False when it will not be sent at all.
    pub fn request(&mut self, now: Time, outgoing: u64, round_trip: Option<Span>, times: usize) -> bool {
        let room = MAX_PENDING - self.pending.len();
        if room == 0 {
            return false;
        }
        if self.recent.is_empty() {
            self.recent = vec![(u64::MAX, Time::default()); MAX_RECENT];
        }
        // Half a round trip: the viewer's own estimate may be shorter than ours, and its retry must not be refused.
        let repeat = Span(round_trip.map_or(0, |span| span.0 / 2)).max(REPEAT_FLOOR);
        let answered = &mut self.recent[outgoing as usize % MAX_RECENT];
        if answered.0 == outgoing && now.since(answered.1) < repeat {
            return false;
        }
        *answered = (outgoing, now);
        self.pending.extend(std::iter::repeat_n(outgoing, times.min(room)));
        true
    }

    /// The next packet to send again, while the budget lasts.
    pub fn take(&mut self) -> Option<u64> {
        if self.budget <= 0 {
            self.pending.clear();
        }
        self.pending.pop_front()
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes the bytes of a repair from the budget.
    pub fn spend(&mut self, bytes: usize) {
        self.budget -= bytes as i64;
    }

    /// Empties the queue, when its source is gone.
    pub fn clear(&mut self) {
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time(9_000_000) + Span::from_millis(ms)
    }

    #[test]
    fn a_packet_is_sent_again_once_per_round_trip() {
        let mut repairs = Repairs::default();
        let round_trip = Some(Span::from_millis(100));
        let granted: Vec<u64> = (0..150).filter(|ms| repairs.request(at(*ms), 7, round_trip, 1)).collect();
        assert_eq!(granted, [0, 50, 100]);
    }

    #[test]
    fn answers_are_bounded_by_what_was_sent() {
        let mut repairs = Repairs::default();
        let mut bytes = 0;
        for round in 0..10_000 {
            repairs.request(at(round * 30), round, None, 2);
            while repairs.take().is_some() {
                repairs.spend(1_200);
                bytes += 1_200;
            }
        }
        assert!(bytes <= MAX_BUDGET + 1_200, "{bytes} bytes for nothing sent");
        repairs.handle_sent(5_000);
        assert!(repairs.request(at(1_000_000), 1, None, 1));
        assert_eq!(repairs.take(), Some(1));
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut repairs = Repairs::default();
        let granted = (0..10_000).filter(|index| repairs.request(at(0), *index, None, 1)).count();
        assert_eq!(granted, MAX_PENDING);
        repairs.clear();
        assert!(repairs.is_empty());
        let granted = (0..10_000).filter(|index| repairs.request(at(0), 20_000 + *index, None, 3)).count();
        assert_eq!((granted, repairs.pending.len()), (MAX_PENDING.div_ceil(3), MAX_PENDING));
    }
}
