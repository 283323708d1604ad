//! The sequence numbers of an outgoing stream. Maps the indexes of one source to outgoing ones: without a gap where a packet was left
//! out on purpose, with one where a packet is missing. Must never know bytes or time. Read `timeline.rs` next for timestamps.
//!
//! ```text
//! source    100 101 102 103 104 105        102 is padding, 104 has not arrived
//! outgoing    7   8   -   9 (10) 11        pieces: from 100 add -93, from 103 add -94
//! ```
//! The number 10 is reserved for 104, should it come. A repair of outgoing 9 finds source 103 again.

use std::collections::VecDeque;

/// Runs of left-out packets that are remembered. A packet from before the oldest has no number any more. Probes come in bursts that are
/// far rarer than the log's length divided by this.
const MAX_PIECES: usize = 32;

#[derive(Clone, Copy, Debug)]
struct Piece {
    /// The first source index that this piece numbers.
    from: u64,
    /// outgoing = source + shift, wrapping.
    shift: u64,
}

/// The numbers of one source, from the first packet that was forwarded.
#[derive(Clone, Debug)]
pub struct Numbering {
    newest: Piece,
    /// The pieces before it, the oldest first. Most streams never have one.
    older: VecDeque<Piece>,
    highest: u64,
}

impl Numbering {
    /// Numbers of a source whose index `first` becomes `outgoing`.
    pub fn new(first: u64, outgoing: u64) -> Numbering {
        let newest = Piece { from: first, shift: outgoing.wrapping_sub(first) };
        Numbering { newest, older: VecDeque::new(), highest: first }
    }

    /// Resumes with the last piece of a predecessor, which would have assigned `next`. `None` when these values do not fit together.
    /// Packets from before that piece have no number any more.
    pub fn resume(from: u64, shift: u64, next: u64) -> Option<Numbering> {
        let highest = next.wrapping_sub(1).wrapping_sub(shift);
        let newest = Piece { from, shift };
        // A packet that is left out ends its piece: then the highest lies just before the next one.
        (highest < u64::MAX && from <= highest + 1).then_some(Numbering { newest, older: VecDeque::new(), highest })
    }

    /// The first source index of the newest piece, and what is added to it.
    pub fn last_piece(&self) -> (u64, u64) {
        (self.newest.from, self.newest.shift)
    }

    /// The highest source index seen.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// The outgoing index of `highest`.
    pub fn highest_outgoing(&self) -> u64 {
        self.highest.wrapping_add(self.newest.shift)
    }

    /// The outgoing index of a packet that is forwarded; `None` when it is too old to have one.
    pub fn assign(&mut self, index: u64) -> Option<u64> {
        self.highest = self.highest.max(index);
        let piece = self.pieces().find(|piece| piece.from <= index)?;
        Some(index.wrapping_add(piece.shift))
    }

    /// Leaves a packet out, so that the next one gets its number. False when later packets have numbers already: then the packet has to
    /// be sent, or it would look lost.
    pub fn skip(&mut self, index: u64) -> bool {
        if index <= self.highest {
            return false;
        }
        let piece = Piece { from: index + 1, shift: self.newest.shift.wrapping_sub(1) };
        self.highest = index;
        let before = std::mem::replace(&mut self.newest, piece);
        if before.from == index {
            return true;
        }
        if self.older.len() == MAX_PIECES - 1 {
            self.older.pop_front();
        }
        self.older.push_back(before);
        true
    }

    /// The source index of this outgoing index; `None` when it is from before this source, or not assigned yet.
    pub fn source(&self, outgoing: u64) -> Option<u64> {
        let at = |piece: &Piece| outgoing.wrapping_sub(piece.shift);
        let (_, index) = self.pieces().map(|piece| (piece.from, at(piece))).find(|(from, index)| index >= from)?;
        (index <= self.highest).then_some(index)
    }

    /// The newest first.
    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        std::iter::once(&self.newest).chain(self.older.iter().rev())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn left_out_packets_leave_no_gap_and_missing_ones_do() {
        let mut numbering = Numbering::new(100, 7);
        assert_eq!(numbering.assign(100), Some(7));
        assert_eq!(numbering.assign(101), Some(8));
        assert!(numbering.skip(102));
        assert_eq!(numbering.assign(103), Some(9));
        assert_eq!(numbering.assign(105), Some(11));
        assert_eq!(numbering.assign(104), Some(10), "late, and its number waited for it");
        assert_eq!([8, 9, 10, 11].map(|outgoing| numbering.source(outgoing)), [101, 103, 104, 105].map(Some));
        assert_eq!((numbering.source(6), numbering.source(12)), (None, None));
    }

    #[test]
    fn a_run_of_left_out_packets_is_one_piece() {
        let mut numbering = Numbering::new(100, 7);
        (101..2_000).for_each(|index| assert!(numbering.skip(index)));
        assert_eq!(numbering.pieces().count(), 2);
        assert_eq!(numbering.assign(2_000), Some(8));
        assert_eq!(numbering.assign(100), Some(7));
    }

    #[test]
    fn a_late_packet_cannot_be_left_out() {
        let mut numbering = Numbering::new(100, 7);
        numbering.assign(102);
        assert!(!numbering.skip(101));
        assert_eq!(numbering.assign(101), Some(8));
    }

    #[test]
    fn what_is_older_than_the_memory_has_no_number() {
        let mut numbering = Numbering::new(100, 7);
        for index in 100..100 + 4 * MAX_PIECES as u64 {
            if index % 2 == 0 {
                numbering.assign(index);
            } else {
                assert!(numbering.skip(index));
            }
        }
        assert_eq!(numbering.pieces().count(), MAX_PIECES);
        assert_eq!(numbering.assign(99), None);
        assert_eq!(numbering.assign(101), None);
    }

    proptest! {
        #[test]
        fn what_is_resumed_goes_on_with_the_same_numbers(steps in prop::collection::vec((1u64..4, any::<bool>()), 0..60)) {
            let mut numbering = Numbering::new(70_000, 7);
            for (step, padding) in steps {
                let index = numbering.highest() + step;
                if padding {
                    prop_assert!(numbering.skip(index));
                } else {
                    prop_assert!(numbering.assign(index).is_some());
                }
                let (from, shift) = numbering.last_piece();
                let mut resumed = Numbering::resume(from, shift, numbering.highest_outgoing() + 1).unwrap();
                prop_assert_eq!(resumed.highest(), numbering.highest());
                let mut original = numbering.clone();
                prop_assert_eq!(resumed.assign(index + 1), original.assign(index + 1));
                let last = original.highest_outgoing();
                let of_last_piece = last - (index + 1 - from).min(last);
                for outgoing in of_last_piece..=last {
                    prop_assert_eq!(resumed.source(outgoing), original.source(outgoing));
                }
            }
        }

        #[test]
        fn outgoing_order_is_source_order_whatever_the_arrival_order(
            first in 65_536u64..70_000,
            outgoing in 0u64..40_000,
            arrivals in prop::collection::vec((0u64..60, any::<bool>()), 1..400),
        ) {
            let mut numbering = Numbering::new(first, outgoing);
            let mut outgoing_by_source = BTreeMap::from([(first, numbering.assign(first).unwrap())]);
            let mut left_out = std::collections::BTreeSet::new();
            for (step, padding) in arrivals {
                let index = (numbering.highest() + 20).saturating_sub(step);
                if index <= first || outgoing_by_source.contains_key(&index) || left_out.contains(&index) {
                    continue;
                }
                if padding && numbering.skip(index) {
                    left_out.insert(index);
                } else if let Some(outgoing) = numbering.assign(index) {
                    outgoing_by_source.insert(index, outgoing);
                }
            }
            let pairs: Vec<_> = outgoing_by_source.iter().collect();
            for pair in pairs.windows(2) {
                let between = left_out.range(pair[0].0..pair[1].0).count() as u64;
                prop_assert_eq!(pair[1].1 - pair[0].1, pair[1].0 - pair[0].0 - between);
            }
            for (source, outgoing) in outgoing_by_source.iter().rev().take(20) {
                prop_assert_eq!(numbering.source(*outgoing), Some(*source));
            }
        }
    }
}
