//! The playout delay that a viewer on a lossy path is asked for, so that repairs come in time. Owns the estimate of the path's loss, and
//! the value of the playout-delay extension; must never write a packet. Read `rewrite.rs` next, which writes the value, and `mod.rs`,
//! which sends repairs twice on such a path.
//!
//! A browser that only receives cannot measure its round trip. It asks for a packet at once, and again only after 100 ms;
//! by default it shows pictures some 30 ms after they came. So when a request or its answer is lost as well, the picture stands
//! still.
//!
//! | state | a report of loss | then |
//! |---|---|---|
//! | at ease | loss of `LOSSY` or more on average | patient: every packet carries the delay |
//! | patient | loss under `CLEAN` for `CALM` | leaving: every packet carries a delay of zero |
//! | leaving | `TOLD` is over | at ease: no packet carries a delay |
//! | leaving | loss of `LOSSY` or more on average | patient |

use crate::time::{Span, Time};

/// Average loss of a lossy path, in 1/256 as receiver reports count: 2 %. With less, a packet is rarely lost twice.
const LOSSY: u32 = 5;
/// Average loss of a clean path, in 1/256: 0.5 %, so that a path near one bound does not change its state often.
const CLEAN: u32 = 1;
/// How long a path has to be clean before the delay ends.
const CALM: Span = Span::from_secs(30);
/// How long packets carry the end of the delay, as each may be lost.
const TOLD: Span = Span::from_secs(3);
/// The weight of a new report in the average: 1 / 4. Reports come once a second.
const SHIFT: u32 = 2;
/// From this average loss on, in 1/256, it is congestion, which sending repairs twice would feed: 15 %.
const CONGESTED: u32 = 38;
/// The longest delay. With more, people cannot talk to each other.
const MAX_DELAY: Span = Span::from_millis(1_000);
/// The unit of the extension's values.
const UNIT: Span = Span::from_millis(10);
/// 10 s, a browser's own upper bound, in units.
const NO_MAXIMUM: u32 = 1_000;

/// The value of a playout-delay extension: 12 bits each of the least and the greatest delay, in units of 10 ms.
pub type Delay = [u8; 3];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    AtEase,
    Patient {
        delay: Span,
        clean_since: Option<Time>,
    },
    Leaving {
        since: Time,
    },
}

/// The playout delay of one outgoing stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Playout {
    /// The delay on a lossy path on top of its round trip; with zero no delay is asked for.
    repair_delay: Span,
    /// Average of the reports in 1/256, shifted left by `SHIFT`.
    loss: u32,
    /// It falls at once and rises by an eighth a report: one late report is a busy machine, not a longer path.
    round_trip: Option<Span>,
    state: State,
}

impl Playout {
    pub fn new(repair_delay: Span) -> Playout {
        Playout { repair_delay, ..Playout::default() }
    }

    /// Resumes for a successor. The delay that the viewer was asked for is not known, so its end is sent once the path proves clean.
    pub fn resume(now: Time, repair_delay: Span) -> Playout {
        let state = State::Patient { delay: Span(0), clean_since: Some(now) };
        Playout { state: if repair_delay == Span(0) { State::AtEase } else { state }, ..Playout::new(repair_delay) }
    }

    /// Takes a receiver report's fraction lost, in 1/256.
    pub fn handle_report(&mut self, now: Time, fraction_lost: u8, round_trip: Option<Span>) {
        self.loss = self.loss - (self.loss >> SHIFT) + u32::from(fraction_lost);
        let risen = self.round_trip.map(|old| Span(old.0 + old.0 / 8 + UNIT.0));
        self.round_trip = round_trip.map(|new| risen.map_or(new, |risen| new.min(risen))).or(self.round_trip);
        if self.repair_delay == Span(0) {
            return;
        }
        let loss = self.loss >> SHIFT;
        let delay = Span(self.repair_delay.0 + self.round_trip.map_or(0, |span| span.0)).min(MAX_DELAY);
        self.state = match self.state {
            // The delay only grows: each change makes the player stretch or squeeze what it shows.
            State::Patient { delay: old, .. } if loss >= LOSSY => {
                State::Patient { delay: old.max(delay), clean_since: None }
            }
            _ if loss >= LOSSY => State::Patient { delay, clean_since: None },
            State::Patient { delay, clean_since } => match clean_since {
                Some(since) if loss < CLEAN && now.since(since) >= CALM => State::Leaving { since: now },
                _ => State::Patient { delay, clean_since: (loss < CLEAN).then(|| clean_since.unwrap_or(now)) },
            },
            State::Leaving { since } if now.since(since) >= TOLD => State::AtEase,
            state => state,
        };
    }

    /// The value that each packet has to carry now, if any.
    pub fn told(&self) -> Option<Delay> {
        match self.state {
            State::AtEase => None,
            State::Patient { delay: Span(0), .. } => None,
            State::Patient { delay, .. } => Some(value(delay)),
            State::Leaving { .. } => Some(value(Span(0))),
        }
    }

    /// True when repairs are to be sent twice, as they are lost as easily as packets.
    pub fn doubles_repairs(&self) -> bool {
        (LOSSY..CONGESTED).contains(&(self.loss >> SHIFT))
    }
}

fn value(least: Span) -> Delay {
    let least = (least.0.div_ceil(UNIT.0) as u32).min(NO_MAXIMUM);
    let [_, a, b, c] = (least << 12 | NO_MAXIMUM).to_be_bytes();
    [a, b, c]
}

/// The publisher's value and ours in one: the longer of both least delays, and a greatest that allows it.
pub fn combine(publisher: &[u8], ours: Delay) -> Delay {
    let &[a, b, c] = publisher else { return ours };
    let parts = |[a, b, c]: Delay| {
        let whole = u32::from_be_bytes([0, a, b, c]);
        (whole >> 12, whole & 0xfff)
    };
    let (wanted, allowed) = parts([a, b, c]);
    let (least, _) = parts(ours);
    let least = least.max(wanted);
    let [_, a, b, c] = (least << 12 | allowed.max(least)).to_be_bytes();
    [a, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time(7_000_000) + Span::from_secs(seconds)
    }

    fn after(playout: &mut Playout, seconds: std::ops::Range<u64>, fraction_lost: u8) -> Option<Delay> {
        seconds.for_each(|second| playout.handle_report(at(second), fraction_lost, Some(Span::from_millis(35))));
        playout.told()
    }

    #[test]
    fn a_lossy_path_is_given_time_for_repairs_until_it_has_long_been_clean() {
        let mut playout = Playout::new(Span::from_millis(200));
        assert_eq!(after(&mut playout, 0..1, 13), None, "one report is no path");
        assert!(!playout.doubles_repairs());
        // 240 ms at least, 10 s at most.
        assert_eq!(after(&mut playout, 1..3, 13), Some([0x01, 0x83, 0xe8]));
        assert!(playout.doubles_repairs());
        assert_eq!(after(&mut playout, 3..30, 0), Some([0x01, 0x83, 0xe8]));
        assert!(!playout.doubles_repairs());
        assert_eq!(after(&mut playout, 30..44, 0), Some([0x00, 0x03, 0xe8]), "told that it is over");
        assert_eq!(after(&mut playout, 44..60, 0), None);
    }

    #[test]
    fn loss_in_the_last_second_of_calm_begins_it_anew() {
        let mut playout = Playout::new(Span::from_millis(200));
        after(&mut playout, 0..3, 13);
        // The average is clean from second 12 on.
        assert!(after(&mut playout, 3..42, 0).is_some_and(|told| told[..2] == [0x01, 0x83]));
        assert!(after(&mut playout, 42..43, 8).is_some_and(|told| told[..2] == [0x01, 0x83]));
        assert!(after(&mut playout, 43..72, 0).is_some_and(|told| told[..2] == [0x01, 0x83]));
        assert_eq!(after(&mut playout, 72..80, 0), Some([0x00, 0x03, 0xe8]));
    }

    #[test]
    fn one_late_report_is_no_longer_path() {
        let mut playout = Playout::new(Span::from_millis(200));
        after(&mut playout, 0..10, 13);
        playout.handle_report(at(10), 13, Some(Span::from_millis(700)));
        assert_eq!(playout.told(), Some(value(Span::from_millis(250))));
        (11..40).for_each(|second| playout.handle_report(at(second), 13, Some(Span::from_millis(300))));
        assert_eq!(playout.told(), Some(value(Span::from_millis(500))));
    }

    #[test]
    fn a_little_loss_changes_nothing() {
        let mut playout = Playout::new(Span::from_millis(200));
        assert_eq!(after(&mut playout, 0..100, 3), None);
    }

    #[test]
    fn a_viewer_that_does_not_wait_is_never_asked_to() {
        let mut playout = Playout::new(Span(0));
        assert_eq!(after(&mut playout, 0..10, 26), None);
        assert!(playout.doubles_repairs());
        assert_eq!(Playout::resume(at(0), Span(0)).told(), None);
    }

    #[test]
    fn congestion_is_not_fed_with_second_repairs() {
        let mut playout = Playout::new(Span::from_millis(200));
        after(&mut playout, 0..20, 80);
        assert!(!playout.doubles_repairs());
    }

    #[test]
    fn a_successor_ends_what_its_predecessor_may_have_told() {
        let mut playout = Playout::resume(at(0), Span::from_millis(200));
        assert_eq!(after(&mut playout, 0..30, 0), None);
        assert_eq!(after(&mut playout, 30..31, 0), Some([0x00, 0x03, 0xe8]));
    }

    #[test]
    fn the_publishers_own_wish_is_kept() {
        let ours = [0x01, 0x43, 0xe8];
        assert_eq!(combine(&[0, 0, 0], ours), [0x01, 0x40, 0x14]);
        assert_eq!(combine(&[0x10, 0x02, 0x00], ours), [0x10, 0x02, 0x00]);
        assert_eq!(combine(&[1], ours), ours);
    }
}
