//! The timestamps of an outgoing stream: continuous across sources whose clocks begin anywhere. Owns the offset of the
//! present source; must never know sequence numbers. Read `mod.rs` next, which has one for each stream.
//!
//! ```text
//! source A   9000  12000  15000            arrives at 0, 33, 66 ms
//! source B                       700  3700 arrives at 2066, 2099 ms
//! outgoing   9000  12000  15000  195000 198000      the two seconds between A and B have passed for the viewer, too
//! ```

use crate::time::Span;

/// The least step from an old source to a new one, however close together they arrived. Equal or backward timestamps would merge two
/// frames into one.
const MIN_STEP: Span = Span::from_millis(20);
/// The longest pause that is shown. A step of 2^31 ticks or more (6.6 h at 90 kHz) would read as one backward.
const MAX_STEP: Span = Span::from_secs(3_600);

#[derive(Clone, Copy, Debug)]
pub struct Timeline {
    newest: Option<(u32, u64)>,
    first: u32,
}

impl Timeline {
    /// A stream that begins at the timestamp `first`.
    pub fn new(first: u32) -> Timeline {
        Timeline { newest: None, first }
    }

    /// Resumes after a predecessor's `newest`, if it had one.
    pub fn resume(first: u32, newest: Option<(u32, u64)>) -> Timeline {
        Timeline { newest, first }
    }

    /// The timestamp that the stream begins with.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// The offset (outgoing = source + offset, wrapping) for a source that begins with a packet of this timestamp, which
    /// arrived at `arrived_us`.
    pub fn begin(&self, timestamp: u32, arrived_us: u64, clock_rate: u32) -> u32 {
        let Some((newest, newest_us)) = self.newest else { return self.first.wrapping_sub(timestamp) };
        let passed_us = arrived_us.saturating_sub(newest_us).clamp(MIN_STEP.0, MAX_STEP.0);
        newest.wrapping_add(ticks(passed_us, clock_rate)).wrapping_sub(timestamp)
    }

    /// The greatest outgoing timestamp so far, and when its source packet arrived, in microseconds.
    pub fn newest(&self) -> Option<(u32, u64)> {
        self.newest
    }

    /// Notes an outgoing timestamp.
    pub fn handle_sent(&mut self, outgoing: u32, arrived_us: u64) {
        if self.newest.is_none_or(|(newest, _)| outgoing.wrapping_sub(newest) as i32 > 0) {
            self.newest = Some((outgoing, arrived_us));
        }
    }
}

/// Microseconds in ticks of a clock, wrapping as RTP timestamps do.
pub fn ticks(us: u64, clock_rate: u32) -> u32 {
    (u128::from(us) * u128::from(clock_rate) / 1_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIDEO: u32 = 90_000;

    fn begin_after(pause: Span) -> u32 {
        let mut timeline = Timeline::new(500);
        let offset = timeline.begin(4_000_000_000, 1_000, VIDEO);
        assert_eq!(4_000_000_000u32.wrapping_add(offset), 500);
        timeline.handle_sent(500, 1_000);
        77u32.wrapping_add(timeline.begin(77, 1_000 + pause.0, VIDEO))
    }

    #[test]
    fn the_pause_between_two_sources_is_shown() {
        assert_eq!(begin_after(Span::from_secs(2)), 500 + 2 * VIDEO);
    }

    #[test]
    fn a_switch_at_the_same_moment_still_steps_forward() {
        assert_eq!(begin_after(Span(0)), 500 + VIDEO / 50);
    }

    #[test]
    fn a_very_long_pause_stays_a_step_forward() {
        let step = begin_after(Span::from_secs(100_000)).wrapping_sub(500);
        assert_eq!(step, 3_600 * VIDEO);
        assert!((step as i32) > 0);
    }

    #[test]
    fn late_packets_do_not_move_the_newest_timestamp_back() {
        let mut timeline = Timeline::new(u32::MAX - 10);
        timeline.handle_sent(u32::MAX - 10, 0);
        timeline.handle_sent(5, 33_000);
        timeline.handle_sent(u32::MAX - 5, 34_000);
        assert_eq!(timeline.newest, Some((5, 33_000)));
    }

    #[test]
    fn ticks_of_a_long_time_wrap_and_do_not_overflow() {
        assert_eq!(ticks(1_000_000, VIDEO), VIDEO);
        ticks(u64::MAX, u32::MAX);
    }
}
