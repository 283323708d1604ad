//! From a publisher's sequence numbers to the indexes of its track log and back, across packets of ours that were put between.
//! Must never know what they hold. Read `incoming.rs` next.
//!
//! ```text
//! sequence  97  98  99            100 101      100 is a key frame without parameter sets
//! index     97  98  99 (100 101)  102 103      100 and 101 are they
//! ```

/// Insertions that are remembered. A packet from before the oldest comes too late.
const MAX_INSERTED: usize = 32;

#[derive(Debug, Default)]
pub struct Indexes {
    /// index = unwrapped sequence + this, for packets behind the newest insertion. Wrapping.
    base: u64,
    /// The indexes of the packets that were put between, the oldest first.
    inserted: [u64; MAX_INSERTED],
    count: usize,
}

impl Indexes {
    /// Gives the unwrapped sequence number this index, with nothing put between.
    pub fn restart(&mut self, index: u64, sequence_index: u64) {
        *self = Indexes { base: index.wrapping_sub(sequence_index), ..Indexes::default() };
    }

    /// The index of an unwrapped sequence number; `None` when it is too old to be known.
    pub fn index(&self, sequence_index: u64) -> Option<u64> {
        let mut index = sequence_index.wrapping_add(self.base);
        for inserted in self.inserted().iter().rev() {
            if index > *inserted {
                return Some(index);
            }
            index -= 1;
        }
        (self.count < MAX_INSERTED).then_some(index)
    }

    /// The sequence number of an index that is no packet of ours.
    pub fn sequence(&self, index: u64) -> u16 {
        let behind = self.inserted().iter().rev().take_while(|inserted| **inserted > index).count();
        index.wrapping_sub(self.base).wrapping_add(behind as u64) as u16
    }

    /// Puts a packet of ours at this index, which is a new one: the packet that had it gets the next one.
    pub fn insert(&mut self, index: u64) {
        if self.count == MAX_INSERTED {
            self.inserted.copy_within(1.., 0);
            self.count -= 1;
        }
        self.inserted[self.count] = index;
        self.count += 1;
        self.base = self.base.wrapping_add(1);
    }

    /// Notes, from the newest on, a packet of ours that a predecessor had put between.
    pub fn resume(&mut self, index: u64) {
        if self.count < MAX_INSERTED {
            self.inserted.copy_within(..self.count, 1);
            self.inserted[0] = index;
            self.count += 1;
        }
    }

    /// Packets below this index are too old to be known.
    pub fn oldest(&self) -> u64 {
        if self.count < MAX_INSERTED { 0 } else { self.inserted[0] + 1 }
    }

    fn inserted(&self) -> &[u64] {
        &self.inserted[..self.count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packets_keep_their_indexes_whatever_is_put_behind_them() {
        let mut indexes = Indexes::default();
        indexes.restart(1_000, 70_000);
        assert_eq!((indexes.index(70_000), indexes.index(69_999)), (Some(1_000), Some(999)));
        indexes.insert(1_001);
        let now = [69_999, 70_000, 70_001, 70_002].map(|sequence| indexes.index(sequence));
        assert_eq!(now, [999, 1_000, 1_002, 1_003].map(Some));
        assert_eq!(
            [999, 1_000, 1_002].map(|index| indexes.sequence(index)),
            [69_999_u64, 70_000, 70_001].map(|it| it as u16)
        );
    }

    proptest! {
        #[test]
        fn each_packet_has_an_index_of_its_own_and_is_found_again(gaps in prop::collection::vec(0_u64..5, 1..200)) {
            let mut indexes = Indexes::default();
            indexes.restart(500, 66_000);
            let (mut sequence, mut known) = (66_000, Vec::new());
            for gap in gaps {
                for _ in 0..gap {
                    known.push((sequence, indexes.index(sequence).unwrap()));
                    sequence += 1;
                }
                let next = indexes.index(sequence).unwrap();
                prop_assert!(known.last().is_none_or(|(_, last)| next > *last));
                indexes.insert(next);
                prop_assert_eq!(indexes.index(sequence), Some(next + 1));
            }
            for (sequence, index) in known {
                let now = indexes.index(sequence);
                prop_assert!(now == Some(index) || (now.is_none() && index < indexes.oldest()));
                if index >= indexes.oldest() {
                    prop_assert_eq!(indexes.sequence(index), sequence as u16);
                }
            }
        }

        #[test]
        fn a_successor_knows_what_was_put_between(inserted in prop::collection::btree_set(501_u64..900, 0..20)) {
            let mut indexes = Indexes::default();
            indexes.restart(500, 66_000);
            inserted.iter().for_each(|index| indexes.insert(*index));
            let newest = 66_400;
            let mut successor = Indexes::default();
            successor.restart(indexes.index(newest).unwrap(), newest);
            inserted.iter().rev().for_each(|index| successor.resume(*index));
            for sequence in 66_000..=newest {
                prop_assert_eq!(successor.index(sequence), indexes.index(sequence));
            }
        }
    }
}
