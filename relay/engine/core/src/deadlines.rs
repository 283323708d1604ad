//! Deadlines: a heap of times with one live entry for each key. Must never read a clock; the engine asks what is due. To move a
//! deadline later costs nothing: the early entry becomes due, and the engine then sets the next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Time;

/// Deadlines of things that are numbered densely from zero.
#[derive(Debug)]
pub struct Deadlines<K> {
    heap: BinaryHeap<Reverse<(Time, K)>>,
    /// The live entry of each key; heap entries that differ are stale.
    at_by_key: Vec<Option<Time>>,
}

impl<K: Ord> Default for Deadlines<K> {
    fn default() -> Deadlines<K> {
        Deadlines { heap: BinaryHeap::new(), at_by_key: Vec::new() }
    }
}

impl<K: Copy + Ord + Into<usize>> Deadlines<K> {
    /// Makes `key` due at `at` at the latest. An earlier deadline of the key stays.
    pub fn wake_by(&mut self, key: K, at: Time) {
        let index = key.into();
        if self.at_by_key.len() <= index {
            self.at_by_key.resize(index + 1, None);
        }
        if self.at_by_key[index].is_some_and(|current| current <= at) {
            return;
        }
        self.at_by_key[index] = Some(at);
        self.heap.push(Reverse((at, key)));
    }

    pub fn forget(&mut self, key: K) {
        if let Some(at) = self.at_by_key.get_mut(key.into()) {
            *at = None;
        }
    }

    /// The earliest deadline.
    pub fn earliest(&mut self) -> Option<Time> {
        while let Some(&Reverse((at, key))) = self.heap.peek() {
            if self.at_by_key[key.into()] == Some(at) {
                return Some(at);
            }
            self.heap.pop();
        }
        None
    }

    /// Removes and returns one key that is due.
    pub fn take_due(&mut self, now: Time) -> Option<K> {
        if self.earliest()? > now {
            return None;
        }
        let Reverse((_, key)) = self.heap.pop()?;
        self.at_by_key[key.into()] = None;
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_only_once() {
        let mut deadlines = Deadlines::<usize>::default();
        deadlines.wake_by(1, Time(30));
        deadlines.wake_by(0, Time(20));
        deadlines.wake_by(1, Time(10));
        assert_eq!(deadlines.earliest(), Some(Time(10)));
        assert_eq!(deadlines.take_due(Time(25)), Some(1));
        assert_eq!(deadlines.take_due(Time(25)), Some(0));
        assert_eq!(deadlines.take_due(Time(100)), None);
        assert_eq!(deadlines.earliest(), None);
    }

    #[test]
    fn a_forgotten_key_is_never_due() {
        let mut deadlines = Deadlines::<usize>::default();
        deadlines.wake_by(3, Time(10));
        deadlines.forget(3);
        assert_eq!(deadlines.take_due(Time(100)), None);
    }

    #[test]
    fn a_later_wish_does_not_move_an_earlier_one() {
        let mut deadlines = Deadlines::<usize>::default();
        deadlines.wake_by(0, Time(10));
        deadlines.wake_by(0, Time(50));
        assert_eq!(deadlines.earliest(), Some(Time(10)));
    }
}
