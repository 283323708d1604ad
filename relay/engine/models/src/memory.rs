//! What a load may see: C++'s memory model, except that each thread runs in the order of the program. Owns the stores of all words
//! and what each thread knows of them; must never know why a thread runs. Read `explore.rs` next.
//!
//! Every word has all its stores in their order. A view has, for each word, the oldest store that may still be seen. A thread has three
//! views: what it knows; what it will know after an acquire fence; what it knew at its last release fence. A store carries a view,
//! which a thread that acquires the store then knows, too. Sequentially consistent fences share one more view.
//!
//! Left out: a load never sees a store that comes later, so a release that only orders earlier loads (a ring's reader frees its
//! cell) cannot be seen to be missing; stores to one word take their places in order of execution; a sequentially
//! consistent read-modify-write counts as acquire and release, as the arena relies on such fences alone.

use std::sync::atomic::Ordering::{self, AcqRel, Acquire, Release, SeqCst};

/// By word, the oldest store that may still be seen; 0 where nothing is said. Sorted.
#[derive(Clone, Debug, Default)]
pub(super) struct View(Vec<(u32, u32)>);

#[derive(Clone, Debug, Default)]
pub(super) struct Knowledge {
    now: View,
    after_acquire: View,
    at_release: View,
}

#[derive(Debug)]
struct Store {
    value: u64,
    carries: View,
}

/// Its stores are numbered from 0, which is the first value.
#[derive(Debug)]
struct Word {
    first: u64,
    later: Vec<Store>,
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    words: Vec<Word>,
    /// Known to whoever passes a sequentially consistent fence.
    fenced: View,
}

impl View {
    fn get(&self, word: usize) -> u32 {
        self.0.binary_search_by_key(&(word as u32), |entry| entry.0).map_or(0, |at| self.0[at].1)
    }

    fn raise(&mut self, word: usize, store: u32) {
        match self.0.binary_search_by_key(&(word as u32), |entry| entry.0) {
            Ok(at) => self.0[at].1 = self.0[at].1.max(store),
            Err(at) => self.0.insert(at, (word as u32, store)),
        }
    }

    fn join(&mut self, other: &View) {
        for (word, store) in &other.0 {
            self.raise(*word as usize, *store);
        }
    }
}

impl Knowledge {
    /// Of a thread that begins when this one has come so far.
    pub(super) fn of_child(&self) -> Knowledge {
        Knowledge { now: self.now.clone(), ..Knowledge::default() }
    }

    /// As after waiting for another thread's end, or for a bell that it rang.
    pub(super) fn learn(&mut self, other: &Knowledge) {
        self.now.join(&other.now);
    }
}

impl Memory {
    pub(super) fn new_word(&mut self, value: u64) -> usize {
        self.words.push(Word { first: value, later: Vec::new() });
        self.words.len() - 1
    }

    /// How many stores a load may choose from, the newest first.
    pub(super) fn visible(&self, who: &Knowledge, word: usize) -> usize {
        1 + self.words[word].later.len() - who.now.get(word) as usize
    }

    /// The value that a load of the `back`-th newest store would return.
    pub(super) fn peek(&self, word: usize, back: usize) -> u64 {
        let Word { first, later } = &self.words[word];
        if back == later.len() { *first } else { later[later.len() - 1 - back].value }
    }

    pub(super) fn load(&self, who: &mut Knowledge, word: usize, back: usize, order: Ordering) -> u64 {
        let at = self.words[word].later.len() - back;
        who.now.raise(word, at as u32);
        let Some(number) = at.checked_sub(1) else { return self.words[word].first };
        let store = &self.words[word].later[number];
        if matches!(order, Acquire | AcqRel | SeqCst) {
            who.now.join(&store.carries);
        } else {
            who.after_acquire.join(&store.carries);
        }
        store.value
    }

    pub(super) fn store(&mut self, who: &mut Knowledge, word: usize, value: u64, order: Ordering) {
        let at = 1 + self.words[word].later.len() as u32;
        who.now.raise(word, at);
        let mut carries = if matches!(order, Release | AcqRel | SeqCst) { &who.now } else { &who.at_release }.clone();
        carries.raise(word, at);
        self.words[word].later.push(Store { value, carries });
    }

    /// Reads the newest store and follows it at once; what that one carried is carried on.
    pub(super) fn modify(
        &mut self,
        who: &mut Knowledge,
        word: usize,
        change: impl Fn(u64) -> u64,
        order: Ordering,
    ) -> u64 {
        let read = match order {
            Release => Ordering::Relaxed,
            order => order,
        };
        let before = self.load(who, word, 0, read);
        let carried = self.words[word].later.last().map(|store| store.carries.clone()).unwrap_or_default();
        self.store(who, word, change(before), order);
        self.words[word].later.last_mut().expect("just stored").carries.join(&carried);
        before
    }

    pub(super) fn fence(&mut self, who: &mut Knowledge, order: Ordering) {
        if matches!(order, Acquire | AcqRel | SeqCst) {
            let also = std::mem::take(&mut who.after_acquire);
            who.now.join(&also);
        }
        if order == SeqCst {
            who.now.join(&self.fenced);
            self.fenced.join(&who.now);
        }
        if matches!(order, Release | AcqRel | SeqCst) {
            who.at_release = who.now.clone();
        }
    }

    /// A store that every thread knows of: while there is only one.
    pub(super) fn set(&mut self, word: usize, value: u64) {
        self.words[word].first = value;
    }
}
