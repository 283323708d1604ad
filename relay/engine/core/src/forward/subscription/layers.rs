//! Which of a publication's encodings a subscription gets: the best one that is alive. Owns when a packet of each was last seen; must
//! never know what is sent. Read `attachment.rs` next, which switches at key frames.
//!
//! An encoding is alive while its last packet is not much older than the newest of all. So a publisher that pauses as a whole changes
//! nothing, and the subscription follows one that drops its upper encodings for want of bandwidth.

use crate::time::{Span, Time};

use crate::forward::feed::LoggedPacket;

/// Encodings of one publication.
pub const MAX_LAYERS: usize = 3;
/// Two frames at 3 fps. An encoding without a packet for longer, while others have some, is off.
const SILENCE: Span = Span::from_millis(700);

#[derive(Clone, Debug)]
pub struct Layers {
    /// Lowest quality first; the first `count` are in use.
    logs: [u32; MAX_LAYERS],
    count: usize,
    seen_at: [Option<Time>; MAX_LAYERS],
}

impl Layers {
    pub fn new(logs: &[u32]) -> Layers {
        let count = logs.len().min(MAX_LAYERS);
        let mut known = [0; MAX_LAYERS];
        known[..count].copy_from_slice(&logs[..count]);
        Layers { logs: known, count, seen_at: [None; MAX_LAYERS] }
    }

    pub fn logs(&self) -> &[u32] {
        &self.logs[..self.count]
    }

    pub fn rank(&self, log: u32) -> Option<usize> {
        self.logs().iter().position(|known| *known == log)
    }

    /// Notes a packet and returns its rank; `None` when its log is not one of these.
    pub fn handle_packet(&mut self, packet: &LoggedPacket<'_>) -> Option<usize> {
        let rank = self.rank(packet.log)?;
        self.handle_seen(rank, packet.arrived_at());
        Some(rank)
    }

    pub fn handle_seen(&mut self, rank: usize, at: Time) {
        self.seen_at[rank] = self.seen_at[rank].max(Some(at));
    }

    pub fn is_alive(&self, rank: usize) -> bool {
        let newest = self.seen_at.iter().flatten().max();
        self.seen_at[rank].zip(newest).is_some_and(|(at, newest)| newest.since(at) < SILENCE)
    }

    /// The rank of the best encoding that is alive; the lowest when no packet has been seen.
    pub fn best(&self) -> usize {
        (0..self.count).rev().find(|rank| self.is_alive(*rank)).unwrap_or(0)
    }

    /// The log whose next key frame is awaited while `current` is followed.
    pub fn awaited(&self, current: Option<usize>) -> Option<u32> {
        let best = self.best();
        if current == Some(best) { None } else { self.logs().get(best).copied() }
    }

    /// Whether to change from `current` to `rank` at its key frame.
    pub fn may_switch(&self, current: Option<usize>, rank: usize) -> bool {
        current.is_none_or(|current| rank > current || !self.is_alive(current))
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
        let mut layers = Layers::new(&[10, 11, 12]);
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
    fn a_publisher_that_pauses_as_a_whole_changes_nothing() {
        let mut layers = Layers::new(&[10, 11]);
        layers.handle_seen(0, at(0));
        layers.handle_seen(1, at(30));
        assert!(layers.is_alive(1) && !layers.may_switch(Some(1), 0));
        assert_eq!(layers.awaited(Some(1)), None);
    }

    #[test]
    fn without_logs_nothing_is_awaited() {
        assert_eq!(Layers::new(&[]).awaited(None), None);
        assert_eq!(Layers::new(&[1, 2, 3, 4]).logs(), [1, 2, 3]);
    }
}
