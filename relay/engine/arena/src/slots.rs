//! A worker's page: which life it lives, its beats, whether it sleeps, its counters. Owns the sleeping handshake; must
//! never know what a counter means. Read `messages.rs` next, whose senders use the handshake.
//!
//! The handshake saves ringing the doorbell while the other side is awake. It is Dekker's: each side stores its own word, passes a
//! sequentially consistent fence, then loads the other's word. So at least one of them sees the other:
//!
//! ```text
//! engine                                   sender
//! set_sleeping(true)                       push into a ring
//! inbox_is_empty()? then epoll_wait        take_sleeping()? then ring the doorbell
//! set_sleeping(false)
//! ```

use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};

use crate::sync::{AtomicU64, fence};

use crate::layout::{
    COUNTERS, SLOT_CONTROL_BEAT, SLOT_COUNTERS, SLOT_ENGINE_BEAT, SLOT_INCARNATION, SLOT_PID, SLOT_SESSIONS,
    SLOT_SLEEPING, SLOT_STATE,
};

const COUNTERS_AT: usize = (SLOT_COUNTERS / 8) as usize;

/// One of a worker's two loops, each of which has a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    Engine,
    Control,
}

/// When each loop had its last beat, on the box's monotonic clock; 0 for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beats {
    pub engine_us: u64,
    pub control_us: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct SlotPage<'a> {
    words: &'a [AtomicU64],
}

impl<'a> SlotPage<'a> {
    pub(crate) fn new(words: &'a [AtomicU64]) -> SlotPage<'a> {
        SlotPage { words }
    }

    /// The number of the slot's present life, from 1; 0 before the first.
    pub fn incarnation(&self) -> u64 {
        self.word(SLOT_INCARNATION).load(Relaxed)
    }

    pub fn set_incarnation(&self, incarnation: u64) {
        self.word(SLOT_INCARNATION).store(incarnation, Relaxed);
    }

    pub fn pid(&self) -> u64 {
        self.word(SLOT_PID).load(Relaxed)
    }

    pub fn set_pid(&self, pid: u64) {
        self.word(SLOT_PID).store(pid, Relaxed);
    }

    /// As the master numbers it (`relay/contract/layout.py`).
    pub fn state(&self) -> u64 {
        self.word(SLOT_STATE).load(Relaxed)
    }

    pub fn set_state(&self, state: u64) {
        self.word(SLOT_STATE).store(state, Relaxed);
    }

    /// Stores a beat of this loop.
    pub fn beat(&self, which: Beat, now_us: u64) {
        let offset = match which {
            Beat::Engine => SLOT_ENGINE_BEAT,
            Beat::Control => SLOT_CONTROL_BEAT,
        };
        self.word(offset).store(now_us, Relaxed);
    }

    pub fn beats(&self) -> Beats {
        Beats {
            engine_us: self.word(SLOT_ENGINE_BEAT).load(Relaxed),
            control_us: self.word(SLOT_CONTROL_BEAT).load(Relaxed),
        }
    }

    /// To be called by the slot's own engine. After `true` it has to look into the inbox once more before it waits.
    pub fn set_sleeping(&self, sleeping: bool) {
        self.word(SLOT_SLEEPING).store(u64::from(sleeping), Relaxed);
        if sleeping {
            fence(SeqCst);
        }
    }

    /// True when the slot sleeps. To be called by a sender, after its push.
    pub fn is_sleeping(&self) -> bool {
        fence(SeqCst);
        self.word(SLOT_SLEEPING).load(Relaxed) != 0
    }

    /// True when the caller has to ring the doorbell: of many senders, for one. To be called by a sender, after its push.
    pub fn take_sleeping(&self) -> bool {
        self.is_sleeping() && self.word(SLOT_SLEEPING).swap(0, SeqCst) != 0
    }

    /// How many of the slot's session records, from the first on, have ever been used.
    pub fn sessions(&self) -> u64 {
        self.word(SLOT_SESSIONS).load(Relaxed)
    }

    /// To be called by the slot's own engine, before it writes a record beyond those.
    pub fn set_sessions(&self, used: u64) {
        self.word(SLOT_SESSIONS).store(used, Release);
    }

    /// Adds to a counter. Each has one writer, so this is no read-modify-write.
    pub fn add(&self, counter: usize, n: u64) {
        let word = self.counter(counter);
        word.store(word.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub fn set(&self, counter: usize, value: u64) {
        self.counter(counter).store(value, Relaxed);
    }

    pub fn get(&self, counter: usize) -> u64 {
        self.counter(counter).load(Relaxed)
    }

    fn counter(&self, counter: usize) -> &'a AtomicU64 {
        assert!(counter < COUNTERS, "counter {counter} is beyond the stats page");
        &self.words[COUNTERS_AT + counter]
    }

    fn word(&self, offset: u64) -> &'a AtomicU64 {
        &self.words[(offset / 8) as usize]
    }
}

#[cfg(all(test, not(modelled)))]
mod tests {
    use std::thread;

    use crate::{Arena, Beat, Beats, COUNTERS, Parameters};

    #[test]
    fn a_page_belongs_to_one_slot() {
        let arena = Arena::in_memory(Parameters::TINY);
        arena.slot(1).set_incarnation(7);
        arena.slot(1).set_pid(4321);
        arena.slot(1).set_state(2);
        arena.slot(1).beat(Beat::Control, 9);
        arena.slot(1).add(0, 2);
        arena.slot(1).add(0, 3);
        arena.slot(1).set(COUNTERS - 1, 11);
        for other in [0, 2, 3] {
            let page = arena.slot(other);
            assert_eq!(
                (page.incarnation(), page.pid(), page.state(), page.get(0), page.get(COUNTERS - 1)),
                (0, 0, 0, 0, 0)
            );
            assert_eq!(page.beats(), Beats::default());
        }
        let page = arena.slot(1);
        assert_eq!(
            (page.incarnation(), page.pid(), page.state(), page.get(0), page.get(COUNTERS - 1)),
            (7, 4321, 2, 5, 11)
        );
        assert_eq!(page.beats(), Beats { engine_us: 0, control_us: 9 });
    }

    #[test]
    fn one_of_many_senders_rings_the_doorbell() {
        let arena = Arena::in_memory(Parameters::TINY);
        assert!(!arena.slot(0).take_sleeping());
        arena.slot(0).set_sleeping(true);
        assert!(arena.slot(0).take_sleeping());
        assert!(!arena.slot(0).take_sleeping());
    }

    /// The sleeper either sees the message or is rung for it, in every interleaving that many rounds bring up.
    #[test]
    fn no_message_is_slept_over() {
        let rounds = if cfg!(miri) { 50 } else { 20_000 };
        let arena = Arena::in_memory(Parameters::TINY);
        let (bell, doorbell) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            let sender = arena.clone();
            scope.spawn(move || {
                for n in 1..=rounds {
                    while !sender.messages(1, 0).send(n) {
                        thread::yield_now();
                    }
                    if sender.slot(0).take_sleeping() {
                        bell.send(()).expect("the sleeper lives");
                    }
                }
            });
            let mut next = 1;
            while next <= rounds {
                while let Some(n) = arena.messages(1, 0).receive() {
                    assert_eq!(n, next);
                    next += 1;
                }
                if next > rounds {
                    break;
                }
                arena.slot(0).set_sleeping(true);
                if arena.inbox_is_empty(0) {
                    doorbell.recv_timeout(std::time::Duration::from_secs(20)).expect("rung while asleep");
                }
                arena.slot(0).set_sleeping(false);
            }
        });
    }
}
