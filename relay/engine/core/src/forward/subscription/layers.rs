//! Which of a publication's encodings a subscription gets: the best one that is alive. Owns when a packet of each was last seen; must
//! never measure which is better, as `../publication/ladder.rs` does. Read `attachment.rs` next, which switches at key frames.
//!
//! An encoding is alive while its last packet is not much older than the newest of all. So a publisher that pauses as a whole changes
//! nothing, and the subscription follows one that drops its upper encodings for want of bandwidth.

use millrace_arena::Facts;

use crate::time::{Span, Time};

use crate::forward::feed::LoggedPacket;

/// Encodings of one publication.
pub const MAX_LAYERS: usize = 3;
/// Two frames at 3 fps. An encoding without a packet for longer, while others have some, is off.
const SILENCE: Span = Span::from_millis(700);

/// The ranks of a publication's encodings, which are listed by a guess: `present 1 | - | rank 2 x 3`, the first encoding's lowest. Zero
/// is not measured; then the guess holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order(u8);

impl Order {
    /// Of these places in the list.
    pub fn new(lowest_first: &[usize]) -> Order {
        let ranks = lowest_first.iter().zip(0..).map(|(at, rank): (&usize, u8)| rank << (2 * at));
        Order(0x80 | ranks.fold(0, |all, rank| all | rank))
    }

    pub fn pack(self) -> u8 {
        self.0
    }

    pub fn unpack(packed: u8) -> Order {
        Order(packed)
    }

    pub fn is_measured(self) -> bool {
        self.0 != 0
    }

    /// The rank of the encoding at this place in the list; 0 is the lowest quality.
    pub fn rank(self, at: usize) -> usize {
        if self.is_measured() { usize::from(self.0 >> (2 * at) & 3) } else { at }
    }
}

/// An encoding is high enough for a wish that is more by a 16th: sizes are rounded, and a few lines are cropped.
const SLACK: u16 = 16;

#[derive(Clone, Debug)]
pub struct Layers {
    /// As the publication lists its encodings; the first `count` are in use.
    logs: [u32; MAX_LAYERS],
    count: usize,
    seen_at: [Option<Time>; MAX_LAYERS],
    order: Order,
    /// In pixels; 0 is not known.
    heights: [u16; MAX_LAYERS],
    /// How high the viewer shows it; `None` is as high as there is.
    wish: Option<u16>,
}

impl Layers {
    pub fn new(logs: &[u32], wish: Option<u16>) -> Layers {
        let count = logs.len().min(MAX_LAYERS);
        let mut known = [0; MAX_LAYERS];
        known[..count].copy_from_slice(&logs[..count]);
        Layers {
            logs: known,
            count,
            seen_at: [None; MAX_LAYERS],
            order: Order::default(),
            heights: [0; MAX_LAYERS],
            wish,
        }
    }

    pub fn logs(&self) -> &[u32] {
        &self.logs[..self.count]
    }

    /// Notes a packet and returns its encoding, as a place in `logs`; `None` when its log is not one of these.
    pub fn handle_packet(&mut self, packet: &LoggedPacket<'_>) -> Option<usize> {
        let encoding = self.logs().iter().position(|known| *known == packet.log)?;
        self.set_facts(encoding, packet.facts);
        self.handle_seen(encoding, packet.arrived_at());
        Some(encoding)
    }

    pub fn handle_seen(&mut self, encoding: usize, at: Time) {
        self.seen_at[encoding] = self.seen_at[encoding].max(Some(at));
    }

    pub fn set_wish(&mut self, wish: Option<u16>) {
        self.wish = wish;
    }

    /// Takes what was measured of an encoding.
    pub fn set_facts(&mut self, encoding: usize, facts: Facts) {
        self.heights[encoding] = facts.height;
        let order = Order::unpack(facts.order);
        if order.is_measured() {
            self.order = order;
        }
    }

    pub fn is_better(&self, encoding: usize, than: usize) -> bool {
        self.order.rank(encoding) > self.order.rank(than)
    }

    pub fn is_alive(&self, encoding: usize) -> bool {
        let newest = self.seen_at.iter().flatten().max();
        self.seen_at[encoding].zip(newest).is_some_and(|(at, newest)| newest.since(at) < SILENCE)
    }

    /// Those that are alive, the best first.
    pub fn alive(&self) -> impl Iterator<Item = usize> {
        (0..self.count).rev().filter_map(|rank| self.at_rank(rank)).filter(|encoding| self.is_alive(*encoding))
    }

    /// The encoding to forward: of those that are alive, the lowest that is as high as the viewer shows it, else the best. The lowest of
    /// all when no packet has been seen.
    pub fn target(&self) -> usize {
        let best = self.alive().next();
        let Some(wish) = self.wish else { return best.or(self.at_rank(0)).unwrap_or(0) };
        let is_enough =
            |encoding: &usize| self.heights[*encoding].saturating_add(self.heights[*encoding] / SLACK) >= wish;
        self.alive().filter(is_enough).last().or(best).or(self.at_rank(0)).unwrap_or(0)
    }

    fn at_rank(&self, rank: usize) -> Option<usize> {
        (0..self.count).find(|encoding| self.order.rank(*encoding) == rank)
    }

    /// The log whose next key frame is awaited while `current` is followed.
    pub fn awaited(&self, current: Option<usize>) -> Option<u32> {
        let target = self.target();
        if current == Some(target) { None } else { self.logs().get(target).copied() }
    }

    /// Whether to change from `current` to `encoding` at its key frame.
    pub fn may_switch(&self, current: Option<usize>, encoding: usize) -> bool {
        let Some(current) = current.filter(|current| self.is_alive(*current)) else { return true };
        let target = self.target();
        // A key frame on the way up is taken; none beyond it.
        encoding == target || self.is_better(encoding, current) && !self.is_better(encoding, target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time(9_000_000) + Span::from_millis(ms)
    }

    #[test]
    fn the_highest_encoding_that_keeps_up_is_best() {
        let mut layers = Layers::new(&[10, 11, 12], None);
        assert_eq!(layers.awaited(None), Some(10), "nothing seen: the lowest is the one that always runs");
        layers.handle_seen(0, at(0));
        layers.handle_seen(2, at(0));
        assert_eq!(layers.awaited(Some(0)), Some(12));
        assert_eq!(layers.awaited(Some(2)), None);
        layers.handle_seen(0, at(800));
        assert_eq!(layers.awaited(Some(2)), Some(10));
        assert!(layers.may_switch(Some(2), 0));
    }

    #[test]
    fn the_measured_order_stands_over_the_list() {
        let mut layers = Layers::new(&[10, 11, 12], None);
        (0..3).for_each(|encoding| layers.handle_seen(encoding, at(0)));
        layers.set_facts(0, Facts { order: Order::new(&[1, 2, 0]).pack(), ..Facts::default() });
        assert_eq!((0..3).map(|encoding| layers.order.rank(encoding)).collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!(layers.alive().collect::<Vec<_>>(), [0, 2, 1]);
        assert_eq!((layers.awaited(Some(2)), layers.awaited(Some(0))), (Some(10), None));
        assert!(layers.may_switch(Some(2), 0) && !layers.may_switch(Some(0), 2));
        layers.set_facts(1, Facts::default());
        assert_eq!(layers.target(), 0, "not measured says nothing");
        assert_eq!(Order::unpack(layers.order.pack()), layers.order);
        layers.set_facts(1, Facts { order: 0xff, ..Facts::default() });
        layers.target();
    }

    #[test]
    fn a_wish_takes_the_lowest_that_is_enough() {
        let mut layers = Layers::new(&[10, 11, 12], None);
        for (encoding, height) in [180, 352, 720].into_iter().enumerate() {
            layers.handle_seen(encoding, at(0));
            layers.set_facts(encoding, Facts { height, ..Facts::default() });
        }
        for (wish, target) in
            [(None, 2), (Some(1), 0), (Some(180), 0), (Some(360), 1), (Some(540), 2), (Some(2_000), 2)]
        {
            layers.set_wish(wish);
            assert_eq!(layers.target(), target, "{wish:?}");
            assert_eq!((0..3).map(|encoding| layers.may_switch(None, encoding)).collect::<Vec<_>>(), [true; 3]);
        }
        layers.set_wish(Some(360));
        assert!(layers.may_switch(Some(2), 1) && layers.may_switch(Some(0), 1));
        assert!(!layers.may_switch(Some(0), 2) && !layers.may_switch(Some(1), 2), "not beyond the wish");
        assert!(!layers.may_switch(Some(2), 0) && !layers.may_switch(Some(1), 0));
        layers.handle_seen(0, at(800));
        layers.handle_seen(2, at(800));
        assert_eq!(layers.target(), 2, "rather too large than too small");
        layers.set_facts(2, Facts::default());
        assert_eq!(layers.target(), 2, "of an unknown height the best");
    }

    #[test]
    fn a_publisher_that_pauses_as_a_whole_changes_nothing() {
        let mut layers = Layers::new(&[10, 11], None);
        layers.handle_seen(0, at(0));
        layers.handle_seen(1, at(30));
        assert!(layers.is_alive(1) && !layers.may_switch(Some(1), 0));
        assert_eq!(layers.awaited(Some(1)), None);
    }

    #[test]
    fn without_logs_nothing_is_awaited() {
        assert_eq!(Layers::new(&[], None).awaited(None), None);
        assert_eq!(Layers::new(&[1, 2, 3, 4], None).logs(), [1, 2, 3]);
    }
}
