//! The datagrams that one wake-up of the reactor will send, packed end to end so that those to one destination can leave as one GSO
//! send. Owns bytes and addresses; must never know what the bytes are. Read the shell's `udp.rs` next.

use std::net::SocketAddr;

/// What is sent at a time, whichever bound is reached first: several viewers' frames, and a small part of the second-level cache. Each
/// portion costs some 300 ns, which is 2 ns a datagram at this size.
const PORTION_BYTES: usize = 64 * 1024;
const PORTION_DATAGRAMS: usize = 128;

/// One of the worker's UDP sockets, as an index into the list given at the start; from `SocketIndex::TCP` on, a TCP listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SocketIndex(pub u8);

impl SocketIndex {
    /// The first TCP listener. It lies behind all UDP sockets, of which there are 64 at most.
    pub const TCP: u8 = 64;

    /// True for a listener: then the path is a connection.
    pub fn is_tcp(self) -> bool {
        self.0 >= Self::TCP
    }
}

/// The two ends of a path: our socket and the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    pub socket: SocketIndex,
    pub remote: SocketAddr,
}

/// One datagram to send: `start..start + len` of the outbox's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub path: Path,
    pub start: usize,
    pub len: usize,
}

/// A bounded batch of datagrams. Its memory is allocated once.
#[derive(Debug)]
pub struct Outbox {
    bytes: Box<[u8]>,
    used: usize,
    datagrams: Vec<Datagram>,
}

impl Outbox {
    /// Room for `bytes` of payload and `datagrams` datagrams.
    pub fn new(bytes: usize, datagrams: usize) -> Outbox {
        Outbox { bytes: vec![0; bytes].into_boxed_slice(), used: 0, datagrams: Vec::with_capacity(datagrams) }
    }

    /// True when this many datagrams of this many bytes in all still fit.
    pub fn has_room(&self, datagrams: usize, bytes: usize) -> bool {
        self.datagrams.capacity() - self.datagrams.len() >= datagrams && self.bytes.len() - self.used >= bytes
    }

    /// True when the queue should be sent now: further datagrams would only wait, and push these bytes out of the cache before the
    /// kernel reads them.
    pub fn is_portion(&self) -> bool {
        self.used >= PORTION_BYTES || self.datagrams.len() >= PORTION_DATAGRAMS
    }

    /// A buffer of `len` bytes to write one datagram into, or `None` when the batch is full: send it, then ask again. Nothing is queued
    /// until `commit`.
    pub fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.datagrams.len() == self.datagrams.capacity() || self.bytes.len() - self.used < len {
            return None;
        }
        Some(&mut self.bytes[self.used..self.used + len])
    }

    /// Queues the first `len` bytes of the buffer that `reserve` returned last.
    pub fn commit(&mut self, path: Path, len: usize) {
        debug_assert!(self.used + len <= self.bytes.len());
        self.datagrams.push(Datagram { path, start: self.used, len });
        self.used += len;
    }

    /// Copies a whole datagram in; false when the batch is full.
    pub fn push(&mut self, path: Path, datagram: &[u8]) -> bool {
        let Some(buffer) = self.reserve(datagram.len()) else { return false };
        buffer.copy_from_slice(datagram);
        self.commit(path, datagram.len());
        true
    }

    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// The queued datagrams in the order in which they were committed, and the bytes that they index.
    pub fn queued(&self) -> (&[Datagram], &[u8]) {
        (&self.datagrams, &self.bytes[..self.used])
    }

    /// Where the next datagram will begin.
    pub fn next_start(&self) -> usize {
        self.used
    }

    /// The queued bytes, whose tags are to be written in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.used]
    }

    /// Empties the queue.
    pub fn clear(&mut self) {
        self.datagrams.clear();
        self.used = 0;
    }
}
