//! What lasts of each client: one session record, written when something of it changes, and words for what changes with
//! every packet. Owns the record's shape; must never be on a packet's way. Read `adoption.rs` next, which takes it up.

use std::collections::BTreeSet;

use millrace_arena::{Arena, Owner, SESSION_WORDS};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{ClientKey, Counter, Engine, SubscriptionKey};
use crate::command::{Attach, Publish, Subscribe};
use crate::forward::publication::streams::Stream;
use crate::forward::subscription::continuity::{WORDS, Words};
use crate::transport::{Carried, SRTP_WORDS};

/// How often successors died while they took this session up. Between the words of SRTP.
pub(super) const ATTEMPTS_WORD: usize = 1;
/// Outgoing streams that have words. A client with more does not last.
const STREAMS: usize = (SESSION_WORDS - SRTP_WORDS) / WORDS;

/// A session record. Its layout is the arena's: who changes a field, here or in what it holds, raises `VERSION`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub transport: u64,
    /// The control plane's own.
    pub control_record: ByteBuf,
    /// `None` from the beginning of a handshake to its end: it does not survive its process.
    pub lasting: Option<Lasting>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Lasting {
    pub transport: Carried,
    pub publications: Vec<Publish>,
    pub streams: Vec<(u32, Stream)>,
    pub subscriptions: Vec<LastingSubscription>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LastingSubscription {
    pub subscribe: Subscribe,
    pub attach: Option<Attach>,
    /// The number of its words.
    pub words: u32,
}

/// Which of the slot's own range of session records can be had. The lowest goes first, so that few pages are ever touched.
#[derive(Debug)]
pub(super) struct Records {
    slot: u8,
    used: u32,
    free: BTreeSet<u32>,
    /// With sessions that moved to other slots, as far as is known: who ends one frees its record.
    lent: BTreeSet<u32>,
}

impl Records {
    pub fn new(slot: u8) -> Records {
        Records { slot, used: 0, free: BTreeSet::new(), lent: BTreeSet::new() }
    }

    /// Looks whose every record of the arena is, and gives the numbers of ours: what a predecessor had, what was given to it,
    /// and what it gave away and nobody took.
    pub fn find(slot: u8, arena: &Arena) -> (Records, Vec<u32>) {
        let (mut records, mut ours) = (Records::new(slot), Vec::new());
        let parameters = arena.parameters();
        let owners = arena.owners();
        for range in 0..parameters.slots as u8 {
            let used = arena.slot(range).sessions().min(parameters.sessions_per_slot.into()) as u32;
            for record in (0..used).map(|i| arena.record(range, i)) {
                if owners.of(record) == Owner::Slot(slot) || owners.end_move(record, slot) {
                    ours.push(record);
                } else if range == slot && owners.of(record) == Owner::Nobody {
                    records.free.insert(record);
                } else if range == slot {
                    records.lent.insert(record);
                }
            }
            if range == slot {
                records.used = used;
            }
        }
        (records, ours)
    }

    /// A clear record; `None` when the slot has no more.
    pub fn claim(&mut self, arena: &Arena) -> Option<u32> {
        let owners = arena.owners();
        let returned = |lent: &BTreeSet<u32>| lent.iter().copied().find(|i| owners.of(*i) == Owner::Nobody);
        let record = self.free.pop_first().or_else(|| {
            if let Some(record) = returned(&self.lent) {
                self.lent.remove(&record);
                return Some(record);
            }
            let next =
                (self.used < arena.parameters().sessions_per_slot).then(|| arena.record(self.slot, self.used))?;
            self.used += 1;
            // Before the record is touched, or a successor would not look at it.
            arena.slot(self.slot).set_sessions(self.used.into());
            Some(next)
        })?;
        owners.claim(record, self.slot);
        arena.session_words(record).put(ATTEMPTS_WORD, 0);
        Some(record)
    }

    /// Its session is over, wherever it was opened.
    pub fn free(&mut self, arena: &Arena, record: u32) {
        arena.session(record).clear();
        arena.owners().free(record);
        if self.is_ours(arena, record) {
            self.free.insert(record);
        }
    }

    /// Its session is another slot's now.
    pub fn lend(&mut self, arena: &Arena, record: u32) {
        if self.is_ours(arena, record) {
            self.lent.insert(record);
        }
    }

    /// Its session is this slot's again.
    pub fn claim_back(&mut self, record: u32) {
        self.lent.remove(&record);
    }

    pub fn in_use(&self) -> u64 {
        u64::from(self.used) - self.free.len() as u64
    }

    fn is_ours(&self, arena: &Arena, record: u32) -> bool {
        record / arena.parameters().sessions_per_slot == u32::from(self.slot)
    }
}

impl Engine {
    /// Brings the records of changed clients up to date. To be called before what was said to them is sent: a client that
    /// believes in something has to find it again at a successor. `flush` does so, too.
    pub fn save_records(&mut self) {
        while let Some(key) = self.unsaved.pop() {
            if self.clients.get(key).is_some_and(|client| client.is_unsaved) {
                self.save_record(key);
            }
        }
    }

    pub(super) fn mark_unsaved(&mut self, key: ClientKey) {
        let client = &mut self.clients[key];
        if !client.is_unsaved && client.record.is_some() {
            client.is_unsaved = true;
            self.unsaved.push(key);
        }
    }

    /// Writes one client's record; false when it does not fit, and nobody will adopt the client.
    pub(super) fn save_record(&mut self, key: ClientKey) -> bool {
        let record = self.record_of(key);
        let client = &mut self.clients[key];
        client.is_unsaved = false;
        let Some(i) = client.record else { return false };
        let session = self.arena.session(i);
        // Plain data of our own: packing it does not fail.
        let written = rmp_serde::to_vec(&record).is_ok_and(|packed| session.write(&packed));
        if !written {
            // What an older one says is not so any more.
            session.clear();
        }
        written
    }

    fn record_of(&self, key: ClientKey) -> Record {
        let client = &self.clients[key];
        let subscription = |key: &SubscriptionKey| {
            let subscribed = &self.subscriptions[*key];
            Some(LastingSubscription {
                subscribe: subscribed.subscribe.clone(),
                attach: subscribed.attach.clone(),
                words: subscribed.words?,
            })
        };
        let subscriptions: Option<Vec<_>> = client.subscriptions.iter().map(subscription).collect();
        let lasting = client.transport.carry().zip(subscriptions).map(|(transport, subscriptions)| Lasting {
            transport,
            publications: client.publications.iter().map(|key| self.publications[*key].publish.clone()).collect(),
            streams: client.streams.known().to_vec(),
            subscriptions,
        });
        Record {
            transport: client.transport.id(),
            control_record: ByteBuf::from(client.control_record.clone()),
            lasting,
        }
    }

    /// Gives a new client its record, and its transport the words beside it.
    pub(super) fn open_record(&mut self, key: ClientKey) {
        let Some(i) = self.records.claim(&self.arena) else { return };
        let client = &mut self.clients[key];
        client.record = Some(i);
        client.transport.save_in(self.arena.session_words(i));
        self.stats.set(Counter::SessionRecords, self.records.in_use());
        self.mark_unsaved(key);
    }

    /// Gives a new subscription its words.
    pub(super) fn assign_words(&mut self, key: SubscriptionKey) {
        let client = &self.clients[self.subscriptions[key].client];
        let Some(i) = client.record else { return };
        let is_taken =
            |number: u32| client.subscriptions.iter().any(|key| self.subscriptions[*key].words == Some(number));
        let Some(number) = (0..STREAMS as u32).find(|number| !is_taken(*number)) else { return };
        let words = self.words_of(i, number);
        self.subscriptions[key].subscription.save_in(words);
        self.subscriptions[key].words = Some(number);
    }

    pub(super) fn words_of(&self, record: u32, number: u32) -> Words {
        Words::new(self.arena.session_words(record), SRTP_WORDS + number as usize * WORDS)
    }

    /// A client is gone: nobody is to take it up.
    pub(super) fn free_record(&mut self, record: Option<u32>) {
        if let Some(i) = record {
            self.records.free(&self.arena, i);
            self.stats.set(Counter::SessionRecords, self.records.in_use());
        }
    }

    pub(super) fn count_adoptions(&self, adopted: usize, lost: u32) {
        self.stats.set(Counter::SessionRecords, self.records.in_use());
        self.stats.add(Counter::SessionsAdopted, adopted as u64);
        self.stats.add(Counter::SessionsLost, lost.into());
    }
}
