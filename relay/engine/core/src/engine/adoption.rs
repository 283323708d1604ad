//! Adopts sessions from their records: those of this slot's dead worker, and those that other slots move here. A session is its
//! transport with keys, its publications with logs, its subscriptions with numbers. A record that does not hold costs one
//! session, never the others. Must never wait for the control plane. Read `records.rs` for the record, `moves.rs` for moves.
//!
//! ```text
//! record ─► transport (keys, addresses) ─► publications (their logs) ─► all transports' subscriptions ─► replay
//! ```
//! What clients sent during the gap waits in the slot's socket, which the master holds. What publishers of other slots sent is
//! in their logs. So no client has to send anything again.

use std::collections::VecDeque;

use millrace_arena::Known;
use serde_bytes::ByteBuf;

use super::records::{ATTEMPTS_WORD, Lasting, LastingSubscription, Record, Records};
use super::{Client, ClientKey, Counter, Engine, Publication, Published, Subscribed, Subscription};
use crate::command::Publish;
use crate::event::{AdoptionDone, Event, TransportAdopted};
use crate::forgiving;
use crate::outbox::{Path, SocketIndex};
use crate::stats::Histogram;
use crate::time::Time;
use crate::transport::{Carried, Transport};

/// A session at which this many successors died is not tried again, or it would end every worker of the slot.
const MAX_ATTEMPTS: u64 = 3;

/// A client that was adopted, and the subscriptions that are still to be.
pub(super) struct Adopted {
    key: ClientKey,
    record: u32,
    subscriptions: Vec<LastingSubscription>,
}

impl Engine {
    /// Adopts the sessions of this slot's predecessor. To be called once, right after `new`.
    pub fn adopt(&mut self, now: Time) {
        let last_beat = Time(self.arena.slot(self.slot).beats().engine_us);
        let (records, ours) = Records::find(self.slot, &self.arena);
        self.records = records;
        let mut found = Vec::new();
        let mut lost = 0;
        for i in ours {
            let torn = self.arena.session(i).is_torn();
            match self.read_record(i) {
                Some(record) if self.adopts => found.push((i, record)),
                Some(record) => {
                    self.close_logs(&record.lasting.map(|lasting| lasting.publications).unwrap_or_default());
                    self.records.free(&self.arena, i);
                    lost += 1;
                }
                None => {
                    self.records.free(&self.arena, i);
                    lost += u32::from(torn);
                }
            }
        }
        let expected = found.len() as u32;
        let adopted = self.adopt_records(now, found);
        lost += expected - adopted.len() as u32;
        let (paths, ufrags) = (&self.client_by_path, &self.client_by_ufrag);
        self.arena.addresses().retain_slot(self.slot, |known| match known {
            Known::Address(socket, remote) => paths.contains_key(&Path { socket: SocketIndex(socket), remote }),
            Known::Ufrag(ufrag) => ufrags.contains_key(&ufrag),
        });
        let mut events = self.describe(&adopted);
        events.push_back(Event::AdoptionDone(AdoptionDone { adopted: adopted.len() as u32, lost }));
        events.append(&mut self.events);
        self.events = events;
        self.count_adoptions(adopted.len(), lost);
        if !adopted.is_empty() {
            self.stats.observe(Histogram::AdoptionGap, now.since(last_beat), 1);
        }
    }

    /// Adopts the sessions of these records, which are ours. A record that does not hold is freed.
    pub(super) fn adopt_records(&mut self, now: Time, found: Vec<(u32, Record)>) -> Vec<Adopted> {
        let mut adopted = Vec::with_capacity(found.len());
        for (i, record) in found {
            match self.attempt(i, |engine| engine.adopt_client(now, i, record)) {
                Some(client) => adopted.push(client),
                None => self.records.free(&self.arena, i),
            }
        }
        // After all publications, which key frame requests of the subscriptions must find.
        for client in &mut adopted {
            let subscriptions = std::mem::take(&mut client.subscriptions);
            self.attempt(client.record, |engine| {
                for subscription in subscriptions {
                    engine.adopt_subscription(now, client.key, client.record, subscription);
                }
            });
        }
        for client in &adopted {
            self.arena.session_words(client.record).put(ATTEMPTS_WORD, 0);
            self.schedule(now, client.key);
        }
        self.stats.set(Counter::SessionRecords, self.records.in_use());
        self.stats.set(Counter::Transports, self.clients.len() as u64);
        self.stats.set(Counter::Publications, self.publications.len() as u64);
        self.stats.set(Counter::Subscriptions, self.subscriptions.len() as u64);
        adopted
    }

    /// What the record says; `None` when it is clear, or was never whole.
    pub(super) fn read_record(&self, i: u32) -> Option<Record> {
        let packed = self.arena.session(i).read()?;
        // A record that does not parse was a session all the same, which is counted as lost.
        Some(forgiving::from_slice(&packed).unwrap_or_default())
    }

    /// Calls `act`, which a wrong record might make the process die of. A word beside the record counts these deaths.
    fn attempt<R>(&mut self, i: u32, act: impl FnOnce(&mut Engine) -> R) -> R {
        let words = self.arena.session_words(i);
        let before = words.get(ATTEMPTS_WORD);
        words.put(ATTEMPTS_WORD, before + 1);
        let result = act(self);
        words.put(ATTEMPTS_WORD, before);
        result
    }

    fn adopt_client(&mut self, now: Time, i: u32, record: Record) -> Option<Adopted> {
        let words = self.arena.session_words(i);
        let Lasting { transport: carried, publications, streams, subscriptions } = record.lasting?;
        // Without the control plane's part nothing could ever end the session.
        let is_wanted = !record.control_record.is_empty() && words.get(ATTEMPTS_WORD) <= MAX_ATTEMPTS;
        // A limit that was lowered meanwhile does not apply to a session that is open already.
        let id = carried.transport();
        let is_new = !self.client_by_id.contains_key(&id);
        if !is_wanted || !is_new {
            self.close_logs(&publications);
            return None;
        }
        let imported = match carried {
            Carried::Connected(mut state) => {
                state.srtp.update(&words);
                Transport::import(now, &state, &self.limits)
            }
            Carried::Waiting(waiting) => Transport::reopen(now, &waiting, &self.contexts, &self.limits),
        };
        let Ok(mut transport) = imported else {
            self.close_logs(&publications);
            return None;
        };
        transport.set_remote_state(&record.remote);
        transport.save_in(words);
        let ufrags: Vec<String> = transport.ufrags().map(str::to_owned).collect();
        let mut client = Client::new(transport, String::new(), self.limits.max_streams);
        client.ufrags.clone_from(&ufrags);
        client.profile = client.transport.profile().map(|profile| profile.name().to_owned());
        client.control_record = record.control_record.into_vec();
        client.record = Some(i);
        let key = self.clients.insert(client);
        self.ask_with_prover(key);
        self.clients[key].transport.ask_unproven(now, &mut self.outbox);
        self.client_by_id.insert(id, key);
        self.client_by_ufrag.extend(ufrags.into_iter().map(|ufrag| (ufrag, key)));
        self.claim_ufrags(key);
        self.handle_transport_events(now, key);
        let expected = publications.len();
        for publish in publications {
            self.adopt_publication(now, key, publish);
        }
        let client = &mut self.clients[key];
        client.streams.restore(streams);
        // The client is as its record says, unless a publication was about to end.
        client.is_unsaved = false;
        if client.publications.len() < expected {
            self.mark_unsaved(key);
        }
        Some(Adopted { key, record: i, subscriptions })
    }

    fn adopt_publication(&mut self, now: Time, client: ClientKey, publish: Publish) {
        let is_taken = publish.encodings.iter().any(|encoding| self.publication_by_log.contains_key(&encoding.log));
        if is_taken || self.publication_by_id.contains_key(&publish.publication) {
            return;
        }
        let Some(publication) = Publication::resume(now, &publish, &self.arena, self.slot) else { return };
        let key = self.publications.vacant_key();
        self.publication_by_id.insert(publish.publication, key);
        self.publication_by_log.extend(publish.encodings.iter().map(|encoding| (encoding.log, key)));
        self.clients[client].publications.push(key);
        self.clients[client].streams.add(&publish);
        self.clients[client].handle_published(&publish);
        self.watch_silence(now, client);
        self.publications.insert(Published { publication, publish, client, has_news: true });
        self.advanced.push(key);
    }

    fn adopt_subscription(&mut self, now: Time, client: ClientKey, record: u32, lasting: LastingSubscription) {
        let LastingSubscription { subscribe, attach, words: number, height } = lasting;
        if self.subscription_by_id.contains_key(&subscribe.subscription) {
            return;
        }
        let words = self.words_of(record, number);
        let repair_delay = self.repair_delay;
        let mut subscription = Subscription::resume(now, (&subscribe, repair_delay), attach.as_ref(), words);
        subscription.set_wish(height);
        let id = subscribe.subscription;
        let key = self.subscriptions.insert(Subscribed {
            subscription,
            subscribe,
            attach: attach.clone(),
            words: Some(number),
            client,
        });
        self.subscription_by_id.insert(id, key);
        self.clients[client].subscriptions.push(key);
        if let Some(attach) = attach {
            let logs = self.arena.logs();
            for log in attach.logs.into_iter().filter(|log| *log < logs) {
                self.read_log(now, log, attach.publication, key);
            }
            self.join(now, key);
        }
    }

    /// One `TransportAdopted` for each.
    pub(super) fn describe(&self, adopted: &[Adopted]) -> VecDeque<Event> {
        let describe = |&Adopted { key, .. }: &Adopted| {
            let client = &self.clients[key];
            let publications = client.publications.iter().map(|key| self.publications[*key].publication.id());
            let subscriptions = client.subscriptions.iter().map(|key| self.subscriptions[*key].subscription.id());
            Event::TransportAdopted(TransportAdopted {
                transport: client.transport.id(),
                record: ByteBuf::from(client.control_record.clone()),
                publications: publications.collect(),
                subscriptions: subscriptions.collect(),
                connected: client.transport.is_connected(),
            })
        };
        adopted.iter().map(describe).collect()
    }

    /// Closes these publications' logs, so that their readers notice.
    fn close_logs(&self, publications: &[Publish]) {
        for publish in publications {
            Publication::give_up(publish, &self.arena, self.slot);
        }
    }
}
