//! Merges many viewers' wishes for a key frame into few requests, at both ends of the ring between workers. Owns when to ask;
//! must never know whom or how. Read `publication/mod.rs` next, which sends a request as PLI or FIR, and `publication/budget.rs` for what
//! key frames may cost.
//!
//! | state   | a wish                 | time passes                   | a key frame starts |
//! |---------|------------------------|-------------------------------|--------------------|
//! | idle    | wanted, ask as allowed | -                             | idle               |
//! | wanted  | stays wanted           | ask once `gap` is over and the budget allows it, or after `LONGEST`; after `PATIENCE` without a wish: idle | idle |

use crate::time::{Span, Time};

/// The least time between two requests to a publisher, whatever its round trip. The encoder needs a frame time or two to answer and the path
/// a round trip; more requests only bring more key frames than the link carries.
pub const RETRY: Span = Span::from_millis(250);
/// However much key frames cost, one is asked for after so long.
const LONGEST: Span = Span::from_secs(5);
/// How long a wish holds. Viewers that still wait repeat it with each packet that they cannot use, but a publisher whose picture
/// stands still sends no packet.
const PATIENCE: Span = Span::from_secs(5);
/// A wish this soon after the start of a key frame is taken for one made before it. A viewer that needs another repeats its wish.
const CROSSING: Span = Span::from_millis(100);
/// A key frame of another encoding than was asked for, so soon after the request, is an answer, too.
const ANSWER: Span = Span::from_secs(1);
/// The least time between two messages of a worker to the publisher's worker.
const REPEAT: Span = Span::from_millis(200);
/// A viewer's requests that count: one in a second, three in ten seconds, as Jitsi's bridge has it. A decoder that needs more of them has
/// lost more than key frames mend.
const REFRESH: Span = Span::from_secs(1);
const REFRESHES: usize = 3;
const REFRESHES_IN: Span = Span::from_secs(10);
/// A decoder that goes on asking for so long is not helped by the repairs that it gets.
const MENDING: Span = Span::from_millis(300);
/// A request so long after the one before is about another loss.
const OTHER_LOSS: Span = Span::from_secs(1);

/// That a viewer waits for a key frame of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    pub log: u32,
    /// It has had no picture of this publication, or its encoding has stopped.
    pub sees_nothing: bool,
}

/// One viewer's PLI and FIR: each that comes counts, but not at once when they come often.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refresh {
    is_asked: bool,
    /// When the first and the last request came that repairs may answer.
    set_aside: Option<(Time, Time)>,
    is_granted: bool,
    /// When the last ones were granted, the newest first.
    granted: [Option<Time>; REFRESHES],
}

impl Refresh {
    /// The viewer asks. While `is_mending`, as packets that it lacks are sent again, what it asks does not count at once: a decoder that
    /// these do not help repeats its request.
    pub fn handle_request(&mut self, now: Time, is_mending: bool) {
        let since = self.set_aside.filter(|(_, last)| now.since(*last) < OTHER_LOSS).map_or(now, |(first, _)| first);
        if is_mending && now.since(since) < MENDING {
            self.set_aside = Some((since, now));
        } else {
            self.is_asked = true;
        }
    }

    /// It gets a key frame.
    pub fn handle_key_frame(&mut self) {
        (self.is_asked, self.is_granted, self.set_aside) = (false, false, None);
    }

    /// True while the request stands that was granted.
    pub fn is_wanted(&mut self, now: Time) -> bool {
        if self.due_at().is_some_and(|at| at <= now) {
            self.is_granted = true;
            self.granted.rotate_right(1);
            self.granted[0] = Some(now);
        }
        self.is_granted
    }

    /// When a request that is not granted yet will be.
    pub fn due_at(&self) -> Option<Time> {
        if !self.is_asked || self.is_granted {
            return None;
        }
        let after = |at: Option<Time>, span: Span| at.map_or(Time(0), |at| at + span);
        Some(after(self.granted[0], REFRESH).max(after(self.granted[REFRESHES - 1], REFRESHES_IN)))
    }
}

/// Which wishes the budget of the publication allows at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allowed {
    /// One in `LONGEST` only.
    None,
    /// Those of viewers that see nothing.
    SeesNothing,
    All,
}

/// At the publisher's worker, one for each encoding: when to send the publisher a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Requests {
    wanted_at: Option<Time>,
    /// The newest wish of a viewer that sees nothing.
    nothing_seen_at: Option<Time>,
    asked_at: Option<Time>,
    /// When any encoding of the publication was asked for one: some encoders answer on all.
    any_asked_at: Option<Time>,
    started_at: Option<Time>,
    asked: u64,
}

impl Requests {
    /// A viewer waits for a key frame.
    pub fn want(&mut self, now: Time, sees_nothing: bool) {
        if self.started_at.is_some_and(|at| now.since(at) < CROSSING) {
            return;
        }
        self.wanted_at = Some(now);
        if sees_nothing {
            self.nothing_seen_at = Some(now);
        }
    }

    /// The stream has a gap that only a key frame mends, for everybody.
    pub fn need(&mut self, now: Time) {
        (self.wanted_at, self.nothing_seen_at) = (Some(now), Some(now));
    }

    /// A key frame begins, with which all viewers that wait can start. True when it may be the answer to a request.
    pub fn handle_key_frame(&mut self, now: Time) -> bool {
        let is_answer = self.is_open() || self.lacks_since(self.any_asked_at) && !self.has_waited(now);
        (self.wanted_at, self.nothing_seen_at) = (None, None);
        self.started_at = Some(now);
        is_answer
    }

    /// True when a request is due; the caller then sends it. `gap` is the least time since the one before.
    pub fn ask(&mut self, now: Time, allowed: Allowed, gap: Span) -> bool {
        let Some(wanted_at) = self.wanted_at else { return false };
        self.nothing_seen_at = self.nothing_seen_at.filter(|at| now.since(*at) <= PATIENCE);
        if now.since(wanted_at) > PATIENCE {
            self.wanted_at = None;
            return false;
        }
        if self.due_at(wanted_at, allowed, gap) > now {
            return false;
        }
        self.asked_at = Some(now);
        self.asked += 1;
        true
    }

    /// When `ask` may become true; sooner once the budget allows more.
    pub fn next_deadline(&self, allowed: Allowed, gap: Span) -> Option<Time> {
        Some(self.due_at(self.wanted_at?, allowed, gap))
    }

    /// How many requests were sent.
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// An encoding of the publication was asked for a key frame.
    pub fn handle_any_asked(&mut self, now: Time) {
        self.any_asked_at = Some(now);
    }

    /// True when the publication's last request has been answered on this encoding.
    pub fn has_answered(&self) -> bool {
        self.any_asked_at.is_some() && !self.lacks_since(self.any_asked_at)
    }

    fn due_at(&self, wanted_at: Time, allowed: Allowed, gap: Span) -> Time {
        let Some(asked_at) = self.asked_at else { return wanted_at };
        let wish = if self.nothing_seen_at.is_some() { Allowed::SeesNothing } else { Allowed::All };
        // One that was not answered is repeated: it has cost nothing yet.
        let is_allowed = allowed >= wish || self.is_open();
        wanted_at.max(asked_at + if is_allowed { gap } else { LONGEST })
    }

    /// True between a request and the key frame that may answer it.
    fn is_open(&self) -> bool {
        self.lacks_since(self.asked_at)
    }

    /// True when no key frame has begun since that request.
    fn lacks_since(&self, asked_at: Option<Time>) -> bool {
        asked_at.is_some_and(|asked| self.started_at.is_none_or(|started| started < asked))
    }

    /// True when an answer on this encoding to a request for another one would have come.
    fn has_waited(&self, now: Time) -> bool {
        self.any_asked_at.is_none_or(|at| now.since(at) > ANSWER)
    }
}

/// At a viewers' worker, one for each log: when to tell the publisher's worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    told_at: Option<Time>,
    /// The last one of a viewer that sees nothing.
    told_nothing_at: Option<Time>,
}

impl Wishes {
    /// Notes that a viewer wants a key frame. True when the publisher's worker has to be told now.
    pub fn want(&mut self, now: Time, wish: Wish) -> bool {
        let last = if wish.sees_nothing { self.told_nothing_at } else { self.told_at };
        if last.is_some_and(|at| now.since(at) < REPEAT) {
            return false;
        }
        self.told_at = Some(now);
        if wish.sees_nothing {
            self.told_nothing_at = Some(now);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time(1_000_000) + Span::from_millis(ms)
    }

    fn ask(requests: &mut Requests, ms: u64) -> bool {
        requests.ask(at(ms), Allowed::All, RETRY)
    }

    #[test]
    fn a_thousand_wishes_make_one_request() {
        let mut requests = Requests::default();
        let asked = (0..1_000).filter(|_| {
            requests.want(at(0), true);
            ask(&mut requests, 0)
        });
        assert_eq!(asked.count(), 1);
        assert_eq!(requests.asked(), 1);
    }

    #[test]
    fn requests_are_repeated_until_a_key_frame_starts() {
        let mut requests = Requests::default();
        requests.want(at(0), false);
        let asked: Vec<u64> = (0..600).filter(|ms| requests.ask(at(*ms), Allowed::None, RETRY)).collect();
        assert_eq!(asked, [0, 250, 500]);
        assert_eq!(requests.next_deadline(Allowed::None, RETRY), Some(at(750)));
        assert!(requests.handle_key_frame(at(600)));
        assert_eq!(requests.next_deadline(Allowed::All, RETRY), None);
        assert!(!ask(&mut requests, 5_000));
        assert!(!requests.handle_key_frame(at(5_000)), "nobody asked for this one");
    }

    #[test]
    fn a_wish_right_after_a_request_waits_its_turn() {
        let mut requests = Requests::default();
        requests.want(at(0), true);
        assert!(ask(&mut requests, 0));
        requests.handle_key_frame(at(10));
        requests.want(at(110), true);
        assert!(!ask(&mut requests, 110));
        assert_eq!(requests.next_deadline(Allowed::All, RETRY), Some(at(250)));
        assert!(!requests.ask(at(250), Allowed::All, Span::from_millis(400)), "a long path takes longer to answer");
        assert!(ask(&mut requests, 250));
    }

    #[test]
    fn what_the_budget_does_not_allow_is_asked_for_every_five_seconds() {
        for (sees_nothing, allowed, expected) in [
            (false, Allowed::All, 250),
            (false, Allowed::SeesNothing, 5_000),
            (true, Allowed::SeesNothing, 250),
            (true, Allowed::None, 5_000),
        ] {
            let mut requests = Requests::default();
            requests.want(at(0), true);
            assert!(requests.ask(at(0), allowed, RETRY), "the first");
            requests.handle_key_frame(at(50));
            let due = (150..6_000).find(|ms| {
                requests.want(at(*ms), sees_nothing);
                requests.ask(at(*ms), allowed, RETRY)
            });
            assert_eq!(due, Some(expected));
        }
    }

    #[test]
    fn a_wish_that_crosses_a_key_frame_asks_for_no_second_one() {
        let mut requests = Requests::default();
        requests.handle_key_frame(at(0));
        requests.want(at(99), true);
        assert_eq!(requests.next_deadline(Allowed::All, RETRY), None);
        requests.want(at(100), true);
        assert!(ask(&mut requests, 100), "repeated, so it was meant");
    }

    #[test]
    fn asking_ends_when_nobody_waits_any_more() {
        let mut requests = Requests::default();
        requests.want(at(0), true);
        assert!((0..10_000).filter(|ms| ask(&mut requests, *ms)).count() <= 21);
        assert_eq!(requests.next_deadline(Allowed::All, RETRY), None);
    }

    #[test]
    fn a_worker_repeats_its_wish_at_a_bounded_rate() {
        let mut wishes = Wishes::default();
        let ordinary = Wish { log: 1, sees_nothing: false };
        assert_eq!((0..1_000).filter(|ms| wishes.want(at(*ms), ordinary)).count(), 5);
        let urgent = Wish { sees_nothing: true, ..ordinary };
        assert!(wishes.want(at(1_000), urgent) && !wishes.want(at(1_001), urgent), "it says more than the last one");
        assert!(!wishes.want(at(1_199), ordinary));
    }

    #[test]
    fn a_viewer_that_goes_on_asking_is_heard_three_times_in_ten_seconds() {
        let mut refresh = Refresh::default();
        let granted = (0..30_000).step_by(100).filter(|ms| {
            refresh.handle_request(at(*ms), false);
            let is_wanted = refresh.is_wanted(at(*ms));
            if is_wanted {
                refresh.handle_key_frame();
            }
            is_wanted
        });
        assert_eq!(granted.collect::<Vec<_>>(), [0, 1_000, 2_000, 10_000, 11_000, 12_000, 20_000, 21_000, 22_000]);
    }

    #[test]
    fn a_request_that_came_too_early_is_kept() {
        let mut refresh = Refresh::default();
        refresh.handle_request(at(0), false);
        assert!(refresh.is_wanted(at(0)) && refresh.is_wanted(at(900)), "until the key frame");
        refresh.handle_key_frame();
        refresh.handle_request(at(950), false);
        assert!(!refresh.is_wanted(at(950)));
        assert_eq!(refresh.due_at(), Some(at(1_000)));
        assert!(refresh.is_wanted(at(1_000)));
        refresh.handle_key_frame();
        assert_eq!((refresh.is_wanted(at(9_000)), refresh.due_at()), (false, None));
    }

    #[test]
    fn while_repairs_are_under_way_only_a_request_that_is_repeated_counts() {
        let mut refresh = Refresh::default();
        for ms in [0, 100, 299] {
            refresh.handle_request(at(ms), true);
            assert!(!refresh.is_wanted(at(ms)), "{ms}");
        }
        refresh.handle_request(at(400), true);
        assert!(refresh.is_wanted(at(400)));
        refresh.handle_key_frame();
        refresh.handle_request(at(5_000), true);
        refresh.handle_request(at(6_100), true);
        assert!(!refresh.is_wanted(at(6_100)), "another loss");
        refresh.handle_request(at(6_200), false);
        assert!(refresh.is_wanted(at(6_200)), "there is nothing to repair");
    }
}
