//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1) as bytes: when
//! each packet of a transport arrived. Must never estimate anything. Read `../congestion/arrivals.rs` next, which makes it.
//!
//! ```text
//! |                 SSRC of sender, SSRC of media                 |
//! |     base sequence number      |     packet status count       |
//! |          reference time (24)                  | feedback count|
//! | chunk (16) | chunk ... | delta (8 or 16) | delta ... | zeroes |
//!
//! chunk: |0| S |   run length (13)   |     so many packets of status S
//!        |1|0| status of 14 packets  |     one bit each: not received, small delta
//!        |1|1| status of 7 packets   |     two bits each
//! ```

use super::word;

/// Deltas count quarters of a millisecond, the reference time multiples of 64 ms.
pub const TICK_US: u64 = 250;
pub const TICKS_PER_REFERENCE: u64 = 256;

/// The bytes before the chunks.
pub const HEAD_LEN: usize = 16;

/// A packet's status, as chunks encode it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbol {
    NotReceived = 0,
    SmallDelta = 1,
    LargeDelta = 2,
}

/// The fields before the chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportCcHead {
    pub sender_ssrc: u32,
    pub media_ssrc: u32,
    pub base_sequence: u16,
    pub status_count: u16,
    /// 24 bits, multiples of 64 ms.
    pub reference: u32,
    /// Counts reports, so that a lost one is noticed.
    pub feedback_count: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportCc<'a> {
    pub head: TransportCcHead,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

/// One packet of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketStatus {
    pub sequence: u16,
    /// Ticks of `TICK_US` on the receiver's clock, which wraps at 2^32 ticks; `None` when it had not arrived.
    pub arrived: Option<u32>,
}

impl<'a> TransportCc<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<TransportCc<'a>> {
        let (range, time) = (word(body, 8)?, word(body, 12)?);
        let head = TransportCcHead {
            sender_ssrc: word(body, 0)?,
            media_ssrc: word(body, 4)?,
            base_sequence: (range >> 16) as u16,
            status_count: range as u16,
            reference: time >> 8,
            feedback_count: time as u8,
        };
        // The deltas begin behind the chunk that covers the last status.
        let rest = &body[HEAD_LEN..];
        let mut covered = 0;
        let mut chunks = 0;
        while covered < usize::from(head.status_count) {
            let chunk = rest.get(2 * chunks..)?.first_chunk::<2>()?;
            covered += chunk_len(u16::from_be_bytes(*chunk));
            chunks += 1;
        }
        let (chunks, deltas) = rest.split_at(2 * chunks);
        Some(TransportCc { head, chunks, deltas })
    }

    /// The packets from the base on; ends early when the deltas do. At most `status_count`.
    pub fn statuses(&self) -> Statuses<'a> {
        Statuses {
            sequence: self.head.base_sequence,
            left: self.head.status_count,
            ticks: self.head.reference.wrapping_mul(TICKS_PER_REFERENCE as u32),
            chunk: 0,
            chunk_at: 0,
            chunk_end: 0,
            chunks: self.chunks,
            deltas: self.deltas,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Statuses<'a> {
    sequence: u16,
    left: u16,
    ticks: u32,
    chunk: u16,
    /// The next status of `chunk`, and how many it has.
    chunk_at: usize,
    chunk_end: usize,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl Iterator for Statuses<'_> {
    type Item = PacketStatus;

    fn next(&mut self) -> Option<PacketStatus> {
        self.left = self.left.checked_sub(1)?;
        // A run may have no length; `parse` has counted it so, too.
        while self.chunk_at == self.chunk_end {
            let (chunk, rest) = self.chunks.split_first_chunk::<2>()?;
            (self.chunk, self.chunks) = (u16::from_be_bytes(*chunk), rest);
            (self.chunk_at, self.chunk_end) = (0, chunk_len(self.chunk));
        }
        let symbol = symbol(self.chunk, self.chunk_at);
        self.chunk_at += 1;
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let delta = match symbol {
            1 => self.delta::<1>().map(|[byte]| i32::from(byte)),
            2 => self.delta::<2>().map(|bytes| i32::from(i16::from_be_bytes(bytes))),
            // 3 is reserved, and tells nothing about its packet.
            _ => return Some(PacketStatus { sequence, arrived: None }),
        };
        let Some(delta) = delta else {
            self.left = 0;
            return None;
        };
        self.ticks = self.ticks.wrapping_add_signed(delta);
        Some(PacketStatus { sequence, arrived: Some(self.ticks) })
    }
}

impl Statuses<'_> {
    fn delta<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (delta, rest) = self.deltas.split_first_chunk::<N>()?;
        self.deltas = rest;
        Some(*delta)
    }
}

/// How many statuses a chunk holds.
fn chunk_len(chunk: u16) -> usize {
    match chunk >> 14 {
        0 | 1 => (chunk & 0x1fff).into(),
        2 => 14,
        _ => 7,
    }
}

fn symbol(chunk: u16, at: usize) -> u16 {
    match chunk >> 14 {
        0 | 1 => chunk >> 13 & 0x03,
        2 => chunk >> (13 - at) & 0x01,
        _ => chunk >> (12 - 2 * at) & 0x03,
    }
}

/// The chunk that covers the most of `symbols` from its front, and how many that is.
pub fn encode_chunk(symbols: &[Symbol]) -> Option<(u16, usize)> {
    let first = *symbols.first()?;
    let run = symbols.iter().take(0x1fff).take_while(|symbol| **symbol == first).count();
    // A vector that is not filled must be the last chunk: its unused bits would count as packets.
    let wide = symbols.iter().take(14).any(|symbol| *symbol == Symbol::LargeDelta);
    let vector = symbols.len().min(if wide { 7 } else { 14 });
    if run >= vector {
        return Some(((first as u16) << 13 | run as u16, run));
    }
    let bits = |width: usize, top: usize| {
        let place = |(i, symbol): (usize, &Symbol)| (*symbol as u16) << (top - width * i);
        symbols[..vector].iter().enumerate().map(place).fold(0, |chunk, bits| chunk | bits)
    };
    let chunk = if wide { 0xc000 | bits(2, 12) } else { 0x8000 | bits(1, 13) };
    Some((chunk, vector))
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, iterate};
    use super::*;
    use Symbol::{LargeDelta as L, NotReceived as N, SmallDelta as S};

    fn statuses(body: &[u8]) -> Option<Vec<(u16, Option<u32>)>> {
        let mut datagram = vec![0x8f, 205, 0, 0];
        datagram.extend([0, 0, 0, 1, 0, 0, 0, 2]);
        datagram.extend(body);
        datagram.resize(datagram.len().next_multiple_of(4), 0);
        datagram[3] = (datagram.len() / 4 - 1) as u8;
        let Some(Ok(Packet::TransportCc(report))) = iterate(&datagram).next() else { return None };
        Some(report.statuses().map(|status| (status.sequence, status.arrived)).collect())
    }

    #[test]
    fn every_kind_of_chunk_and_delta_is_read() {
        let body = [
            0xff,
            0xff,
            0,
            19,
            0,
            0,
            1,
            7, // base 65535, 19 packets, 64 ms
            0x20,
            0x02, // run of 2 small
            0b1100_0110,
            0b0001_0000, // two-bit vector: N S L N S N N
            0b1010_0000,
            0b0000_0000, // one-bit vector: S, then 13 N of which 9 count
            1,
            2,
            3,
            0xff,
            0xf0,
            5,
            6, // deltas
        ];
        let mut expected: Vec<(u16, Option<u32>)> = (0..19).map(|i| (65535u16.wrapping_add(i), None)).collect();
        for (at, ticks) in [(0, 257), (1, 259), (3, 262), (4, 246), (6, 251), (9, 257)] {
            expected[at].1 = Some(ticks);
        }
        assert_eq!(statuses(&body), Some(expected));
    }

    #[test]
    fn what_the_chunks_do_not_cover_is_refused() {
        assert_eq!(statuses(&[0, 1, 0, 2, 0, 0, 0, 0, 0x00, 0x01]), None);
        assert_eq!(statuses(&[0, 1, 0, 2, 0, 0, 0]), None);
    }

    #[test]
    fn missing_deltas_end_the_report() {
        let found = statuses(&[0, 1, 0, 9, 0, 0, 0, 0, 0x20, 0x09, 4, 4]).unwrap();
        assert_eq!(found, [(1, Some(4)), (2, Some(8))]);
    }

    #[test]
    fn an_empty_run_is_passed_over() {
        let found = statuses(&[0, 1, 0, 1, 0, 0, 0, 0, 0x20, 0x00, 0x20, 0x01, 4]).unwrap();
        assert_eq!(found, [(1, Some(4))]);
    }

    #[test]
    fn the_chunk_that_covers_most_is_chosen() {
        assert_eq!(encode_chunk(&[]), None);
        assert_eq!(encode_chunk(&[S; 20]), Some((0x2014, 20)));
        assert_eq!(encode_chunk(&[N; 9000]), Some((0x1fff, 0x1fff)));
        assert_eq!(encode_chunk(&[L, L]), Some((0x4002, 2)));
        assert_eq!(encode_chunk(&[S, N, S]), Some((0b1010_1000_0000_0000, 3)));
        let mut mixed = [N; 30];
        mixed[2] = S;
        assert_eq!(encode_chunk(&mixed), Some((0b1000_1000_0000_0000, 14)));
        mixed[7] = L;
        assert_eq!(encode_chunk(&mixed), Some((0b1100_0001_0000_0000, 7)), "one bit cannot say what follows");
        mixed[3] = L;
        assert_eq!(encode_chunk(&mixed), Some((0b1100_0001_1000_0000, 7)));
        assert_eq!(encode_chunk(&[[S; 10], [L; 10]].concat()), Some((0x200a, 10)));
    }
}
