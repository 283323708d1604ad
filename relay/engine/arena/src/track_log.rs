//! A track log's memory: its header, its arrival ring, its entries, and the protocol that makes them safe to share. Owns
//! offsets and the meaning of epochs; must never know a writer or a reader. Read `log_writer.rs`, then `log_reader.rs`.
//!
//! ```text
//! +0    epoch     publication   owner   capacity       written when the log is opened
//! +64   head (arrivals so far)  highest index
//! +128  last key frame  {lock, epoch, position, index, at}
//! +192  sender report   {lock, epoch, ntp, rtp, at}
//! +256  interest: one bit for each slot that reads
//! +264  facts of the encoding  {lock, epoch, width 16|height 16|order 8, 3 spare words}
//! +320  kept bytes of the publisher's codec  {lock, epoch, length, bytes}
//! +512  arrivals: u64 index x log_packets              position p at p % capacity
//!       entries: 1536 bytes x log_packets              index i at i % capacity
//!         lock, epoch, index, arrived_us, len|offset|flags|spatial|temporal, 3 spare words, 1472 bytes of packet
//! ```
//!
//! | epoch | the log is | content |
//! |---|---|---|
//! | 0 | never opened | none |
//! | 4k | open, its k-th life | growing |
//! | 4k+1 | closed | as it was left, readable until the next life |
//! | 4k+2 | being reset | none |
//!
//! Every entry and record carries the epoch in which it was written. So a reset touches no entry, and an old entry is never read as
//! new.

use crate::layout::{ENTRY_HEADER, ENTRY_STRIDE, LOG_HEADER};
use crate::sync::AtomicU64;

/// First packet of a key frame: a decoder can start here.
pub const KEY_FRAME_START: u16 = 1;
/// RTP marker bit: last packet of a frame.
pub const MARKER: u16 = 2;
/// The packet came as a retransmission.
pub const RECOVERED: u16 = 4;
/// No other frame depends on its frame.
pub const DISCARDABLE: u16 = 8;

/// What the log holds of a packet besides its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryMeta {
    /// The publisher's extended sequence number.
    pub index: u64,
    pub arrived_us: u64,
    /// Of the whole packet.
    pub len: u16,
    /// Where the payload begins in it.
    pub payload_offset: u16,
    pub flags: u16,
    pub spatial: u8,
    pub temporal: u8,
}

/// Where the newest key frame begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyFrame {
    /// In the order of arrival.
    pub position: u64,
    pub index: u64,
    pub at_us: u64,
}

/// The publisher's mapping of its RTP timestamps to wall-clock time (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport {
    pub ntp: u64,
    pub rtp: u32,
    /// When it arrived.
    pub at_us: u64,
}

/// What the publisher's worker has measured of the encoding that the log is of. Zero is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Of the newest key frame, in pixels.
    pub width: u16,
    pub height: u16,
    /// The order of all encodings of the publication, as the core packs it.
    pub order: u8,
}

impl Facts {
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.width) | u64::from(self.height) << 16 | u64::from(self.order) << 32
    }

    pub(crate) fn unpack(word: u64) -> Facts {
        Facts { width: word as u16, height: (word >> 16) as u16, order: (word >> 32) as u8 }
    }
}

pub(crate) const EPOCH: usize = 0;
pub(crate) const PUBLICATION: usize = 1;
pub(crate) const OWNER: usize = 2;
pub(crate) const CAPACITY: usize = 3;
pub(crate) const HEAD: usize = 8;
pub(crate) const HIGHEST: usize = 9;
pub(crate) const KEY_FRAME: usize = 16;
pub(crate) const SENDER_REPORT: usize = 24;
pub(crate) const INTEREST: usize = 32;
pub(crate) const FACTS: usize = 33;
pub(crate) const KEPT: usize = 40;
/// Words of the record: epoch, length, and up to `MAX_KEPT` bytes.
pub(crate) const KEPT_WORDS: usize = 23;
/// Bytes that a log keeps beside its packets, of which no packet of its ring may be left.
pub const MAX_KEPT: usize = (KEPT_WORDS - 2) * 8;

pub(crate) const ENTRY_LOCK: usize = 0;
pub(crate) const ENTRY_EPOCH: usize = 1;
pub(crate) const ENTRY_INDEX: usize = 2;
pub(crate) const ENTRY_ARRIVED: usize = 3;
pub(crate) const ENTRY_PACKED: usize = 4;
pub(crate) const ENTRY_PACKET: usize = (ENTRY_HEADER / 8) as usize;

pub(crate) fn is_open(epoch: u64) -> bool {
    epoch != 0 && epoch & 3 == 0
}

/// The epoch of a log that was open in `epoch` and closed.
pub(crate) fn closed(epoch: u64) -> u64 {
    epoch + 1
}

/// While a log that was in `epoch` is being reset.
pub(crate) fn resetting(epoch: u64) -> u64 {
    epoch & !3 | 2
}

/// The life that follows `epoch`.
pub(crate) fn next_life(epoch: u64) -> u64 {
    (epoch & !3) + 4
}

/// The word that holds the arrival at `position`.
pub(crate) fn arrival(log: &[AtomicU64], capacity: u64, position: u64) -> &AtomicU64 {
    &log[(LOG_HEADER / 8 + position % capacity) as usize]
}

/// The words of the entry that holds `index`.
pub(crate) fn entry(log: &[AtomicU64], log_packets: u32, capacity: u64, index: u64) -> &[AtomicU64] {
    let start = LOG_HEADER + u64::from(log_packets) * 8 + index % capacity * ENTRY_STRIDE;
    &log[(start / 8) as usize..((start + ENTRY_STRIDE) / 8) as usize]
}

impl EntryMeta {
    pub(crate) fn pack(&self, len: usize) -> u64 {
        len as u64
            | u64::from(self.payload_offset) << 16
            | u64::from(self.flags) << 32
            | u64::from(self.spatial) << 48
            | u64::from(self.temporal) << 56
    }

    pub(crate) fn unpack(index: u64, arrived_us: u64, packed: u64) -> EntryMeta {
        EntryMeta {
            index,
            arrived_us,
            len: packed as u16,
            payload_offset: (packed >> 16) as u16,
            flags: (packed >> 32) as u16,
            spatial: (packed >> 48) as u8,
            temporal: (packed >> 56) as u8,
        }
    }
}

#[cfg(all(test, not(modelled)))]
mod tests {
    use super::*;

    #[test]
    fn meta_survives_packing() {
        let meta = EntryMeta {
            index: 70_000,
            arrived_us: 5,
            len: 1472,
            payload_offset: 0xabcd,
            flags: 0xffff,
            spatial: 3,
            temporal: 255,
        };
        assert_eq!(EntryMeta::unpack(70_000, 5, meta.pack(1472)), meta);
    }

    #[test]
    fn a_log_has_one_life_after_another() {
        let (open, then) = (next_life(0), next_life(next_life(0)));
        assert!(is_open(open) && is_open(then) && then != open);
        for not_open in [0, closed(open), resetting(open), resetting(closed(open))] {
            assert!(!is_open(not_open));
        }
        assert_eq!(next_life(resetting(closed(open))), then);
    }
}
