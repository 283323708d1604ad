//! The writer of a track log. Owns the order of its stores, so that a writer killed between any two leaves a readable log; must never
//! wait for a reader. Read `log_reader.rs` next.

use std::fmt;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use crate::Arena;
use crate::layout::MAX_PACKET;
use crate::sync::{AtomicU64, fence};
use crate::track_log::{self as log, EntryMeta, Facts, KEY_FRAME_START, SenderReport};
use crate::words::{lock, put, put_bytes, unlock, write_record};

/// Why a log cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    NoSuchLog,
    /// Not a power of two, or more than the arena's `log_packets`.
    Capacity,
    /// It is open for a publication in the worker of this slot.
    Lent(u8),
}

/// Why a packet was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// The log has this index.
    Duplicate,
    /// It is a whole capacity behind the highest index.
    TooOld,
    /// Longer than `MAX_PACKET`.
    TooLarge,
}

/// The single writer of one log. Dropping it leaves the log open, for a successor to resume.
pub struct LogWriter {
    arena: Arena,
    log: u32,
    epoch: u64,
    capacity: u64,
    head: u64,
    highest: u64,
    key_frame_index: u64,
}

impl LogWriter {
    /// Begins a new life of the log. What it held is gone, readers of the old life notice, and no slot is told of new packets. `capacity`
    /// packets of the log's room are used, so that a log of few packets touches little memory.
    pub fn open(arena: &Arena, log: u32, publication: u64, owner: u8, capacity: u32) -> Result<LogWriter, OpenError> {
        if !capacity.is_power_of_two() || capacity > arena.parameters().log_packets {
            return Err(OpenError::Capacity);
        }
        let words = arena.log(log).ok_or(OpenError::NoSuchLog)?;
        let before = words[log::EPOCH].load(Acquire);
        let writes = words[log::OWNER].load(Relaxed) as u8;
        if log::is_open(before) && writes != owner {
            return Err(OpenError::Lent(writes));
        }
        put(&words[log::EPOCH], log::resetting(before), Relaxed);
        // A reader that sees any of the new values must see that the old life is over.
        fence(Release);
        put(&words[log::PUBLICATION], publication, Relaxed);
        put(&words[log::OWNER], u64::from(owner), Relaxed);
        put(&words[log::CAPACITY], u64::from(capacity), Relaxed);
        put(&words[log::HEAD], 0, Relaxed);
        put(&words[log::HIGHEST], 0, Relaxed);
        put(&words[log::INTEREST], 0, Relaxed);
        let epoch = log::next_life(before);
        put(&words[log::EPOCH], epoch, Release);
        let (arena, capacity) = (arena.clone(), u64::from(capacity));
        Ok(LogWriter { arena, log, epoch, capacity, head: 0, highest: 0, key_frame_index: 0 })
    }

    /// Resumes the log that a dead predecessor wrote; `None` when the log is not open for that publication.
    pub fn resume(arena: &Arena, log: u32, publication: u64, owner: u8) -> Option<LogWriter> {
        let words = arena.log(log)?;
        let epoch = words[log::EPOCH].load(Acquire);
        let capacity = words[log::CAPACITY].load(Relaxed);
        let same = words[log::PUBLICATION].load(Relaxed) == publication;
        if !log::is_open(epoch) || !same || !fits(capacity, arena) {
            return None;
        }
        put(&words[log::OWNER], u64::from(owner), Relaxed);
        let (head, highest) = (words[log::HEAD].load(Acquire), words[log::HIGHEST].load(Relaxed));
        let key_frame = crate::words::read_record::<4>(&words[log::KEY_FRAME..]);
        let key_frame_index = key_frame.filter(|record| record[0] == epoch).map_or(0, |[_, _, index, _]| index);
        Some(LogWriter { arena: arena.clone(), log, epoch, capacity, head, highest, key_frame_index })
    }

    /// Appends a packet; `meta.index` and `meta.len` are taken from the arguments.
    pub fn append(&mut self, index: u64, meta: &EntryMeta, packet: &[u8]) -> Result<(), AppendError> {
        if packet.len() > MAX_PACKET {
            return Err(AppendError::TooLarge);
        }
        if index.saturating_add(self.capacity) <= self.highest {
            return Err(AppendError::TooOld);
        }
        if self.contains(index) {
            return Err(AppendError::Duplicate);
        }
        let (words, entry) = (self.words(), self.entry(index));
        let highest = self.highest.max(index);
        // Before the entry, so that a reader that finds its entry overwritten knows why.
        put(&words[log::HIGHEST], highest, Relaxed);

        let writing = lock(&entry[log::ENTRY_LOCK]);
        put(&entry[log::ENTRY_EPOCH], self.epoch, Relaxed);
        put(&entry[log::ENTRY_INDEX], index, Relaxed);
        put(&entry[log::ENTRY_ARRIVED], meta.arrived_us, Relaxed);
        put(&entry[log::ENTRY_PACKED], meta.pack(packet.len()), Relaxed);
        put_bytes(&entry[log::ENTRY_PACKET..], packet);
        unlock(&entry[log::ENTRY_LOCK], writing);

        // Release, so that a reader of an overwritten arrival also sees the head beyond it.
        put(log::arrival(words, self.capacity, self.head), index, Release);
        put(&words[log::HEAD], self.head + 1, Release);
        let position = self.head;
        if meta.flags & KEY_FRAME_START != 0 && index > self.key_frame_index {
            write_record(&words[log::KEY_FRAME..], [self.epoch, position, index, meta.arrived_us]);
            self.key_frame_index = index;
        }
        self.head += 1;
        self.highest = highest;
        Ok(())
    }

    /// True when the log holds this index now.
    pub fn contains(&self, index: u64) -> bool {
        let entry = self.entry(index);
        // An odd lock is of a predecessor that was killed while writing: the index is not held.
        entry[log::ENTRY_LOCK].load(Relaxed) & 1 == 0
            && entry[log::ENTRY_EPOCH].load(Relaxed) == self.epoch
            && entry[log::ENTRY_INDEX].load(Relaxed) == index
    }

    /// Arrivals so far.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The highest index so far; 0 before the first packet.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// One bit for each slot that reads. To be called after `append`: a slot without a bit will see what was appended.
    pub fn interested(&self) -> u64 {
        fence(SeqCst);
        self.words()[log::INTEREST].load(Relaxed)
    }

    pub fn set_sender_report(&mut self, report: SenderReport) {
        let fields = [self.epoch, report.ntp, u64::from(report.rtp), report.at_us];
        write_record(&self.words()[log::SENDER_REPORT..], fields);
    }

    /// Tells readers, and a successor, what was measured.
    pub fn set_facts(&mut self, facts: Facts) {
        write_record(&self.words()[log::FACTS..], [self.epoch, facts.pack()]);
    }

    /// Keeps these bytes for a successor in place of those before; none when they are more than `MAX_KEPT`.
    pub fn keep(&mut self, bytes: &[u8]) {
        let bytes = if bytes.len() > log::MAX_KEPT { &[] } else { bytes };
        let mut fields = [0; log::KEPT_WORDS];
        (fields[0], fields[1]) = (self.epoch, bytes.len() as u64);
        for (field, chunk) in fields[2..].iter_mut().zip(bytes.chunks(8)) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            *field = u64::from_le_bytes(word);
        }
        write_record(&self.words()[log::KEPT..], fields);
    }

    /// What was kept in this life of the log; nothing when a predecessor died while it wrote.
    pub fn kept(&self) -> Vec<u8> {
        let record = crate::words::read_record::<{ log::KEPT_WORDS }>(&self.words()[log::KEPT..]);
        let Some(fields) = record.filter(|fields| fields[0] == self.epoch) else { return Vec::new() };
        let bytes = fields[2..].iter().flat_map(|word| word.to_le_bytes());
        bytes.take((fields[1] as usize).min(log::MAX_KEPT)).collect()
    }

    /// Ends this life of the log. What it holds stays readable until the next life.
    pub fn close(self) {
        put(&self.words()[log::EPOCH], log::closed(self.epoch), Release);
    }

    fn words(&self) -> &[AtomicU64] {
        self.arena.log(self.log).expect("the log was there when it was opened")
    }

    fn entry(&self, index: u64) -> &[AtomicU64] {
        log::entry(self.words(), self.arena.parameters().log_packets, self.capacity, index)
    }
}

/// Whether a capacity found in shared memory can be used.
pub(crate) fn fits(capacity: u64, arena: &Arena) -> bool {
    capacity.is_power_of_two() && capacity <= u64::from(arena.parameters().log_packets)
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter").field("log", &self.log).field("head", &self.head).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(modelled)))]
mod tests {
    use super::*;
    use crate::words::crash;
    use crate::{LogReader, Missing, Parameters};

    const LAST: u64 = 12;

    fn packet(index: u64) -> Vec<u8> {
        vec![index as u8; 20 + index as usize % 5]
    }

    fn meta(index: u64) -> EntryMeta {
        let flags = if index.is_multiple_of(3) { KEY_FRAME_START } else { 0 };
        EntryMeta { index, arrived_us: index, flags, ..EntryMeta::default() }
    }

    fn append(writer: &mut LogWriter, index: u64) -> Result<(), AppendError> {
        writer.append(index, &meta(index), &packet(index))
    }

    /// What a reader may find: whole packets only, arrivals that name whole packets or overtaken ones.
    fn check(reader: &LogReader, why: &str) {
        let mut out = [0; MAX_PACKET];
        for index in 0..LAST + 4 {
            match reader.read(index, &mut out) {
                Ok(meta) => {
                    assert_eq!((meta.index, meta.arrived_us), (index, index), "{why}");
                    assert_eq!(out[..usize::from(meta.len)], packet(index)[..], "{why}: packet {index}");
                }
                Err(Missing::Overtaken | Missing::Never) => {}
            }
        }
        let head = reader.head();
        for position in reader.oldest(head)..head {
            let index = reader.arrival(position).expect("within the ring");
            assert!(
                matches!(reader.read(index, &mut out), Ok(_) | Err(Missing::Overtaken)),
                "{why}: arrival {position}"
            );
        }
        if let Some(key_frame) = reader.key_frame() {
            assert!(key_frame.position < head && key_frame.index.is_multiple_of(3), "{why}");
        }
    }

    #[test]
    fn facts_are_of_one_life_of_the_log() {
        let arena = Arena::in_memory(Parameters::SMALL);
        let mut writer = LogWriter::open(&arena, 1, 7, 0, 8).unwrap();
        let reader = LogReader::open(&arena, 1, 7).unwrap();
        assert_eq!(reader.facts(), Facts::default());
        let facts = Facts { width: 1_920, height: 1_080, order: 0x86 };
        reader.set_interest(3, true);
        writer.set_facts(facts);
        writer.keep(&[9; 20]);
        assert_eq!((reader.facts(), writer.interested(), writer.kept()), (facts, 1 << 3, vec![9; 20]));
        for steps in 0..6 {
            crash::after(steps, || writer.set_facts(Facts { order: 0x81, ..facts }));
            let found = reader.facts();
            assert!(
                [Facts::default(), facts, Facts { order: 0x81, ..facts }].contains(&found),
                "{found:?} after {steps}"
            );
            writer.set_facts(facts);
        }
        drop(writer);
        LogWriter::open(&arena, 1, 8, 0, 8).unwrap();
        assert_eq!(LogReader::open(&arena, 1, 8).unwrap().facts(), Facts::default());
    }

    #[test]
    fn a_writer_that_dies_at_any_store_leaves_whole_packets_and_its_successor_goes_on() {
        // A fresh entry, a reused one, one that carries a key frame: every store of each.
        for (before, index) in [(3, 5), (LAST - 1, LAST + 1), (LAST, LAST + 3)] {
            let mut finished = false;
            for stores in 0.. {
                let arena = Arena::in_memory(Parameters::TINY);
                let mut writer = LogWriter::open(&arena, 0, 9, 0, 8).expect("within the arena");
                for earlier in 1..=before {
                    append(&mut writer, earlier).expect("in order");
                }
                let reader = LogReader::open(&arena, 0, 9).expect("open");
                finished = crash::after(stores, || append(&mut writer, index).expect("ahead"));
                drop(writer);
                let why = format!("{stores} stores of {index}");
                check(&reader, &why);
                let mut successor = LogWriter::resume(&arena, 0, 9, 1).expect("still open");
                check(&reader, &why);
                let again = append(&mut successor, index);
                assert!(matches!(again, Ok(()) | Err(AppendError::Duplicate)), "{why}");
                append(&mut successor, index + 1).expect("ahead");
                check(&reader, &why);
                let mut out = [0; MAX_PACKET];
                assert!(reader.read(index, &mut out).is_ok() && reader.read(index + 1, &mut out).is_ok(), "{why}");
                if finished {
                    break;
                }
            }
            assert!(finished);
        }
    }

    #[test]
    fn a_log_that_another_slot_writes_is_not_opened_until_it_is_closed() {
        let arena = Arena::in_memory(Parameters::TINY);
        drop(LogWriter::open(&arena, 0, 1, 0, 8).expect("within the arena"));
        let moved = LogWriter::resume(&arena, 0, 1, 3).expect("open");
        assert_eq!(LogWriter::open(&arena, 0, 2, 0, 8).err(), Some(OpenError::Lent(3)));
        moved.close();
        assert!(LogWriter::open(&arena, 0, 2, 0, 8).is_ok());
    }

    #[test]
    fn what_is_kept_is_there_for_a_successor_and_not_for_the_next_life() {
        let arena = Arena::in_memory(Parameters::TINY);
        let mut writer = LogWriter::open(&arena, 0, 1, 0, 8).expect("within the arena");
        assert_eq!(writer.kept(), []);
        for len in [1, 8, 21, log::MAX_KEPT] {
            let bytes: Vec<u8> = (1..=len as u8).collect();
            writer.keep(&bytes);
            writer = LogWriter::resume(&arena, 0, 1, 0).expect("open");
            assert_eq!(writer.kept(), bytes);
        }
        writer.keep(&[1; log::MAX_KEPT + 1]);
        assert_eq!(writer.kept(), []);
        writer.keep(&[1]);
        assert_eq!(LogWriter::open(&arena, 0, 2, 0, 8).expect("ours").kept(), []);
    }

    #[test]
    fn a_writer_that_dies_while_it_keeps_bytes_leaves_those_or_none() {
        let mut finished = false;
        for stores in 0.. {
            let arena = Arena::in_memory(Parameters::TINY);
            let mut writer = LogWriter::open(&arena, 0, 1, 0, 8).expect("within the arena");
            writer.keep(&[7; 40]);
            finished = crash::after(stores, || writer.keep(&[9; 30]));
            let mut successor = LogWriter::resume(&arena, 0, 1, 0).expect("open");
            let kept = successor.kept();
            assert!([&[7; 40][..], &[9; 30], &[]].contains(&&kept[..]), "{stores} stores: {kept:?}");
            assert!(!finished || kept == [9; 30]);
            successor.keep(&[5]);
            assert_eq!(successor.kept(), [5]);
            if finished {
                break;
            }
        }
        assert!(finished);
    }

    #[test]
    fn an_opener_that_dies_at_any_store_leaves_a_log_that_can_be_opened() {
        let mut finished = false;
        for stores in 0.. {
            let arena = Arena::in_memory(Parameters::TINY);
            let mut writer = LogWriter::open(&arena, 0, 1, 0, 8).expect("within the arena");
            append(&mut writer, 5).expect("first");
            let old = LogReader::open(&arena, 0, 1).expect("open");
            finished = crash::after(stores, || drop(LogWriter::open(&arena, 0, 2, 0, 4)));
            assert_eq!(old.is_open(), stores == 0);
            assert_eq!(LogReader::open(&arena, 0, 1).is_some(), stores == 0);
            assert_eq!(LogReader::open(&arena, 0, 2).is_some(), finished);
            let mut writer = LogWriter::open(&arena, 0, 3, 0, 8).expect("within the arena");
            append(&mut writer, 5).expect("nothing of the old life is left");
            check(&LogReader::open(&arena, 0, 3).expect("open"), "reopened");
            if finished {
                break;
            }
        }
        assert!(finished);
    }
}
