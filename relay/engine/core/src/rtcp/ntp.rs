//! NTP timestamps as RTCP uses them (RFC 3550 section 4): 32.32 fixed-point seconds, and the middle 32 bits for delays.
//! Must never read a clock; our own epoch is the engine's, which RFC 3550 section 6.4.1 allows. Read `reports.rs` next.

use crate::time::{Span, Time};

/// `at` as 32.32 fixed-point seconds; wraps with the wire's field.
pub fn from_time(at: Time) -> u64 {
    let seconds = at.0 / 1_000_000;
    let fraction = ((at.0 % 1_000_000) << 32) / 1_000_000;
    seconds << 32 | fraction
}

/// The middle 32 bits: 16.16 fixed-point seconds, as LSR and DLSR carry them.
pub fn middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// A span as 16.16 fixed-point seconds; saturates at 18 hours.
pub fn delay(span: Span) -> u32 {
    u32::try_from((u128::from(span.0) << 16) / 1_000_000).unwrap_or(u32::MAX)
}

/// The round-trip time from a report block that arrived at `now` (RFC 3550 section 6.4.1): `last` is its LSR, in the form of our own
/// `middle`, and `delay` its DLSR. `None` when it answers no sender report, or the time would be absurd.
pub fn round_trip(now: Time, last: u32, delay: u32) -> Option<Span> {
    // The longest possible round trip, in 16.16 seconds. More is a clock that was set back, or a forged report.
    const LONGEST: u32 = 60 << 16;
    if last == 0 {
        return None;
    }
    let units = middle(from_time(now)).wrapping_sub(last).wrapping_sub(delay);
    (units <= LONGEST).then_some(Span((u64::from(units) * 1_000_000) >> 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_round_trip_example_of_rfc_3550_section_6_4_1_comes_out() {
        // Figure 2: A = 0xb710:8000, LSR = 0xb705:2000, DLSR = 0x0005:4000; 6.125 s.
        let seconds = 0xb710 * 1_000_000 + 500_000;
        assert_eq!(round_trip(Time(seconds), 0xb705_2000, 0x0005_4000), Some(Span(6_125_000)));
    }

    #[test]
    fn reports_that_cannot_be_are_refused() {
        let now = Time(5_000_000);
        assert_eq!(round_trip(now, 0, 0), None, "no sender report seen");
        assert_eq!(round_trip(now, 6 << 16, 0), None, "from the future");
        assert_eq!(round_trip(now, 4 << 16, 2 << 16), None, "held longer than it is old");
    }

    #[test]
    fn fixed_point_keeps_microseconds_apart() {
        assert_eq!(from_time(Time(1_500_000)), 0x0000_0001_8000_0000);
        assert_ne!(from_time(Time(1)), from_time(Time(2)));
        assert_eq!(delay(Span(1_500_000)), 0x0001_8000);
        assert_eq!(delay(Span(u64::MAX)), u32::MAX);
    }
}
