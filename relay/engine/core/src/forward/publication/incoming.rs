//! One RTP stream of a publication, on its way into its track log: unwrapped, deduplicated, inspected, and its missing packets
//! noted. Must never know a reader of the log. Read `mod.rs` next, which has one of these for each encoding.

use millrace_arena::{
    AppendError, Arena, DISCARDABLE, EntryMeta, Facts, KEY_FRAME_START, LogReader, LogWriter, MARKER, MAX_PACKET,
    RECOVERED, SenderReport,
};

use crate::codec::size::{self, Size};
use crate::codec::{self, Traits};
use crate::command::{CodecName, Encoding, MediaKind, TrackCodec};
use crate::drop::Drop;
use crate::rtcp::SenderInfo;
use crate::rtp::reception::Reception;
use crate::rtp::sequence::Unwrapper;
use crate::rtp::{Fields, Header};
use crate::time::{Span, Time};

use super::budget::Frames;
use super::indexes::Indexes;
use super::nack::{Arrival, Missing};
use super::parameter_sets::KeptSets;
use crate::forward::key_frames::Requests;
use crate::forward::subscription::layers::Order;

/// Packets in the log of an audio stream. Audio comes in 50 small packets a second; no viewer asks for packets of five seconds ago.
const AUDIO_LOG_PACKETS: u32 = 256;
/// Indexes left free before the first packet of an SSRC that replaces another, for earlier packets that come later.
const RESTART_ROOM: u64 = 64;
/// How far beyond the newest packet a retransmission may lie, in packets: the original was sent before, so only packets that were
/// lost or overtaken lie between. A farther one has the numbers of an SSRC that was replaced.
const REPAIR_LEAD: u64 = 64;
/// Arrivals in which a successor looks for the newest packet and for missing ones: more than a link reorders, and a round trip's worth
/// of video.
const LOOK_BACK: u64 = 128;
/// For this long after a change of SSRC, packets of the old one are late and no change back.
const STRAGGLING: Span = Span::from_secs(2);

#[derive(Debug)]
pub struct Incoming {
    pub(super) log: u32,
    codecs: Vec<TrackCodec>,
    /// Of the newest packet; before any, the first.
    pub(super) codec: TrackCodec,
    kind: MediaKind,
    writer: LogWriter,

    ssrc: Option<u32>,
    previous_ssrc: Option<(u32, Time)>,
    unwrapper: Unwrapper,
    /// An SSRC that replaces another continues its indexes.
    pub(super) indexes: Indexes,
    /// The first index of the present SSRC.
    first: u64,

    pub(super) missing: Missing,
    pub(super) key_frames: Requests,
    pub(super) frames: Frames,
    pub(super) reception: Reception,
    /// What the log's header tells.
    facts: Facts,
    key_frame_timestamp: Option<u32>,
    /// A frame of the present SSRC was said to be predicted (`Traits::is_predicted`), so frames that are not are key frames.
    tells_predicted: bool,
    /// The index with which the last key frame ended, if its marker has come.
    key_frame_end: Option<u64>,

    pub(super) has_news: bool,
    pub(super) said_bye: bool,
    pub(super) counts: Counts,
    /// H264's parameter sets; `None` when the publisher may not send H264.
    sets: Option<KeptSets>,
    /// The present SSRC has sent nothing yet.
    is_first: bool,
    /// The buffer in which a packet that came as RTX gets its original form, and in which we make those of our own.
    restored: Box<[u8]>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub packets: u64,
    pub bytes: u64,
    pub recovered: u64,
    pub key_frames: u64,
    /// Packets lost of SSRCs that were replaced.
    pub lost_before: u64,
}

impl Incoming {
    pub fn open(
        arena: &Arena,
        (publication, slot): (u64, u8),
        (kind, codecs): (MediaKind, &[TrackCodec]),
        encoding: &Encoding,
        parameter_sets: &[u8],
    ) -> Result<Incoming, String> {
        let whole = arena.parameters().log_packets;
        let capacity = if kind == MediaKind::Audio { whole.min(AUDIO_LOG_PACKETS) } else { whole };
        let mut writer = LogWriter::open(arena, encoding.log, publication, slot, capacity)
            .map_err(|error| format!("track log {}: {error:?}", encoding.log))?;
        writer.keep(parameter_sets);
        Ok(Incoming::new(writer, (kind, codecs), encoding, parameter_sets))
    }

    /// Resumes the log that a predecessor wrote, under the same SSRC and numbers, so that missing packets are asked for. Statistics
    /// begin anew. `None` when the log is not this publication's any more.
    pub fn resume(
        now: Time,
        arena: &Arena,
        (publication, slot): (u64, u8),
        track: (MediaKind, &[TrackCodec]),
        encoding: &Encoding,
    ) -> Option<Incoming> {
        let writer = LogWriter::resume(arena, encoding.log, publication, slot)?;
        let kept = writer.kept();
        let mut incoming = Incoming::new(writer, track, encoding, &kept);
        let reader = LogReader::open(arena, encoding.log, publication)?;
        incoming.facts = reader.facts();
        incoming.catch_up(now, &reader);
        // The predecessor may not have told the readers of its last packets.
        incoming.has_news = true;
        Some(incoming)
    }

    /// Learns SSRC, numbers and missing packets from the log's last packets.
    fn catch_up(&mut self, now: Time, reader: &LogReader) {
        let mut packet = vec![0; MAX_PACKET];
        let mut header_at = |index| {
            let meta = reader.read(index, &mut packet).ok()?;
            Header::parse(&packet[..usize::from(meta.len)]).ok()
        };
        let head = reader.head();
        let arrivals = (head.saturating_sub(LOOK_BACK)..head).filter_map(|position| reader.arrival(position));
        let mut seen: Vec<(u64, Header)> = arrivals.filter_map(|index| Some((index, header_at(index)?))).collect();
        seen.sort_unstable_by_key(|(index, _)| *index);
        if let Some((index, header)) = seen.last().copied() {
            self.ssrc = Some(header.ssrc);
            self.codec = self.codec_of(header.payload_type).unwrap_or(self.codec);
            self.indexes.restart(index, self.unwrapper.index(header.sequence));
            // A packet that the predecessor put between has the sequence number of the one before it.
            for pair in seen.windows(2).rev() {
                let [(before, one), (at, two)] = [pair[0], pair[1]];
                if at == before + 1 && one.ssrc == two.ssrc && one.sequence == two.sequence {
                    self.indexes.resume(at);
                }
            }
            self.is_first = false;
            // The predecessor may have asked for the missing ones, but it no longer waits for them.
            seen.retain(|(_, seen)| self.codec.nack && seen.ssrc == header.ssrc);
            self.missing.restart(seen.first().map_or(index, |(first, _)| *first));
            for (index, _) in seen.iter().skip(1) {
                self.missing.handle_arrival(now, *index);
            }
        }
        let key_frame = reader.key_frame().and_then(|key_frame| header_at(key_frame.index));
        self.key_frame_timestamp = key_frame.map(|header| header.timestamp);
    }

    fn new(
        writer: LogWriter,
        (kind, codecs): (MediaKind, &[TrackCodec]),
        encoding: &Encoding,
        parameter_sets: &[u8],
    ) -> Incoming {
        let codec = codecs[0];
        let has_h264 = codecs.iter().any(|known| known.codec.name == CodecName::H264);
        Incoming {
            log: encoding.log,
            codecs: codecs.to_vec(),
            codec,
            kind,
            writer,
            ssrc: None,
            previous_ssrc: None,
            unwrapper: Unwrapper::new(),
            indexes: Indexes::default(),
            first: 0,
            missing: Missing::new(),
            key_frames: Requests::default(),
            frames: Frames::default(),
            reception: Reception::new(codec.codec.clock_rate),
            facts: Facts::default(),
            key_frame_timestamp: None,
            tells_predicted: false,
            key_frame_end: None,
            has_news: false,
            said_bye: false,
            counts: Counts::default(),
            sets: has_h264.then(|| KeptSets::new(parameter_sets)),
            is_first: true,
            restored: vec![0; MAX_PACKET].into_boxed_slice(),
        }
    }

    /// The SSRC that feedback is about; `None` before the first packet.
    pub fn ssrc(&self) -> Option<u32> {
        self.ssrc
    }

    /// Of the newest key frame, where it told.
    pub fn size(&self) -> Option<Size> {
        let Facts { width, height, .. } = self.facts;
        (width > 0).then_some(Size { width, height })
    }

    /// The order of the publication's encodings, as far as it is measured.
    pub fn order(&self) -> Order {
        Order::unpack(self.facts.order)
    }

    pub fn set_order(&mut self, order: Order) {
        self.set_facts(Facts { order: order.pack(), ..self.facts });
    }

    fn set_facts(&mut self, facts: Facts) {
        if facts != self.facts {
            self.facts = facts;
            self.writer.set_facts(facts);
        }
    }

    pub fn interested(&self) -> u64 {
        self.writer.interested()
    }

    /// Indexes below this do not fit the log any more, or belong to no sequence number that is known.
    pub fn oldest(&self) -> u64 {
        (self.writer.highest() + 1).saturating_sub(self.writer.capacity()).max(self.indexes.oldest())
    }

    /// The least time between two requests for a key frame.
    pub fn key_frame_gap(&self) -> Span {
        self.frames.gap(self.missing.round_trip())
    }

    /// Takes a packet of the stream itself. Returns what a key frame cost that we had asked for, when its last packet was the one before.
    pub fn handle_media(&mut self, now: Time, header: &Header, packet: &[u8]) -> Result<Option<i64>, Drop> {
        let codec = self.codec_of(header.payload_type).ok_or(Drop::RtpPayloadType)?;
        if packet.len() > MAX_PACKET {
            return Err(Drop::RtpTooLarge);
        }
        match self.ssrc {
            Some(ssrc) if ssrc == header.ssrc => {}
            None => self.ssrc = Some(header.ssrc),
            Some(_) if self.is_straggler(now, header.ssrc) => return Err(Drop::RtpTooOld),
            Some(ssrc) => self.restart(now, ssrc, header),
        }
        let is_answer = self.append(now, header, packet, (codec, false))?;
        let cost = self.frames.handle_packet(now, header.timestamp, header.marker, packet.len());
        if let Some(is_answer) = is_answer {
            self.frames.handle_key_frame(is_answer);
        }
        Ok(cost)
    }

    /// Takes a packet of the stream's retransmissions (RFC 4588 section 4): two bytes of original sequence number, then the
    /// original payload.
    pub fn handle_rtx(&mut self, now: Time, header: &Header, packet: &[u8]) -> Result<(), Drop> {
        let repairs = |known: &&TrackCodec| known.codec.rtx_payload_type == Some(header.payload_type);
        let codec = *self.codecs.iter().find(repairs).ok_or(Drop::RtpPayloadType)?;
        // Padding on this SSRC probes for bandwidth, and repairs nothing.
        let Some(([high, low], payload)) = header.payload(packet).split_first_chunk::<2>() else {
            return Err(Drop::RtpPadding);
        };
        if payload.is_empty() {
            return Err(Drop::RtpPadding);
        }
        let ssrc = self.ssrc.ok_or(Drop::RtpUnknownStream)?;
        let (head, len) = (header.payload_offset, header.payload_offset + payload.len());
        if len > MAX_PACKET {
            return Err(Drop::RtpTooLarge);
        }
        let mut restored = std::mem::take(&mut self.restored);
        restored[..head].copy_from_slice(&packet[..head]);
        restored[head..len].copy_from_slice(payload);
        // The head still has the RTX packet's padding bit, payload type, sequence and SSRC.
        restored[0] &= !0x20;
        restored[1] = restored[1] & 0x80 | codec.codec.payload_type;
        restored[2..4].copy_from_slice(&[*high, *low]);
        restored[8..12].copy_from_slice(&ssrc.to_be_bytes());
        let result = match Header::parse(&restored[..len]) {
            Ok(header) if self.is_repair(header.sequence) => self.append(now, &header, &restored[..len], (codec, true)),
            Ok(_) => Err(Drop::RtpTooOld),
            Err(_) => Err(Drop::RtpMalformed),
        };
        self.restored = restored;
        result.map(|_| ())
    }

    /// Takes the publisher's mapping of timestamps to its wall clock.
    pub fn handle_sender_report(&mut self, now: Time, info: &SenderInfo) {
        if self.ssrc == Some(info.ssrc) {
            self.reception.sender_report(now, info.ntp);
            self.writer.set_sender_report(SenderReport { ntp: info.ntp, rtp: info.rtp_timestamp, at_us: now.0 });
        }
    }

    /// Ends the log; readers finish what it holds.
    pub fn close(self) {
        self.writer.close();
    }

    fn is_straggler(&self, now: Time, ssrc: u32) -> bool {
        self.previous_ssrc.is_some_and(|(previous, at)| previous == ssrc && now.since(at) < STRAGGLING)
    }

    /// True when a retransmitted sequence number can be the present SSRC's. A retransmission does not tell the original's SSRC.
    fn is_repair(&self, sequence: u16) -> bool {
        let index = self.indexes.index(self.unwrapper.peek(sequence));
        index.is_some_and(|index| (self.first..=self.writer.highest() + REPAIR_LEAD).contains(&index))
    }

    /// Continues the log with another SSRC of the encoder, which has other sequence numbers and timestamps.
    fn restart(&mut self, now: Time, old: u32, header: &Header) {
        self.previous_ssrc = Some((old, now));
        self.ssrc = Some(header.ssrc);
        self.counts.lost_before += self.reception.lost().max(0) as u64;
        self.reception = Reception::new(self.codec.codec.clock_rate);
        self.unwrapper = Unwrapper::new();
        let first = self.unwrapper.peek(header.sequence);
        self.first = self.writer.highest() + 1;
        let next = self.first + RESTART_ROOM;
        self.indexes.restart(next, first);
        self.is_first = true;
        self.missing.restart(next - 1);
        self.key_frame_timestamp = None;
        self.tells_predicted = false;
        // Zeros withdraw the old SSRC's mapping: `Feed::sender_report` reads them as none.
        self.writer.set_sender_report(SenderReport { ntp: 0, rtp: 0, at_us: 0 });
    }

    /// Returns, when a key frame begins with this packet, whether it may be the answer to a request.
    fn append(
        &mut self,
        now: Time,
        header: &Header,
        packet: &[u8],
        (codec, is_rtx): (TrackCodec, bool),
    ) -> Result<Option<bool>, Drop> {
        let sequence_index = self.unwrapper.index(header.sequence);
        let mut index = self.indexes.index(sequence_index).ok_or(Drop::RtpTooOld)?;
        if codec != self.codec && index > self.writer.highest() {
            self.change_codec(codec, index);
        }
        let arrival = if self.codec.nack { self.missing.handle_arrival(now, index) } else { Arrival::InOrder };
        let is_recovered = is_rtx || arrival == Arrival::Recovered;
        if arrival == Arrival::Outage && self.kind == MediaKind::Video {
            self.key_frames.need(now);
        }
        let traits = codec::inspect(codec.codec.name, header.payload(packet));
        self.tells_predicted |= traits.is_predicted;
        let starts_key_frame =
            traits.key_frame_start && self.is_credible(traits) && self.begins_frame(index, header.timestamp);
        let sets = self.put_sets(now, header, packet, (codec, is_rtx), (index, starts_key_frame));
        index += sets;
        let flag = |set: bool, flag: u16| if set { flag } else { 0 };
        let meta = EntryMeta {
            index,
            arrived_us: now.0,
            len: packet.len() as u16,
            payload_offset: header.payload_offset as u16,
            flags: flag(starts_key_frame && sets == 0, KEY_FRAME_START)
                | flag(header.marker, MARKER)
                | flag(is_recovered, RECOVERED)
                | flag(traits.discardable, DISCARDABLE),
            spatial: traits.spatial,
            temporal: traits.temporal,
        };
        self.writer.append(index, &meta, packet).map_err(|error| match error {
            AppendError::Duplicate => Drop::RtpDuplicate,
            AppendError::TooOld => Drop::RtpTooOld,
            AppendError::TooLarge => Drop::RtpTooLarge,
        })?;
        let is_answer = starts_key_frame.then(|| self.key_frames.handle_key_frame(now));
        if starts_key_frame {
            (self.key_frame_timestamp, self.key_frame_end) = (Some(header.timestamp), None);
            self.counts.key_frames += 1;
            if let Some(size) = size::size(codec.codec.name, header.payload(packet)) {
                self.set_facts(Facts { width: size.width, height: size.height, ..self.facts });
            }
        }
        if header.marker && self.key_frame_end.is_none() && self.key_frame_timestamp == Some(header.timestamp) {
            self.key_frame_end = Some(index);
        }
        if !is_rtx {
            self.reception.received(now, sequence_index, header.timestamp);
        }
        self.is_first = false;
        self.counts.packets += 1;
        self.counts.bytes += packet.len() as u64;
        self.counts.recovered += u64::from(is_recovered);
        self.has_news = true;
        self.said_bye = false;
        Ok(is_answer)
    }

    /// Puts H264's parameter sets before a packet that gets this index, when it begins a key frame that comes without. Each is a packet,
    /// with the key frame's timestamp, which starts with the first of them. Returns how many they are; the packet's index grows by that.
    fn put_sets(
        &mut self,
        now: Time,
        header: &Header,
        packet: &[u8],
        (codec, is_rtx): (TrackCodec, bool),
        (index, starts_key_frame): (u64, bool),
    ) -> u64 {
        let Some(sets) = self.sets.as_mut().filter(|_| codec.codec.name == CodecName::H264) else { return 0 };
        let highest = self.writer.highest();
        let is_newest = index > highest;
        let (has_changed, is_needed) =
            sets.handle_packet(header.payload(packet), header.timestamp, header.marker, is_newest);
        if has_changed {
            self.writer.keep(sets.sets().as_bytes());
        }
        // Behind a gap they may be what is missing. While a retransmission is restored, its buffer is not ours.
        if !is_needed || is_rtx || !(self.is_first || index == highest + 1) {
            return 0;
        }
        let fields = Fields {
            marker: false,
            payload_type: header.payload_type,
            // The packet before has it, too; a successor knows ours by that.
            sequence: header.sequence.wrapping_sub(1),
            timestamp: header.timestamp,
            ssrc: header.ssrc,
        };
        let mut put = 0;
        for unit in sets.sets().in_order() {
            let Some(head) = fields.write(false, &mut self.restored) else { break };
            let len = head + unit.len();
            self.restored[head..len].copy_from_slice(unit);
            let meta = EntryMeta {
                arrived_us: now.0,
                payload_offset: head as u16,
                flags: if starts_key_frame && put == 0 { KEY_FRAME_START } else { 0 },
                ..EntryMeta::default()
            };
            if self.writer.append(index + put, &meta, &self.restored[..len]).is_err() {
                break;
            }
            self.indexes.insert(index + put);
            put += 1;
            if self.codec.nack {
                self.missing.handle_arrival(now, index + put);
            }
        }
        put
    }

    /// Goes on with the codec of the packet that is the newest now. Older ones, which come late, keep theirs.
    fn change_codec(&mut self, codec: TrackCodec, index: u64) {
        if codec.nack && !self.codec.nack {
            self.missing.restart(index - 1);
        }
        self.codec = codec;
    }

    /// The codec that the publisher numbers so.
    fn codec_of(&self, payload_type: u8) -> Option<TrackCodec> {
        if payload_type == self.codec.codec.payload_type {
            return Some(self.codec);
        }
        self.codecs.iter().find(|known| known.codec.payload_type == payload_type).copied()
    }

    /// False when only a descriptor that never says "predicted" makes this the start of a key frame. The first frame of an encoder is one
    /// in any case.
    fn is_credible(&self, traits: Traits) -> bool {
        !traits.is_doubtful || self.tells_predicted || self.key_frame_timestamp.is_none()
    }

    /// True when this is the first packet of its frame that looks like the start of a key frame. Several may (H264: SPS, then IDR).
    /// Audio has no starts: each packet can be joined at. Some encoders' timestamps never move; there a frame ends with its marker.
    fn begins_frame(&self, index: u64, timestamp: u32) -> bool {
        let is_later = self.key_frame_end.is_some_and(|end| index > end);
        self.kind == MediaKind::Video && (self.key_frame_timestamp != Some(timestamp) || is_later)
    }
}
