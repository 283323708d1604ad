//! Which packets have been received, for each SSRC: the highest index and a window of recent ones. Must never see a key: the
//! caller of `accept` has authenticated the packet. Read `mod.rs` next.

use millrace_arena::SessionWords;
use serde::{Deserialize, Serialize};

/// Indexes that the window reaches back from the highest: as far as NACKs do (`forward/publication/nack.rs`). A client without RTX
/// repairs under the stream's own SSRC, and a key frame alone can be hundreds of packets. RFC 3711 section 3.3.2 wants 64 or more.
const WINDOW: u64 = 1_024;
const WORD: u64 = u64::BITS as u64;

/// The highest index and a bit for each of the last `WINDOW`, at the index modulo `WINDOW`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    highest: u64,
    seen: [u64; (WINDOW / WORD) as usize],
}

impl Window {
    /// Nothing before `highest` has been seen.
    fn new(highest: u64) -> Window {
        let mut window = Window { highest, seen: [0; (WINDOW / WORD) as usize] };
        window.set(highest, true);
        window
    }

    fn is_new(&self, index: u64) -> bool {
        match self.highest.checked_sub(index) {
            Some(age) => age < WINDOW && self.seen[word(index)] >> (index % WORD) & 1 == 0,
            None => true,
        }
    }

    fn mark(&mut self, index: u64) {
        match self.highest.checked_sub(index) {
            Some(age) if age < WINDOW => self.set(index, true),
            Some(_) => {}
            None => {
                // Their bits are those of indexes that the window no longer reaches.
                if index - self.highest > WINDOW {
                    self.seen = [0; (WINDOW / WORD) as usize];
                } else {
                    (self.highest + 1..index).for_each(|skipped| self.set(skipped, false));
                }
                self.set(index, true);
                self.highest = index;
            }
        }
    }

    fn set(&mut self, index: u64, seen: bool) {
        let bit = 1 << (index % WORD);
        if seen {
            self.seen[word(index)] |= bit;
        } else {
            self.seen[word(index)] &= !bit;
        }
    }

    /// The bits of 64 indexes, the lowest bit for the one that is `age` below the highest and the next for the one before.
    fn recent(&self, age: u64) -> u64 {
        let last = self.highest.wrapping_sub(age);
        let before = self.seen[word(last.wrapping_sub(WORD))].checked_shr((last % WORD + 1) as u32).unwrap_or(0);
        (self.seen[word(last)] << (WORD - 1 - last % WORD) | before).reverse_bits()
    }
}

fn word(index: u64) -> usize {
    (index % WINDOW / WORD) as usize
}

/// Streams that have words. A successor takes the rollover counters of further ones for zero. The configured bound of streams is
/// lower than this.
const SAVED_STREAMS: usize = 64;
/// Of one stream: the SSRC with `PRESENT`, the highest index, the 64 lowest bits of the window.
const STREAM_WORDS: usize = 3;
const PRESENT: u64 = 1 << 32;
/// Words that `save_in` needs.
pub(super) const KEPT_WORDS: usize = SAVED_STREAMS * STREAM_WORDS;

/// The receiving state of each SSRC, bounded.
pub(super) struct Streams {
    windows: Vec<(u32, Window)>,
    max: usize,
    /// The words in which it is saved, and the first of them.
    words: Option<(SessionWords, usize)>,
}

/// Why an index is not to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Replay,
    TooManyStreams,
}

impl Streams {
    pub fn new(max: usize) -> Streams {
        Streams { windows: Vec::new(), max, words: None }
    }

    pub fn ssrcs(&self) -> impl Iterator<Item = u32> {
        self.windows.iter().map(|(ssrc, _)| *ssrc)
    }

    /// The packet index of a 16-bit sequence number (RFC 3711 section 3.3.1 and appendix A): the one closest to the
    /// highest so far. A stream begins with a rollover counter of zero. What would lie before the beginning cannot
    /// have been sent, so it counts as too old.
    pub fn index_of(&self, ssrc: u32, sequence: u16) -> Result<u64, Refused> {
        let Some(window) = self.find(ssrc) else { return Ok(sequence.into()) };
        let ahead = sequence.wrapping_sub(window.highest as u16) as i16;
        window.highest.checked_add_signed(ahead.into()).ok_or(Refused::Replay)
    }

    /// Whether a known stream has brought no packet as new as this one.
    pub fn is_ahead(&self, ssrc: u32, sequence: u16) -> bool {
        self.find(ssrc).is_some_and(|window| sequence.wrapping_sub(window.highest as u16) as i16 > 0)
    }

    /// An error when a packet is not to be opened, before the work of authenticating it.
    pub fn admit(&self, ssrc: u32, index: u64) -> Result<(), Refused> {
        match self.find(ssrc) {
            Some(window) if !window.is_new(index) => Err(Refused::Replay),
            None if self.windows.len() >= self.max => Err(Refused::TooManyStreams),
            _ => Ok(()),
        }
    }

    /// Notes a packet that was admitted and has authenticated. Only here is a new SSRC added.
    pub fn accept(&mut self, ssrc: u32, index: u64) {
        let position = match self.windows.iter_mut().enumerate().find(|(_, (known, _))| *known == ssrc) {
            Some((position, (_, window))) => {
                window.mark(index);
                position
            }
            None => {
                self.windows.push((ssrc, Window::new(index)));
                self.windows.len() - 1
            }
        };
        self.save(position);
    }

    /// Saves all streams in these words, now and with every packet.
    pub fn save_in(&mut self, words: SessionWords, at: usize) {
        for position in self.windows.len()..SAVED_STREAMS {
            words.put(at + position * STREAM_WORDS, 0);
        }
        self.words = Some((words, at));
        (0..self.windows.len()).for_each(|position| self.save(position));
    }

    fn save(&self, position: usize) {
        let Some((words, at)) = self.words.as_ref().filter(|_| position < SAVED_STREAMS) else { return };
        let (ssrc, window) = self.windows[position];
        let at = at + position * STREAM_WORDS;
        // A death in between leaves an older window beside the new highest index. Then at most one packet too many is refused, or
        // one is opened twice, and the track log refuses the second.
        words.put(at + 1, window.highest);
        words.put(at + 2, window.recent(0));
        words.put(at, PRESENT | u64::from(ssrc));
    }

    fn find(&self, ssrc: u32) -> Option<&Window> {
        self.windows.iter().find(|(known, _)| *known == ssrc).map(|(_, window)| window)
    }

    pub fn export(&self) -> Vec<StreamState> {
        let state = |&(ssrc, window): &(u32, Window)| StreamState {
            ssrc,
            highest: window.highest,
            seen: [window.recent(WORD), window.recent(0)],
        };
        self.windows.iter().map(state).collect()
    }

    /// Resumes all of `states`, even when `max` is lower than it was for the predecessor.
    pub fn import(states: &[StreamState], max: usize) -> Streams {
        let window = |state: &StreamState| {
            // What was not saved counts as seen.
            let mut window = Window { highest: state.highest, seen: [u64::MAX; (WINDOW / WORD) as usize] };
            for age in 1..2 * WORD {
                let seen = state.seen[1 - (age / WORD) as usize] >> (age % WORD) & 1 != 0;
                window.set(state.highest.wrapping_sub(age), seen);
            }
            window
        };
        let windows = states.iter().map(|state| (state.ssrc, window(state))).collect();
        Streams { windows, max, words: None }
    }
}

/// A `Window` that can be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    pub ssrc: u32,
    /// The highest index that authenticated.
    pub highest: u64,
    /// Of the window's last 128 indexes, the upper and the lower half, lowest bit the highest index.
    pub seen: [u64; 2],
}

impl StreamState {
    /// The streams that a predecessor saved in these words. Of a window only the last 64 indexes are saved: older packets count as seen.
    pub(super) fn read(words: &SessionWords, at: usize) -> Vec<StreamState> {
        let entry = |position: usize| at + position * STREAM_WORDS;
        let present = (0..SAVED_STREAMS).map(entry).take_while(|at| words.get(*at) & PRESENT != 0);
        let state = |at: usize| StreamState {
            ssrc: words.get(at) as u32,
            highest: words.get(at + 1),
            seen: [u64::MAX, words.get(at + 2)],
        };
        present.map(state).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SSRC: u32 = 7;

    fn receive(streams: &mut Streams, sequence: u16) -> Result<u64, Refused> {
        let index = streams.index_of(SSRC, sequence)?;
        streams.admit(SSRC, index)?;
        streams.accept(SSRC, index);
        Ok(index)
    }

    #[test]
    fn the_rollover_counter_follows_the_wrap_forwards_and_back() {
        let mut streams = Streams::new(1);
        assert_eq!(receive(&mut streams, 65_534), Ok(65_534));
        assert_eq!(receive(&mut streams, 1), Ok(65_537));
        assert_eq!(receive(&mut streams, 65_535), Ok(65_535));
        assert_eq!(receive(&mut streams, 0), Ok(65_536));
        assert_eq!(receive(&mut streams, 65_535), Err(Refused::Replay));
        assert_eq!(receive(&mut streams, 2), Ok(65_538));
    }

    #[test]
    fn nothing_lies_before_the_first_rollover() {
        let mut streams = Streams::new(1);
        assert_eq!(receive(&mut streams, 3), Ok(3));
        assert_eq!(receive(&mut streams, 65_535), Err(Refused::Replay));
    }

    #[test]
    fn older_than_the_window_is_refused() {
        let mut streams = Streams::new(1);
        assert_eq!(receive(&mut streams, 2_000), Ok(2_000));
        assert_eq!(receive(&mut streams, 976), Err(Refused::Replay));
        assert_eq!(receive(&mut streams, 977), Ok(977));
        assert_eq!(receive(&mut streams, 977), Err(Refused::Replay));
    }

    #[test]
    fn a_repair_is_taken_as_late_as_it_is_asked_for() {
        let mut streams = Streams::new(1);
        for sequence in (0..1_024).filter(|sequence| *sequence != 1) {
            assert_eq!(receive(&mut streams, sequence), Ok(sequence.into()));
        }
        assert_eq!(receive(&mut streams, 1), Ok(1));
        assert_eq!(receive(&mut streams, 1), Err(Refused::Replay));
    }

    #[test]
    fn a_jump_past_the_window_leaves_nothing_behind() {
        let mut streams = Streams::new(1);
        for sequence in 0..1_024 {
            receive(&mut streams, sequence).unwrap();
        }
        assert_eq!(receive(&mut streams, 3_000), Ok(3_000));
        let fresh = (1_977..3_000).filter(|sequence| receive(&mut streams, *sequence).is_ok());
        assert_eq!(fresh.count(), 1_023);
    }

    #[test]
    fn a_successor_takes_what_was_not_saved_for_seen() {
        let mut streams = Streams::new(1);
        receive(&mut streams, 2_000).unwrap();
        receive(&mut streams, 1_990).unwrap();
        let mut successor = Streams::import(&streams.export(), 1);
        assert_eq!(receive(&mut successor, 1_990), Err(Refused::Replay));
        assert_eq!(receive(&mut successor, 1_873), Ok(1_873));
        assert_eq!(receive(&mut successor, 1_872), Err(Refused::Replay));
        assert_eq!(receive(&mut successor, 2_100), Ok(2_100));
        assert_eq!(receive(&mut successor, 2_050), Ok(2_050));
    }

    #[test]
    fn streams_are_bounded() {
        let mut streams = Streams::new(2);
        for ssrc in 0..2 {
            streams.admit(ssrc, 1).unwrap();
            streams.accept(ssrc, 1);
        }
        assert_eq!(streams.admit(2, 1), Err(Refused::TooManyStreams));
        assert_eq!(streams.admit(1, 2), Ok(()));
    }

    proptest! {
        /// Against a set of all that was seen: never twice, and never refused while inside the window.
        #[test]
        fn the_window_is_a_set(steps in proptest::collection::vec(prop_oneof![-100i64..120, -1_100i64..1_200], 1..400), start in 0u64..70_000) {
            let mut streams = Streams::new(1);
            let mut seen = std::collections::HashSet::new();
            streams.accept(SSRC, start);
            seen.insert(start);
            let mut at = start;
            let mut highest = start;
            for step in steps {
                at = at.saturating_add_signed(step);
                let fresh = streams.index_of(SSRC, at as u16) == Ok(at) && streams.admit(SSRC, at).is_ok();
                let expected = !seen.contains(&at) && (at > highest || highest - at < WINDOW);
                prop_assume!(at.abs_diff(highest) < 30_000);
                prop_assert_eq!(fresh, expected);
                if fresh {
                    streams.accept(SSRC, at);
                    seen.insert(at);
                    highest = highest.max(at);
                }
            }
            prop_assert_eq!(Streams::import(&streams.export(), 1).export(), streams.export());
        }
    }
}
