//! A publisher and viewers around one arena, in virtual time: the calls that the engine makes, without transports. Must
//! never decide what is right; the tests do. Read `main.rs` next.

use std::collections::BTreeMap;

use millrace_arena::{Arena, Parameters};
use millrace_core::command::{
    Attach, Codec, CodecName, Encoding, Extension, ExtensionKind, Format, MediaKind, Publish, Subscribe,
};
use millrace_core::drop::Drop;
use millrace_core::forward::feed::{Feed, Scratch};
use millrace_core::forward::publication::Publication;
use millrace_core::forward::subscription::Subscription;
use millrace_core::rtcp::{self, Packet, Writer};
use millrace_core::rtp::{Fields, Header};
use millrace_core::time::{Span, Time};

pub const VIDEO: Codec =
    Codec { name: CodecName::Vp8, payload_type: 96, rtx_payload_type: Some(97), clock_rate: 90_000 };
pub const AUDIO: Codec = Codec { name: CodecName::Opus, payload_type: 111, rtx_payload_type: None, clock_rate: 48_000 };
const MID: Extension = Extension { id: 4, kind: ExtensionKind::Mid };
pub const PLAYOUT_DELAY: Extension = Extension { id: 6, kind: ExtensionKind::PlayoutDelay };

pub fn arena(log_packets: u32) -> Arena {
    Arena::in_memory(Parameters { slots: 2, logs_per_slot: 8, log_packets, ..Parameters::SMALL })
}

pub fn ms(ms: u64) -> Time {
    Time(50_000_000) + Span::from_millis(ms)
}

pub fn publish(publication: u64, codec: Codec, logs: &[u32]) -> Publish {
    let is_audio = codec.name == CodecName::Opus;
    Publish {
        publication,
        transport: 1,
        kind: if is_audio { MediaKind::Audio } else { MediaKind::Video },
        mid: "0".into(),
        codec,
        encodings: logs.iter().map(|log| Encoding { rid: None, ssrc: None, rtx_ssrc: None, log: *log }).collect(),
        extensions: vec![],
        nack: true,
        pli: true,
        fir: true,
        codecs: vec![],
        parameter_sets: Default::default(),
    }
}

/// What a client sends for one encoding. Each packet's payload says which one it is.
pub struct Source {
    pub ssrc: u32,
    pub codec: Codec,
    pub sequence: u16,
    pub timestamp: u32,
    /// Packets made so far; the payload of each carries its number.
    pub made: u64,
}

impl Source {
    pub fn new(ssrc: u32, codec: Codec, sequence: u16, timestamp: u32) -> Source {
        Source { ssrc, codec, sequence, timestamp, made: 0 }
    }

    fn head(&mut self, marker: bool) -> Vec<u8> {
        let mut bytes = vec![0; 12];
        let Codec { payload_type, .. } = self.codec;
        let (sequence, timestamp, ssrc) = (self.sequence, self.timestamp, self.ssrc);
        Fields { marker, payload_type, sequence, timestamp, ssrc }.write(false, &mut bytes);
        self.sequence = self.sequence.wrapping_add(1);
        self.made += 1;
        bytes
    }

    /// The packets of one VP8 frame; the clock moves on by 30 ms.
    pub fn frame(&mut self, key: bool, packets: usize) -> Vec<Vec<u8>> {
        let frame = (0..packets).map(|at| {
            let number = self.made;
            let mut bytes = self.head(at + 1 == packets);
            bytes.extend([if at == 0 { 0x10 } else { 0 }, u8::from(!key)]);
            bytes.extend(number.to_be_bytes());
            bytes
        });
        let frame = frame.collect();
        self.timestamp = self.timestamp.wrapping_add(2_700);
        frame
    }

    /// One packet of 20 ms of Opus.
    pub fn sound(&mut self) -> Vec<u8> {
        let number = self.made;
        let mut bytes = self.head(false);
        bytes.extend([0xf8, 1]);
        bytes.extend(number.to_be_bytes());
        self.timestamp = self.timestamp.wrapping_add(960);
        bytes
    }

    /// A packet of padding only, as congestion control probes with.
    pub fn padding(&mut self) -> Vec<u8> {
        let mut bytes = self.head(false);
        bytes[0] |= 0x20;
        bytes.extend([0, 0, 0, 4]);
        bytes
    }
}

/// A packet as its RTX form.
pub fn rtx(packet: &[u8], ssrc: u32, sequence: u16) -> Vec<u8> {
    let header = Header::parse(packet).unwrap();
    let mut bytes = vec![0; 12];
    Fields { payload_type: 97, sequence, ssrc, ..header.fields() }.write(false, &mut bytes);
    bytes.extend(header.sequence.to_be_bytes());
    bytes.extend(header.payload(packet));
    bytes
}

/// The number that a payload carries; `None` for padding.
pub fn number(packet: &[u8]) -> Option<u64> {
    let header = Header::parse(packet).unwrap();
    header.payload(packet).get(2..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// A codec of the publisher's as the viewer numbers it: 24 higher.
fn viewed(codec: Codec) -> Format {
    let Codec { payload_type, rtx_payload_type, .. } = codec;
    let rtx_payload_type = rtx_payload_type.map(|number| number + 24);
    Format { payload_type, codec: Codec { payload_type: payload_type + 24, rtx_payload_type, ..codec } }
}

/// One subscription on one worker.
pub struct Viewer {
    pub subscription: Subscription,
    pub feeds: BTreeMap<u32, Feed>,
    scratch: Scratch,
    slot: u8,
    /// Everything sent, in order: the outgoing index and the packet.
    pub sent: Vec<(u64, Vec<u8>)>,
    pub drops: Vec<Drop>,
    pub offered: usize,
    pub overtaken: u64,
}

impl Viewer {
    pub fn new(slot: u8, kind: MediaKind, rtx_ssrc: Option<u32>) -> Viewer {
        let subscribe = Subscribe {
            subscription: 5,
            transport: 2,
            kind,
            mid: "v".into(),
            ssrc: 0xbeef,
            rtx_ssrc,
            cname: "viewer".into(),
            extensions: vec![MID, Extension { id: 5, kind: ExtensionKind::AbsSendTime }, PLAYOUT_DELAY],
        };
        let subscription = Subscription::new(&subscribe, Span::from_millis(200));
        let (feeds, scratch) = (BTreeMap::new(), Scratch::new(16));
        Viewer { subscription, feeds, scratch, slot, sent: vec![], drops: vec![], offered: 0, overtaken: 0 }
    }

    pub fn attach(&mut self, now: Time, arena: &Arena, publish: &Publish) {
        std::mem::take(&mut self.feeds).into_values().for_each(Feed::close);
        let logs: Vec<u32> = publish.encodings.iter().map(|encoding| encoding.log).collect();
        for log in &logs {
            self.feeds.insert(*log, Feed::open(arena, *log, publish.publication, self.slot));
        }
        self.subscription.attach(&Attach {
            subscription: 5,
            publication: publish.publication,
            logs,
            codec: Codec { payload_type: 120, rtx_payload_type: Some(121), ..publish.codec },
            source_extensions: vec![],
            formats: publish.codecs.iter().map(|known| viewed(known.codec)).collect(),
        });
        self.subscription.join(now, &mut self.scratch, |log| self.feeds.get(&log));
        while let Some(replay) = self.subscription.next_replay() {
            let rest = self.feeds[&replay.log].replay(replay.position, &mut self.scratch);
            self.forward(now);
            self.subscription.set_replay(rest);
        }
    }

    /// Reads a log again from a position on.
    pub fn replay(&mut self, now: Time, log: u32, position: u64) {
        self.feeds[&log].replay(position, &mut self.scratch);
        self.forward(now);
    }

    /// Reads what the logs have and sends what is selected.
    pub fn pull(&mut self, now: Time) {
        let logs: Vec<u32> = self.feeds.keys().copied().collect();
        for log in logs {
            while self.feeds[&log].has_more() {
                let feed = self.feeds.get_mut(&log).unwrap();
                self.overtaken += feed.next_batch(&mut self.scratch);
                self.forward(now);
            }
        }
    }

    fn forward(&mut self, now: Time) {
        let mut out = [0; 1500];
        for packet in self.scratch.packets() {
            self.offered += 1;
            match self.subscription.select(&packet) {
                Ok(selected) => {
                    let outgoing = self.subscription.write(now, &packet, selected, &mut out).unwrap();
                    self.sent.push((outgoing.index, out[..outgoing.len].to_vec()));
                }
                Err(drop) => self.drops.push(drop),
            }
        }
    }

    /// The log of which it waits for a key frame.
    pub fn wanted(&mut self) -> Option<u32> {
        self.subscription.key_frame_wanted(ms(0)).map(|wish| wish.log)
    }

    /// Asks for these sequence numbers; what comes back, with its SRTP index.
    pub fn nack(&mut self, now: Time, sequences: &[u16]) -> Vec<(u64, Vec<u8>)> {
        self.subscription.handle_nack(now, sequences.iter().copied());
        let mut answers = vec![];
        let mut out = [0; 1500];
        while let Some(repair) = self.subscription.next_repair() {
            if self.feeds[&repair.log].read(repair.index, &mut self.scratch).is_ok() {
                let packet = self.scratch.get(0).unwrap();
                let outgoing = self.subscription.write_repair(now, &repair, &packet, &mut out).unwrap();
                answers.push((outgoing.index, out[..outgoing.len].to_vec()));
            }
        }
        answers
    }

    /// The numbers of the packets sent, by outgoing index.
    pub fn numbers(&self) -> BTreeMap<u64, Option<u64>> {
        self.sent.iter().map(|(index, packet)| (*index, number(packet))).collect()
    }

    pub fn timestamps(&self) -> Vec<u32> {
        self.sent.iter().map(|(_, packet)| Header::parse(packet).unwrap().timestamp).collect()
    }
}

/// What a publication asks of its publisher now.
#[derive(Debug, Default)]
pub struct Feedback {
    pub nacks: Vec<u16>,
    pub plis: usize,
    pub firs: usize,
    pub reports: usize,
}

pub fn feedback(publication: &mut Publication, now: Time) -> Feedback {
    let mut feedback = Feedback::default();
    if !publication.feedback_due(now) {
        return feedback;
    }
    let mut out = [0; 1200];
    let mut writer = Writer::new(&mut out);
    publication.write_feedback(now, &mut writer);
    for packet in rtcp::iterate(writer.written()) {
        match packet.unwrap() {
            Packet::Nack(nack) => feedback.nacks.extend(nack.sequences()),
            Packet::Pli(_) => feedback.plis += 1,
            Packet::Fir(_) => feedback.firs += 1,
            Packet::ReceiverReport(report) => feedback.reports += report.blocks().count(),
            _ => {}
        }
    }
    feedback
}
