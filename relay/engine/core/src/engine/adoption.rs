//! A successor takes up the sessions of a worker of its slot that died: transports with their keys, publications with
//! their logs, subscriptions with their numbers. Gives up what does not hold, one session at a time; must never wait for
//! the control plane. Read `keeping.rs` for what it reads.
//!
//! ```text
//! record ─► transport (keys, addresses) ─► publications (their logs) ─► all transports' subscriptions ─► replay
//! ```
//! What a client sent meanwhile waits in the slot's socket, which the master holds, and what others published is in their
//! logs; so nobody has to say anything again.

use std::collections::VecDeque;

use serde_bytes::ByteBuf;

use super::keeping::{ATTEMPTS_WORD, Lasting, LastingSubscription, Record, Records};
use super::{Client, Counter, Engine, Publication, Published, Subscribed, Subscription};
use crate::command::Publish;
use crate::event::{AdoptionDone, Event, TransportAdopted};
use crate::outbox::{Path, SocketIndex};
use crate::stats::Histogram;
use crate::time::Time;
use crate::transport::{Carried, Transport};

/// A session at which successors died this often is not tried again: it would take the whole slot with it.
const MAX_ATTEMPTS: u64 = 3;

/// A client that was taken up, and what is still to be done for it.
struct Adopted {
    key: usize,
    record: u32,
    subscriptions: Vec<LastingSubscription>,
}

impl Engine {
    /// Takes up what a predecessor left. To be called once, before anything else; nothing more than `new` is needed.
    pub fn adopt(&mut self, now: Time) {
        let last_beat = Time(self.arena.slot(self.slot).beats().engine_us);
        let capacity = self.arena.parameters().sessions_per_slot;
        let used = self.arena.slot(self.slot).sessions().min(capacity.into()) as u32;
        self.records = Records::new(self.slot, used);
        let mut adopted = Vec::new();
        let mut lost = 0;
        for i in 0..used {
            let torn = self.arena.session(self.slot, i).is_torn();
            let found = self.read_record(i);
            let is_lost = found.is_some() || torn;
            match found.and_then(|record| self.attempt(i, |engine| engine.adopt_client(now, i, record))) {
                Some(client) => adopted.push(client),
                None => {
                    self.records.give_back(&self.arena, i);
                    lost += u32::from(is_lost);
                }
            }
        }
        // After all publications, so that wishes for key frames find them.
        for client in &mut adopted {
            let subscriptions = std::mem::take(&mut client.subscriptions);
            self.attempt(client.record, |engine| {
                for subscription in subscriptions {
                    engine.adopt_subscription(now, client.key, client.record, subscription);
                }
            });
        }
        let paths = &self.client_by_path;
        let is_known = |socket, remote| paths.contains_key(&Path { socket: SocketIndex(socket), remote });
        self.arena.addresses().retain_slot(self.slot, is_known);
        self.tell_adopted(now, &adopted, lost);
        if !adopted.is_empty() {
            self.stats.observe(Histogram::AdoptionGap, now.since(last_beat), 1);
        }
    }

    /// `None` when it is clear, or was never whole.
    fn read_record(&self, i: u32) -> Option<Record> {
        let packed = self.arena.session(self.slot, i).read()?;
        // What does not parse is somebody's session all the same: it has to be counted.
        let unknown = Record { transport: 0, kept: ByteBuf::new(), lasting: None };
        Some(rmp_serde::from_slice(&packed).unwrap_or(unknown))
    }

    /// Does something that a wrong record might make this process die of, and remembers that across its death.
    fn attempt<R>(&mut self, i: u32, act: impl FnOnce(&mut Engine) -> R) -> R {
        let words = self.arena.session_words(self.slot, i);
        let before = words.get(ATTEMPTS_WORD);
        words.put(ATTEMPTS_WORD, before + 1);
        let result = act(self);
        words.put(ATTEMPTS_WORD, before);
        result
    }

    fn adopt_client(&mut self, now: Time, i: u32, record: Record) -> Option<Adopted> {
        let words = self.arena.session_words(self.slot, i);
        let Lasting { transport: carried, publications, streams, subscriptions } = record.lasting?;
        // Without the control plane's record nobody could ever end it.
        let is_wanted = !record.kept.is_empty() && words.get(ATTEMPTS_WORD) <= MAX_ATTEMPTS;
        // Whether a limit that was lowered meanwhile still lets it in is not asked: it is in.
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
        transport.keep_in(words);
        let ufrags: Vec<String> = transport.ufrags().map(str::to_owned).collect();
        let mut client = Client::new(transport, String::new(), self.limits.max_streams);
        client.ufrags.clone_from(&ufrags);
        client.profile = client.transport.profile().map(|profile| profile.name().to_owned());
        client.kept = record.kept.into_vec();
        client.record = Some(i);
        let key = self.clients.insert(client);
        self.client_by_id.insert(id, key);
        self.client_by_ufrag.extend(ufrags.into_iter().map(|ufrag| (ufrag, key)));
        self.pump(now, key);
        let expected = publications.len();
        for publish in publications {
            self.adopt_publication(now, key, publish);
        }
        let client = &mut self.clients[key];
        client.streams.restore(streams);
        // It is what the record says, but for a publication that was about to end.
        client.is_stale = false;
        if client.publications.len() < expected {
            self.mark_stale(key);
        }
        Some(Adopted { key, record: i, subscriptions })
    }

    fn adopt_publication(&mut self, now: Time, client: usize, publish: Publish) {
        let is_taken = publish.encodings.iter().any(|encoding| self.publication_by_log.contains_key(&encoding.log));
        if is_taken || self.publication_by_id.contains_key(&publish.publication) {
            return;
        }
        let Some(publication) = Publication::resume(now, &publish, &self.arena, self.slot) else { return };
        let place = self.publications.vacant_key();
        self.publication_by_id.insert(publish.publication, place);
        self.publication_by_log.extend(publish.encodings.iter().map(|encoding| (encoding.log, place)));
        self.clients[client].publications.push(place);
        self.clients[client].streams.add(&publish);
        self.clients[client].handle_published(&publish);
        self.publications.insert(Published { publication, publish, client, has_moved: true });
        self.moved.push(place);
    }

    fn adopt_subscription(&mut self, now: Time, client: usize, record: u32, lasting: LastingSubscription) {
        let LastingSubscription { subscribe, attach, place } = lasting;
        if self.subscription_by_id.contains_key(&subscribe.subscription) {
            return;
        }
        let words = self.words_of(record, place);
        let repair_delay = self.repair_delay;
        let subscription = Subscription::resume(now, (&subscribe, repair_delay), attach.as_ref(), words);
        let id = subscribe.subscription;
        let place = Some(place);
        let key =
            self.subscriptions.insert(Subscribed { subscription, subscribe, attach: attach.clone(), place, client });
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

    fn tell_adopted(&mut self, now: Time, adopted: &[Adopted], lost: u32) {
        let mut said = VecDeque::with_capacity(adopted.len() + 1);
        for &Adopted { key, record, .. } in adopted {
            self.arena.session_words(self.slot, record).put(ATTEMPTS_WORD, 0);
            self.schedule(now, key);
            let client = &self.clients[key];
            let publications = client.publications.iter().map(|key| self.publications[*key].publication.id());
            let subscriptions = client.subscriptions.iter().map(|key| self.subscriptions[*key].subscription.id());
            said.push_back(Event::TransportAdopted(TransportAdopted {
                transport: client.transport.id(),
                record: ByteBuf::from(client.kept.clone()),
                publications: publications.collect(),
                subscriptions: subscriptions.collect(),
                connected: client.transport.is_connected(),
            }));
        }
        said.push_back(Event::AdoptionDone(AdoptionDone { adopted: adopted.len() as u32, lost }));
        said.append(&mut self.events);
        self.events = said;
        self.count_adoptions(adopted.len(), lost);
        self.stats.set(Counter::Transports, self.clients.len() as u64);
        self.stats.set(Counter::Publications, self.publications.len() as u64);
        self.stats.set(Counter::Subscriptions, self.subscriptions.len() as u64);
    }

    /// Nobody will write these logs any more; their readers are to know.
    fn close_logs(&self, publications: &[Publish]) {
        for publish in publications {
            Publication::give_up(publish, &self.arena, self.slot);
        }
    }
}
