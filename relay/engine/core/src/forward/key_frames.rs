//! Merges many viewers' wishes for a key frame into few requests, at both ends of the ring between workers. Owns when to ask;
//! must never know whom or how. Read `publication/mod.rs` next, which sends a request as PLI or FIR.
//!
//! | state   | a wish                | time passes                   | a key frame starts |
//! |---------|-----------------------|-------------------------------|--------------------|
//! | idle    | wanted, ask as allowed | -                            | idle               |
//! | wanted  | stays wanted          | ask every `RETRY`; after `PATIENCE` without a wish: idle | idle |

use crate::time::{Span, Time};

/// The least time between two requests to a publisher. The encoder needs a frame time or two to answer and the path a round trip;
/// more requests only bring more key frames than the link carries.
pub const RETRY: Span = Span::from_millis(250);
/// How long a wish holds. Viewers that still wait repeat it with each packet that they cannot use, but a publisher whose picture
/// stands still sends no packet.
const PATIENCE: Span = Span::from_secs(5);
/// A wish this soon after the start of a key frame is taken for one made before it. A viewer that needs another repeats its wish.
const CROSSING: Span = Span::from_millis(100);
/// The least time between two messages of a worker to the publisher's worker.
const REPEAT: Span = Span::from_millis(200);

/// At the publisher's worker, one for each encoding: when to send the publisher a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Requests {
    wanted_at: Option<Time>,
    asked_at: Option<Time>,
    started_at: Option<Time>,
    asked: u64,
}

impl Requests {
    /// A viewer waits for a key frame.
    pub fn want(&mut self, now: Time) {
        if self.started_at.is_none_or(|at| now.since(at) >= CROSSING) {
            self.need(now);
        }
    }

    /// The stream has a gap that only a key frame mends.
    pub fn need(&mut self, now: Time) {
        self.wanted_at = Some(now);
    }

    /// A key frame begins, with which all viewers that wait can start.
    pub fn handle_key_frame(&mut self, now: Time) {
        self.wanted_at = None;
        self.started_at = Some(now);
    }

    /// True when a request is due; the caller then sends it.
    pub fn ask(&mut self, now: Time) -> bool {
        let Some(wanted_at) = self.wanted_at else { return false };
        if now.since(wanted_at) > PATIENCE {
            self.wanted_at = None;
            return false;
        }
        if self.asked_at.is_some_and(|at| now.since(at) < RETRY) {
            return false;
        }
        self.asked_at = Some(now);
        self.asked += 1;
        true
    }

    /// When `ask` may become true.
    pub fn next_deadline(&self) -> Option<Time> {
        let wanted_at = self.wanted_at?;
        Some(self.asked_at.map_or(wanted_at, |at| wanted_at.max(at + RETRY)))
    }

    /// How many requests were sent.
    pub fn asked(&self) -> u64 {
        self.asked
    }
}

/// At a viewers' worker, one for each log: when to tell the publisher's worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    told_at: Option<Time>,
}

impl Wishes {
    /// Notes that a viewer wants a key frame. True when the publisher's worker has to be told now.
    pub fn want(&mut self, now: Time) -> bool {
        if self.told_at.is_some_and(|at| now.since(at) < REPEAT) {
            return false;
        }
        self.told_at = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time(1_000_000) + Span::from_millis(ms)
    }

    #[test]
    fn a_thousand_wishes_make_one_request() {
        let mut requests = Requests::default();
        let asked = (0..1_000).filter(|_| {
            requests.want(at(0));
            requests.ask(at(0))
        });
        assert_eq!(asked.count(), 1);
        assert_eq!(requests.asked(), 1);
    }

    #[test]
    fn requests_are_repeated_until_a_key_frame_starts() {
        let mut requests = Requests::default();
        requests.want(at(0));
        let asked: Vec<u64> = (0..600).filter(|ms| requests.ask(at(*ms))).collect();
        assert_eq!(asked, [0, 250, 500]);
        assert_eq!(requests.next_deadline(), Some(at(750)));
        requests.handle_key_frame(at(600));
        assert_eq!(requests.next_deadline(), None);
        assert!(!requests.ask(at(5_000)));
    }

    #[test]
    fn a_wish_right_after_a_request_waits_its_turn() {
        let mut requests = Requests::default();
        requests.want(at(0));
        assert!(requests.ask(at(0)));
        requests.handle_key_frame(at(10));
        requests.want(at(110));
        assert!(!requests.ask(at(110)));
        assert_eq!(requests.next_deadline(), Some(at(250)));
        assert!(requests.ask(at(250)));
    }

    #[test]
    fn a_wish_that_crosses_a_key_frame_asks_for_no_second_one() {
        let mut requests = Requests::default();
        requests.handle_key_frame(at(0));
        requests.want(at(99));
        assert_eq!(requests.next_deadline(), None);
        requests.want(at(100));
        assert!(requests.ask(at(100)), "repeated, so it was meant");
    }

    #[test]
    fn asking_ends_when_nobody_waits_any_more() {
        let mut requests = Requests::default();
        requests.want(at(0));
        assert!((0..10_000).filter(|ms| requests.ask(at(*ms))).count() <= 21);
        assert_eq!(requests.next_deadline(), None);
    }

    #[test]
    fn a_worker_repeats_its_wish_at_a_bounded_rate() {
        let mut wishes = Wishes::default();
        assert_eq!((0..1_000).filter(|ms| wishes.want(at(*ms))).count(), 5);
    }
}
