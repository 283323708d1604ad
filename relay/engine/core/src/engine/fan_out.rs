//! A packet's way out: from the track logs that advanced to each subscription on this worker, sealed into the outbox. A log's
//! whole batch goes to one subscription before it goes to the next, so that a viewer's packets lie together and leave as one
//! send. When the outbox is full the work stops, and goes on after the caller has sent. Must never decide what a viewer gets.
//! Read `forward/subscription/mod.rs` next, which decides.
//!
//! ```text
//! publications with news ─► messages to other slots
//!                        └► dirty logs ─► batch ─► for each subscription: select, write, seal ─► outbox
//! ```

use millrace_arena::prefetch;

use super::{
    BATCH, Client, ClientKey, Counter, DATAGRAM_ROOM, Engine, Subscribed, Subscription, SubscriptionKey, Table,
};
use crate::drop::Drop;
use crate::forward::feed::LoggedPacket;
use crate::forward::key_frames::Wish;
use crate::message::Message;
use crate::outbox::Outbox;
use crate::stats::{Histogram, Stats};
use crate::time::{Span, Time};
use crate::transport::Tags;

/// How often an absent log is tried again. A publication is announced and opened within a few milliseconds, in either order.
const RECONNECT: Span = Span::from_millis(10);

impl Engine {
    /// Fans out what became ready. True when the outbox filled up first: send it, then call again.
    pub fn flush(&mut self, now: Time) -> bool {
        let more = self.fill_outbox(now);
        self.tags.finish(self.outbox.bytes_mut());
        more
    }

    fn fill_outbox(&mut self, now: Time) -> bool {
        self.save_records();
        self.announce_advanced();
        if !self.send_backlog(now) {
            return true;
        }
        loop {
            let (log, next) = match self.fanning.take() {
                Some(fanning) => fanning,
                None => match self.next_batch() {
                    Some(log) => (log, 0),
                    None => return false,
                },
            };
            if !self.fan_out(now, log, next) {
                return true;
            }
        }
    }

    /// Called after the outbox was sent: measures how long its packets took from arrival to here.
    pub fn handle_sent(&mut self, now: Time) {
        for (arrived_at, packets) in self.forwarded.drain(..) {
            self.stats.observe(Histogram::Forwarding, now.since(arrived_at), packets);
        }
    }

    pub(super) fn mark_dirty(&mut self, log: u32) {
        if let Some(reading) = self.readings.get_mut(&log)
            && !reading.is_dirty
        {
            reading.is_dirty = true;
            self.dirty.push_back(log);
        }
    }

    fn announce_advanced(&mut self) {
        // Popped, so that the list keeps its memory.
        while let Some(key) = self.advanced.pop() {
            let Some(published) = self.publications.get_mut(key) else { continue };
            published.has_news = false;
            // At most three encodings.
            let mut logs = [(0, 0); 4];
            let mut count = 0;
            published.publication.take_advanced(|log, interested| {
                if count < logs.len() {
                    logs[count] = (log, interested);
                    count += 1;
                }
            });
            for (log, interested) in logs.into_iter().take(count) {
                let mut others = interested & !(1 << self.slot);
                while others != 0 {
                    let slot = others.trailing_zeros() as u8;
                    others &= others - 1;
                    if slot < self.slots {
                        self.send_message(slot, Message::LogAdvanced(log));
                    }
                }
                self.mark_dirty(log);
            }
        }
    }

    /// Reads the next dirty log's packets into `batch`.
    fn next_batch(&mut self) -> Option<u32> {
        while let Some(log) = self.dirty.pop_front() {
            let Some(reading) = self.readings.get_mut(&log) else { continue };
            let overtaken = reading.feed.next_batch(&mut self.batch);
            // These packets were overwritten before we read them: one drop for each subscription.
            self.stats.count_drops(Drop::LogOvertaken, overtaken * reading.subscriptions.len() as u64);
            reading.is_dirty = reading.feed.has_more();
            if reading.is_dirty {
                self.dirty.push_back(log);
            }
            if !self.batch.is_empty() {
                return Some(log);
            }
        }
        None
    }

    /// Forwards the batch to the log's subscriptions, from the position `next` on. False when the outbox filled up.
    fn fan_out(&mut self, now: Time, log: u32, next: usize) -> bool {
        let Some(reading) = self.readings.get_mut(&log) else { return true };
        let arrived_at = self.batch.packets().map(|packet| packet.arrived_at()).next();
        let mut forwarded = 0;
        for (position, key) in reading.subscriptions.iter().enumerate().skip(next) {
            if self.outbox.is_portion() || !self.outbox.has_room(BATCH, BATCH * DATAGRAM_ROOM) {
                self.fanning = Some((log, position));
                self.forwarded.extend(arrived_at.filter(|_| forwarded > 0).map(|at| (at, forwarded)));
                return false;
            }
            prefetch_ahead(&self.subscriptions, &self.clients, &reading.subscriptions[position + 1..]);
            let subscribed = &mut self.subscriptions[*key];
            let client = &mut self.clients[subscribed.client];
            for packet in self.batch.packets() {
                let out = (&mut self.outbox, &mut self.tags);
                match forward(now, &mut subscribed.subscription, client, &packet, out, &self.stats) {
                    Ok(()) => forwarded += 1,
                    Err(drop) => self.stats.count_drop(drop),
                }
            }
            if let Some(at) = subscribed.subscription.next_deadline() {
                self.deadlines.wake_by(subscribed.client, at);
            }
            // A client that is not connected asks when it is: one that never connects must not cost the publisher a key frame.
            if client.transport.is_connected() {
                self.wanted.extend(subscribed.subscription.key_frame_wanted(now));
            }
        }
        self.forwarded.extend(arrived_at.filter(|_| forwarded > 0).map(|at| (at, forwarded)));
        self.pass_on_key_frame_requests(now);
        true
    }

    /// Passes the requests for key frames in `wanted` on to the slots that write the logs, at a bounded rate.
    fn pass_on_key_frame_requests(&mut self, now: Time) {
        while let Some(wish) = self.wanted.pop() {
            let Some(reading) = self.readings.get_mut(&wish.log) else { continue };
            if !reading.feed.want_key_frame(now, wish) {
                continue;
            }
            match reading.feed.owner() {
                Some(owner) if owner == self.slot => self.want_key_frame(now, wish),
                Some(owner) if owner < self.slots => {
                    let Wish { log, sees_nothing } = wish;
                    self.send_message(owner, Message::KeyFrameWanted { log, sees_nothing });
                }
                _ => {}
            }
        }
    }

    /// Passes on a subscription's request that no packet of its log brought up: at attaching, after a PLI, and when a PLI that came too
    /// early is due.
    pub(super) fn pass_on_key_frame_request_of(&mut self, now: Time, key: SubscriptionKey) {
        self.wanted.extend(self.subscriptions[key].subscription.key_frame_wanted(now));
        self.pass_on_key_frame_requests(now);
    }

    /// Passes on what a client's subscriptions wait for though no packet came: a picture that stands still sends none.
    pub(super) fn repeat_wishes(&mut self, now: Time, key: ClientKey) {
        if !self.clients[key].transport.is_connected() {
            return;
        }
        for at in 0..self.clients[key].subscriptions.len() {
            self.pass_on_key_frame_request_of(now, self.clients[key].subscriptions[at]);
        }
    }

    /// Has the publisher of this log asked for a key frame. The log is of this slot.
    pub(super) fn want_key_frame(&mut self, now: Time, wish: Wish) {
        let Some(&key) = self.publication_by_log.get(&wish.log) else { return };
        let published = &mut self.publications[key];
        published.publication.want_key_frame(now, wish);
        if let Some(at) = published.publication.next_deadline() {
            self.deadlines.wake_by(published.client, at);
        }
    }

    /// Starts a connected subscription at its publication's last key frame, where that is possible.
    pub(super) fn join(&mut self, now: Time, key: SubscriptionKey) {
        let subscribed = &mut self.subscriptions[key];
        if !self.clients[subscribed.client].transport.is_connected() {
            return;
        }
        let readings = &self.readings;
        subscribed.subscription.join(now, &mut self.single, |log| readings.get(&log).map(|reading| &reading.feed));
        self.queue_backlog(key);
        self.pass_on_key_frame_request_of(now, key);
    }

    /// Has the next `flush` send this subscription's replay and repairs.
    pub(super) fn queue_backlog(&mut self, key: SubscriptionKey) {
        if !self.backlog.contains(&key) {
            self.backlog.push(key);
        }
    }

    /// Sends the replays and repairs of all subscriptions in the backlog. False when the outbox filled up.
    fn send_backlog(&mut self, now: Time) -> bool {
        while let Some(&key) = self.backlog.last() {
            if !self.send_backlog_of(now, key) {
                return false;
            }
            self.backlog.pop();
        }
        true
    }

    /// Sends one subscription's replay and repairs. False when the outbox filled up.
    fn send_backlog_of(&mut self, now: Time, key: SubscriptionKey) -> bool {
        let Some(subscribed) = self.subscriptions.get_mut(key) else { return true };
        let subscription = &mut subscribed.subscription;
        let client = &mut self.clients[subscribed.client];
        while let Some(replay) = subscription.next_replay() {
            if !self.outbox.has_room(BATCH, BATCH * DATAGRAM_ROOM) {
                return false;
            }
            let Some(reading) = self.readings.get(&replay.log) else {
                subscription.set_replay(None);
                break;
            };
            let rest = reading.feed.replay(replay.position, &mut self.single);
            for packet in self.single.packets() {
                let out = (&mut self.outbox, &mut self.tags);
                if let Err(drop) = forward(now, subscription, client, &packet, out, &self.stats) {
                    self.stats.count_drop(drop);
                }
            }
            subscription.set_replay(rest);
        }
        while subscription.has_repairs() {
            if !self.outbox.has_room(1, DATAGRAM_ROOM) {
                return false;
            }
            let Some(repair) = subscription.next_repair() else { break };
            let repaired = match self.readings.get(&repair.log) {
                Some(reading) => reading.feed.read(repair.index, &mut self.single),
                None => Err(Drop::LogOvertaken),
            };
            let sent = repaired.and_then(|()| {
                let packet = self.single.get(0).ok_or(Drop::LogOvertaken)?;
                let path = client.transport.path().ok_or(Drop::NotConnected)?;
                let buffer = self.outbox.reserve(DATAGRAM_ROOM).ok_or(Drop::OutboxFull)?;
                let outgoing = subscription.write_repair(now, &repair, &packet, buffer)?;
                let len = client.transport.seal_rtp(outgoing.index, buffer, outgoing.len)?;
                self.outbox.commit(path, len);
                client.count_sent(len);
                self.stats.add(Counter::PacketsForwarded, 1);
                self.stats.add(Counter::PacketsRetransmitted, 1);
                Ok(())
            });
            if let Err(drop) = sent {
                self.stats.count_drop(drop);
            }
        }
        true
    }

    /// Opens the logs that were not open yet when their subscriptions were attached.
    pub(super) fn reconnect(&mut self, now: Time) {
        self.reconnect_at = None;
        let mut connected = Vec::new();
        for (log, reading) in &mut self.readings {
            if reading.feed.owner().is_some() {
                continue;
            }
            if reading.feed.connect(&self.arena) {
                connected.push(*log);
            } else {
                self.reconnect_at = Some(now + RECONNECT);
            }
        }
        // A hash map's order differs from run to run, and a test's run must be repeatable.
        connected.sort_unstable();
        for log in connected {
            for key in self.readings.get(&log).map_or_else(Vec::new, |reading| reading.subscriptions.clone()) {
                self.join(now, key);
            }
            self.mark_dirty(log);
        }
    }

    pub(super) fn reconnect_soon(&mut self, now: Time) {
        self.reconnect_at.get_or_insert(now + RECONNECT);
    }
}

/// Fetches what the next subscriptions need from memory while the present one is served. Each step follows the pointers that the
/// step before has fetched.
fn prefetch_ahead(
    subscriptions: &Table<SubscriptionKey, Subscribed>,
    clients: &Table<ClientKey, Client>,
    next: &[SubscriptionKey],
) {
    let subscribed = |ahead: usize| subscriptions.get(*next.get(ahead)?);
    let client = |ahead: usize| clients.get(subscribed(ahead)?.client);
    if let Some(subscribed) = subscribed(2) {
        prefetch(subscribed);
    }
    if let Some((subscribed, client)) = subscribed(1).zip(client(1)) {
        subscribed.subscription.prefetch();
        client.prefetch();
    }
    if let Some(client) = client(0) {
        client.transport.prefetch_keys();
    }
}

/// Writes and seals one packet for one subscription into the outbox.
fn forward(
    now: Time,
    subscription: &mut Subscription,
    client: &mut Client,
    packet: &LoggedPacket<'_>,
    (outbox, tags): (&mut Outbox, &mut Tags),
    stats: &Stats,
) -> Result<(), Drop> {
    if !client.transport.is_connected() {
        return Err(Drop::NotConnected);
    }
    let path = client.transport.path().ok_or(Drop::NotConnected)?;
    let selected = subscription.select(packet)?;
    let start = outbox.next_start();
    let buffer = outbox.reserve(DATAGRAM_ROOM).ok_or(Drop::OutboxFull)?;
    let outgoing = subscription.write(now, packet, selected, buffer)?;
    let len = client.transport.seal_rtp_later(outgoing.index, buffer, outgoing.len, (tags, start))?;
    outbox.commit(path, len);
    client.count_sent(len);
    stats.add(Counter::PacketsForwarded, 1);
    Ok(())
}
