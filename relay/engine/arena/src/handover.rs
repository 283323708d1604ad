//! A ring of datagrams that reached one worker and belong to another: one producer, one consumer, no waiting. Owns the
//! two cursors and the cells; must never look into a datagram. Read `addresses.rs` next, which tells a datagram's owner.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::endpoint;
use crate::layout::{HANDOVER_CELL_HEADER, HANDOVER_STRIDE, MAX_DATAGRAM, RING_HEADER};
use crate::sync::AtomicU64;
use crate::words::{get_bytes, put, put_bytes};

const PUSHED: usize = 0;
const POPPED: usize = 8;
const CELL_BYTES: usize = (HANDOVER_CELL_HEADER / 8) as usize;

#[derive(Clone, Copy, Debug)]
pub struct Handover<'a> {
    words: &'a [AtomicU64],
    capacity: u64,
}

impl<'a> Handover<'a> {
    pub(crate) fn new(words: &'a [AtomicU64], capacity: u32) -> Handover<'a> {
        Handover { words, capacity: u64::from(capacity) }
    }

    /// Adds a datagram. To be called by the worker `from` alone. False when the ring is full, or the datagram longer than `MAX_DATAGRAM`.
    pub fn push(&self, socket: u8, remote: SocketAddr, datagram: &[u8]) -> bool {
        let pushed = self.words[PUSHED].load(Relaxed);
        let full = pushed.wrapping_sub(self.words[POPPED].load(Acquire)) >= self.capacity;
        if full || datagram.len() > MAX_DATAGRAM {
            return false;
        }
        let cell = self.cell(pushed);
        put(&cell[0], datagram.len() as u64, Relaxed);
        for (word, part) in cell[1..].iter().zip(endpoint::pack(socket, &remote)) {
            put(word, part, Relaxed);
        }
        put_bytes(&cell[CELL_BYTES..], datagram);
        put(&self.words[PUSHED], pushed.wrapping_add(1), Release);
        true
    }

    /// Removes the oldest datagram: our socket's index, the client's address, and its length in `out`, which has room for `MAX_DATAGRAM`.
    /// To be called by the worker `to` alone.
    pub fn pop(&self, out: &mut [u8]) -> Option<(u8, SocketAddr, usize)> {
        let out = &mut out[..MAX_DATAGRAM];
        let popped = self.words[POPPED].load(Relaxed);
        if self.words[PUSHED].load(Acquire) == popped {
            return None;
        }
        let cell = self.cell(popped);
        let len = (cell[0].load(Relaxed) as usize).min(MAX_DATAGRAM);
        let (socket, remote) = endpoint::unpack(std::array::from_fn(|i| cell[1 + i].load(Relaxed)));
        get_bytes(&cell[CELL_BYTES..], &mut out[..len]);
        put(&self.words[POPPED], popped.wrapping_add(1), Release);
        Some((socket, remote, len))
    }

    /// True when half of the ring is free; the other half is reserved for known clients. To be called by the worker `from` alone.
    pub fn has_room_for_strangers(&self) -> bool {
        self.words[PUSHED].load(Relaxed).wrapping_sub(self.words[POPPED].load(Acquire)) < self.capacity / 2
    }

    pub fn is_empty(&self) -> bool {
        self.words[PUSHED].load(Acquire) == self.words[POPPED].load(Relaxed)
    }

    fn cell(&self, cursor: u64) -> &'a [AtomicU64] {
        let start = RING_HEADER + cursor % self.capacity * HANDOVER_STRIDE;
        &self.words[(start / 8) as usize..((start + HANDOVER_STRIDE) / 8) as usize]
    }
}

#[cfg(all(test, not(modelled)))]
mod tests {
    use std::thread;

    use super::*;
    use crate::words::crash;
    use crate::{Arena, Parameters};

    fn remote(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn datagrams_cross_threads_whole_and_in_order() {
        let count: u16 = if cfg!(miri) { 40 } else { 20_000 };
        let arena = Arena::in_memory(Parameters::TINY);
        let bytes = |n: u16| vec![n as u8; usize::from(n) % (MAX_DATAGRAM + 1)];
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..count {
                    while !arena.handover(2, 0).push(n as u8, remote(n), &bytes(n)) {
                        thread::yield_now();
                    }
                }
            });
            let mut out = [0; MAX_DATAGRAM];
            for n in 0..count {
                let (socket, from, len) = loop {
                    match arena.handover(2, 0).pop(&mut out) {
                        Some(datagram) => break datagram,
                        None => thread::yield_now(),
                    }
                };
                assert_eq!((socket, from), (n as u8, remote(n)));
                assert_eq!(&out[..len], &bytes(n)[..]);
            }
        });
    }

    #[test]
    fn a_full_ring_and_a_long_datagram_are_refused() {
        let arena = Arena::in_memory(Parameters::TINY);
        let ring = arena.handover(0, 1);
        assert!(!ring.push(0, remote(1), &[0; MAX_DATAGRAM + 1]));
        for n in 0..Parameters::TINY.handover_packets {
            assert_eq!(ring.has_room_for_strangers(), n < Parameters::TINY.handover_packets / 2);
            assert!(ring.push(0, remote(1), &[0; MAX_DATAGRAM]));
        }
        assert!(!ring.push(0, remote(1), &[]));
        assert!(ring.pop(&mut [0; MAX_DATAGRAM]).is_some());
        assert!(ring.push(0, remote(1), &[]));
    }

    #[test]
    fn a_datagram_whose_producer_dies_at_any_store_is_whole_or_absent() {
        for stores in 0..12 {
            let arena = Arena::in_memory(Parameters::TINY);
            let ring = arena.handover(0, 1);
            let pushed = crash::after(stores, || assert!(ring.push(3, remote(5), &[7; 24])));
            let mut out = [0; MAX_DATAGRAM];
            let popped = ring.pop(&mut out).map(|(socket, from, len)| (socket, from, out[..len].to_vec()));
            assert_eq!(popped, pushed.then(|| (3, remote(5), vec![7; 24])), "after {stores} stores");
            assert!(ring.push(1, remote(6), &[8; 3]));
            assert_eq!(ring.pop(&mut out), Some((1, remote(6), 3)));
        }
    }
}
