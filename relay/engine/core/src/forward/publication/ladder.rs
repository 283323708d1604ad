//! The order of a publication's encodings by quality, as measured. Owns the decision: names and the offer's order are the first guess,
//! sizes in key frames decide, bytes where a codec hides its sizes. Must never change what it has decided: each change costs every
//! viewer a key frame. Read `../subscription/layers.rs` next, which chooses by it.
//!
//! | seen | then |
//! |---|---|
//! | a size of each encoding, no two the same | decided at once |
//! | two encodings or more, for `PATIENCE` | decided by sizes, else by bytes; one that never sent follows the others' direction |
//! | one encoding | undecided |

use crate::codec::size::Size;
use crate::forward::subscription::layers::{MAX_LAYERS, Order};
use crate::time::{Span, Time};

/// From the second encoding's first packet on. Within it Chromium has begun all encodings that its bandwidth allows, and an encoder's
/// rate is near its target.
const PATIENCE: Span = Span::from_secs(3);
/// Bytes contradict the guess from this factor on. Encodings differ by three or more; a starved one sends little for a while.
const CONTRADICTS: u64 = 2;

/// What is known of one encoding.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    size: Option<Size>,
    has_sent: bool,
    /// Since two have sent.
    bytes: u64,
}

/// An order that is not decided yet.
#[derive(Debug)]
pub struct Ladder {
    encodings: [Measured; MAX_LAYERS],
    count: usize,
    /// Two have sent since.
    since: Option<Time>,
}

impl Ladder {
    /// `None` where there is nothing to decide.
    pub fn new(count: usize) -> Option<Ladder> {
        (2..=MAX_LAYERS).contains(&count).then(|| Ladder { encodings: Default::default(), count, since: None })
    }

    /// Takes a packet of one encoding, which is listed with the others from the one that is guessed to be the lowest on. Returns the
    /// order once it is decided; ask no more then.
    pub fn handle_packet(&mut self, now: Time, at: usize, bytes: usize, size: Option<Size>) -> Option<Order> {
        let encoding = self.encodings[..self.count].get_mut(at)?;
        encoding.has_sent = true;
        encoding.size = size.or(encoding.size);
        let Some(since) = self.since else {
            if self.sent().count() > 1 {
                self.since = Some(now);
            }
            return None;
        };
        self.encodings[at].bytes += bytes as u64;
        if now.since(since) >= PATIENCE || Self::have_sizes(self.encodings[..self.count].iter()) {
            return Some(self.decide());
        }
        None
    }

    fn sent(&self) -> impl Iterator<Item = &Measured> {
        self.encodings[..self.count].iter().filter(|encoding| encoding.has_sent)
    }

    /// True when these tell their sizes, and no two the same.
    fn have_sizes<'a>(encodings: impl Iterator<Item = &'a Measured> + Clone) -> bool {
        let pixels = |encoding: &Measured| encoding.size.map(Size::pixels);
        let is_told = |(at, encoding): (usize, &Measured)| {
            pixels(encoding).is_some_and(|own| encodings.clone().take(at).all(|other| pixels(other) != Some(own)))
        };
        encodings.clone().enumerate().all(is_told)
    }

    fn decide(&self) -> Order {
        let by_size = Self::have_sizes(self.encodings[..self.count].iter().filter(|encoding| encoding.has_sent));
        let contradicts = |low: &Measured, high: &Measured| {
            if by_size {
                low.size.map(Size::pixels) > high.size.map(Size::pixels)
            } else {
                low.bytes > CONTRADICTS * high.bytes
            }
        };
        let mut lowest_first: [usize; MAX_LAYERS] = std::array::from_fn(|at| at);
        let lowest_first = &mut lowest_first[..self.count];
        if self.sent().count() == self.count {
            // Insertion sort, as "contradicts" is no total order where bytes count.
            for from in 1..self.count {
                for at in (1..=from).rev() {
                    if contradicts(&self.encodings[lowest_first[at - 1]], &self.encodings[lowest_first[at]]) {
                        lowest_first.swap(at - 1, at);
                    }
                }
            }
        } else if self.sent().next().zip(self.sent().last()).is_some_and(|(low, high)| contradicts(low, high)) {
            lowest_first.reverse();
        }
        Order::new(lowest_first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(height: u16) -> Option<Size> {
        (height > 0).then_some(Size { width: 16 * (height / 9), height })
    }

    /// Encodings of these heights (0: not told) and bytes a packet, 100 packets a second, each from its second on. Returns the order and
    /// the milliseconds until it was decided.
    fn decided(encodings: &[(u16, usize, u64)]) -> Option<(Vec<usize>, u64)> {
        let mut ladder = Ladder::new(encodings.len()).unwrap();
        for ms in (0..20_000).step_by(10) {
            for (at, (height, bytes, from)) in encodings.iter().enumerate() {
                if ms < from * 1_000 {
                    continue;
                }
                let is_key = ms == from * 1_000;
                let size = size(*height).filter(|_| is_key);
                if let Some(order) = ladder.handle_packet(Time(ms * 1_000), at, *bytes, size) {
                    return Some(((0..encodings.len()).map(|at| order.rank(at)).collect(), ms));
                }
            }
        }
        None
    }

    #[test]
    fn sizes_decide_as_soon_as_all_are_known() {
        assert_eq!(decided(&[(180, 1, 0), (360, 1, 0), (720, 1, 0)]), Some((vec![0, 1, 2], 0)));
        assert_eq!(decided(&[(720, 1, 0), (360, 900, 0), (180, 9_000, 0)]), Some((vec![2, 1, 0], 0)));
        assert_eq!(decided(&[(360, 1, 0), (720, 1, 1), (180, 1, 2)]), Some((vec![1, 2, 0], 2_000)));
    }

    #[test]
    fn who_never_sent_follows_the_others_direction() {
        assert_eq!(decided(&[(0, 1, 99), (360, 1, 0), (180, 1, 1)]), Some((vec![2, 1, 0], 4_000)));
        assert_eq!(decided(&[(180, 1, 0), (360, 1, 0), (0, 1, 99)]), Some((vec![0, 1, 2], 3_000)));
    }

    #[test]
    fn bytes_decide_where_sizes_are_hidden_or_the_same() {
        assert_eq!(decided(&[(0, 900, 0), (0, 300, 0), (0, 100, 0)]), Some((vec![2, 1, 0], 3_000)));
        assert_eq!(decided(&[(720, 900, 0), (720, 300, 0)]), Some((vec![1, 0], 3_000)));
        assert_eq!(decided(&[(0, 190, 0), (0, 100, 0)]), Some((vec![0, 1], 3_000)), "too near to contradict the guess");
    }

    #[test]
    fn one_encoding_alone_decides_nothing() {
        assert_eq!(decided(&[(180, 1, 0), (0, 1, 99)]), None);
        assert!(Ladder::new(1).is_none());
    }
}
