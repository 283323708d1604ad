//! Addresses that are asked back, and the answers: what makes an address proven, where media then goes, and that the selected
//! one is asked for its consent. Must never take a check for more than a reason to ask. Read `proof.rs` next, then `consent.rs`.

use std::collections::VecDeque;

use super::address::Address;
use super::credentials::Credentials;
use super::proof::request_len;
use super::{Ice, SELECTED_SILENT, SHORTEST_CHECK};
use crate::drop::Drop;
use crate::outbox::{Outbox, Path};
use crate::time::Time;
use crate::transport::TransportEvent;
use crate::transport::lasting::Habit;
use crate::transport::stun::Message;

impl Ice {
    /// Asks an address back; a proof that is under way serves.
    pub fn ask(
        &mut self,
        now: Time,
        path: Path,
        nominated: bool,
        outbox: &mut Outbox,
        events: &mut VecDeque<TransportEvent>,
    ) {
        let Some(asker) = self.asker.as_ref().filter(|_| self.current.remote.is_some()) else { return };
        let Some(address) = self.addresses.iter_mut().find(|address| address.path == path) else { return };
        match &mut address.proof {
            Some(proof) => proof.nominated |= nominated,
            None => {
                address.proof = Some(asker.begin(now, path, nominated));
                self.request(now, path, outbox, events);
            }
        }
    }

    /// Media that authenticates and is new came from an address that no check came from. It is asked as if a check had nominated it: who
    /// carried the packet there answers in vain.
    pub fn ask_source(
        &mut self,
        now: Time,
        path: Path,
        received: usize,
        outbox: &mut Outbox,
        events: &mut VecDeque<TransportEvent>,
    ) {
        self.note_address(now, path, events);
        if let Some(address) = self.find_mut(path) {
            address.note_received(received);
        }
        self.ask(now, path, true, outbox, events);
    }

    /// Sends the request of the proof under way; false when it is time to give up. What the address may not get is not sent.
    pub(super) fn request(
        &mut self,
        now: Time,
        path: Path,
        outbox: &mut Outbox,
        events: &mut VecDeque<TransportEvent>,
    ) -> bool {
        let Ice { asker: Some(asker), current: Credentials { remote: Some(remote), .. }, addresses, .. } = self else {
            return false;
        };
        let Some(address) = addresses.iter_mut().find(|address| address.path == path) else { return false };
        let allowance = address.allowance();
        let Some(proof) = &mut address.proof else { return false };
        if !proof.attempt(now) {
            return false;
        }
        let len = request_len(remote);
        if len > allowance {
            events.push_back(TransportEvent::HeldBack);
        } else if let Some(buffer) = outbox.reserve(len)
            && let Some(len) = asker.write(proof, remote, buffer)
        {
            outbox.commit(path, len);
            address.note_sent(len);
            events.push_back(TransportEvent::ProofAsked);
        }
        true
    }

    pub(super) fn handle_answer(
        &mut self,
        now: Time,
        path: Path,
        message: &Message<'_>,
        events: &mut VecDeque<TransportEvent>,
    ) -> Result<(), Drop> {
        let (Some(asker), Some(remote)) = (&self.asker, &self.current.remote) else {
            return Err(Drop::StunUnexpectedAnswer);
        };
        let asked = self.addresses.iter_mut().find(|address| address.path == path);
        let address = asked.ok_or(Drop::StunUnexpectedAnswer)?;
        if !address.proof.as_ref().is_some_and(|proof| proof.is(message.transaction())) {
            return Err(Drop::StunUnexpectedAnswer);
        }
        if !message.is_authentic(&remote.key) {
            return Err(Drop::StunIntegrity);
        }
        if !message.is_binding_success() {
            // The client may do better with the next one, and an error says nothing about a path.
            return Err(Drop::StunErrorAnswer);
        }
        // Who replays a check can pass our request on to the client, and its answer back to us; but the answer then names where
        // the client got the request from. ffmpeg's names nothing: that serves while nothing can be lost. Where media goes already,
        // nothing moves, and what is advertised may have changed since.
        let is_ours = match message.mapped_address() {
            _ if self.selected == Some(path) => true,
            Some(mapped) => asker.is_advertised(mapped),
            None => self.connected_at.is_none(),
        };
        if !is_ours {
            return Err(Drop::StunRelayedAnswer);
        }
        address.note_received(message.len());
        let Some(proof) = address.proof.take() else { return Ok(()) };
        let is_first = address.consent_at.replace(now).is_none();
        events.push_back(TransportEvent::ProofAnswered);
        if self.connected_at.is_some_and(|at| at <= proof.began_at) {
            self.learn(Habit::Answers, events);
        }
        if is_first {
            events.push_back(TransportEvent::AddressProven(path));
        }
        if self.selected != Some(path) && self.ought_to_move(now, path, proof.nominated) {
            self.select(now, path);
            self.ask_at = self.connected_at.map(|_| now + proof.pause());
        }
        Ok(())
    }

    pub(super) fn learn(&mut self, habit: Habit, events: &mut VecDeque<TransportEvent>) {
        if self.habit != habit {
            self.habit = habit;
            events.push_back(TransportEvent::HabitLearnt);
        }
    }

    /// The keys are there, by a handshake on this path: media goes there unless the client has nominated. `is_echo` when the
    /// path had got what the handshake then answered, which proves it as well as an answer to a request.
    pub fn handle_connected(
        &mut self,
        now: Time,
        (path, is_echo): (Path, bool),
        outbox: &mut Outbox,
        events: &mut VecDeque<TransportEvent>,
    ) {
        self.connected_at = Some(now);
        if is_echo {
            self.vouch_for(now, path, events);
        }
        if self.selected.is_none() && self.is_proven(path) {
            self.select(now, path);
        }
        // Whether it still answers now that DTLS is up decides how its next address is proven. What was asked before says nothing
        // about that.
        let selected = self.selected;
        if let Some(address) = self.addresses.iter_mut().find(|address| Some(address.path) == selected) {
            address.proof = None;
        }
        match selected {
            Some(_) => self.ask_for_consent(now, outbox, events),
            None => self.ask(now, path, true, outbox, events),
        }
    }

    /// The address counts as proven as of now: somebody else than this agent knows it for sure.
    pub fn vouch_for(&mut self, now: Time, path: Path, events: &mut VecDeque<TransportEvent>) {
        if let Some(address) = self.find_mut(path)
            && address.consent_at.replace(now).is_none()
        {
            events.push_back(TransportEvent::AddressProven(path));
        }
        if self.selected.is_none() && self.asker.is_none() {
            self.select(now, path);
        }
    }

    pub(super) fn ask_for_consent(&mut self, now: Time, outbox: &mut Outbox, events: &mut VecDeque<TransportEvent>) {
        let Some(selected) = self.selected else { return };
        self.ask(now, selected, false, outbox, events);
        let proof = self.find(selected).and_then(|address| address.proof.as_ref());
        self.ask_at = Some(now + proof.map_or(SELECTED_SILENT, |proof| proof.pause()));
    }

    /// Sends requests again that are due, and gives up those that were not answered.
    pub fn handle_deadline(&mut self, now: Time, outbox: &mut Outbox, events: &mut VecDeque<TransportEvent>) {
        while let Some(path) = self.due(now) {
            if !self.request(now, path, outbox, events) {
                self.give_up(path, events);
            }
        }
        if self.ask_at.is_some_and(|at| at <= now) {
            self.ask_for_consent(now, outbox, events);
        }
    }

    pub(super) fn due(&self, now: Time) -> Option<Path> {
        let is_due = |address: &&Address| address.proof.as_ref().is_some_and(|proof| proof.next_at() <= now);
        self.addresses.iter().find(is_due).map(|address| address.path)
    }

    pub(super) fn give_up(&mut self, path: Path, events: &mut VecDeque<TransportEvent>) {
        let Some(at) = self.addresses.iter().position(|address| address.path == path) else { return };
        let Some(proof) = self.addresses[at].proof.take() else { return };
        events.push_back(TransportEvent::ProofGivenUp);
        if self.selected == Some(path) {
            let is_new = self.habit == Habit::Unknown && self.connected_at.is_some_and(|at| at <= proof.began_at);
            if is_new {
                self.learn(Habit::Silent, events);
            }
            return;
        }
        if proof.nominated && self.selected.is_some() {
            events.push_back(TransportEvent::MoveRefused);
        }
        let has_other = self.addresses.iter().any(Address::is_proven);
        if !self.addresses[at].is_proven() && has_other && self.habit != Habit::Silent {
            events.push_back(TransportEvent::AddressForgotten(self.addresses.swap_remove(at).path));
        }
    }

    /// Takes the last `count` adopted addresses for unproven: the predecessor had known them by a check only. Each may be asked back.
    pub fn doubt(&mut self, count: usize, events: &mut VecDeque<TransportEvent>) {
        let first = self.addresses.len().saturating_sub(count);
        for address in self.addresses[first..].iter_mut().filter(|address| Some(address.path) != self.selected) {
            address.consent_at = None;
            address.note_received(SHORTEST_CHECK);
            events.retain(|event| *event != TransportEvent::AddressProven(address.path));
        }
    }

    /// Asks all addresses that are not proven.
    pub fn ask_unproven(&mut self, now: Time, outbox: &mut Outbox, events: &mut VecDeque<TransportEvent>) {
        for i in 0..self.addresses.len() {
            if !self.addresses[i].is_proven() {
                self.ask(now, self.addresses[i].path, false, outbox, events);
            }
        }
    }

    /// A predecessor had the keys already.
    pub fn adopt_connected(&mut self, now: Time) {
        self.connected_at = Some(now);
        self.ask_at = Some(now);
    }
}
