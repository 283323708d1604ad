//! Saves each client's session: one record, written when something in it changes, and words for what changes with every packet.
//! Owns the record's shape; must never be on a packet's way. Read `adoption.rs` next, which adopts what is saved here.

use std::collections::BTreeSet;

use millrace_arena::{Arena, Owner, SESSION_WORDS};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{ClientKey, Counter, Engine, SubscriptionKey};
use crate::command::{Attach, Publish, Subscribe};
use crate::forward::publication::streams::Stream;
use crate::forward::subscription::continuity::{WORDS, Words};
use crate::transport::{Carried, RemoteState, SRTP_WORDS};

/// The word that counts the successors that died adopting this session. It lies among the words of SRTP.
pub(super) const ATTEMPTS_WORD: usize = 1;
/// Outgoing streams that have words. A client with more is not saved.
const STREAMS: usize = (SESSION_WORDS - SRTP_WORDS) / WORDS;

/// A session record. Another release may have written it, so `forgiving.rs` reads it. A field that is added, here or in a
/// type that it holds, stands at its struct's end and has a `#[serde(default)]`; any other change raises the arena's
/// `VERSION`. When a session changes, its record is written anew, without what only another release knows.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    pub transport: u64,
    /// The control plane's own bytes.
    pub control_record: ByteBuf,
    /// `None` during a handshake, which does not survive its process.
    pub lasting: Option<Lasting>,
    /// What is known of the client beside its transport.
    #[serde(default)]
    pub remote: RemoteState,
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
    /// Of `SetWish`.
    #[serde(default)]
    pub height: Option<u16>,
}

/// Which records of the slot's own range are free. The lowest is claimed first, so that few pages are ever touched.
#[derive(Debug)]
pub(super) struct Records {
    slot: u8,
    used: u32,
    free: BTreeSet<u32>,
    /// Records of sessions that moved to other slots, as far as is known. The slot that ends such a session frees its record.
    lent: BTreeSet<u32>,
}

impl Records {
    pub fn new(slot: u8) -> Records {
        Records { slot, used: 0, free: BTreeSet::new(), lent: BTreeSet::new() }
    }

    /// Looks at the owner of every record of the arena, and returns the numbers of ours: our predecessor's, those that were moving
    /// to it, and those that it was moving away and whose target has not taken them.
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

    /// Claims a clear record; `None` when the slot has no more.
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
            // Before the record is written, or a successor would not look at it.
            arena.slot(self.slot).set_sessions(self.used.into());
            Some(next)
        })?;
        owners.claim(record, self.slot);
        arena.session_words(record).put(ATTEMPTS_WORD, 0);
        Some(record)
    }

    /// Frees the record of a session that is over, whichever slot opened it.
    pub fn free(&mut self, arena: &Arena, record: u32) {
        arena.session(record).clear();
        arena.owners().free(record);
        if self.is_ours(arena, record) {
            self.free.insert(record);
        }
    }

    /// Remembers that the record's session is another slot's now.
    pub fn lend(&mut self, arena: &Arena, record: u32) {
        if self.is_ours(arena, record) {
            self.lent.insert(record);
        }
    }

    /// Remembers that the record's session is this slot's again.
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
    /// Writes the records of all clients that changed. To be called before the answers to these clients are sent: what a client was
    /// told has to hold at a successor, too. `flush` calls it.
    pub fn save_records(&mut self) {
        while let Some(key) = self.unsaved.pop() {
            if self.clients.get(key).is_some_and(|client| client.is_unsaved) {
                self.save_record(key);
            }
        }
    }

    /// Has the next `save_records` write this client's record.
    pub(super) fn mark_unsaved(&mut self, key: ClientKey) {
        let client = &mut self.clients[key];
        if !client.is_unsaved && client.record.is_some() {
            client.is_unsaved = true;
            self.unsaved.push(key);
        }
    }

    /// Writes one client's record. False when it does not fit; then no successor can adopt the client.
    pub(super) fn save_record(&mut self, key: ClientKey) -> bool {
        let record = self.record_of(key);
        let client = &mut self.clients[key];
        client.is_unsaved = false;
        let Some(i) = client.record else { return false };
        let session = self.arena.session(i);
        // Plain data of our own: packing it does not fail.
        let written = rmp_serde::to_vec(&record).is_ok_and(|packed| session.write(&packed));
        if !written {
            // The older record is wrong by now.
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
                // A release that takes one codec goes on with the one in use.
                attach: subscribed.attach.clone().map(|attach| subscribed.subscription.with_codec_in_use(attach)),
                words: subscribed.words?,
                height: subscribed.subscription.wish(),
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
            remote: client.transport.remote_state(),
        }
    }

    /// Claims a record for a new client, and the words beside it for its transport.
    pub(super) fn open_record(&mut self, key: ClientKey) {
        let Some(i) = self.records.claim(&self.arena) else { return };
        let client = &mut self.clients[key];
        client.record = Some(i);
        client.transport.save_in(self.arena.session_words(i));
        self.stats.set(Counter::SessionRecords, self.records.in_use());
        self.mark_unsaved(key);
    }

    /// Assigns a new subscription its words.
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

    /// Frees the record of a client that is gone.
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
