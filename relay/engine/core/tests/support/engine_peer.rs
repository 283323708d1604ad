//! A client of the box, as its checks, handshake, packets and reports look on the wire. Owns what it sends and all that it
//! got; must never look into an engine. Read the tests next.

#![allow(dead_code)]
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use millrace_core::command::{Codec, CodecName, DtlsRole, FingerprintHash, OpenTransport, Subscribe};
use millrace_core::outbox::{Outbox, Path};
use millrace_core::rtcp::{self, Packet, SenderInfo, Writer};
use millrace_core::rtp::extensions::Elements;
use millrace_core::rtp::{Fields, Header, sequence};
use millrace_core::time::{Span, Time};
use millrace_core::transport::{DtlsContexts, SEAL_ROOM, Transport};

use crate::support::{
    CLIENT_PWD, CLIENT_UFRAG, Check, LIMITS, SERVER, answer_to, drain, outbox, path, run_step, take_dtls,
};
use crate::world::{MID, REPAIRED_RID, RID, TRANSPORT_CC};

/// Before a missing packet is asked for, and between two requests for it.
const NACK_GRACE: Span = Span::from_millis(20);
const NACK_RETRY: Span = Span::from_millis(60);
const REPORT_INTERVAL: Span = Span::from_secs(1);
/// Seconds from the NTP epoch to what a publisher takes its clock for at time zero: any number.
const NTP_ZERO: u64 = 3_900_000_000;

/// The server side's ICE credentials, which the client uses.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub ufrag: String,
    pub pwd: String,
}

impl Credentials {
    pub fn new(slot: usize, id: u64) -> Credentials {
        Credentials { ufrag: format!("{slot:02x}{id:08}"), pwd: format!("{id:024}") }
    }
}

/// The client's own password; each has another.
pub fn client_pwd(id: u64) -> String {
    format!("{CLIENT_PWD}{id}")
}

/// A stream that the client sends.
pub struct Source {
    pub ssrc: u32,
    pub codec: Codec,
    pub mid: Option<&'static str>,
    pub rid: Option<&'static str>,
    pub rtx_ssrc: Option<u32>,
    /// What is asked for is sent again under its own SSRC and number, as libdatachannel does.
    pub repeats: bool,
    pub index: u64,
    pub rtx_index: u64,
    /// The RTP timestamp at `began_at`.
    pub timestamp: u32,
    pub began_at: Time,
    pub interval: Span,
    pub next_at: Option<Time>,
    pub report_at: Option<Time>,
    pub packets_per_frame: usize,
    /// Packets of a key frame; as many as of others when 0.
    pub key_packets: usize,
    pub payload: usize,
    /// Of the picture, which VP8's key frames tell; none when 0.
    pub height: u16,
    pub made: u64,
    pub key_next: bool,
    pub key_frames: u64,
    /// Plain packets that can be sent again, by index.
    pub history: BTreeMap<u64, Vec<u8>>,
    /// Every number: index and RTP timestamp.
    pub sent: Vec<(u64, u32)>,
}

impl Source {
    pub fn new(ssrc: u32, codec: Codec, now: Time) -> Source {
        let is_audio = codec.name == CodecName::Opus;
        Source {
            ssrc,
            codec,
            mid: Some(if is_audio { "a" } else { "v" }),
            rid: None,
            rtx_ssrc: codec.rtx_payload_type.map(|_| ssrc + 50_000),
            repeats: false,
            index: 1_000,
            rtx_index: 7,
            timestamp: ssrc.wrapping_mul(0x9e37_79b9),
            began_at: now,
            interval: Span::from_millis(if is_audio { 20 } else { 33 }),
            next_at: Some(now),
            report_at: Some(now + Span::from_millis(50)),
            packets_per_frame: if is_audio { 1 } else { 4 },
            key_packets: 0,
            payload: if is_audio { 80 } else { 900 },
            height: 0,
            made: 0,
            key_next: true,
            key_frames: 0,
            history: BTreeMap::new(),
            sent: Vec::new(),
        }
    }

    /// The RTP timestamp that this stream's clock shows.
    pub fn timestamp_at(&self, now: Time) -> u32 {
        let ticks = u128::from(now.since(self.began_at).0) * u128::from(self.codec.clock_rate) / 1_000_000;
        self.timestamp.wrapping_add(ticks as u32)
    }

    fn head(&self, fields: Fields, rid: u8, wide: Option<u16>) -> Vec<u8> {
        let mut elements = Elements::new();
        if let Some(mid) = self.mid {
            elements.set(MID, mid.as_bytes());
        }
        if let Some(name) = self.rid {
            elements.set(rid, name.as_bytes());
        }
        let wide = wide.map(u16::to_be_bytes);
        if let Some(wide) = &wide {
            elements.set(TRANSPORT_CC, wide);
        }
        let mut head = vec![0; 100];
        let len = fields.write(!elements.is_empty(), &mut head).unwrap();
        let len = len + elements.write(&mut head[len..]).unwrap();
        head.truncate(len);
        head
    }

    fn packet(&mut self, now: Time, (is_first, is_last, is_key): (bool, bool, bool), wide: Option<u16>) -> Vec<u8> {
        let timestamp = self.timestamp_at(now);
        let is_audio = self.codec.name == CodecName::Opus;
        let fields = Fields {
            marker: is_last && !is_audio,
            payload_type: self.codec.payload_type,
            sequence: self.index as u16,
            timestamp,
            ssrc: self.ssrc,
        };
        let mut packet = self.head(fields, RID, wide);
        let start = match self.codec.name {
            CodecName::Opus => [0xf8, 1],
            // RFC 9628: B on the first packet, P unless it is a key frame; then any byte.
            CodecName::Vp9 => [u8::from(is_first) << 3 | u8::from(!is_key) << 6, 0x80],
            // RFC 7741: S on the first packet of partition zero; then the frame header's inverse key frame bit.
            _ => [u8::from(is_first) << 4, u8::from(!is_key)],
        };
        packet.extend(start);
        let end = packet.len() + self.payload.saturating_sub(10);
        if is_first && is_key && self.height > 0 {
            // RFC 6386 section 9.1: the rest of the frame tag, start code, width and height.
            packet.extend([0, 0, 0x9d, 0x01, 0x2a]);
            packet.extend((self.height / 9 * 16).to_le_bytes());
            packet.extend(self.height.to_le_bytes());
        }
        packet.resize(end, 0x5a);
        packet.extend(self.made.to_be_bytes());
        self.sent.push((self.index, timestamp));
        self.history.insert(self.index, packet.clone());
        if self.history.len() > 2_000 {
            self.history.pop_first();
        }
        self.made += 1;
        self.index += 1;
        packet
    }

    fn rtx(&mut self, index: u64, wide: Option<u16>) -> Option<(u64, Vec<u8>)> {
        let original = self.history.get(&index)?.clone();
        let header = Header::parse(&original).unwrap();
        let (Some(ssrc), Some(payload_type)) = (self.rtx_ssrc, self.codec.rtx_payload_type) else {
            // Opus without RTX is not sent again.
            return None;
        };
        let fields = Fields { payload_type, sequence: self.rtx_index as u16, ssrc, ..header.fields() };
        let mut packet = self.head(fields, REPAIRED_RID, wide);
        packet.extend(header.sequence.to_be_bytes());
        packet.extend(header.payload(&original));
        self.rtx_index += 1;
        Some((self.rtx_index - 1, packet))
    }
}

/// A packet of a subscription as it came.
#[derive(Clone, Copy, Debug)]
pub struct Got {
    pub number: u64,
    pub timestamp: u32,
    pub payload_type: u8,
    pub at: Time,
    pub is_repair: bool,
}

/// What was received of one subscription.
pub struct Received {
    pub ssrc: u32,
    pub rtx_ssrc: Option<u32>,
    pub packets: BTreeMap<u64, Got>,
    /// Packets that came although they were there already.
    pub duplicates: u64,
    pub repairs: u64,
    pub reports: Vec<(Time, SenderInfo)>,
    pub said_bye: bool,
    pub cname: Option<Vec<u8>>,
    first: Option<u64>,
    highest: Option<u64>,
    missing: BTreeMap<u64, (Time, u32)>,
}

impl Received {
    pub fn numbers(&self) -> Vec<u64> {
        self.packets.values().map(|got| got.number).collect()
    }

    /// True when no sequence number between the first and the last is missing.
    pub fn is_whole(&self) -> bool {
        let (first, last) = (self.packets.keys().next(), self.packets.keys().next_back());
        first.zip(last).is_none_or(|(first, last)| last - first + 1 == self.packets.len() as u64)
    }

    pub fn last(&self) -> Option<Got> {
        self.packets.values().next_back().copied()
    }

    fn take(&mut self, now: Time, index: u64, got: Got, asks: bool) {
        if let Some(highest) = self.highest {
            for missed in (highest + 1..index).filter(|_| asks) {
                self.missing.insert(missed, (now + NACK_GRACE, 0));
            }
        }
        self.first = self.first.or(Some(index));
        self.highest = self.highest.max(Some(index));
        self.missing.remove(&index);
        self.repairs += u64::from(got.is_repair);
        self.duplicates += u64::from(self.packets.insert(index, got).is_some());
    }
}

/// RTCP that came from the box for what this client sends.
#[derive(Default)]
pub struct Feedback {
    pub plis: Vec<(Time, u32)>,
    pub nacks: u64,
    pub receiver_reports: u64,
    pub blocks: Vec<rtcp::ReportBlock>,
    /// Wide sequence numbers reported as arrived.
    pub arrived: Vec<u16>,
    pub wide_lost: u64,
}

pub struct Peer {
    pub slot: usize,
    /// The slot whose socket gets this client's datagrams from the kernel.
    pub enters_at: usize,
    pub id: u64,
    pub address: SocketAddr,
    pub transport: Transport,
    pub credentials: Credentials,
    pub check_at: Option<Time>,
    pub nominates: bool,
    checks: u64,
    pub up: Option<crate::world::Link>,
    pub down: Option<crate::world::Link>,
    pub sources: Vec<Source>,
    pub received: Vec<Received>,
    pub feedback: Feedback,
    /// Answers to checks that came.
    pub answers: u64,
    pub stun_errors: u64,
    /// Whether it answers requests of the box, naming in its answers where they came from; and how many it has answered.
    pub answers_requests: bool,
    pub answers_after_dtls: bool,
    pub names: bool,
    /// Whether it begins DTLS when it is answered.
    pub begins_handshake: bool,
    pub requests: u64,
    /// Media and reports that did not open.
    pub refused: Vec<millrace_core::drop::Drop>,
    pub asks: bool,
    pub answers_nacks: bool,
    pub answers_plis: bool,
    pub has_transport_cc: bool,
    pub wide: u16,
    pub cut: bool,
    report_at: Option<Time>,
    sent: VecDeque<Vec<u8>>,
    out: Outbox,
    server: Path,
}

impl Peer {
    pub fn new(
        now: Time,
        (slot, id, address): (usize, u64, SocketAddr),
        credentials: Credentials,
        dtls_role: DtlsRole,
        contexts: &DtlsContexts,
        fingerprint: &[u8],
    ) -> Peer {
        let open = OpenTransport {
            transport: id,
            local_ufrag: CLIENT_UFRAG.into(),
            local_pwd: client_pwd(id),
            remote_ufrag: credentials.ufrag.clone(),
            remote_pwd: credentials.pwd.clone(),
            dtls_role,
            fingerprint_hash: FingerprintHash::Sha256,
            fingerprints: vec![serde_bytes::ByteBuf::from(fingerprint)],
            expects_media: false,
        };
        let limits = millrace_core::transport::Limits {
            max_streams: 1_000,
            ice_timeout: Span::from_secs(100_000),
            handshake_timeout: Span::from_secs(100_000),
            consent_timeout: Span::from_secs(100_000),
            ..LIMITS
        };
        Peer {
            slot,
            enters_at: slot,
            id,
            address,
            transport: Transport::new(now, &open, contexts, &limits).unwrap(),
            credentials,
            check_at: None,
            nominates: true,
            checks: 0,
            up: None,
            down: None,
            sources: Vec::new(),
            received: Vec::new(),
            feedback: Feedback::default(),
            answers: 0,
            stun_errors: 0,
            answers_requests: true,
            answers_after_dtls: true,
            names: true,
            begins_handshake: true,
            requests: 0,
            refused: Vec::new(),
            asks: true,
            answers_nacks: true,
            answers_plis: true,
            has_transport_cc: false,
            wide: 65_000,
            cut: false,
            report_at: None,
            sent: VecDeque::new(),
            out: outbox(),
            server: path(SERVER),
        }
    }

    pub fn expect(&mut self, subscribe: &Subscribe) {
        self.received.push(Received {
            ssrc: subscribe.ssrc,
            rtx_ssrc: subscribe.rtx_ssrc,
            packets: BTreeMap::new(),
            duplicates: 0,
            repairs: 0,
            reports: Vec::new(),
            said_bye: false,
            cname: None,
            first: None,
            highest: None,
            missing: BTreeMap::new(),
        });
    }

    pub fn got(&self, ssrc: u32) -> &Received {
        self.received.iter().find(|received| received.ssrc == ssrc).unwrap()
    }

    /// Adds a stream that runs from now on; returns its index in `sources`.
    pub fn add(&mut self, source: Source) -> usize {
        self.sources.push(source);
        self.sources.len() - 1
    }

    pub fn stop_media(&mut self) {
        for source in &mut self.sources {
            (source.next_at, source.report_at) = (None, None);
        }
    }

    pub fn next_deadline(&self) -> Option<Time> {
        let sources = self.sources.iter().flat_map(|source| [source.next_at, source.report_at]).flatten();
        let sources = sources.filter(|_| self.transport.is_connected());
        let asks = self.received.iter().flat_map(|received| received.missing.values().map(|(at, _)| *at));
        let asks = asks.chain(self.report_at).filter(|_| self.asks && self.transport.is_connected());
        let rest = [self.check_at, self.transport.next_deadline()].into_iter().flatten();
        sources.chain(asks).chain(rest).min()
    }

    pub fn handle_deadlines(&mut self, now: Time) {
        if self.check_at.is_some_and(|at| at <= now) {
            self.check();
            self.check_at = Some(now + Span::from_secs(1));
            if self.answers > 0 && self.begins_handshake {
                self.believe(now);
            }
        }
        if self.transport.next_deadline().is_some_and(|at| at <= now) {
            self.transport.handle_deadline(now, &mut self.out);
            self.take_out();
        }
        if !self.transport.is_connected() {
            return;
        }
        for at in 0..self.sources.len() {
            if self.sources[at].next_at.is_some_and(|next| next <= now) {
                self.send_frame(now, at);
            }
            if self.sources[at].report_at.is_some_and(|next| next <= now) {
                self.send_report(now, at);
            }
        }
        if self.asks {
            self.send_feedback(now);
        }
    }

    /// Its own side knows that the box is there, and begins the handshake if that is its part.
    fn believe(&mut self, now: Time) {
        let own = Check::to(CLIENT_UFRAG, &client_pwd(self.id)).from(&self.credentials.ufrag).bytes();
        let _refused_when_closed = self.transport.handle_stun(now, self.server, &own, &mut self.out);
        self.transport.vouch_for(now, self.server, &mut self.out);
        run_step(&mut self.transport, now, &mut self.out);
        self.take_out();
    }

    /// A connectivity check to the box.
    pub fn check(&mut self) {
        let mut check = Check::to(&self.credentials.ufrag, &self.credentials.pwd);
        check.nominates = self.nominates;
        self.checks += 1;
        check.transaction[4..].copy_from_slice(&self.checks.to_be_bytes());
        self.sent.push_back(check.bytes());
    }

    /// One frame of a source, now.
    pub fn send_frame(&mut self, now: Time, at: usize) {
        let wide = self.has_transport_cc;
        let source = &mut self.sources[at];
        let is_key = std::mem::take(&mut source.key_next);
        source.key_frames += u64::from(is_key);
        let count = if is_key && source.key_packets > 0 { source.key_packets } else { source.packets_per_frame };
        let mut packets = Vec::with_capacity(count);
        for place in 0..count {
            let number = wide.then_some(self.wide);
            self.wide = self.wide.wrapping_add(u16::from(wide));
            let index = source.index;
            packets.push((index, source.packet(now, (place == 0, place + 1 == count, is_key), number)));
        }
        source.next_at = source.next_at.map(|at| at + source.interval);
        for (index, packet) in packets {
            self.send_rtp(index, &packet);
        }
    }

    pub fn send_rtp(&mut self, index: u64, plain: &[u8]) {
        let mut buffer = plain.to_vec();
        buffer.resize(plain.len() + SEAL_ROOM, 0);
        let len = self.transport.seal_rtp(index, &mut buffer, plain.len()).unwrap();
        buffer.truncate(len);
        self.sent.push_back(buffer);
    }

    pub fn send_rtcp(&mut self, write: impl FnOnce(&mut Writer<'_>)) {
        let mut buffer = [0; 1_300];
        let mut writer = Writer::new(&mut buffer);
        write(&mut writer);
        let len = writer.len();
        let len = self.transport.seal_rtcp(&mut buffer, len).unwrap();
        self.sent.push_back(buffer[..len].to_vec());
    }

    /// The NTP time that this client's clock shows.
    pub fn ntp(now: Time) -> u64 {
        (NTP_ZERO << 32) + ((u128::from(now.0) << 32) / 1_000_000) as u64
    }

    fn send_report(&mut self, now: Time, at: usize) {
        let source = &mut self.sources[at];
        source.report_at = Some(now + REPORT_INTERVAL);
        let info = SenderInfo {
            ssrc: source.ssrc,
            ntp: Peer::ntp(now),
            rtp_timestamp: source.timestamp_at(now),
            packet_count: source.made as u32,
            octet_count: 0,
        };
        self.send_rtcp(|writer| assert!(writer.sender_report(&info, &[])));
    }

    fn send_feedback(&mut self, now: Time) {
        let mut nacks: Vec<(u32, Vec<u16>)> = Vec::new();
        let mut blocks = Vec::new();
        let reports = self.report_at.is_some_and(|at| at <= now);
        for received in &mut self.received {
            let due: Vec<u64> = received.missing.iter().filter(|(_, (at, _))| *at <= now).map(|(at, _)| *at).collect();
            for index in &due {
                let (next, asked) = received.missing[index];
                assert!(next <= now);
                if asked < 20 {
                    received.missing.insert(*index, (now + NACK_RETRY, asked + 1));
                } else {
                    received.missing.remove(index);
                }
            }
            if !due.is_empty() {
                nacks.push((received.ssrc, due.iter().map(|index| *index as u16).collect()));
            }
            if let Some((sent_at, info)) = received.reports.last().filter(|_| reports && blocks.len() < 31) {
                blocks.push(rtcp::ReportBlock {
                    ssrc: received.ssrc,
                    last_sender_report: (info.ntp >> 16) as u32,
                    delay: (now.since(*sent_at).0 * 65_536 / 1_000_000) as u32,
                    ..rtcp::ReportBlock::default()
                });
            }
        }
        if reports {
            self.report_at = Some(now + REPORT_INTERVAL);
            self.send_rtcp(|writer| assert!(writer.receiver_report(77, &blocks)));
        }
        for (ssrc, sequences) in nacks {
            let mut rest = sequences.as_slice();
            while !rest.is_empty() {
                let mut taken = 0;
                self.send_rtcp(|writer| {
                    assert!(writer.receiver_report(77, &[]));
                    taken = writer.nack(77, ssrc, rest);
                });
                rest = &rest[taken..];
            }
        }
    }

    pub fn send_pli(&mut self, ssrc: u32) {
        self.send_rtcp(|writer| assert!(writer.receiver_report(77, &[]) && writer.pli(77, ssrc)));
    }

    pub fn handle_datagram(&mut self, now: Time, bytes: &mut [u8]) {
        if self.cut {
            return;
        }
        match bytes[0] {
            0..4 => {
                let kind = u16::from_be_bytes([bytes[0], bytes[1]]);
                if kind == 0x0101 {
                    self.answers += 1;
                    if self.answers == 1 && self.begins_handshake {
                        self.believe(now);
                    }
                }
                self.stun_errors += u64::from(kind == 0x0111);
                if self.answers_requests
                    && (self.answers_after_dtls || !self.transport.is_connected())
                    && let Some(answer) =
                        answer_to(bytes, &client_pwd(self.id), self.names.then_some(self.server.remote))
                {
                    self.requests += 1;
                    self.sent.push_back(answer);
                }
            }
            20..64 => {
                // A flight that comes before the client's own path is there is lost, as on a real host.
                let _ = take_dtls(&mut self.transport, now, self.server, bytes, &mut self.out);
                self.take_out();
            }
            _ if (192..224).contains(&bytes[1]) => match self.transport.open_rtcp(now, self.server, bytes) {
                Ok(len) => self.handle_rtcp(now, &bytes[..len]),
                Err(drop) => self.refused.push(drop),
            },
            _ => match self.transport.open_rtp(now, self.server, bytes) {
                Ok(len) => self.handle_rtp(now, &bytes[..len]),
                Err(drop) => self.refused.push(drop),
            },
        }
    }

    fn handle_rtp(&mut self, now: Time, packet: &[u8]) {
        let header = Header::parse(packet).unwrap();
        let found = self.received.iter_mut().find(|r| r.ssrc == header.ssrc || r.rtx_ssrc == Some(header.ssrc));
        let received = found.unwrap_or_else(|| panic!("an SSRC that nobody subscribed: {}", header.ssrc));
        self.report_at = self.report_at.or(Some(now + REPORT_INTERVAL));
        let is_repair = header.ssrc != received.ssrc;
        let (wire, payload) = match is_repair {
            true => {
                let payload = header.payload(packet);
                (u16::from_be_bytes([payload[0], payload[1]]), &payload[2..])
            }
            false => (header.sequence, header.payload(packet)),
        };
        let reference = received.highest.unwrap_or(65_536 + u64::from(wire));
        let index = sequence::nearest(reference, wire);
        let number = u64::from_be_bytes(*payload.last_chunk().unwrap());
        let (timestamp, payload_type) = (header.timestamp, header.payload_type);
        let asks = self.asks;
        received.take(now, index, Got { number, timestamp, payload_type, at: now, is_repair }, asks);
    }

    fn handle_rtcp(&mut self, now: Time, compound: &[u8]) {
        for packet in rtcp::iterate(compound) {
            match packet.unwrap() {
                Packet::SenderReport(report) => {
                    let received = self.received.iter_mut().find(|received| received.ssrc == report.info.ssrc);
                    received.unwrap().reports.push((now, report.info));
                }
                Packet::ReceiverReport(report) => {
                    self.feedback.receiver_reports += 1;
                    self.feedback.blocks.extend(report.blocks());
                }
                Packet::Pli(pli) => {
                    self.feedback.plis.push((now, pli.media_ssrc));
                    let answers = self.answers_plis;
                    let asked = self.sources.iter_mut().filter(|source| source.ssrc == pli.media_ssrc && answers);
                    asked.for_each(|source| source.key_next = true);
                }
                Packet::Nack(nack) => self.answer_nack(&nack),
                Packet::TransportCc(report) => {
                    for status in report.statuses() {
                        match status.arrived {
                            Some(_) => self.feedback.arrived.push(status.sequence),
                            None => self.feedback.wide_lost += 1,
                        }
                    }
                }
                Packet::Bye(bye) => {
                    for ssrc in bye.ssrcs() {
                        let gone = self.received.iter_mut().filter(|received| received.ssrc == ssrc);
                        gone.for_each(|received| received.said_bye = true);
                    }
                }
                Packet::Sdes(sdes) => {
                    for (ssrc, cname) in sdes.chunks() {
                        let named = self.received.iter_mut().filter(|received| received.ssrc == ssrc);
                        named.for_each(|received| received.cname = cname.map(<[u8]>::to_vec));
                    }
                }
                _ => {}
            }
        }
    }

    fn answer_nack(&mut self, nack: &rtcp::Nack<'_>) {
        let Some(at) = self.sources.iter().position(|source| source.ssrc == nack.media_ssrc) else { return };
        for wire in nack.sequences() {
            self.feedback.nacks += 1;
            let source = &mut self.sources[at];
            let index = sequence::nearest(source.index, wire);
            let wide = (self.has_transport_cc && self.answers_nacks).then_some(self.wide);
            if !self.answers_nacks {
                continue;
            }
            if source.repeats
                && let Some(packet) = source.history.get(&index).cloned()
            {
                self.send_rtp(index, &packet);
            } else if let Some((rtx_index, packet)) = source.rtx(index, wide) {
                self.wide = self.wide.wrapping_add(u16::from(wide.is_some()));
                self.send_rtp(rtx_index, &packet);
            }
        }
    }

    /// What the client's transport sends, without its answers to the checks that it was given.
    fn take_out(&mut self) {
        self.sent.extend(drain(&mut self.out).into_iter().map(|(_, bytes)| bytes).filter(|bytes| bytes[0] >= 20));
    }

    pub fn take_sent(&mut self) -> Vec<Vec<u8>> {
        let sent = std::mem::take(&mut self.sent);
        if self.cut { Vec::new() } else { sent.into() }
    }
}
