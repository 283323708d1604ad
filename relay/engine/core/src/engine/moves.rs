//! A session's move from this worker, the source, to another living one, the target. The source stops using the session before
//! the target starts. So a move works like a death whose successor is in another slot: the record holds the whole session, and
//! one word of the arena names its owner. Must never wait for the other worker. Read `adoption.rs` for how the target adopts a
//! session, the arena's `owners.rs` for who may.
//!
//! ```text
//! source    record up to date ─► out of the tables ─► word: moving ─► message MoveOffered ─► addresses passed on ─► moved
//! target                                                                  └─► word: ours ─► adopted ─► message MoveAnswered
//! ```
//! When the target does not answer in time, or refuses, the source adopts the session again.

use super::ingress::slot_of;
use super::records::Record;
use super::{ClientKey, Counter, Engine};
use crate::command::MoveTransport;
use crate::event::{Cause, Event, MoveDone, Outcome, TransportClosed};
use crate::message::Message;
use crate::time::{Span, Time};
use crate::transport::Phase;

use millrace_arena::Owner;

/// How long the source waits for the target's answer. A healthy loop looks into its inbox within a millisecond, and a dead
/// worker's successor runs after 40 ms. A client whose session comes back notices a gap of this length.
const MOVE_TIMEOUT: Span = Span::from_millis(150);

/// A session between two slots, as its source remembers it.
#[derive(Debug)]
pub(super) struct Move {
    record: u32,
    transport: u64,
    target: u8,
    expires_at: Time,
}

impl Engine {
    /// Moves a session to another slot. When the move cannot begin, the event with its outcome comes at once. An error when
    /// the command itself is wrong.
    pub(super) fn move_transport(&mut self, now: Time, command: MoveTransport) -> Result<(), String> {
        let MoveTransport { transport, slot } = command;
        let key = self.client_key(transport)?;
        if slot == self.slot || slot >= self.slots {
            return Err(format!("slot {slot} of {} is not another slot", self.slots));
        }
        match self.prepare_move(key, slot) {
            Ok(record) => {
                self.begin_move(key, record, slot);
                self.moves.push(Move { record, transport, target: slot, expires_at: now + MOVE_TIMEOUT });
            }
            Err(outcome) => self.report_outcome(transport, slot, outcome),
        }
        Ok(())
    }

    /// Brings the session's record up to date and returns its number. Nothing has changed for the client after an error.
    fn prepare_move(&mut self, key: ClientKey, target: u8) -> Result<u32, Outcome> {
        if self.clients[key].transport.phase() == Phase::Handshaking {
            return Err(Outcome::Handshaking);
        }
        let record = self.clients[key]
            .record
            .filter(|_| !self.clients[key].control_record.is_empty())
            .ok_or(Outcome::NoRecord)?;
        if !self.save_record(key) {
            return Err(Outcome::NoRecord);
        }
        if !self.arena.messages(self.slot, target).has_room() {
            return Err(Outcome::Busy);
        }
        let addresses = self.arena.addresses();
        let names = |ufrag: &String| slot_of(ufrag) == Some(target) || addresses.insert_ufrag(ufrag, target);
        if !self.clients[key].ufrags.iter().all(names) {
            self.claim_ufrags(key);
            return Err(Outcome::Busy);
        }
        Ok(record)
    }

    /// Forgets a client and offers its session to the target. The client is told nothing, its logs stay open, and its words
    /// are not touched again.
    fn begin_move(&mut self, key: ClientKey, record: u32, target: u8) {
        for publication in std::mem::take(&mut self.clients[key].publications) {
            drop(self.take_publication(publication));
        }
        for subscription in std::mem::take(&mut self.clients[key].subscriptions) {
            self.remove_subscription(subscription);
        }
        self.deadlines.forget(key);
        self.forget_silence(key);
        self.unlist(key);
        let client = self.clients.remove(key);
        self.client_by_id.remove(&client.transport.id());
        for ufrag in &client.ufrags {
            self.client_by_ufrag.remove(ufrag);
        }
        self.records.lend(&self.arena, record);
        self.stats.set(Counter::Transports, self.clients.len() as u64);

        self.arena.owners().begin_move(record, self.slot, target);
        self.pass_connections(&client.paths, key, target);
        self.send_message(target, Message::MoveOffered(record));
        // After the message, so that a datagram that is handed over finds the client at the target. Only addresses that are
        // still ours are passed on: the target may have claimed some already.
        for path in client.paths {
            if self.client_by_path.get(&path) == Some(&key) {
                self.client_by_path.remove(&path);
                self.arena.addresses().pass_on(path.socket.0, &path.remote, self.slot, target);
                if self.owner_of(path) == Some(target) {
                    self.steer(path, Some(target));
                }
            }
        }
    }

    /// Takes the message that another slot offers us a session.
    pub(super) fn handle_move_offered(&mut self, now: Time, source: u8, record: u32) {
        // A session of ours that comes back had reached the other slot before: that move has to be ended first.
        self.expire_moves(now);
        let offer = Owner::Moving { source, target: self.slot };
        let is_offered = record < self.arena.records() && self.arena.owners().of(record) == offer;
        // Otherwise the message is old: our predecessor did not read it, and the session has been adopted since.
        if is_offered {
            match self.read_record(record).filter(|found| self.has_room_for(found)) {
                Some(found) if self.arena.owners().end_move(record, self.slot) => self.adopt_moved(now, record, found),
                Some(_) => {}
                None => {
                    self.arena.owners().refuse_move(record, self.slot);
                }
            }
            self.send_message(source, Message::MoveAnswered(record));
        }
    }

    fn has_room_for(&self, record: &Record) -> bool {
        let is_new = !self.client_by_id.contains_key(&record.transport);
        record.lasting.is_some() && is_new && self.clients.len() < self.max_transports
    }

    /// Adopts a session that is ours now. Its event comes before those that its adoption causes.
    fn adopt_moved(&mut self, now: Time, number: u32, record: Record) {
        let mut events = std::mem::take(&mut self.events);
        self.records.claim_back(number);
        let adopted = self.adopt_records(now, vec![(number, record)]);
        events.append(&mut self.describe(&adopted));
        events.append(&mut self.events);
        self.events = events;
        self.stats.add(Counter::MovesIn, adopted.len() as u64);
        self.stats.add(Counter::SessionsLost, 1 - adopted.len() as u64);
    }

    /// Ends the moves that their target has answered, and takes those back whose target did not answer in time.
    pub(super) fn expire_moves(&mut self, now: Time) {
        let mut i = 0;
        while let Some(moving) = self.moves.get(i) {
            let (record, target) = (moving.record, moving.target);
            let is_unanswered = self.arena.owners().of(record) == Owner::Moving { source: self.slot, target };
            if is_unanswered && now < moving.expires_at {
                i += 1;
                continue;
            }
            let expired = is_unanswered && self.arena.owners().end_move(record, self.slot);
            // Only a refusal gives us a record back that we did not take back ourselves.
            let refused = !expired && self.arena.owners().of(record) == Owner::Slot(self.slot);
            let moving = self.moves.remove(i);
            if expired || refused {
                self.adopt_back(now, &moving, if expired { Outcome::Unanswered } else { Outcome::Refused });
            } else {
                self.stats.add(Counter::MovesOut, 1);
                self.report_outcome(moving.transport, target, Outcome::Moved);
            }
        }
    }

    /// When `expire_moves` has something to take back.
    pub(super) fn next_move_expiry(&self) -> Option<Time> {
        self.moves.iter().map(|moving| moving.expires_at).min()
    }

    fn adopt_back(&mut self, now: Time, moving: &Move, outcome: Outcome) {
        self.records.claim_back(moving.record);
        let found = self.read_record(moving.record).map(|record| (moving.record, record));
        let adopted = self.adopt_records(now, found.into_iter().collect());
        self.report_outcome(moving.transport, moving.target, outcome);
        if adopted.is_empty() {
            self.stats.add(Counter::SessionsLost, 1);
            let closed = TransportClosed { transport: moving.transport, cause: Cause::Closed };
            self.events.push_back(Event::TransportClosed(closed));
        }
    }

    fn report_outcome(&mut self, transport: u64, slot: u8, outcome: Outcome) {
        self.stats.add(Counter::MovesFailed, u64::from(outcome != Outcome::Moved));
        self.events.push_back(Event::MoveDone(MoveDone { transport, slot, outcome }));
    }

    /// Enters the client's ufrags that name another slot into the address table, so that ICE checks find the client.
    pub(super) fn claim_ufrags(&self, key: ClientKey) {
        for ufrag in &self.clients[key].ufrags {
            if slot_of(ufrag) == Some(self.slot) {
                self.arena.addresses().remove_ufrag(ufrag);
            } else {
                // The source made sure of the room.
                self.arena.addresses().insert_ufrag(ufrag, self.slot);
            }
        }
    }

    /// Takes a ufrag of ours out of the address table.
    pub(super) fn disclaim_ufrag(&self, ufrag: &str) {
        if slot_of(ufrag) != Some(self.slot) {
            self.arena.addresses().remove_ufrag(ufrag);
        }
    }
}
