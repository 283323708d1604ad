//! What key frames may cost a publication: viewers' wishes are many, and each key frame that answers them is paid for by all. Owns the
//! account and the sizes of frames; must never send a request. Read `../key_frames.rs` next, which asks.
//!
//! ```text
//! each packet    + 12 % of its bytes          up to the price of two key frames
//! an answer      - its bytes beyond a mean frame
//! account > 0: any wish    > -1 price: who sees nothing    else: one in five seconds
//! ```

use crate::time::{Span, Time};

use crate::forward::key_frames::{Allowed, RETRY};

/// Percent of a publication's bytes that go into key frames which were asked for.
const SHARE: i64 = 12;
/// Prices that can be saved up: a newcomer's and a decoder's at once.
const SAVED: i64 = 2;
/// The longest gap between two requests. A measurement beyond it is a path or a picture that stands still.
const MAX_GAP: Span = Span::from_secs(1);

/// The frames of one encoding, as far as their sizes go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames {
    timestamp: Option<u32>,
    began_at: Time,
    bytes: i64,
    is_key: bool,
    is_answer: bool,
    is_over: bool,
    /// Mean bytes of a frame that is no key frame, and of one that is; 0 before the first.
    mean: i64,
    key: i64,
    /// Mean time between two frames.
    interval: Span,
}

impl Frames {
    /// Counts a packet that is no retransmission. Returns the price of the key frame that ended with the one before, if it answered.
    pub fn handle_packet(&mut self, now: Time, timestamp: u32, marker: bool, bytes: usize) -> Option<i64> {
        let mut price = None;
        // Where timestamps stand still, the marker ends a frame.
        if self.is_over || self.timestamp != Some(timestamp) {
            price = self.end();
            if self.timestamp.is_some() {
                self.interval =
                    Span(smooth(self.interval.0 as i64, now.since(self.began_at).min(MAX_GAP).0 as i64) as u64);
            }
            *self = Frames {
                timestamp: Some(timestamp),
                began_at: now,
                mean: self.mean,
                key: self.key,
                interval: self.interval,
                ..Frames::default()
            };
        }
        self.bytes += bytes as i64;
        self.is_over = marker;
        price
    }

    /// The present frame is a key frame.
    pub fn handle_key_frame(&mut self, is_answer: bool) {
        (self.is_key, self.is_answer) = (true, is_answer);
    }

    fn end(&mut self) -> Option<i64> {
        self.timestamp?;
        let mean = if self.is_key { &mut self.key } else { &mut self.mean };
        *mean = smooth(*mean, self.bytes);
        self.is_answer.then(|| (self.bytes - self.mean).max(self.mean))
    }

    /// What a key frame costs: its bytes beyond a frame that would have been sent anyway, and that frame's at the least.
    pub fn price(&self) -> i64 {
        if self.key == 0 { 0 } else { (self.key - self.mean).max(self.mean) }
    }

    /// The least time between two requests: until an answer to the first can have come.
    pub fn gap(&self, round_trip: Option<Span>) -> Span {
        let answer = round_trip.map_or(0, |span| span.0) + 2 * self.interval.0;
        Span(answer.min(MAX_GAP.0)).max(RETRY)
    }
}

/// The account of one publication, all its encodings together, in hundredths of bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    account: i64,
    /// The price of one key frame of each encoding.
    price: i64,
}

impl Budget {
    pub fn handle_packet(&mut self, bytes: usize) {
        self.account = (self.account + SHARE * bytes as i64).min(SAVED * 100 * self.price);
    }

    /// Takes what an answer cost, and the price that the next one is taken to have. The account is full when the first price is known.
    pub fn handle_answer(&mut self, cost: i64, price: i64) {
        if self.price == 0 {
            self.account = SAVED * 100 * price;
        }
        self.price = price;
        self.account = (self.account - 100 * cost).max(-SAVED * 100 * price);
    }

    pub fn allowed(&self) -> Allowed {
        match self.account {
            _ if self.price == 0 => Allowed::All,
            1.. => Allowed::All,
            account if account > -100 * self.price => Allowed::SeesNothing,
            _ => Allowed::None,
        }
    }
}

/// A mean over some eight values.
fn smooth(mean: i64, value: i64) -> i64 {
    if mean == 0 { value } else { (7 * mean + value) / 8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: u64 = 33;

    /// Sends frames of 6 packets of 1,000 bytes, key frames of 30, and asks whenever it may; when key frames were asked for, in milliseconds.
    fn storm(sees_nothing: bool, seconds: u64) -> Vec<u64> {
        let (mut frames, mut budget, mut asked) = (Frames::default(), Budget::default(), Vec::new());
        let needed = if sees_nothing { Allowed::SeesNothing } else { Allowed::All };
        for frame in 0..seconds * 1_000 / INTERVAL {
            let now = Time(1_000_000) + Span::from_millis(frame * INTERVAL);
            let is_over = asked.last().is_none_or(|at| frame * INTERVAL - at > 250);
            let is_asked = is_over && budget.allowed() >= needed;
            for packet in 0..if is_asked { 30 } else { 6 } {
                budget.handle_packet(1_000);
                if let Some(cost) = frames.handle_packet(now, frame as u32, false, 1_000) {
                    budget.handle_answer(cost, frames.price());
                }
                if packet == 0 && is_asked {
                    frames.handle_key_frame(true);
                    asked.push(frame * INTERVAL);
                }
            }
        }
        asked
    }

    #[test]
    fn key_frames_that_are_asked_for_cost_an_eighth_of_the_bits() {
        let asked = storm(false, 60);
        // 6,000 bytes in 33 ms, of which 12 % buy a key frame's 24,000 bytes beyond a frame in some 1.1 s.
        assert!((45..70).contains(&asked.len()), "{asked:?}");
        assert!(asked.windows(2).skip(4).all(|pair| pair[1] - pair[0] > 900), "{asked:?}");
    }

    #[test]
    fn who_sees_nothing_overdraws_by_one_key_frame() {
        let before = |asked: Vec<u64>| asked.into_iter().filter(|at| *at < 1_250).count();
        assert_eq!((before(storm(true, 2)), before(storm(false, 2))), (5, 4));
        let (urgent, ordinary) = (storm(true, 60).len(), storm(false, 60).len());
        assert!(urgent <= ordinary + 1, "in the long run it is the same budget: {urgent} and {ordinary}");
    }

    #[test]
    fn key_frames_of_the_publishers_own_cost_nothing() {
        let (mut frames, mut budget) = (Frames::default(), Budget::default());
        for frame in 0..100 {
            let now = Time(1_000_000) + Span::from_millis(frame * INTERVAL);
            assert_eq!(frames.handle_packet(now, frame as u32, true, 1_000), None);
            budget.handle_packet(1_000);
            frames.handle_key_frame(false);
        }
        assert_eq!(budget.allowed(), Allowed::All);
    }

    #[test]
    fn two_requests_are_a_round_trip_and_two_frames_apart() {
        let mut frames = Frames::default();
        assert_eq!(frames.gap(None), RETRY);
        for frame in 0..50 {
            frames.handle_packet(Time(1_000_000) + Span::from_millis(frame * 200), frame as u32, true, 1_000);
        }
        assert_eq!(frames.gap(Some(Span::from_millis(150))), Span::from_millis(550));
        assert_eq!(frames.gap(Some(Span::from_secs(9))), MAX_GAP);
    }

    #[test]
    fn frames_are_told_apart_where_timestamps_stand_still() {
        let mut frames = Frames::default();
        for frame in 0..20 {
            for packet in 0..4 {
                frames.handle_packet(Time(1_000_000) + Span::from_millis(frame * INTERVAL), 7, packet == 3, 500);
            }
        }
        assert_eq!(frames.mean, 2_000);
    }
}
