//! The state of an outgoing stream in words that outlive the process, from which a successor resumes it. Owns the words' meaning and
//! the order in which they are stored; must never decide a number. Read `mod.rs` next, which decides the numbers.
//!
//! ```text
//! 0 next index   1 first index and 2 shift of the numbering   3 next arrival   4 newest timestamp and its arrival
//! 5 next RTX index   6 newest frame ids   7 whether there is a source
//! 8 log, encoding     9 SSRC, timestamp shift   10 shifts of frame ids, payload type   11 followed since   12 publication
//! ```
//! Words 0 to 6 change with packets, 7 to 12 with every source. A death between any two stores leaves at worst an index that was
//! reserved and never used; never one that was used and looks free.

use millrace_arena::SessionWords;

use super::attachment::Source;
use super::frame_ids::{FrameIds, Shifts};
use super::numbering::Numbering;
use super::timeline::Timeline;
use crate::time::Time;

/// Words of one stream: two cache lines.
pub const WORDS: usize = 16;

const NEXT_INDEX: usize = 0;
const FROM: usize = 1;
const SHIFT: usize = 2;
const NEXT_POSITION: usize = 3;
const NEWEST: usize = 4;
const NEXT_RTX_INDEX: usize = 5;
const FRAME_IDS: usize = 6;
const HAS_SOURCE: usize = 7;
const LOG: usize = 8;
const SSRC: usize = 9;
const SHIFTS: usize = 10;
/// `SHIFTS` is `payload type present 1 | payload type 7 | shifts 40`, from bit 47 down; an older release reads the shifts alone.
const PAYLOAD_TYPE_PRESENT: u64 = 1 << 47;
const SINCE: usize = 11;
const PUBLICATION: usize = 12;

/// `NEWEST` is `milliseconds 31 | present 1 | timestamp 32`: an arrival of up to 24 days ago is told from the clock.
const NEWEST_PRESENT: u64 = 1 << 32;
const MILLISECONDS: u64 = (1 << 31) - 1;

/// One stream's words.
#[derive(Clone, Debug)]
pub struct Words {
    words: SessionWords,
    at: usize,
}

impl Words {
    pub fn new(words: SessionWords, at: usize) -> Words {
        Words { words, at }
    }

    /// Fetches the words, which are stored to soon.
    pub fn prefetch(&self) {
        self.words.prefetch(self.at, WORDS);
    }

    /// Stores the state of a new stream, which has no source.
    pub fn begin(&self, next_index: u64, next_rtx_index: u64) {
        self.put_has_source(false);
        self.put(NEWEST, 0);
        self.put(FRAME_IDS, 0);
        self.put(NEXT_INDEX, next_index);
        self.put_next_rtx_index(next_rtx_index);
    }

    /// Reserves all RTX indexes below this one.
    pub fn put_next_rtx_index(&self, next: u64) {
        self.put(NEXT_RTX_INDEX, next);
    }

    pub fn put_frame_ids(&self, ids: FrameIds) {
        self.put(FRAME_IDS, ids.pack());
    }

    /// With false there is no source until the next `put_source`.
    pub fn put_has_source(&self, has_source: bool) {
        self.put(HAS_SOURCE, has_source.into());
    }

    /// Stores a new source, before its first packet can leave.
    pub fn put_source(&self, source: &Source, publication: u64, timeline: &Timeline) {
        self.put_has_source(false);
        self.put(LOG, u64::from(source.log) | (source.encoding as u64) << 32);
        self.put(SSRC, u64::from(source.ssrc) | u64::from(source.timestamp_shift) << 32);
        let payload_type = source.payload_type.map_or(0, |number| PAYLOAD_TYPE_PRESENT | u64::from(number) << 40);
        self.put(SHIFTS, payload_type | source.shifts.pack());
        self.put(SINCE, source.since_us);
        self.put(PUBLICATION, publication);
        self.put_progress(source, timeline);
        self.put_has_source(true);
    }

    /// Stores that another packet of the source was numbered or left out.
    pub fn put_progress(&self, source: &Source, timeline: &Timeline) {
        let (from, shift) = source.numbering.last_piece();
        let newest = timeline.newest().map_or(0, |(timestamp, arrived_us)| {
            ((arrived_us / 1_000) & MILLISECONDS) << 33 | NEWEST_PRESENT | u64::from(timestamp)
        });
        let next_index = source.numbering.highest_outgoing() + 1;
        // From `NEXT_INDEX` on, and in this order: first the index is reserved, last the packet counts as looked at. A new piece's
        // beginning comes before its shift: with the old shift it does not fit, which `Numbering::resume` notices. A new shift with
        // the old beginning would fit, and number all of the old piece anew.
        self.words.put_all(self.at, [next_index, from, shift, source.next_position, newest]);
    }

    pub fn next_index(&self) -> u64 {
        self.get(NEXT_INDEX)
    }

    pub fn next_rtx_index(&self) -> u64 {
        self.get(NEXT_RTX_INDEX)
    }

    pub fn frame_ids(&self) -> FrameIds {
        FrameIds::unpack(self.get(FRAME_IDS))
    }

    /// The newest outgoing timestamp, and when its packet arrived, in microseconds.
    pub fn newest(&self, now: Time) -> Option<(u32, u64)> {
        let word = self.get(NEWEST);
        let now_ms = now.0 / 1_000;
        let ago_ms = now_ms.wrapping_sub(word >> 33) & MILLISECONDS;
        (word & NEWEST_PRESENT != 0).then_some((word as u32, now_ms.saturating_sub(ago_ms) * 1_000))
    }

    /// The source, when it is this publication's and its words are consistent. No index below the next is assigned again: whether its
    /// packet left is not known.
    pub fn source(&self, publication: u64) -> Option<Source> {
        if self.get(HAS_SOURCE) == 0 || self.get(PUBLICATION) != publication {
            return None;
        }
        let (log, ssrc, next) = (self.get(LOG), self.get(SSRC), self.next_index());
        let shifts = self.get(SHIFTS);
        Some(Source {
            log: log as u32,
            encoding: (log >> 32) as usize,
            ssrc: ssrc as u32,
            payload_type: (shifts & PAYLOAD_TYPE_PRESENT != 0).then_some((shifts >> 40) as u8 & 0x7f),
            next_position: self.get(NEXT_POSITION),
            numbering: Numbering::resume(self.get(FROM), self.get(SHIFT), next)?,
            timestamp_shift: (ssrc >> 32) as u32,
            shifts: Shifts::unpack(shifts),
            since_us: self.get(SINCE),
            floor: next,
        })
    }

    fn put(&self, word: usize, value: u64) {
        self.words.put(self.at + word, value);
    }

    fn get(&self, word: usize) -> u64 {
        self.words.get(self.at + word)
    }
}

#[cfg(test)]
mod tests {
    use millrace_arena::{Arena, Parameters};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_death_between_two_words_never_gives_a_used_number_to_another_packet(
            steps in prop::collection::vec((1u64..4, any::<bool>()), 1..60),
        ) {
            let arena = Arena::in_memory(Parameters::SMALL);
            let whole = Words::new(arena.session_words(arena.record(0, 0)), 0);
            let torn = Words::new(arena.session_words(arena.record(0, 1)), 0);
            let mut source = Source {
                log: 0,
                encoding: 0,
                ssrc: 7,
                payload_type: Some(96),
                next_position: 0,
                numbering: Numbering::new(70_000, 7),
                timestamp_shift: 0,
                shifts: Shifts::default(),
                since_us: 0,
                floor: 0,
            };
            let timeline = Timeline::new(0);
            for words in [&whole, &torn] {
                words.put_source(&source, 1, &timeline);
            }
            for (step, padding) in steps {
                let before = source.numbering.clone();
                let index = before.highest() + step;
                if !(padding && source.numbering.skip(index)) {
                    prop_assert!(source.numbering.assign(index).is_some());
                }
                whole.put_progress(&source, &timeline);
                // Words are stored in the order in which they lie; death comes after each.
                for word in NEXT_INDEX..=NEWEST {
                    torn.put(word, whole.get(word));
                    let Some(resumed) = torn.source(1) else { continue };
                    prop_assert_eq!((resumed.payload_type, resumed.shifts), (Some(96), Shifts::default()));
                    let last = before.highest_outgoing();
                    for used in last.saturating_sub(8).max(7)..=last {
                        let found = resumed.numbering.source(used);
                        prop_assert!(found.is_none() || found == before.source(used), "{} after word {}", used, word);
                    }
                }
            }
        }
    }
}
