//! The arena: one shared mapping, checked when it is attached, whose parts it returns. Owns bounds and offsets; must never know what
//! the parts mean. Read `slots.rs`, `track_log.rs`, `messages.rs`, `handover.rs`, `addresses.rs`, `sessions.rs`, `owners.rs` next.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::addresses::Addresses;
use crate::handover::Handover;
use crate::layout::{self, Layout, Parameters};
use crate::mapping::Mapping;
use crate::messages::Messages;
use crate::owners::Owners;
use crate::sessions::{SessionRecord, SessionWords};
use crate::slots::SlotPage;
use crate::sync::AtomicU64;
use crate::words::put_bytes;

const HEADER_WORDS: usize = 8;

/// A handle on the shared memory; clones share one mapping, and are one word each because every session has several.
#[derive(Clone)]
pub struct Arena(Arc<Inner>);

struct Inner {
    mapping: Mapping,
    parameters: Parameters,
    layout: Layout,
    seed: u64,
}

/// Why a file is not an arena that this build can use.
#[derive(Debug)]
pub enum AttachError {
    Io(io::Error),
    /// It does not begin with the magic number.
    NotAnArena,
    /// Its layout version is another build's.
    Version(u32),
    Parameters(String),
    /// Smaller than its own parameters need: found, needed.
    TooSmall(u64, u64),
}

impl Arena {
    /// A new arena in an anonymous file: for tests and tools. In production the master makes it (`relay/contract/layout.py`).
    pub fn create(parameters: Parameters) -> io::Result<Arena> {
        parameters.validate().map_err(io::Error::other)?;
        Ok(Arena::fresh(Mapping::create(parameters.size())?, parameters))
    }

    /// A new arena in this process's own memory, without a file descriptor: for tests under Miri.
    pub fn in_memory(parameters: Parameters) -> Arena {
        assert_eq!(parameters.validate(), Ok(()));
        Arena::fresh(Mapping::heap(parameters.size()), parameters)
    }

    fn fresh(mapping: Mapping, parameters: Parameters) -> Arena {
        // A model checker's runs must not differ.
        let seed = if cfg!(modelled) { 0 } else { RandomState::new().hash_one(parameters.slots) };
        put_bytes(mapping.words(0, HEADER_WORDS), &parameters.header(seed));
        Arena(Arc::new(Inner { mapping, parameters, layout: Layout::new(&parameters), seed }))
    }

    /// Maps the arena behind `fd`, which stays the caller's.
    pub fn attach(fd: RawFd) -> Result<Arena, AttachError> {
        let mapping = Mapping::attach(fd).map_err(AttachError::Io)?;
        if mapping.len() < HEADER_WORDS {
            return Err(AttachError::NotAnArena);
        }
        let words = mapping.words(0, HEADER_WORDS);
        let header: [u64; HEADER_WORDS] = std::array::from_fn(|i| words[i].load(Relaxed));
        if header[0] != layout::MAGIC {
            return Err(AttachError::NotAnArena);
        }
        let version = header[1] as u32;
        if version != layout::VERSION {
            return Err(AttachError::Version(version));
        }
        let parameters = Parameters::from_fields(std::array::from_fn(|i| (header[2 + i / 2] >> (32 * (i % 2))) as u32));
        parameters.validate().map_err(AttachError::Parameters)?;
        let layout = Layout::new(&parameters);
        let found = mapping.len() as u64 * 8;
        if header[6] != layout.size || found < layout.size {
            return Err(AttachError::TooSmall(found.min(header[6]), layout.size));
        }
        Ok(Arena(Arc::new(Inner { mapping, parameters, layout, seed: header[7] })))
    }

    /// The file descriptor of this mapping; `None` for an arena in memory.
    pub fn fd(&self) -> Option<RawFd> {
        self.0.mapping.fd()
    }

    pub fn parameters(&self) -> &Parameters {
        &self.0.parameters
    }

    /// A worker's page: life, beats, counters. Panics when there is no such slot, as every method here does: slots come from the master,
    /// not from the network.
    pub fn slot(&self, slot: u8) -> SlotPage<'_> {
        self.check_slot(slot);
        let start = self.0.layout.slots + u64::from(slot) * layout::SLOT_STRIDE;
        SlotPage::new(self.section(start, layout::SLOT_STRIDE))
    }

    /// The ring of short messages from one worker to another.
    pub fn messages(&self, from: u8, to: u8) -> Messages<'_> {
        let start = self.0.layout.messages + self.pair(from, to) * self.0.layout.message_stride;
        Messages::new(self.section(start, self.0.layout.message_stride), self.0.parameters.messages)
    }

    /// The ring of datagrams that reached `from` and belong to `to`.
    pub fn handover(&self, from: u8, to: u8) -> Handover<'_> {
        let start = self.0.layout.handovers + self.pair(from, to) * self.0.layout.handover_stride;
        Handover::new(self.section(start, self.0.layout.handover_stride), self.0.parameters.handover_packets)
    }

    /// True when neither a message nor a datagram waits for `slot`. To be called between `set_sleeping(true)` and the wait.
    pub fn inbox_is_empty(&self, slot: u8) -> bool {
        (0..self.0.parameters.slots as u8)
            .filter(|&from| from != slot)
            .all(|from| self.messages(from, slot).is_empty() && self.handover(from, slot).is_empty())
    }

    /// The table of the slots that own client addresses.
    pub fn addresses(&self) -> Addresses<'_> {
        let bytes = u64::from(self.0.parameters.addresses) * layout::ADDRESS_STRIDE;
        Addresses::new(self.section(self.0.layout.addresses, bytes), self.0.seed)
    }

    /// The number of the slot's `i`-th session record among those of all slots.
    pub fn record(&self, slot: u8, i: u32) -> u32 {
        self.check_slot(slot);
        assert!(i < self.0.parameters.sessions_per_slot, "session record {i} is beyond the slot's");
        u32::from(slot) * self.0.parameters.sessions_per_slot + i
    }

    /// How many session records there are in all.
    pub fn records(&self) -> u32 {
        self.0.parameters.slots * self.0.parameters.sessions_per_slot
    }

    /// A session's lasting record.
    pub fn session(&self, record: u32) -> SessionRecord<'_> {
        let words = self.section(self.session_start(record), self.0.layout.session_stride);
        SessionRecord::new(&words[layout::SESSION_WORDS..])
    }

    /// The words beside that record.
    pub fn session_words(&self, record: u32) -> SessionWords {
        SessionWords::new(self.clone(), self.session_start(record))
    }

    /// The owners of session records.
    pub fn owners(&self) -> Owners<'_> {
        Owners::new(self.section(self.0.layout.owners, u64::from(self.records()) * 8))
    }

    fn session_start(&self, record: u32) -> u64 {
        assert!(record < self.records(), "session record {record} is beyond the arena's");
        self.0.layout.sessions + u64::from(record) * self.0.layout.session_stride
    }

    /// How many track logs there are in all.
    pub fn logs(&self) -> u32 {
        self.0.parameters.slots * self.0.parameters.logs_per_slot
    }

    /// The words of one track log; `None` when there is no such log.
    pub(crate) fn log(&self, log: u32) -> Option<&[AtomicU64]> {
        (log < self.logs()).then(|| {
            let start = self.0.layout.logs + u64::from(log) * self.0.layout.log_stride;
            self.section(start, self.0.layout.log_stride)
        })
    }

    pub(crate) fn section(&self, start: u64, bytes: u64) -> &[AtomicU64] {
        self.0.mapping.words((start / 8) as usize, (bytes / 8) as usize)
    }

    fn pair(&self, from: u8, to: u8) -> u64 {
        self.check_slot(from);
        self.check_slot(to);
        u64::from(from) * u64::from(self.0.parameters.slots) + u64::from(to)
    }

    fn check_slot(&self, slot: u8) {
        assert!(u32::from(slot) < self.0.parameters.slots, "slot {slot} is beyond the arena's");
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("parameters", &self.0.parameters).finish_non_exhaustive()
    }
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttachError::Io(error) => write!(f, "the arena cannot be mapped: {error}"),
            AttachError::NotAnArena => write!(f, "the file is not an arena"),
            AttachError::Version(found) => write!(f, "the arena has layout {found}, not {}", layout::VERSION),
            AttachError::Parameters(problem) => write!(f, "the arena's parameters do not hold: {problem}"),
            AttachError::TooSmall(found, needed) => write!(f, "the arena has {found} bytes and needs {needed}"),
        }
    }
}

impl std::error::Error for AttachError {}

#[cfg(all(test, not(any(modelled, miri))))]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::Beat;

    #[test]
    fn two_attachments_see_the_same_memory() {
        let made = Arena::create(Parameters::SMALL).expect("memfd");
        let attached = Arena::attach(made.fd().expect("a file")).expect("the same layout");
        assert_eq!(attached.parameters(), made.parameters());
        made.slot(3).beat(Beat::Engine, 77);
        assert_eq!(attached.slot(3).beats().engine_us, 77);
    }

    fn file(name: &str, bytes: &[u8], len: u64) -> std::fs::File {
        let path = std::env::temp_dir().join(format!("millrace-arena-{name}-{}", std::process::id()));
        let mut file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path).expect("temp");
        std::fs::remove_file(&path).expect("just made");
        file.write_all(bytes).expect("room");
        file.set_len(len).expect("room");
        file
    }

    #[test]
    fn a_header_alone_in_a_file_of_zeros_is_an_arena() {
        let size = Parameters::SMALL.size();
        let file = file("zeros", &Parameters::SMALL.header(5), size);
        let arena = Arena::attach(file.as_raw_fd()).expect("valid");
        assert!(arena.inbox_is_empty(0));
        assert_eq!(arena.slot(0).incarnation(), 0);
    }

    #[test]
    fn what_is_not_an_arena_of_this_layout_is_refused() {
        let header = Parameters::SMALL.header(0);
        let size = Parameters::SMALL.size();
        let attach = |name: &str, bytes: &[u8], len| Arena::attach(file(name, bytes, len).as_raw_fd()).map(|_| ());
        assert!(matches!(attach("empty", b"", 0), Err(AttachError::Io(_))));
        assert!(matches!(attach("short", &header[..32], 32), Err(AttachError::NotAnArena)));
        assert!(matches!(attach("blank", b"", size), Err(AttachError::NotAnArena)));
        assert!(matches!(attach("cut", &header, size - 4096), Err(AttachError::TooSmall(..))));
        let mut other = header;
        other[8] = 99;
        assert!(matches!(attach("version", &other, size), Err(AttachError::Version(99))));
        let mut other = header;
        other[16] = 0;
        assert!(matches!(attach("slots", &other, size), Err(AttachError::Parameters(_))));
    }
}
