//! Elements of an RTP header extension block (RFC 8285): reading both forms, writing the shorter one that fits. Must never
//! know what an id means: the numbering is each m-line's own. Read `sequence.rs` next.
//!
//! ```text
//! one-byte form, profile 0xBEDE:          |id 4|len-1 4| bytes ... |   id 1..=14, 1..=16 bytes
//! two-byte form, profile 0x1000..=0x100F: | id 8 | len 8 | bytes ... |   id 1..=255, 0..=255 bytes
//! A zero byte between elements is padding.
//! ```

use std::ops::Range;

use super::{ExtensionBlock, Header};

/// RFC 8285 section 4.2.
pub const ONE_BYTE: u16 = 0xbede;
/// RFC 8285 section 4.3; the low four bits are "appbits", which we write as zero and ignore.
pub const TWO_BYTE: u16 = 0x1000;

/// The profile and length before the elements.
pub const HEAD: usize = 4;

/// Completes a block of the one-byte form whose elements lie in `out[HEAD..end]`; returns its length, 0 when there are none.
pub fn finish_short(out: &mut [u8], end: usize) -> usize {
    if end == HEAD {
        return 0;
    }
    let len = end.next_multiple_of(4);
    out[end..len].fill(0);
    out[..2].copy_from_slice(&ONE_BYTE.to_be_bytes());
    out[2..HEAD].copy_from_slice(&((len / 4 - 1) as u16).to_be_bytes());
    len
}

/// The elements that one packet may carry out: more than the extensions that we know.
pub const MAX_ELEMENTS: usize = 16;

/// The elements of a parsed packet, in wire order, as (id, range within the packet). Ends at the first element that does
/// not fit.
pub fn iterate(packet: &[u8], block: Option<ExtensionBlock>) -> Iterate<'_> {
    let Some(block) = block else { return Iterate { packet, at: 0, end: 0, two_byte: false } };
    let known = block.profile == ONE_BYTE || block.profile & 0xfff0 == TWO_BYTE;
    let end = if known { (block.start + block.len).min(packet.len()) } else { block.start };
    Iterate { packet, at: block.start, end, two_byte: block.profile != ONE_BYTE }
}

/// The value of the first element with `id`.
pub fn find<'a>(packet: &'a [u8], header: &Header, id: u8) -> Option<&'a [u8]> {
    iterate(packet, header.extension).find(|(found, _)| *found == id).and_then(|(_, range)| packet.get(range))
}

#[derive(Clone, Debug)]
pub struct Iterate<'a> {
    packet: &'a [u8],
    at: usize,
    end: usize,
    two_byte: bool,
}

impl Iterator for Iterate<'_> {
    type Item = (u8, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.end {
            let first = self.packet[self.at];
            if first == 0 {
                self.at += 1;
                continue;
            }
            let (id, len, start) = if self.two_byte {
                let len = if self.at + 1 < self.end { self.packet[self.at + 1] as usize } else { usize::MAX / 2 };
                (first, len, self.at + 2)
            } else {
                (first >> 4, (first & 0x0f) as usize + 1, self.at + 1)
            };
            // RFC 8285 section 4.2: id 15, and id 0 with a length, end the processing of a one-byte block.
            if start + len > self.end || (!self.two_byte && (id == 0 || id == 15)) {
                self.at = self.end;
                return None;
            }
            self.at = start + len;
            return Some((id, start..start + len));
        }
        None
    }
}

/// The elements of an outgoing packet. Values are borrowed, so nothing is copied before `write`.
#[derive(Clone, Copy, Debug)]
pub struct Elements<'a> {
    elements: [(u8, &'a [u8]); MAX_ELEMENTS],
    count: usize,
}

impl Default for Elements<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Elements<'a> {
    pub const fn new() -> Elements<'a> {
        Elements { elements: [(0, &[]); MAX_ELEMENTS], count: 0 }
    }

    /// Adds an element, or replaces the one that has this id. False, and nothing changed, when the wire cannot carry it or
    /// there are `MAX_ELEMENTS` already.
    pub fn set(&mut self, id: u8, value: &'a [u8]) -> bool {
        if id == 0 || value.len() > 255 {
            return false;
        }
        let at = self.elements[..self.count].iter().position(|(present, _)| *present == id).unwrap_or(self.count);
        let Some(element) = self.elements.get_mut(at) else { return false };
        *element = (id, value);
        self.count = self.count.max(at + 1);
        true
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that `write` writes: 0 when empty, otherwise a multiple of four, the four-byte head included.
    pub fn written_len(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        let head = if self.fits_one_byte() { 1 } else { 2 };
        let body: usize = self.list().iter().map(|(_, value)| head + value.len()).sum();
        4 + body.next_multiple_of(4)
    }

    /// Writes the whole block, its head included, to the front of `out`; returns its length (0 when there are no elements:
    /// then the header's X bit must be clear), `None` when it does not fit.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let len = self.written_len();
        let out = out.get_mut(..len)?;
        if len == 0 {
            return Some(0);
        }
        let one_byte = self.fits_one_byte();
        out[..2].copy_from_slice(&(if one_byte { ONE_BYTE } else { TWO_BYTE }).to_be_bytes());
        // At most 16 elements of 257 bytes: the length in words fits 16 bits.
        out[2..4].copy_from_slice(&((len / 4 - 1) as u16).to_be_bytes());
        let mut at = 4;
        for (id, value) in self.list() {
            if one_byte {
                out[at] = id << 4 | (value.len() - 1) as u8;
                at += 1;
            } else {
                out[at] = *id;
                out[at + 1] = value.len() as u8;
                at += 2;
            }
            out[at..at + value.len()].copy_from_slice(value);
            at += value.len();
        }
        out[at..].fill(0);
        Some(len)
    }

    fn list(&self) -> &[(u8, &'a [u8])] {
        &self.elements[..self.count]
    }

    fn fits_one_byte(&self) -> bool {
        self.list().iter().all(|(id, value)| *id <= 14 && (1..=16).contains(&value.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(profile: u16, bytes: &[u8]) -> Option<ExtensionBlock> {
        Some(ExtensionBlock { profile, start: 0, len: bytes.len() })
    }

    fn read(profile: u16, bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        iterate(bytes, block(profile, bytes)).map(|(id, range)| (id, bytes[range].to_vec())).collect()
    }

    #[test]
    fn the_one_byte_example_of_rfc_8285_section_4_2_is_read() {
        let bytes = [0x10, 0xaa, 0x21, 0xbb, 0xbc, 0, 0, 0x33, 1, 2, 3, 4];
        assert_eq!(read(ONE_BYTE, &bytes), [(1, vec![0xaa]), (2, vec![0xbb, 0xbc]), (3, vec![1, 2, 3, 4])]);
    }

    #[test]
    fn the_two_byte_example_of_rfc_8285_section_4_3_is_read() {
        let bytes = [1, 0, 2, 1, 0xbb, 0, 3, 4, 1, 2, 3, 4];
        for profile in [0x1000, 0x100f] {
            assert_eq!(read(profile, &bytes), [(1, vec![]), (2, vec![0xbb]), (3, vec![1, 2, 3, 4])]);
        }
    }

    #[test]
    fn what_does_not_fit_ends_the_block_and_keeps_what_came_before() {
        assert_eq!(read(ONE_BYTE, &[0x10, 1, 0x2f, 1]), [(1, vec![1])]);
        assert_eq!(read(ONE_BYTE, &[0x10, 1, 0xf0, 1, 0x20, 1]), [(1, vec![1])], "id 15 is reserved");
        assert_eq!(read(ONE_BYTE, &[0x10, 1, 0x02, 1, 0x20, 1]), [(1, vec![1])], "id 0 with a length");
        assert_eq!(read(TWO_BYTE, &[1, 1, 9, 2]), [(1, vec![9])], "no room for a length");
        assert_eq!(read(TWO_BYTE, &[1, 1, 9, 2, 1]), [(1, vec![9])]);
        assert_eq!(read(0xabcd, &[0x10, 1, 0x20, 2]), [], "another profile");
    }

    #[test]
    fn the_shorter_form_is_written_when_it_can_carry_everything() {
        let mut elements = Elements::new();
        let mut out = [0xff; 64];
        assert_eq!(elements.write(&mut out), Some(0));
        assert!(elements.set(1, &[7]) && elements.set(14, &[9; 16]) && elements.set(1, &[8]));
        assert_eq!(elements.write(&mut out), Some(24));
        assert_eq!(out[..6], [0xbe, 0xde, 0, 5, 0x10, 8]);
        assert!(elements.set(2, &[]));
        let len = elements.write(&mut out).unwrap();
        assert_eq!(out[..7], [0x10, 0, 0, 6, 1, 1, 8]);
        assert_eq!(elements.write(&mut out[..len - 1]), None);
        assert!(!elements.set(0, &[1]) && !elements.set(3, &[0; 256]));
    }

    #[test]
    fn elements_past_the_bound_are_refused() {
        let mut elements = Elements::new();
        assert!((1..=16).all(|id| elements.set(id, &[1])));
        assert!(!elements.set(17, &[1]));
        assert!(elements.set(16, &[2]));
    }

    proptest! {
        #[test]
        fn arbitrary_blocks_never_panic_and_ranges_stay_inside(bytes in prop::collection::vec(any::<u8>(), 0..64), start in 0usize..80, len in 0usize..80, two_byte: bool) {
            let profile = if two_byte { TWO_BYTE } else { ONE_BYTE };
            for (id, range) in iterate(&bytes, Some(ExtensionBlock { profile, start, len })) {
                prop_assert!(id != 0 && range.end <= bytes.len());
            }
        }

        #[test]
        fn written_elements_are_read_back(elements in prop::collection::btree_map(1u8.., prop::collection::vec(any::<u8>(), 0..20), 0..=MAX_ELEMENTS)) {
            let mut writer = Elements::new();
            for (id, value) in &elements {
                prop_assert!(writer.set(*id, value));
            }
            let mut out = [0xff; 1024];
            let len = writer.write(&mut out).unwrap();
            prop_assert_eq!(len % 4, 0);
            if len > 0 {
                let profile = u16::from_be_bytes([out[0], out[1]]);
                prop_assert_eq!(u16::from_be_bytes([out[2], out[3]]) as usize * 4, len - 4);
                let expected: Vec<_> = elements.into_iter().collect();
                prop_assert_eq!(read(profile, &out[4..len]), expected);
            }
        }
    }
}
