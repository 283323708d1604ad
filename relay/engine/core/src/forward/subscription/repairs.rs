//! Which NACKs of a viewer are answered (RFC 4585 section 6.2.1): within a budget, no packet twice within a round trip, and none more than a
//! few times. Owns the queue and the budget; must never read a log. Read `mod.rs` next, which writes the answers.
//!
//! A NACK of 20 bytes can ask for 17 packets of 1,200. Without a bound a viewer could flood its own path, or a spoofed one. Some go on asking
//! for what they were sent: pion 4 does not see what comes by RTX, and asks each tenth of a second until 512 later packets came.

use std::collections::VecDeque;

use crate::time::{Span, Time};

/// Packets in the queue; further requests are refused. So many at once are an outage, which a key frame mends better.
const MAX_PENDING: usize = 256;
/// Packets whose answers are remembered: as many as a viewer goes on asking for.
const MAX_RECENT: usize = 512;
/// The least time between two answers about one packet, for a viewer whose round trip is unknown or tiny.
const REPEAT_FLOOR: Span = Span::from_millis(20);
/// Answers about one packet. With 30 % of loss one in a hundred needs more, and its frame is late by then.
const MAX_ANSWERS: u32 = 4;
/// Bytes of media that allow one byte of repairs: a quarter, in the long run.
const MEDIA_FOR_REPAIR: i64 = 4;
/// Bytes of repair that may be saved up: a third of a second of loss at 12 Mbit/s.
const MAX_BUDGET: i64 = 512 * 1024;
/// So long a repair may still be on its way, or wait for others of its frame.
const YOUNG: Span = Span::from_millis(300);

/// What was answered about one packet.
#[derive(Clone, Copy, Debug)]
struct Answered {
    outgoing: u64,
    last_at: Time,
    times: u32,
}

#[derive(Debug)]
pub struct Repairs {
    pending: VecDeque<u64>,
    /// One entry per outgoing index modulo the length. Empty until the first NACK.
    recent: Vec<Answered>,
    /// Bytes of repair that may be sent, times `MEDIA_FOR_REPAIR`.
    budget: i64,
    repaired_at: Option<Time>,
}

impl Default for Repairs {
    fn default() -> Repairs {
        Repairs {
            pending: VecDeque::new(),
            recent: Vec::new(),
            budget: MAX_BUDGET * MEDIA_FOR_REPAIR,
            repaired_at: None,
        }
    }
}

impl Repairs {
    /// Adds the bytes of media that were sent to the budget.
    pub fn handle_sent(&mut self, bytes: usize) {
        self.budget = (self.budget + bytes as i64).min(MAX_BUDGET * MEDIA_FOR_REPAIR);
    }

    /// Queues a packet that a viewer asked for, `times` times if there are room and budget for that. False when it will not be sent at all.
    pub fn request(&mut self, now: Time, outgoing: u64, round_trip: Option<Span>, times: usize) -> bool {
        let room = MAX_PENDING - self.pending.len();
        if room == 0 || self.budget <= 0 {
            return false;
        }
        if self.recent.is_empty() {
            self.recent = vec![Answered { outgoing: u64::MAX, last_at: Time::default(), times: 0 }; MAX_RECENT];
        }
        let repeat = round_trip.unwrap_or_default().max(REPEAT_FLOOR);
        let answered = &mut self.recent[outgoing as usize % MAX_RECENT];
        if answered.outgoing != outgoing {
            *answered = Answered { outgoing, last_at: now, times: 0 };
        } else if answered.times >= MAX_ANSWERS || now.since(answered.last_at) < repeat {
            return false;
        }
        (answered.last_at, answered.times) = (now, answered.times + 1);
        // Once is better than a second time of another one.
        let times = if self.budget < MAX_BUDGET * MEDIA_FOR_REPAIR / 2 { 1 } else { times };
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

    /// Takes the bytes of a repair that was sent from the budget.
    pub fn handle_repaired(&mut self, now: Time, bytes: usize) {
        self.budget -= bytes as i64 * MEDIA_FOR_REPAIR;
        self.repaired_at = Some(now);
    }

    /// True while packets that the viewer lacks are sent again, or have been a moment ago.
    pub fn are_under_way(&self, now: Time) -> bool {
        !self.pending.is_empty() || self.repaired_at.is_some_and(|at| now.since(at) < YOUNG)
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
    fn a_packet_is_sent_again_once_per_round_trip_and_not_for_ever() {
        let mut repairs = Repairs::default();
        let round_trip = Some(Span::from_millis(100));
        let granted: Vec<u64> = (0..150_000).filter(|ms| repairs.request(at(*ms), 7, round_trip, 1)).collect();
        assert_eq!(granted, [0, 100, 200, 300]);
    }

    #[test]
    fn who_goes_on_asking_for_a_run_of_lost_packets_gets_each_four_times() {
        let mut repairs = Repairs::default();
        let mut granted = 0;
        for round in 0..100 {
            for outgoing in (40_000..40_512).step_by(20) {
                granted += usize::from(repairs.request(at(round * 100), outgoing, None, 1));
                repairs.take();
            }
        }
        assert_eq!(granted, 26 * MAX_ANSWERS as usize);
    }

    #[test]
    fn in_the_long_run_repairs_are_a_quarter_of_the_media() {
        let mut repairs = Repairs::default();
        let (mut media, mut repaired) = (0, 0);
        for index in 0..100_000 {
            repairs.handle_sent(1_200);
            media += 1_200;
            repairs.request(at(index), index, None, 2);
            while repairs.take().is_some() {
                repairs.handle_repaired(at(0), 1_200);
                repaired += 1_200;
            }
        }
        assert!(repaired <= MAX_BUDGET + media / 4 + 1_200, "{repaired} of {media}");
        assert!(repaired >= media / 4);
    }

    #[test]
    fn answers_are_bounded_by_what_was_sent() {
        let mut repairs = Repairs::default();
        let mut bytes = 0;
        for round in 0..10_000 {
            repairs.request(at(round * 30), round, None, 2);
            while repairs.take().is_some() {
                repairs.handle_repaired(at(0), 1_200);
                bytes += 1_200;
            }
        }
        assert!(bytes <= MAX_BUDGET + 1_200, "{bytes} bytes for nothing sent");
        repairs.handle_sent(50_000);
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
