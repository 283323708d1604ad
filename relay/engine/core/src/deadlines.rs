//! Who wants to be called when: a heap of times with one live entry per key. Must never read a clock; the engine asks
//! what is due. Moving a deadline later costs nothing: the early entry fires, and its owner says when next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Time;

/// Deadlines of things numbered densely from zero.
#[derive(Debug, Default)]
pub struct Deadlines {
    heap: BinaryHeap<Reverse<(Time, usize)>>,
    /// The live entry of each key; heap entries that differ are stale.
    at_by_key: Vec<Option<Time>>,
}

impl Deadlines {
    /// Calls `key` at `at` at the latest; an earlier deadline that it already has stays.
    pub fn wake_by(&mut self, key: usize, at: Time) {
        if self.at_by_key.len() <= key {
            self.at_by_key.resize(key + 1, None);
        }
        if self.at_by_key[key].is_some_and(|current| current <= at) {
            return;
        }
        self.at_by_key[key] = Some(at);
        self.heap.push(Reverse((at, key)));
    }

    pub fn forget(&mut self, key: usize) {
        if let Some(at) = self.at_by_key.get_mut(key) {
            *at = None;
        }
    }

    /// The earliest deadline.
    pub fn earliest(&mut self) -> Option<Time> {
        while let Some(&Reverse((at, key))) = self.heap.peek() {
            if self.at_by_key[key] == Some(at) {
                return Some(at);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes out one key whose deadline has come.
    pub fn take_due(&mut self, now: Time) -> Option<usize> {
        if self.earliest()? > now {
            return None;
        }
        let Reverse((_, key)) = self.heap.pop()?;
        self.at_by_key[key] = None;
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_only_once() {
        let mut deadlines = Deadlines::default();
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
        let mut deadlines = Deadlines::default();
        deadlines.wake_by(3, Time(10));
        deadlines.forget(3);
        assert_eq!(deadlines.take_due(Time(100)), None);
    }

    #[test]
    fn a_later_wish_does_not_move_an_earlier_one() {
        let mut deadlines = Deadlines::default();
        deadlines.wake_by(0, Time(10));
        deadlines.wake_by(0, Time(50));
        assert_eq!(deadlines.earliest(), Some(Time(10)));
    }
}
