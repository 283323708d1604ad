//! A datagram's way in: its kind (RFC 7983), its client, then ICE, DTLS, or SRTP and into the publication. A datagram for another
//! slot is handed over through the arena. A refused datagram is counted and must never be answered. Read `transport/mod.rs`
//! next for a client's datagrams, `forward/publication/mod.rs` for its packets.

use super::{ClientKey, Counter, Engine};
use crate::command::{Publish, TrackCodec};
use crate::drop::Drop;
use crate::event::{CodecInUse, Event, PublicationStarted};
use crate::outbox::{Path, SocketIndex};
use crate::rtp::{self, Header};
use crate::time::Time;
use crate::transport::demux::{Kind, classify};
use crate::transport::proof::asker_of;
use crate::transport::{Phase, stun};

impl Engine {
    /// Takes one datagram from the wire. It is opened in place, so its bytes are spoilt.
    pub fn handle_datagram(&mut self, now: Time, path: Path, datagram: &mut [u8]) {
        self.stats.add(Counter::DatagramsReceived, 1);
        self.stats.add(Counter::BytesReceived, datagram.len() as u64);
        let handled = match classify(datagram) {
            Kind::Stun => self.handle_stun(now, path, datagram, None),
            Kind::Unknown => Err((None, Drop::NotDemuxed)),
            kind => self.handle_owned(now, path, datagram, kind),
        };
        if let Err((key, drop)) = handled {
            self.count_drop(key, drop);
        }
    }

    /// Takes a datagram that another worker received and handed over.
    pub(super) fn handle_handed_over(&mut self, now: Time, from: u8, path: Path, datagram: &mut [u8]) {
        self.stats.add(Counter::HandoversIn, 1);
        let handled = match classify(datagram) {
            Kind::Stun => self.handle_stun(now, path, datagram, Some(from)),
            Kind::Unknown => Err((None, Drop::NotDemuxed)),
            // It was handed over because the address table named this slot. The client may have moved on or ended meanwhile.
            kind => match self.client_by_path.get(&path) {
                Some(key) => self.handle_client_datagram(now, *key, path, datagram, kind),
                None => match self.owner_of(path) {
                    Some(slot) if slot != self.slot && slot != from => {
                        self.hand_over(slot, path, datagram).map_err(|drop| (None, drop))
                    }
                    _ => self.handle_unknown_source(now, path, datagram, (kind, true)),
                },
            },
        };
        if let Err((key, drop)) = handled {
            self.count_drop(key, drop);
        }
    }

    fn handle_stun(
        &mut self,
        now: Time,
        path: Path,
        datagram: &mut [u8],
        handed_over_by: Option<u8>,
    ) -> Result<(), (Option<ClientKey>, Drop)> {
        let message = stun::Message::parse(datagram).map_err(|_| (None, Drop::StunMalformed))?;
        if message.is_binding_indication() {
            // A keepalive (RFC 8445 section 11) has no ufrag: its address tells its client.
            let Some(&key) = self.client_by_path.get(&path) else {
                return match self.owner_of(path) {
                    Some(slot) if handed_over_by.is_none() && slot != self.slot => {
                        self.hand_over(slot, path, datagram).map_err(|drop| (None, drop))
                    }
                    _ => Err((None, Drop::UnknownSource)),
                };
            };
            let handled = self.clients[key].transport.handle_stun(now, path, datagram, &mut self.outbox);
            return handled.map_err(|drop| (Some(key), drop));
        }
        if message.is_answer() {
            let asker = asker_of(message.transaction());
            return self.handle_answer(now, path, datagram, (asker, handed_over_by));
        }
        if !message.is_binding_request() {
            return Err((None, Drop::StunMalformed));
        }
        let ufrag = message.server_ufrag().ok_or((None, Drop::StunMalformed))?;
        let Some(&key) = self.client_by_ufrag.get(ufrag) else {
            // The table finds sessions that moved. The look costs the same whether a client or a stranger asks.
            let moved_to = self.arena.addresses().find_ufrag(ufrag);
            return match moved_to.or_else(|| slot_of(ufrag).filter(|_| handed_over_by.is_none())) {
                Some(slot) if slot != self.slot && slot < self.slots && Some(slot) != handed_over_by => {
                    if path.socket.is_tcp() && handed_over_by.is_none() {
                        self.pass_connection(path, slot);
                        return Ok(());
                    }
                    self.hand_over_named(slot, path, datagram)
                }
                _ => Err((None, Drop::StunUnknownUfrag)),
            };
        };
        self.stats.add(Counter::StunRequests, 1);
        // In the DTLS client role it is a check that begins the handshake.
        if self.clients[key].transport.would_start_handshake() && !self.has_room_for_handshake(now, path) {
            return Err((Some(key), Drop::TooManyHandshakes));
        }
        self.handle_stun_of(now, key, (path, false), datagram)
    }

    /// An answer to a request of ours. It names nobody, but its transaction id begins with who asked: it may come in anywhere, for
    /// where its address leads is what is being found out.
    fn handle_answer(
        &mut self,
        now: Time,
        path: Path,
        datagram: &[u8],
        (asker, handed_over_by): (u32, Option<u8>),
    ) -> Result<(), (Option<ClientKey>, Drop)> {
        let slot = (asker >> 24) as u8;
        if slot != self.slot {
            return match handed_over_by {
                None if slot < self.slots => self.hand_over_named(slot, path, datagram),
                _ => Err((None, Drop::StunUnexpectedAnswer)),
            };
        }
        let key = ClientKey::from((asker & 0xFF_FFFF) as usize);
        if !self.clients.contains(key) {
            return Err((None, Drop::StunUnexpectedAnswer));
        }
        self.handle_stun_of(now, key, (path, true), datagram)
    }

    /// Hands a datagram over by what it says. Anybody can name a slot: who floods it must not push out what its clients send.
    pub(super) fn hand_over_named(
        &mut self,
        slot: u8,
        path: Path,
        datagram: &[u8],
    ) -> Result<(), (Option<ClientKey>, Drop)> {
        let is_known = self.owner_of(path) == Some(slot);
        if !is_known && !self.arena.handover(self.slot, slot).has_room_for_strangers() {
            return Err((None, Drop::HandoverFull));
        }
        self.hand_over(slot, path, datagram).map_err(|drop| (None, drop))
    }

    fn handle_stun_of(
        &mut self,
        now: Time,
        key: ClientKey,
        (path, is_answer): (Path, bool),
        datagram: &[u8],
    ) -> Result<(), (Option<ClientKey>, Drop)> {
        let selected = self.clients[key].transport.path();
        let handled = self.clients[key].transport.handle_stun(now, path, datagram, &mut self.outbox);
        if handled.is_ok() {
            self.claim_back(now, key, path, is_answer);
        }
        self.handle_transport_events(now, key);
        if self.clients.contains(key) {
            if self.clients[key].transport.path() != selected {
                self.mark_unsaved(key);
            }
            self.handle_early(now, key);
        }
        if self.clients.contains(key) {
            self.schedule(now, key);
        }
        handled.map_err(|drop| (self.clients.contains(key).then_some(key), drop))
    }

    /// An address belongs to the client that proved it last. Another client may have done so since this one: its NAT had given it
    /// the same address. This one's next check, which may be a replay, has it asked back, and its answer claims it.
    fn claim_back(&mut self, now: Time, key: ClientKey, path: Path, is_answer: bool) {
        let is_ours = self.client_by_path.get(&path) == Some(&key) && self.owner_of(path) == Some(self.slot);
        if is_ours || !self.clients[key].transport.is_proven(path) {
            return;
        }
        if is_answer {
            self.claim(key, path);
        } else {
            self.clients[key].transport.ask(now, path, &mut self.outbox);
        }
    }

    fn handle_owned(
        &mut self,
        now: Time,
        path: Path,
        datagram: &mut [u8],
        kind: Kind,
    ) -> Result<(), (Option<ClientKey>, Drop)> {
        // DTLS on a known address may be another slot's client, which has the address now. Its media will follow.
        if kind == Kind::Dtls && self.owner_of(path).is_some_and(|owner| owner != self.slot) {
            self.client_by_path.remove(&path);
        }
        if let Some(&key) = self.client_by_path.get(&path) {
            return self.handle_client_datagram(now, key, path, datagram, kind);
        }
        match self.owner_of(path) {
            Some(slot) if slot != self.slot => self.hand_over(slot, path, datagram).map_err(|drop| (None, drop)),
            _ => self.handle_unknown_source(now, path, datagram, (kind, false)),
        }
    }

    fn hand_over(&mut self, slot: u8, path: Path, datagram: &[u8]) -> Result<(), Drop> {
        if !self.arena.handover(self.slot, slot).push(path.socket.0, path.remote, datagram) {
            return Err(Drop::HandoverFull);
        }
        self.stats.add(Counter::HandoversOut, 1);
        self.doorbells |= 1 << slot;
        Ok(())
    }

    fn handle_client_datagram(
        &mut self,
        now: Time,
        key: ClientKey,
        path: Path,
        datagram: &mut [u8],
        kind: Kind,
    ) -> Result<(), (Option<ClientKey>, Drop)> {
        let client = &mut self.clients[key];
        client.traffic.packets_received += 1;
        client.traffic.bytes_received += datagram.len() as u64;
        if client.must_wait(path, kind == Kind::Dtls) {
            return self.queue_early(key, path, datagram, kind);
        }
        self.handle_in_turn(now, key, path, datagram, kind)
    }

    pub(super) fn handle_in_turn(
        &mut self,
        now: Time,
        key: ClientKey,
        path: Path,
        datagram: &mut [u8],
        kind: Kind,
    ) -> Result<(), (Option<ClientKey>, Drop)> {
        let client = &mut self.clients[key];
        let handled = match kind {
            Kind::Dtls => return self.handle_dtls(now, key, path, datagram),
            Kind::Rtp => client
                .transport
                .open_rtp(now, path, datagram)
                .and_then(|len| self.handle_rtp(now, key, &datagram[..len])),
            _ => match client.transport.open_rtcp(now, path, datagram) {
                Ok(len) => {
                    self.handle_rtcp(now, key, &datagram[..len]);
                    Ok(())
                }
                Err(drop) => Err(drop),
            },
        };
        handled.map_err(|drop| (Some(key), drop))
    }

    fn handle_dtls(
        &mut self,
        now: Time,
        key: ClientKey,
        path: Path,
        datagram: &[u8],
    ) -> Result<(), (Option<ClientKey>, Drop)> {
        if self.clients[key].transport.phase() == Phase::Checked && !self.has_room_for_handshake(now, path) {
            return Err((Some(key), Drop::TooManyHandshakes));
        }
        let handled = self.clients[key].transport.handle_dtls(now, path, datagram, &mut self.outbox);
        self.handle_transport_events(now, key);
        if self.clients.contains(key) {
            self.schedule(now, key);
        }
        handled.map_err(|drop| (self.clients.contains(key).then_some(key), drop))
    }

    /// Counts this client among the handshakes under way, or no longer, as its phase says.
    pub(super) fn count_handshakes(&mut self, key: ClientKey) {
        let client = &mut self.clients[key];
        let is_handshaking = client.transport.phase() == Phase::Handshaking;
        if is_handshaking != client.is_handshaking {
            client.is_handshaking = is_handshaking;
            if is_handshaking {
                self.handshakes += 1;
            } else {
                self.handshakes -= 1;
            }
            self.stats.set(Counter::Handshakes, self.handshakes as u64);
            self.mark_unsaved(key);
        }
    }

    pub(super) fn handle_rtp(&mut self, now: Time, key: ClientKey, packet: &[u8]) -> Result<(), Drop> {
        let header = Header::parse(packet).map_err(|_| Drop::RtpMalformed)?;
        let client = &mut self.clients[key];
        if let Some(id) = client.transport_cc
            && let Some(&[high, low]) = rtp::extensions::find(packet, &header, id)
        {
            client.arrivals.record(now, u16::from_be_bytes([high, low]));
            // Also of a stream that nobody knows: a client that probes before its first frame would else never learn what its path takes.
            if let Some(at) = client.arrivals.next_deadline() {
                self.deadlines.wake_by(key, at);
            }
        }
        client.media_ssrc = header.ssrc;
        let learnt = client.streams.learnt();
        let stream = client.streams.resolve(&header, packet)?;
        if client.streams.learnt() != learnt {
            self.mark_unsaved(key);
        }
        let publication = *self.publication_by_id.get(&stream.publication).ok_or(Drop::RtpUnknownStream)?;
        self.stats.add(Counter::PacketsReceived, 1);
        let published = &mut self.publications[publication];
        let recovered = published.publication.packets_recovered();
        let handled = published.publication.handle_rtp(now, stream.encoding, stream.is_rtx, packet);
        self.stats.add(Counter::PacketsRecovered, published.publication.packets_recovered() - recovered);
        if handled.is_ok() && !published.has_news {
            published.has_news = true;
            self.advanced.push(publication);
        }
        if published.publication.take_started() {
            self.events.push_back(Event::PublicationStarted(PublicationStarted { publication: stream.publication }));
        }
        if let Some(TrackCodec { codec, nack, pli, fir }) = published.publication.take_codec(now) {
            // For a successor of a release that takes one codec.
            published.publish = Publish { codec, nack, pli, fir, ..published.publish.clone() };
            let (publication, payload_type) = (stream.publication, codec.payload_type);
            self.events.push_back(Event::CodecInUse(CodecInUse { publication, payload_type }));
            self.mark_unsaved(key);
        }
        let published = &mut self.publications[publication];
        if let Some(at) = published.publication.next_deadline() {
            self.deadlines.wake_by(key, at);
        }
        if handled.is_ok() {
            self.note_heard(now, key);
        }
        handled
    }
}

/// The slot that made this ufrag, from its first two hex digits.
pub(super) fn slot_of(ufrag: &str) -> Option<u8> {
    u8::from_str_radix(ufrag.get(..2)?, 16).ok()
}

/// The path on which a datagram that was handed over came in.
pub(super) fn path_of(socket: u8, remote: std::net::SocketAddr) -> Path {
    Path { socket: SocketIndex(socket), remote }
}
