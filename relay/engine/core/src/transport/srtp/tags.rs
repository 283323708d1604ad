//! The authentication tags of AES-CM packets that are still to be computed. They are queued while the outbox fills, and computed
//! side by side before it is sent: SHA-1 is the larger part of such a packet's cost, and one message alone keeps a CPU waiting.
//! Owns the queue and which messages share a run; must never know a key's owner. Read `sha1_lanes.rs` next.

use super::hmac::{self, BLOCK, HmacKey, LAST, TAG};
use super::sha1_lanes::{Kernel, LANES};

/// With fewer messages the lanes that stay empty cost more than one message after the other.
const LEAST: usize = 5;

#[derive(Default)]
pub struct Tags {
    kernel: Option<Kernel>,
    queue: Vec<Pending>,
}

struct Pending {
    key: HmacKey,
    /// Where the message lies. Its tag follows it.
    start: usize,
    len: usize,
    last: [u8; LAST],
}

impl Pending {
    /// Messages of one shape take the same steps.
    fn shape(&self) -> (usize, usize) {
        (self.len / BLOCK, hmac::ending_blocks(self.len))
    }

    fn message<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start..self.start + self.len]
    }
}

impl Tags {
    /// With `None` nothing is deferred: each packet gets its tag when it is sealed.
    pub fn new(kernel: Option<Kernel>) -> Tags {
        Tags { kernel, queue: Vec::new() }
    }

    pub fn are_deferred(&self) -> bool {
        self.kernel.is_some()
    }

    /// Queues the tag of `start..start + len`, which is to be written behind these bytes.
    pub(super) fn push(&mut self, key: HmacKey, start: usize, len: usize, last: [u8; LAST]) {
        self.queue.push(Pending { key, start, len, last });
    }

    /// Writes all queued tags into `bytes`, in which the queued messages lie.
    pub fn finish(&mut self, bytes: &mut [u8]) {
        let Some(kernel) = self.kernel else { return };
        // Usually all are equally long, and nothing has to be sorted.
        self.queue.sort_unstable_by_key(|pending| pending.len);
        for alike in self.queue.chunk_by(|a, b| a.shape() == b.shape()) {
            for group in alike.chunks(LANES) {
                if group.len() >= LEAST {
                    finish_group(kernel, group, bytes);
                } else {
                    for pending in group {
                        write(pending, pending.key.tag(pending.message(bytes), pending.last), bytes);
                    }
                }
            }
        }
        self.queue.clear();
    }
}

/// Up to `LANES` messages of one shape.
fn finish_group(kernel: Kernel, group: &[Pending], bytes: &mut [u8]) {
    let (blocks, ending_blocks) = group[0].shape();
    // Lanes without a message repeat the first.
    let lane = |i: usize| group.get(i).unwrap_or(&group[0]);
    let mut state = std::array::from_fn(|word| std::array::from_fn(|i| lane(i).key.inner[word]));
    let messages: [&[u8]; LANES] = std::array::from_fn(|i| lane(i).message(bytes));
    kernel(&mut state, &messages.map(|message| &message[..blocks * BLOCK]));
    let endings: [_; LANES] =
        std::array::from_fn(|i| hmac::ending(&messages[i][blocks * BLOCK..], lane(i).last, lane(i).len).0);
    kernel(&mut state, &std::array::from_fn(|i| &endings[i][..ending_blocks * BLOCK]));
    let outer_blocks: [_; LANES] = std::array::from_fn(|i| hmac::outer_block(&state.map(|word| word[i])));
    state = std::array::from_fn(|word| std::array::from_fn(|i| lane(i).key.outer[word]));
    kernel(&mut state, &std::array::from_fn(|i| &outer_blocks[i][..]));
    for (i, pending) in group.iter().enumerate() {
        write(pending, hmac::cut(&state.map(|word| word[i])), bytes);
    }
}

fn write(pending: &Pending, tag: [u8; TAG], bytes: &mut [u8]) {
    bytes[pending.start + pending.len..][..TAG].copy_from_slice(&tag);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sha1_lanes::portable;
    use super::*;

    proptest! {
        /// Packets of any lengths under any keys, of which many or few are alike.
        #[test]
        fn tags_made_side_by_side_are_those_made_one_by_one(
            packets in proptest::collection::vec((any::<[u8; 20]>(), 12..200usize, any::<[u8; 4]>()), 0..40),
            alike in 0..60usize, len in 12..1_300usize, seed: u8,
        ) {
            let same = (0..alike).map(|i| ([i as u8 ^ seed; 20], len, [i as u8; 4]));
            let packets: Vec<_> = packets.into_iter().chain(same).collect();
            let mut tags = Tags::new(Some(portable));
            let (mut bytes, mut expected) = (Vec::new(), Vec::new());
            for (key, len, last) in packets {
                let message: Vec<u8> = (0..len).map(|i| (i * 7) as u8 ^ key[i % 20]).collect();
                let key = HmacKey::new(&key);
                tags.push(key, bytes.len(), len, last);
                expected.extend(message.iter().copied().chain(key.tag(&message, last)));
                bytes.extend(message.into_iter().chain([0; TAG]));
            }
            tags.finish(&mut bytes);
            prop_assert_eq!(bytes, expected);
            prop_assert!(tags.queue.is_empty());
        }
    }
}
