//! The engine's only notion of time: microseconds on a clock that every worker of the box shares.
//! Must never read a clock: the shell passes the time in. Read `deadlines.rs` next.

use std::ops::{Add, Sub};

/// A moment: microseconds on the box's monotonic clock (CLOCK_MONOTONIC in production, anything in tests).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

/// A length of time, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

impl Time {
    /// The span since `earlier`; zero when that lies in the future.
    pub fn since(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Span {
    pub const fn from_millis(ms: u64) -> Span {
        Span(ms * 1_000)
    }

    pub const fn from_secs(secs: u64) -> Span {
        Span(secs * 1_000_000)
    }

    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }
}

impl Add<Span> for Time {
    type Output = Time;

    fn add(self, span: Span) -> Time {
        Time(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for Time {
    type Output = Time;

    fn sub(self, span: Span) -> Time {
        Time(self.0.saturating_sub(span.0))
    }
}
