//! From the wire's wrapping numbers to numbers that only grow: a u16 is a `sequence`, a u64 an `index` (the rollover
//! counter of RFC 3711 and the sequence in one). Must never know which packets were lost. Read `reception.rs` next.

/// The index of the first packet is its sequence plus this, so that packets from before it have an index too.
pub const FIRST_CYCLE: u64 = 1 << 16;

/// The index of `sequence` that lies nearest to `reference`; of two equally near ones the lower. Never below zero when
/// `reference` is at least 2^15.
pub fn nearest(reference: u64, sequence: u16) -> u64 {
    let ahead = sequence.wrapping_sub(reference as u16) as i16;
    reference.wrapping_add_signed(ahead.into())
}

/// Follows one stream of sequence numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unwrapper {
    highest: Option<u64>,
}

impl Unwrapper {
    pub const fn new() -> Unwrapper {
        Unwrapper { highest: None }
    }

    /// The index of a packet that arrived.
    pub fn index(&mut self, sequence: u16) -> u64 {
        let index = self.peek(sequence);
        self.highest = Some(self.highest.unwrap_or(index).max(index));
        index
    }

    /// The index of `sequence` now. Changes nothing, so it serves for numbers that only a NACK names.
    pub fn peek(&self, sequence: u16) -> u64 {
        self.highest.map_or(FIRST_CYCLE + u64::from(sequence), |highest| nearest(highest, sequence))
    }

    /// The highest index that has arrived.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

/// Follows one stream of RTP timestamps: a u32 on the wire, u64 ticks inside, starting in the cycle from 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimestampUnwrapper {
    highest: Option<u64>,
}

impl TimestampUnwrapper {
    pub const fn new() -> TimestampUnwrapper {
        TimestampUnwrapper { highest: None }
    }

    /// The ticks of a timestamp that arrived.
    pub fn ticks(&mut self, timestamp: u32) -> u64 {
        let ticks = self.peek(timestamp);
        self.highest = Some(self.highest.unwrap_or(ticks).max(ticks));
        ticks
    }

    /// The ticks of `timestamp` now. Changes nothing.
    pub fn peek(&self, timestamp: u32) -> u64 {
        let Some(highest) = self.highest else { return (1 << 32) + u64::from(timestamp) };
        let ahead = timestamp.wrapping_sub(highest as u32) as i32;
        highest.wrapping_add_signed(ahead.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_index_grows_across_the_wrap_and_steps_back_over_it() {
        let mut unwrapper = Unwrapper::new();
        let indexes = [65534, 65535, 0, 2, 65535, 1].map(|sequence| unwrapper.index(sequence));
        assert_eq!(indexes.map(|index| index - FIRST_CYCLE), [65534, 65535, 65536, 65538, 65535, 65537]);
        assert_eq!(unwrapper.highest(), Some(FIRST_CYCLE + 65538));
    }

    #[test]
    fn packets_from_before_the_first_one_do_not_underflow() {
        let mut unwrapper = Unwrapper::new();
        assert_eq!(unwrapper.index(0), FIRST_CYCLE);
        assert_eq!(unwrapper.index(65535), FIRST_CYCLE - 1);
        assert_eq!(unwrapper.index(32768), FIRST_CYCLE - 32768);
    }

    #[test]
    fn peeking_changes_nothing() {
        let mut unwrapper = Unwrapper::new();
        unwrapper.index(10);
        assert_eq!(unwrapper.peek(30000), FIRST_CYCLE + 30000);
        assert_eq!(unwrapper.highest(), Some(FIRST_CYCLE + 10));
    }

    #[test]
    fn timestamps_grow_across_the_wrap() {
        let mut unwrapper = TimestampUnwrapper::new();
        let ticks = [u32::MAX - 9, 10, u32::MAX].map(|timestamp| unwrapper.ticks(timestamp));
        assert_eq!(ticks, [(2 << 32) - 10, (2 << 32) + 10, (2 << 32) - 1]);
    }

    proptest! {
        #[test]
        fn any_walk_with_steps_below_half_the_range_is_followed(start: u16, steps in prop::collection::vec(-30000i64..30000, 1..100)) {
            let mut unwrapper = Unwrapper::new();
            let mut highest = unwrapper.index(start);
            for step in steps {
                let expected = highest.wrapping_add_signed(step);
                prop_assert_eq!(unwrapper.index(expected as u16), expected);
                highest = highest.max(expected);
            }
        }
    }
}
