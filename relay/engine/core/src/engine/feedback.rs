//! RTCP, both ways: what a client reports about its streams, and what the relay reports to it. Owns how reports are packed into
//! datagrams; must never decide what they say. Read `forward/publication/mod.rs` and `forward/subscription/mod.rs` next, which
//! decide.

use super::{ClientKey, Counter, DATAGRAM_ROOM, Engine, Subscription, SubscriptionKey};
use crate::drop::Drop;
use crate::event::{Event, PublicationEnded};
use crate::forward::subscription::Clock;
use crate::rtcp::{self, Packet, ReportBlock, Writer};
use crate::time::Time;

/// The most RTCP datagrams to one client at one time. What is left stays due.
const MAX_REPORTS: usize = 8;

impl Engine {
    /// Takes an opened compound from a client. At the first packet that does not parse the rest is dropped.
    pub(super) fn handle_rtcp(&mut self, now: Time, key: ClientKey, compound: &[u8]) {
        for packet in rtcp::iterate(compound) {
            match packet {
                Ok(packet) => self.handle_rtcp_packet(now, key, &packet),
                Err(_) => return self.count_drop(Some(key), Drop::RtcpMalformed),
            }
        }
    }

    fn handle_rtcp_packet(&mut self, now: Time, key: ClientKey, packet: &Packet<'_>) {
        match packet {
            Packet::SenderReport(report) => {
                if let Some(stream) = self.clients[key].streams.find(report.info.ssrc)
                    && let Some(publication) = self.publication_by_id.get(&stream.publication)
                    && !stream.is_rtx
                {
                    self.publications[*publication].publication.handle_sender_report(
                        now,
                        stream.encoding,
                        &report.info,
                    );
                }
                report.blocks().for_each(|block| self.handle_report_block(now, key, &block));
            }
            Packet::ReceiverReport(report) => {
                report.blocks().for_each(|block| self.handle_report_block(now, key, &block));
            }
            Packet::Bye(bye) => bye.ssrcs().for_each(|ssrc| self.handle_bye(now, key, ssrc)),
            Packet::Nack(nack) => {
                let Some(subscription) = self.subscription_of(key, nack.media_ssrc) else { return };
                let asked = self.subscriptions[subscription].subscription.handle_nack(now, nack.sequences());
                self.stats.add(Counter::NacksReceived, asked);
                self.queue_backlog(subscription);
            }
            Packet::Pli(pli) => self.handle_key_frame_request(now, key, pli.media_ssrc),
            Packet::Fir(fir) => fir.entries().for_each(|(ssrc, _)| self.handle_key_frame_request(now, key, ssrc)),
            // Nothing acts on bandwidth estimates yet: a viewer gets what the publisher sends.
            Packet::TransportCc(_) | Packet::Remb(_) => {}
            Packet::Sdes(_) | Packet::ExtendedReport(_) | Packet::Unknown { .. } => {}
        }
    }

    fn handle_report_block(&mut self, now: Time, key: ClientKey, block: &ReportBlock) {
        let Some(subscription) = self.subscription_of(key, block.ssrc) else { return };
        let subscription = &mut self.subscriptions[subscription].subscription;
        subscription.handle_receiver_report(now, block);
        if let Some(round_trip) = subscription.round_trip() {
            self.clients[key].round_trip_ms = Some(round_trip.0 as f64 / 1_000.0);
        }
    }

    fn handle_key_frame_request(&mut self, now: Time, key: ClientKey, ssrc: u32) {
        let Some(subscription) = self.subscription_of(key, ssrc) else { return };
        self.stats.add(Counter::KeyFrameRequestsReceived, 1);
        self.subscriptions[subscription].subscription.handle_key_frame_request(now);
        self.pass_on_key_frame_request_of(now, subscription);
        if let Some(at) = self.subscriptions[subscription].subscription.next_deadline() {
            self.deadlines.wake_by(key, at);
        }
    }

    fn handle_bye(&mut self, now: Time, key: ClientKey, ssrc: u32) {
        let Some(stream) = self.clients[key].streams.find(ssrc) else { return };
        let Some(&publication) = self.publication_by_id.get(&stream.publication) else { return };
        let publication = &mut self.publications[publication].publication;
        publication.handle_bye(now, stream.encoding, ssrc);
        if let Some(at) = publication.next_deadline() {
            self.deadlines.wake_by(key, at);
        }
    }

    /// Reports the client's publications that have ended: all their streams said BYE, and none has sent since.
    pub(super) fn end_publications(&mut self, now: Time, key: ClientKey) {
        for publication in &self.clients[key].publications {
            let publication = &mut self.publications[*publication].publication;
            if publication.take_ended(now) {
                self.events.push_back(Event::PublicationEnded(PublicationEnded { publication: publication.id() }));
            }
        }
    }

    /// The client's own subscription with this SSRC.
    fn subscription_of(&self, key: ClientKey, ssrc: u32) -> Option<SubscriptionKey> {
        let mut keys = self.clients[key].subscriptions.iter().copied();
        keys.find(|key| self.subscriptions[*key].subscription.ssrc() == ssrc)
    }

    /// Sends a client all reports that are due.
    pub(super) fn report(&mut self, now: Time, key: ClientKey) {
        for _ in 0..MAX_REPORTS {
            if !self.send_rtcp(key, |engine, writer| engine.write_reports(now, key, writer)) {
                return;
            }
        }
    }

    fn write_reports(&mut self, now: Time, key: ClientKey, writer: &mut Writer<'_>) {
        let client = &mut self.clients[key];
        let ssrc = client.reporter_ssrc();
        for publication in &client.publications {
            let publication = &mut self.publications[*publication].publication;
            if publication.feedback_due(now) {
                let before = publication.report();
                publication.write_feedback(now, writer);
                let after = publication.report();
                self.stats.add(Counter::NacksSent, after.nacks_sent - before.nacks_sent);
                self.stats
                    .add(Counter::KeyFrameRequestsSent, after.key_frame_requests_sent - before.key_frame_requests_sent);
                if let Some(round_trip) = publication.round_trip() {
                    client.round_trip_ms.get_or_insert(round_trip.0 as f64 / 1_000.0);
                }
            }
        }
        client.arrivals.write_feedback(now, writer, ssrc, client.media_ssrc);
        let clock = self.clock_for(key);
        for subscription in &self.clients[key].subscriptions {
            let subscription = &mut self.subscriptions[*subscription].subscription;
            let source = subscription.source_log().and_then(|log| self.readings.get(&log));
            let mapping = source.and_then(|reading| reading.feed.sender_report());
            subscription.write_sender_report(now, (mapping, clock), writer);
        }
    }

    /// Whose clock this viewer's reports follow. Its streams are one publisher's.
    fn clock_for(&self, key: ClientKey) -> Clock {
        let subscriptions = || self.clients[key].subscriptions.iter().map(|key| &self.subscriptions[*key].subscription);
        let readings = || subscriptions().filter_map(|one| self.readings.get(&one.source_log()?));
        if subscriptions().any(Subscription::guesses_clock) {
            Clock::Arrival
        } else if readings().any(|reading| reading.feed.sender_report().is_some()) {
            Clock::Publisher
        } else {
            Clock::Undecided
        }
    }

    /// Sends a viewer BYE for all its streams.
    pub(super) fn say_bye(&mut self, key: ClientKey) {
        let subscriptions = self.clients[key].subscriptions.clone();
        self.send_rtcp(key, |engine, writer| {
            for subscription in subscriptions {
                engine.write_bye(subscription, writer);
            }
        });
    }

    pub(super) fn write_bye(&mut self, subscription: SubscriptionKey, writer: &mut Writer<'_>) {
        // Without room, the end of its transport tells the viewer.
        let _written = self.subscriptions[subscription].subscription.write_bye(writer);
    }

    /// Builds one RTCP datagram, seals it and queues it. False when there was nothing to write, or no path to send it on.
    pub(super) fn send_rtcp(&mut self, key: ClientKey, write: impl FnOnce(&mut Engine, &mut Writer<'_>)) -> bool {
        if !self.clients[key].transport.is_connected() {
            return false;
        }
        let Some(path) = self.clients[key].transport.path() else { return false };
        let mut room = [0; DATAGRAM_ROOM];
        let mut writer = Writer::new(&mut room);
        write(self, &mut writer);
        let len = writer.len();
        if len == 0 {
            return false;
        }
        match self.clients[key].transport.seal_rtcp(&mut room, len) {
            Ok(len) if self.outbox.push(path, &room[..len]) => {
                self.clients[key].count_sent(len);
                true
            }
            Ok(_) => {
                self.count_drop(Some(key), Drop::OutboxFull);
                false
            }
            Err(drop) => {
                self.count_drop(Some(key), drop);
                false
            }
        }
    }
}
