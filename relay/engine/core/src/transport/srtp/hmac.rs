//! HMAC-SHA1 (RFC 2104) of a packet and the four bytes that SRTP adds to it, one packet at a time. Owns the key as the two
//! states that SHA-1 is in after the padded key, and the last blocks of a message; must never know a packet. Read `tags.rs` next,
//! which does the same for many at once.

use sha1::digest::generic_array::GenericArray;

/// RFC 3711 section 4.2.1: the tag is cut to 80 bits.
pub(super) const TAG: usize = 10;
pub(super) const BLOCK: usize = 64;
/// What follows the message: the rollover counter, or SRTCP's E bit and index.
pub(super) const LAST: usize = 4;

/// FIPS 180-4 section 5.3.1.
const START: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

/// The states of SHA-1 after the padded key (RFC 2104 section 4), which saves each packet two blocks.
#[derive(Clone, Copy)]
pub(super) struct HmacKey {
    pub inner: [u32; 5],
    pub outer: [u32; 5],
}

impl HmacKey {
    pub fn new(key: &[u8; 20]) -> HmacKey {
        let padded = |pad: u8| {
            let mut block = [pad; BLOCK];
            for (byte, key) in block.iter_mut().zip(key) {
                *byte ^= key;
            }
            let mut state = START;
            take(&mut state, &block);
            state
        };
        HmacKey { inner: padded(0x36), outer: padded(0x5C) }
    }

    pub fn tag(&self, message: &[u8], last: [u8; LAST]) -> [u8; TAG] {
        let (whole, rest) = message.as_chunks::<BLOCK>();
        let mut state = self.inner;
        whole.iter().for_each(|block| take(&mut state, block));
        let (ending, blocks) = ending(rest, last, message.len());
        ending.as_chunks::<BLOCK>().0[..blocks].iter().for_each(|block| take(&mut state, block));
        let mut outer = self.outer;
        take(&mut outer, &outer_block(&state));
        cut(&outer)
    }
}

/// The last one or two blocks of the inner message of `len` bytes, of which `rest` is in no whole block.
pub(super) fn ending(rest: &[u8], last: [u8; LAST], len: usize) -> ([u8; 2 * BLOCK], usize) {
    let mut ending = [0; 2 * BLOCK];
    ending[..rest.len()].copy_from_slice(rest);
    ending[rest.len()..rest.len() + LAST].copy_from_slice(&last);
    ending[rest.len() + LAST] = 0x80;
    let blocks = ending_blocks(len);
    ending[blocks * BLOCK - 8..blocks * BLOCK].copy_from_slice(&bits(len + LAST).to_be_bytes());
    (ending, blocks)
}

/// FIPS 180-4 section 5.1.1: a one bit and 64 bits of length have to fit behind the message.
pub(super) fn ending_blocks(len: usize) -> usize {
    if len % BLOCK + LAST + 1 + 8 > BLOCK { 2 } else { 1 }
}

/// The one block of the outer message: the inner digest.
pub(super) fn outer_block(inner: &[u32; 5]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    for (bytes, word) in block.as_chunks_mut::<4>().0.iter_mut().zip(inner) {
        *bytes = word.to_be_bytes();
    }
    block[20] = 0x80;
    block[BLOCK - 8..].copy_from_slice(&bits(20).to_be_bytes());
    block
}

pub(super) fn cut(state: &[u32; 5]) -> [u8; TAG] {
    let [a, b, c, ..] = state.map(u32::to_be_bytes);
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1]]
}

/// The digest of a message that the padded key precedes.
fn bits(len: usize) -> u64 {
    (BLOCK + len) as u64 * 8
}

fn take(state: &mut [u32; 5], block: &[u8; BLOCK]) {
    sha1::compress(state, std::slice::from_ref(GenericArray::from_slice(block)));
}

#[cfg(test)]
mod tests {
    use sha1::{Digest, Sha1};

    use super::*;

    #[test]
    fn tags_of_every_length_are_those_of_the_definition() {
        let key: [u8; 20] = std::array::from_fn(|i| i as u8 * 7 + 1);
        let mut padded = [[0x36; BLOCK], [0x5c; BLOCK]];
        padded.iter_mut().for_each(|block| block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key));
        let message: Vec<u8> = (0..300).map(|i| (i * 31) as u8).collect();
        for len in 0..message.len() {
            let inner = Sha1::new_with_prefix(padded[0]).chain_update(&message[..len]).chain_update([1, 2, 3, 4]);
            let whole = Sha1::new_with_prefix(padded[1]).chain_update(inner.finalize()).finalize();
            assert_eq!(HmacKey::new(&key).tag(&message[..len], [1, 2, 3, 4]), whole[..TAG], "of {len} bytes");
        }
    }
}
