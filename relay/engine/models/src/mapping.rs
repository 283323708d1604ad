//! The arena's memory as a model checker sees it: atomics of its own, in no file. It stands in for
//! `arena/src/mapping.rs`; must never know what lies where. Read `tests/main.rs` next.

use std::io;
use std::os::fd::RawFd;

use crate::sync::AtomicU64;

pub(crate) struct Mapping(Box<[AtomicU64]>);

impl Mapping {
    /// Memory that other processes could map: there is none here.
    pub(crate) fn create(_bytes: u64) -> io::Result<Mapping> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// As above.
    pub(crate) fn attach(_fd: RawFd) -> io::Result<Mapping> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Zeroed memory that the threads of a model share.
    pub(crate) fn heap(bytes: u64) -> Mapping {
        Mapping((0..bytes / 8).map(|_| AtomicU64::new(0)).collect())
    }

    /// How many words there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// `len` words from `start` on. Panics when they are not all there.
    pub(crate) fn words(&self, start: usize, len: usize) -> &[AtomicU64] {
        &self.0[start..start + len]
    }

    pub(crate) fn fd(&self) -> Option<RawFd> {
        None
    }
}
