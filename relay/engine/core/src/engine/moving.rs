//! A session's way from one living worker to another. Its giver has done with it before anybody else touches it, so it is the
//! same as a death, with another successor: the record says everything, and one word of the arena says whose it is. Must never
//! wait for the other side. Read `adoption.rs` for how it is taken up, the arena's `owners.rs` for who may.
//!
//! ```text
//! giver    record up to date ─► out of the tables ─► word: given ─► message Given ─► addresses passed on ─► settled: moved
//! taker                                                                 └─► word: ours ─► adopted ─► message GiftSettled
//! ```
//! A taker that does not answer in time, or that cannot take it, leaves the session to its giver, who goes on with it.

use super::ingress::slot_of;
use super::keeping::Record;
use super::{Counter, Engine, Steer};
use crate::command::GiveTransport;
use crate::event::{Cause, Event, Outcome, TransportClosed, TransportGiven};
use crate::message::Message;
use crate::time::{Span, Time};
use crate::transport::Phase;

use millrace_arena::Owner;

/// A loop that is well looks into its inbox within a millisecond; its successor is there 40 ms after a death. A client whose
/// session comes back notices a gap of this.
const PATIENCE: Span = Span::from_millis(150);

/// A session that is between two slots.
#[derive(Debug)]
pub(super) struct Gift {
    record: u32,
    transport: u64,
    to: u8,
    until: Time,
}

impl Engine {
    /// Gives a session away. What can be known at once is said at once; an error is the caller's own.
    pub(super) fn give_transport(&mut self, now: Time, give: GiveTransport) -> Result<(), String> {
        let GiveTransport { transport, slot } = give;
        let key = self.client_key(transport)?;
        if slot == self.slot || slot >= self.slots {
            return Err(format!("slot {slot} of {} is not another slot", self.slots));
        }
        match self.prepare_gift(key, slot) {
            Ok(record) => {
                self.let_go(key, record, slot);
                self.gifts.push(Gift { record, transport, to: slot, until: now + PATIENCE });
            }
            Err(outcome) => self.tell_given(transport, slot, outcome),
        }
        Ok(())
    }

    /// Brings the record up to date; its number. Nothing has changed for the client when it cannot be given.
    fn prepare_gift(&mut self, key: usize, to: u8) -> Result<u32, Outcome> {
        if self.clients[key].transport.phase() == Phase::Handshaking {
            return Err(Outcome::Handshaking);
        }
        let record = self.clients[key].record.filter(|_| !self.clients[key].kept.is_empty()).ok_or(Outcome::NotKept)?;
        if !self.keep_client(key) {
            return Err(Outcome::NotKept);
        }
        if !self.arena.messages(self.slot, to).has_room() {
            return Err(Outcome::Busy);
        }
        let addresses = self.arena.addresses();
        let names = |ufrag: &String| slot_of(ufrag) == Some(to) || addresses.insert_ufrag(ufrag, to);
        if !self.clients[key].ufrags.iter().all(names) {
            self.claim_ufrags(key);
            return Err(Outcome::Busy);
        }
        Ok(record)
    }

    /// Forgets a client that goes on elsewhere: nobody is told, its logs stay open, its words are not touched again.
    fn let_go(&mut self, key: usize, record: u32, to: u8) {
        for publication in std::mem::take(&mut self.clients[key].publications) {
            drop(self.take_publication(publication));
        }
        for subscription in std::mem::take(&mut self.clients[key].subscriptions) {
            self.remove_subscription(subscription);
        }
        self.deadlines.forget(key);
        let client = self.clients.remove(key);
        self.client_by_id.remove(&client.transport.id());
        for ufrag in &client.ufrags {
            self.client_by_ufrag.remove(ufrag);
        }
        self.records.lend(&self.arena, record);
        self.stats.set(Counter::Transports, self.clients.len() as u64);

        self.arena.owners().give(record, self.slot, to);
        self.tell(to, Message::Given(record));
        // Only now: what is handed over finds a client there. And only what is still ours, for the taker may be ahead of us.
        for path in client.paths {
            if self.client_by_path.get(&path) == Some(&key) {
                self.client_by_path.remove(&path);
                self.arena.addresses().pass_on(path.socket.0, &path.remote, self.slot, to);
                if self.owner_of(path) == Some(to) {
                    self.steering.push_back(Steer { path, owner: Some(to) });
                }
            }
        }
    }

    /// Another slot says that it gave us a session.
    pub(super) fn handle_given(&mut self, now: Time, from: u8, record: u32) {
        // One of ours that comes back was taken before.
        self.settle_gifts(now);
        let is_ours =
            record < self.arena.records() && self.arena.owners().of(record) == Owner::Given { from, to: self.slot };
        // Else a predecessor of ours read this late, and everything of it is adopted.
        if is_ours {
            match self.read_record(record).filter(|found| self.has_room_for(found)) {
                Some(found) if self.arena.owners().take(record, self.slot) => self.take_up(now, record, found),
                Some(_) => {}
                None => {
                    self.arena.owners().refuse(record, self.slot);
                }
            }
            self.tell(from, Message::GiftSettled(record));
        }
    }

    fn has_room_for(&self, record: &Record) -> bool {
        let is_new = !self.client_by_id.contains_key(&record.transport);
        record.lasting.is_some() && is_new && self.clients.len() < self.max_transports
    }

    fn take_up(&mut self, now: Time, number: u32, record: Record) {
        let mut said = std::mem::take(&mut self.events);
        self.records.reclaim(number);
        let adopted = self.adopt_records(now, vec![(number, record)]);
        said.append(&mut self.describe(&adopted));
        said.append(&mut self.events);
        self.events = said;
        self.stats.add(Counter::MovesIn, adopted.len() as u64);
        self.stats.add(Counter::AdoptionsLost, 1 - adopted.len() as u64);
    }

    /// Looks what became of what we gave.
    pub(super) fn settle_gifts(&mut self, now: Time) {
        let mut i = 0;
        while let Some(gift) = self.gifts.get(i) {
            let (record, to) = (gift.record, gift.to);
            let is_waiting = self.arena.owners().of(record) == Owner::Given { from: self.slot, to };
            if is_waiting && now < gift.until {
                i += 1;
                continue;
            }
            let late = is_waiting && self.arena.owners().take(record, self.slot);
            // Nobody but us could have made it ours, unless it was refused.
            let refused = !late && self.arena.owners().of(record) == Owner::Slot(self.slot);
            let gift = self.gifts.remove(i);
            if late || refused {
                self.take_back(now, &gift, if late { Outcome::NotTaken } else { Outcome::Refused });
            } else {
                self.stats.add(Counter::MovesOut, 1);
                self.tell_given(gift.transport, to, Outcome::Moved);
            }
        }
    }

    pub(super) fn next_gift_due(&self) -> Option<Time> {
        self.gifts.iter().map(|gift| gift.until).min()
    }

    fn take_back(&mut self, now: Time, gift: &Gift, outcome: Outcome) {
        self.records.reclaim(gift.record);
        let found = self.read_record(gift.record).map(|record| (gift.record, record));
        let adopted = self.adopt_records(now, found.into_iter().collect());
        self.tell_given(gift.transport, gift.to, outcome);
        if adopted.is_empty() {
            self.stats.add(Counter::AdoptionsLost, 1);
            let closed = TransportClosed { transport: gift.transport, cause: Cause::Closed };
            self.events.push_back(Event::TransportClosed(closed));
        }
    }

    fn tell_given(&mut self, transport: u64, slot: u8, outcome: Outcome) {
        self.stats.add(Counter::MovesFailed, u64::from(outcome != Outcome::Moved));
        self.events.push_back(Event::TransportGiven(TransportGiven { transport, slot, outcome }));
    }

    /// Has checks find a client whose ufrags name another slot.
    pub(super) fn claim_ufrags(&self, key: usize) {
        for ufrag in &self.clients[key].ufrags {
            if slot_of(ufrag) == Some(self.slot) {
                self.arena.addresses().remove_ufrag(ufrag);
            } else {
                // Its giver made sure of the room.
                self.arena.addresses().insert_ufrag(ufrag, self.slot);
            }
        }
    }

    /// A ufrag of ours leads nowhere any more.
    pub(super) fn disclaim_ufrag(&self, ufrag: &str) {
        if slot_of(ufrag) != Some(self.slot) {
            self.arena.addresses().remove_ufrag(ufrag);
        }
    }
}
