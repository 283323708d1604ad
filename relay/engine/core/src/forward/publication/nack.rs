//! The missing packets of one incoming stream, and when to ask for each (RFC 4585 section 6.2.1). Owns the list and its bounds; must
//! never know the log or the wire. Read `mod.rs` next, which sends what is due.
//!
//! ```text
//!            gap seen          grace over            retry over           asked often, or too old
//!  (arrives) -------> noticed -----------> asked (n) -----------> asked (n+1) -------> given up
//!                        |                     |  arrives
//!                        +-- arrives: reordered +--------> recovered, and a round trip measured at n = 1
//! ```

use std::collections::VecDeque;

use crate::time::{Span, Time};

/// How long a missing packet is not asked for: longer than a link's reordering, shorter than a frame.
const GRACE: Span = Span::from_millis(15);
/// The least time between two requests for a packet; on a longer path, its round trip.
const RETRY_FLOOR: Span = Span::from_millis(40);
/// Requests for one packet. Ten answers lost in a row mean that the publisher has no such packet, or the path is broken.
const ATTEMPTS: u8 = 10;
/// How long a packet is asked for. No viewer can still play an older one.
const MAX_AGE: Span = Span::from_secs(1);
/// The most missing packets. More are an outage, which only a key frame mends.
const MAX_MISSING: usize = 1_000;
/// The round trip before the first measurement: a usual path over the Internet.
const ASSUMED_ROUND_TRIP: Span = Span::from_millis(80);

#[derive(Clone, Copy, Debug)]
struct Entry {
    index: u64,
    noticed_at: Time,
    asked_at: Time,
    next_at: Time,
    asked: u8,
}

/// What the arrival of a packet means for the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The next one, or the first.
    InOrder,
    /// This many packets before it are now missing.
    AfterGap(u64),
    /// It was missing, and had been asked for.
    Recovered,
    /// It was missing, and came before it was asked for.
    Reordered,
    /// It had been given up, or it came twice.
    Unexpected,
    /// Too many are missing. The list was emptied, as only a key frame helps.
    Outage,
}

/// The missing packets of one stream, ordered by index.
#[derive(Debug, Default)]
pub struct Missing {
    entries: VecDeque<Entry>,
    highest: Option<u64>,
    /// Never later than the earliest `next_at`; possibly earlier.
    next_at: Option<Time>,
    round_trip: Option<Span>,
    given_up: u64,
}

impl Missing {
    pub fn new() -> Missing {
        Missing::default()
    }

    /// Notes that `index` has arrived.
    pub fn handle_arrival(&mut self, now: Time, index: u64) -> Arrival {
        let Some(highest) = self.highest else {
            self.highest = Some(index);
            return Arrival::InOrder;
        };
        if index <= highest {
            return self.fill(now, index);
        }
        self.highest = Some(index);
        let gap = index - highest - 1;
        if gap == 0 {
            return Arrival::InOrder;
        }
        if gap as usize + self.entries.len() > MAX_MISSING {
            self.given_up += gap + self.entries.len() as u64;
            self.entries.clear();
            self.next_at = None;
            return Arrival::Outage;
        }
        let next_at = now + GRACE;
        self.entries.extend((highest + 1..index).map(|index| Entry {
            index,
            noticed_at: now,
            asked_at: now,
            next_at,
            asked: 0,
        }));
        self.next_at = Some(self.next_at.map_or(next_at, |at| at.min(next_at)));
        Arrival::AfterGap(gap)
    }

    /// Starts over after a break in the numbering: nothing before `index` is missed.
    pub fn restart(&mut self, index: u64) {
        self.given_up += self.entries.len() as u64;
        self.entries.clear();
        self.next_at = None;
        self.highest = Some(index);
    }

    fn fill(&mut self, now: Time, index: u64) -> Arrival {
        let Ok(at) = self.entries.binary_search_by_key(&index, |entry| entry.index) else {
            return Arrival::Unexpected;
        };
        let Some(entry) = self.entries.remove(at) else { return Arrival::Unexpected };
        if entry.asked == 0 {
            return Arrival::Reordered;
        }
        // After a second request it is not known which one was answered (Karn's algorithm).
        if entry.asked == 1 {
            let sample = now.since(entry.asked_at).0.clamp(1_000, 1_000_000);
            let smooth = self.round_trip.map_or(sample, |old| (7 * old.0 + sample) / 8);
            self.round_trip = Some(Span(smooth));
        }
        Arrival::Recovered
    }

    /// Calls `ask` with the index of each packet that is due, lowest first, until it returns false for want of room. Gives up packets
    /// that are too old or were asked for too often, and those below `oldest`, which the log has no room for.
    pub fn ask(&mut self, now: Time, oldest: u64, mut ask: impl FnMut(u64) -> bool) {
        if self.next_at.is_none_or(|at| at > now) {
            return;
        }
        let retry = self.round_trip.unwrap_or(ASSUMED_ROUND_TRIP).max(RETRY_FLOOR);
        let before = self.entries.len();
        self.entries.retain(|entry| {
            let due = entry.next_at <= now;
            entry.index >= oldest && now.since(entry.noticed_at) < MAX_AGE && !(due && entry.asked >= ATTEMPTS)
        });
        self.given_up += (before - self.entries.len()) as u64;
        for entry in self.entries.iter_mut().filter(|entry| entry.next_at <= now) {
            if !ask(entry.index) {
                break;
            }
            entry.asked += 1;
            entry.asked_at = now;
            entry.next_at = now + retry;
        }
        self.next_at = self.entries.iter().map(|entry| entry.next_at).min();
    }

    /// When `ask` has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        self.next_at
    }

    /// The round trip: from a request to its answer, smoothed.
    pub fn round_trip(&self) -> Option<Span> {
        self.round_trip
    }

    /// Packets that are known to be missing now.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Packets that will not be asked for any more.
    #[cfg(test)]
    pub fn given_up(&self) -> u64 {
        self.given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Time {
        Time(1_000_000) + Span::from_millis(ms)
    }

    fn asked(missing: &mut Missing, ms: u64) -> Vec<u16> {
        let mut list = Vec::new();
        missing.ask(at(ms), 0, |sequence| {
            list.push(sequence as u16);
            true
        });
        list
    }

    fn missing_after(indexes: &[u64]) -> Missing {
        let mut missing = Missing::new();
        for index in indexes {
            missing.handle_arrival(at(0), *index);
        }
        missing
    }

    #[test]
    fn a_gap_is_asked_for_after_the_grace_and_again_after_a_round_trip() {
        let mut missing = missing_after(&[65_534, 65_537]);
        assert_eq!(asked(&mut missing, 14), []);
        assert_eq!(missing.next_deadline(), Some(at(15)));
        assert_eq!(asked(&mut missing, 15), [65_535, 0]);
        assert_eq!(asked(&mut missing, 90), []);
        assert_eq!(asked(&mut missing, 95), [65_535, 0]);
    }

    #[test]
    fn a_reordered_packet_is_never_asked_for() {
        let mut missing = missing_after(&[10, 12]);
        assert_eq!(missing.handle_arrival(at(5), 11), Arrival::Reordered);
        assert_eq!(asked(&mut missing, 500), []);
        assert_eq!(missing.next_deadline(), None);
    }

    #[test]
    fn an_answer_measures_the_round_trip_and_later_retries_follow_it() {
        let mut missing = missing_after(&[10, 13]);
        asked(&mut missing, 15);
        assert_eq!(missing.handle_arrival(at(215), 11), Arrival::Recovered);
        assert_eq!(missing.round_trip(), Some(Span::from_millis(200)));
        asked(&mut missing, 215);
        assert_eq!(missing.next_deadline(), Some(at(415)));
    }

    #[test]
    fn a_packet_is_given_up_after_ten_requests_or_one_second() {
        let mut missing = missing_after(&[10, 12]);
        let requests: usize = (0..3_000).map(|ms| asked(&mut missing, ms).len()).sum();
        assert!((8..=10).contains(&requests), "{requests} requests");
        assert!(missing.is_empty());
        assert_eq!(missing.given_up(), 1);
        assert_eq!(missing.next_deadline(), None);
    }

    #[test]
    fn what_no_longer_fits_the_log_is_given_up() {
        let mut missing = missing_after(&[10, 15]);
        let mut list = Vec::new();
        missing.ask(at(20), 13, |sequence| {
            list.push(sequence as u16);
            true
        });
        assert_eq!((list, missing.len(), missing.given_up()), (vec![13, 14], 2, 2));
    }

    #[test]
    fn without_room_the_rest_stays_due() {
        let mut missing = missing_after(&[10, 15]);
        let mut room = 2;
        missing.ask(at(20), 0, |_| {
            room -= 1;
            room >= 0
        });
        assert_eq!(missing.next_deadline(), Some(at(15)));
        assert_eq!(asked(&mut missing, 21), [13, 14]);
    }

    #[test]
    fn an_outage_empties_the_list() {
        let mut missing = missing_after(&[10, 15]);
        assert_eq!(missing.handle_arrival(at(1), 5_000), Arrival::Outage);
        assert!(missing.is_empty());
        assert_eq!(asked(&mut missing, 100), []);
        assert_eq!(missing.handle_arrival(at(2), 5_001), Arrival::InOrder);
    }

    proptest! {
        #[test]
        fn the_list_holds_exactly_what_has_not_arrived(steps in prop::collection::vec((0u64..40, 0u64..30), 1..300)) {
            let mut missing = Missing::new();
            let mut seen = std::collections::BTreeSet::new();
            let mut highest = 100_000;
            for (forward, back) in steps {
                highest += forward;
                let index = highest - back;
                missing.handle_arrival(at(0), index);
                seen.insert(index);
            }
            let (first, last) = (missing.entries.front().map(|entry| entry.index), seen.last().copied().unwrap());
            if let Some(first) = first {
                let expected: Vec<u64> = (first..last).filter(|index| !seen.contains(index)).collect();
                prop_assert!(missing.entries.iter().map(|entry| entry.index).eq(expected));
            }
            prop_assert!(missing.len() <= MAX_MISSING);
        }
    }
}
