//! A reader of a track log. Owns the checks that tell a whole, current packet from one that is torn, overwritten or of another life of
//! the log; must never make the writer wait. Read `tests/track_log.rs` next, or `messages.rs`.

use std::fmt;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use crate::Arena;
use crate::layout::MAX_PACKET;
use crate::log_writer::fits;
use crate::sync::{AtomicU64, fence};
use crate::track_log::{self as log, EntryMeta, Facts, KeyFrame, SenderReport};
use crate::words::{get_bytes, read_record, stable, unchanged};

/// Why a packet cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The writer has overwritten its entry.
    Overtaken,
    /// It has not arrived.
    Never,
}

/// A reader of one life of a log. It is cheap, and has no cursor.
#[derive(Clone)]
pub struct LogReader {
    arena: Arena,
    log: u32,
    epoch: u64,
    capacity: u64,
}

impl LogReader {
    /// `None` while the log is not open for that publication.
    pub fn open(arena: &Arena, log: u32, publication: u64) -> Option<LogReader> {
        let words = arena.log(log)?;
        let epoch = words[log::EPOCH].load(Acquire);
        let same = words[log::PUBLICATION].load(Relaxed) == publication;
        let capacity = words[log::CAPACITY].load(Relaxed);
        fence(Acquire);
        let unchanged = words[log::EPOCH].load(Relaxed) == epoch;
        (log::is_open(epoch) && same && unchanged && fits(capacity, arena)).then(|| LogReader {
            arena: arena.clone(),
            log,
            epoch,
            capacity,
        })
    }

    /// Arrivals so far; 0 once another life of the log has begun.
    pub fn head(&self) -> u64 {
        let head = self.words()[log::HEAD].load(Acquire);
        if self.is_current() { head } else { 0 }
    }

    /// The highest index so far; 0 before the first packet.
    pub fn highest(&self) -> u64 {
        let highest = self.words()[log::HIGHEST].load(Relaxed);
        if self.is_current() { highest } else { 0 }
    }

    /// The oldest position that `arrival` may still know, given a head.
    pub fn oldest(&self, head: u64) -> u64 {
        // The writer may be overwriting one more than the head shows.
        (head + 1).saturating_sub(self.capacity)
    }

    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The index that arrived at `position`; `None` when none has yet, or the entry was overwritten.
    pub fn arrival(&self, position: u64) -> Option<u64> {
        let words = self.words();
        if position >= words[log::HEAD].load(Acquire) {
            return None;
        }
        let index = log::arrival(words, self.capacity, position).load(Acquire);
        let head = words[log::HEAD].load(Acquire);
        (position < head && position >= self.oldest(head) && self.is_current()).then_some(index)
    }

    /// Copies a packet into `out`, which has room for `MAX_PACKET`; its first `len` bytes are the packet.
    pub fn read(&self, index: u64, out: &mut [u8]) -> Result<EntryMeta, Missing> {
        let out = &mut out[..MAX_PACKET];
        let entry = self.entry(index);
        let before = stable(&entry[log::ENTRY_LOCK]).ok_or_else(|| self.why_missing(index))?;
        let held =
            entry[log::ENTRY_EPOCH].load(Relaxed) == self.epoch && entry[log::ENTRY_INDEX].load(Relaxed) == index;
        if !held {
            return Err(self.why_missing(index));
        }
        let arrived_us = entry[log::ENTRY_ARRIVED].load(Relaxed);
        let meta = EntryMeta::unpack(index, arrived_us, entry[log::ENTRY_PACKED].load(Relaxed));
        // A torn length may be anything; it is bounded here and refused below.
        let len = usize::from(meta.len).min(MAX_PACKET);
        get_bytes(&entry[log::ENTRY_PACKET..], &mut out[..len]);
        if !unchanged(&entry[log::ENTRY_LOCK], before) {
            return Err(self.why_missing(index));
        }
        Ok(EntryMeta { len: len as u16, ..meta })
    }

    /// Where the newest key frame begins.
    pub fn key_frame(&self) -> Option<KeyFrame> {
        let [epoch, position, index, at_us] = read_record(&self.words()[log::KEY_FRAME..])?;
        (epoch == self.epoch && self.is_current()).then_some(KeyFrame { position, index, at_us })
    }

    /// The publisher's newest sender report.
    pub fn sender_report(&self) -> Option<SenderReport> {
        let [epoch, ntp, rtp, at_us] = read_record(&self.words()[log::SENDER_REPORT..])?;
        (epoch == self.epoch && self.is_current()).then_some(SenderReport { ntp, rtp: rtp as u32, at_us })
    }

    /// What the publisher's worker has measured; nothing before it has, and when it died in the middle of telling.
    pub fn facts(&self) -> Facts {
        let record = read_record(&self.words()[log::FACTS..]).filter(|[epoch, _]: &[u64; 2]| *epoch == self.epoch);
        record.map_or(Facts::default(), |[_, word]| Facts::unpack(word))
    }

    /// False once the publication ended; what the log holds may still be read.
    pub fn is_open(&self) -> bool {
        self.words()[log::EPOCH].load(Acquire) == self.epoch
    }

    /// The slot whose worker writes the log.
    pub fn owner(&self) -> u8 {
        self.words()[log::OWNER].load(Relaxed) as u8
    }

    /// Sets whether `slot` is told when the log advances.
    pub fn set_interest(&self, slot: u8, interested: bool) {
        let (word, bit) = (&self.words()[log::INTEREST], 1u64 << (slot & 63));
        if !self.is_current() {
            return;
        }
        if interested {
            word.fetch_or(bit, Relaxed);
            // Before the reader loads the head: then it sees what was appended, or the writer sees the bit.
            fence(SeqCst);
        } else {
            word.fetch_and(!bit, Relaxed);
        }
    }

    fn why_missing(&self, index: u64) -> Missing {
        // A reader that has seen a store of the writer sees its earlier stores, too: the highest index is among them.
        fence(Acquire);
        let highest = self.words()[log::HIGHEST].load(Relaxed);
        let gone = !self.is_current() || index.saturating_add(self.capacity) <= highest;
        if gone { Missing::Overtaken } else { Missing::Never }
    }

    /// True when everything read so far was of this reader's life of the log.
    fn is_current(&self) -> bool {
        fence(Acquire);
        let epoch = self.words()[log::EPOCH].load(Relaxed);
        epoch == self.epoch || epoch == log::closed(self.epoch)
    }

    fn words(&self) -> &[AtomicU64] {
        self.arena.log(self.log).expect("the log was there when it was opened")
    }

    fn entry(&self, index: u64) -> &[AtomicU64] {
        log::entry(self.words(), self.arena.parameters().log_packets, self.capacity, index)
    }
}

impl fmt::Debug for LogReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogReader").field("log", &self.log).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
