//! The way out to one address: an address that was not proven gets at most three times what came from there (RFC 9000 section
//! 8.1). Owns that count while one thing is handled; must never keep anything. Read `ice/address.rs` next, which keeps it.

use crate::outbox::{Outbox, Path};

pub(super) struct Exit<'a> {
    outbox: &'a mut Outbox,
    pub path: Path,
    left: usize,
    sent: usize,
    pub held_back: bool,
}

impl<'a> Exit<'a> {
    pub fn new(outbox: &'a mut Outbox, path: Path, left: usize) -> Exit<'a> {
        Exit { outbox, path, left, sent: 0, held_back: false }
    }

    /// Sends all of these datagrams, or none when together they are too much for the address; false then. What does not fit
    /// the outbox counts as lost on the way.
    pub fn send<T: AsRef<[u8]>>(&mut self, datagrams: &[T]) -> bool {
        let total: usize = datagrams.iter().map(|datagram| datagram.as_ref().len()).sum();
        if total > self.left {
            self.held_back = true;
            return false;
        }
        for datagram in datagrams {
            self.outbox.push(self.path, datagram.as_ref());
        }
        self.left -= total;
        self.sent += total;
        true
    }

    /// Bytes that have left.
    pub fn sent(&self) -> usize {
        self.sent
    }
}
