//! One outgoing stream of a viewer: which packets the viewer gets, and under which numbers. Owns the continuity of sequence numbers,
//! timestamps and frame ids across every change of source; must never know an address, a key or a room. Read `attachment.rs` next
//! for the choice, `rewrite.rs` for the bytes, `reporting.rs` for the RTCP.
//!
//! | state | a packet | then |
//! |---|---|---|
//! | detached | any | dropped |
//! | waiting | not a start | dropped, a key frame is wanted |
//! | waiting | audio, or the first of a key frame | forwarded: following |
//! | following | of the same log and SSRC | forwarded under its number; left out when it is padding only |
//! | following | the first of a key frame of a better log, or of any while its own is silent | switched: following |
//! | following | same log, other SSRC or codec, or far ahead | the publisher started over: waiting, or following at once |
//! | any | of a codec that the viewer cannot play | dropped, no key frame is wanted: waiting |

mod attachment;
pub mod continuity;
mod formats;
mod frame_ids;
pub mod layers;
mod numbering;
mod playout;
mod repairs;
mod reporting;
mod reports;
mod rewrite;
mod timeline;

use millrace_arena::KEY_FRAME_START;

use crate::command::{Attach, Extension, MediaKind, Subscribe};
use crate::drop::Drop;
use crate::event::SubscriptionReport;
use crate::rtp::{Fields, sequence};
use crate::time::{Span, Time};

use self::attachment::{Attachment, Source, Step};
use self::continuity::Words;
use self::formats::Formats;
use self::frame_ids::FrameIds;
use self::playout::Playout;
use self::repairs::Repairs;
pub use self::reports::Clock;
use self::reports::Reports;
use self::rewrite::ExtensionMap;
use self::timeline::Timeline;
use crate::forward::feed::{Feed, LoggedPacket, Scratch};
use crate::forward::key_frames::{Refresh, Wish};

/// The numbers of a packet that is to be sent, before its bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Its index in the outgoing stream.
    pub index: u64,
    timestamp: u32,
}

/// A packet in the caller's buffer, ready to be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub len: usize,
    /// Rollover counter and sequence number of its SSRC, for SRTP.
    pub index: u64,
}

/// A packet to be read from a log by its index and sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair {
    pub log: u32,
    pub index: u64,
    outgoing: u64,
}

/// A position of a log from which the subscription gets packets before newer ones, as a key frame begins there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    pub log: u32,
    pub position: u64,
}

#[derive(Debug)]
pub struct Subscription {
    id: u64,
    transport: u64,
    kind: MediaKind,
    mid: String,
    ssrc: u32,
    rtx_ssrc: Option<u32>,
    cname: String,
    extensions: Vec<Extension>,
    attachment: Option<Attachment>,
    replay: Option<Replay>,
    /// How high the viewer shows it, in pixels.
    wish: Option<u16>,

    next_index: u64,
    next_rtx_index: u64,
    timeline: Timeline,
    frame_ids: FrameIds,

    repairs: Repairs,
    refresh: Refresh,
    reports: Reports,
    playout: Playout,
    counts: Counts,
    /// Where the values are saved that change with every packet.
    words: Option<Words>,
}

/// What was sent so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub packets: u64,
    /// Bytes of payload, as sender reports count.
    pub octets: u64,
    /// Bytes of whole RTP packets.
    pub bytes: u64,
    pub retransmitted: u64,
    pub nacks_received: u64,
    pub key_frame_requests_received: u64,
}

impl Subscription {
    /// `repair_delay` is what the viewer's player is asked to wait on a lossy path.
    pub fn new(subscribe: &Subscribe, repair_delay: Span) -> Subscription {
        let start = u64::from(subscribe.ssrc).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Subscription {
            id: subscribe.subscription,
            transport: subscribe.transport,
            kind: subscribe.kind,
            mid: subscribe.mid.clone(),
            ssrc: subscribe.ssrc,
            rtx_ssrc: subscribe.rtx_ssrc,
            cname: subscribe.cname.clone(),
            extensions: subscribe.extensions.clone(),
            attachment: None,
            replay: None,
            wish: None,
            // RFC 3711 section 3.3.1: a first sequence number in the lower half keeps both ends' rollover counters equal
            // when the first packets are lost.
            next_index: start >> 49,
            next_rtx_index: start >> 34 & 0x7fff,
            timeline: Timeline::new((start >> 16) as u32),
            frame_ids: FrameIds::default(),
            repairs: Repairs::default(),
            refresh: Refresh::default(),
            reports: Reports::default(),
            playout: Playout::new(repair_delay),
            counts: Counts::default(),
            words: None,
        }
    }

    /// Saves what changes with every packet in these words. To be called before the first packet.
    pub fn save_in(&mut self, words: Words) {
        words.begin(self.next_index, self.next_rtx_index);
        self.words = Some(words);
    }

    /// Resumes a stream from what a predecessor saved. With a source that is still the same it continues the numbers, and
    /// `next_replay` has what came meanwhile. Otherwise it begins after the last index that was used, at the next key frame.
    pub fn resume(
        now: Time,
        (subscribe, repair_delay): (&Subscribe, Span),
        attach: Option<&Attach>,
        words: Words,
    ) -> Subscription {
        let mut subscription = Subscription::new(subscribe, repair_delay);
        subscription.playout = Playout::resume(now, repair_delay);
        subscription.next_index = words.next_index();
        subscription.next_rtx_index = words.next_rtx_index();
        subscription.timeline = Timeline::resume(subscription.timeline.first(), words.newest(now));
        subscription.frame_ids = words.frame_ids();
        if let Some(attach) = attach {
            subscription.attach(attach);
            let source = words.source(attach.publication);
            if let Some(source) = source.filter(|source| attach.logs.get(source.encoding) == Some(&source.log)) {
                subscription.frame_ids.follow(source.shifts);
                subscription.replay = Some(Replay { log: source.log, position: source.next_position });
                subscription.reports.handle_source(now);
                if let Some(attachment) = &mut subscription.attachment {
                    attachment.source = Some(source);
                }
            } else {
                words.put_has_source(false);
            }
        }
        subscription.words = Some(words);
        subscription
    }

    /// Fetches the words that forwarding a packet writes.
    pub fn prefetch(&self) {
        if let Some(words) = &self.words {
            words.prefetch();
        }
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn transport(&self) -> u64 {
        self.transport
    }

    pub fn kind(&self) -> MediaKind {
        self.kind
    }

    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    pub fn rtx_ssrc(&self) -> Option<u32> {
        self.rtx_ssrc
    }

    pub fn cname(&self) -> &str {
        &self.cname
    }

    pub fn publication(&self) -> Option<u64> {
        self.attachment.as_ref().map(|attachment| attachment.publication)
    }

    /// The logs to feed it from.
    pub fn logs(&self) -> &[u32] {
        self.attachment.as_ref().map_or(&[], |attachment| attachment.layers.logs())
    }

    /// Attaches a publication in place of the one before. The caller opens a feed for each log, then calls `join`.
    pub fn attach(&mut self, attach: &Attach) {
        self.detach();
        let formats = Formats::new(attach);
        let has_rtx = self.rtx_ssrc.is_some() && formats.have_rtx();
        // Without RTX a repair is the packet once more, under its SRTP index. Then its bytes have to be the same, or one key
        // stream covers two plaintexts. So nothing that depends on the time is written.
        let extensions = ExtensionMap::new(&attach.source_extensions, &self.extensions, &self.mid, has_rtx);
        let mut attachment = Attachment::new(attach, formats, extensions, self.wish);
        attachment.extensions.set_playout_delay(self.playout.told());
        self.attachment = Some(attachment);
    }

    pub fn wish(&self) -> Option<u16> {
        self.wish
    }

    /// Sets how high the viewer shows it, for this and every later attachment.
    pub fn set_wish(&mut self, height: Option<u16>) {
        self.wish = height;
        if let Some(attachment) = &mut self.attachment {
            attachment.layers.set_wish(height);
        }
    }

    /// The command that attached it, with the codec that it forwards by now.
    pub fn with_codec_in_use(&self, attach: Attach) -> Attach {
        let codec = self.attachment.as_ref().map_or(attach.codec, |attachment| attachment.formats.codec());
        Attach { codec, ..attach }
    }

    /// Detaches the publication. The stream stays open, and the next publication continues its numbers.
    pub fn detach(&mut self) {
        if let Some(attachment) = self.attachment.take() {
            self.next_index = attachment.next_index().unwrap_or(self.next_index);
        }
        if let Some(words) = &self.words {
            words.put_has_source(false);
        }
        self.replay = None;
        self.refresh.handle_key_frame();
        self.repairs.clear();
        self.reports.stop();
    }

    /// Looks at the feeds of a publication just attached. A video starts at its last key frame when that is young and whole: the caller
    /// then sends `next_replay` before it reads these feeds further.
    pub fn join<'a>(&mut self, now: Time, scratch: &mut Scratch, feeds: impl Fn(u32) -> Option<&'a Feed>) {
        let Some(attachment) = self.attachment.as_mut() else { return };
        for encoding in 0..attachment.layers.logs().len() {
            let Some(feed) = feeds(attachment.layers.logs()[encoding]) else { continue };
            attachment.layers.set_facts(encoding, feed.facts());
            if let Some(at) = feed.last_arrival(scratch) {
                attachment.layers.handle_seen(encoding, at);
            }
        }
        // A subscription that follows a source already has all that a replay would bring.
        if self.kind == MediaKind::Video && attachment.source.is_none() {
            let target = attachment.layers.target();
            let others = attachment.layers.alive().filter(|encoding| *encoding != target);
            let mut joins = std::iter::once(target).chain(others).map(|encoding| attachment.layers.logs()[encoding]);
            self.replay = joins.find_map(|log| Some(Replay { log, position: feeds(log)?.join_at(now, scratch)? }));
        }
    }

    /// The replay that is to be sent now: read it by `Feed::replay`, `select` and `write` each packet, `set_replay` to the rest.
    pub fn next_replay(&self) -> Option<Replay> {
        self.replay
    }

    /// Sets where the replay goes on, as `Feed::replay` returned it.
    pub fn set_replay(&mut self, position: Option<u64>) {
        self.replay = self.replay.zip(position).map(|(replay, position)| Replay { position, ..replay });
    }

    /// The numbers under which this packet is to be sent. A drop when it is not.
    pub fn select(&mut self, packet: &LoggedPacket<'_>) -> Result<Selected, Drop> {
        let attachment = self.attachment.as_mut().ok_or(Drop::LayerNotSelected)?;
        let step = attachment.step(self.kind, packet)?;
        if let Step::Begin(encoding) = step {
            let outgoing = attachment.next_index().unwrap_or(self.next_index);
            let codec = attachment.formats.codec();
            let (timestamp, rate) = (packet.header.timestamp, codec.clock_rate);
            let timestamp_shift = self.timeline.begin(timestamp, packet.meta.arrived_us, rate);
            let descriptor = attachment.extensions.descriptor(packet);
            let shifts = self.frame_ids.begin(codec.name, packet.payload(), descriptor);
            attachment.source = Some(Source::begin(packet, encoding, outgoing, timestamp_shift, shifts));
            self.reports.handle_source(packet.arrived_at());
        }
        let source = attachment.source.as_mut().ok_or(Drop::AwaitsKeyFrame)?;
        let assigned = source.assign(packet);
        if let Ok((_, timestamp)) = assigned {
            self.timeline.handle_sent(timestamp, packet.meta.arrived_us);
        }
        // Before the packet can leave, so that a successor never uses its index again.
        if let Some(words) = &self.words {
            match step {
                Step::Begin(_) => words.put_source(source, attachment.publication, &self.timeline),
                Step::Continue => words.put_progress(source, &self.timeline),
            }
        }
        let (index, timestamp) = assigned?;
        if packet.has(KEY_FRAME_START) {
            self.refresh.handle_key_frame();
        }
        Ok(Selected { index, timestamp })
    }

    /// Writes a packet that `select` just took to the front of `out`.
    pub fn write(
        &mut self,
        now: Time,
        packet: &LoggedPacket<'_>,
        selected: Selected,
        out: &mut [u8],
    ) -> Result<Outgoing, Drop> {
        let attachment = self.attachment.as_ref().ok_or(Drop::LayerNotSelected)?;
        let shifts = attachment.source.as_ref().ok_or(Drop::AwaitsKeyFrame)?.shifts;
        let codec = attachment.formats.codec();
        let fields = Fields {
            marker: packet.header.marker,
            payload_type: codec.payload_type,
            sequence: selected.index as u16,
            timestamp: selected.timestamp,
            ssrc: self.ssrc,
        };
        let written = rewrite::write(now, packet, (&attachment.extensions, shifts), fields, None, out)?;
        self.frame_ids.rewrite_pictures(codec.name, &mut out[written.payload()]);
        if let Some(descriptor) = attachment.extensions.descriptor(packet) {
            self.frame_ids.handle_descriptor(descriptor, shifts);
        }
        if let Some(words) = &self.words {
            words.put_frame_ids(self.frame_ids);
        }
        self.counts.packets += 1;
        self.counts.octets += written.payload().len() as u64;
        self.counts.bytes += written.len as u64;
        self.repairs.handle_sent(written.len);
        Ok(Outgoing { len: written.len, index: selected.index })
    }

    /// Takes a generic NACK; its answers come out of `next_repair`. Returns how many packets it asked for.
    pub fn handle_nack(&mut self, now: Time, sequences: impl Iterator<Item = u16>) -> u64 {
        let attachment = self.attachment.as_ref();
        let known = attachment.and_then(|attachment| attachment.next_index().zip(Some(attachment)));
        // Without RTX a second repair would be the same packet, which the viewer's replay check refuses.
        let has_rtx =
            self.rtx_ssrc.is_some() && attachment.is_some_and(|it| it.formats.codec().rtx_payload_type.is_some());
        let mut asked = 0;
        for sequence in sequences {
            asked += 1;
            let Some((next, attachment)) = known else { continue };
            let outgoing = sequence::nearest(next, sequence);
            if attachment.find(outgoing).is_some() {
                let times = if has_rtx && self.playout.doubles_repairs() { 2 } else { 1 };
                self.repairs.request(now, outgoing, self.reports.round_trip(), times);
            }
        }
        self.counts.nacks_received += asked;
        asked
    }

    /// The next packet to send again: read it with `Feed::read`, then `write_repair`.
    pub fn next_repair(&mut self) -> Option<Repair> {
        let attachment = self.attachment.as_ref()?;
        loop {
            let outgoing = self.repairs.take()?;
            if let Some((source, index)) = attachment.find(outgoing) {
                return Some(Repair { log: source.log, index, outgoing });
            }
        }
    }

    /// True when `next_repair` may have a packet.
    pub fn has_repairs(&self) -> bool {
        !self.repairs.is_empty()
    }

    /// Writes a packet again: as RTX (RFC 4588) where the viewer accepts that, otherwise the same bytes.
    pub fn write_repair(
        &mut self,
        now: Time,
        repair: &Repair,
        packet: &LoggedPacket<'_>,
        out: &mut [u8],
    ) -> Result<Outgoing, Drop> {
        let attachment = self.attachment.as_ref().ok_or(Drop::LayerNotSelected)?;
        let (source, _) = attachment.find(repair.outgoing).ok_or(Drop::LogOvertaken)?;
        // The codec in use may be another one by now.
        let codec = attachment.formats.of(packet.header.payload_type).ok_or(Drop::CodecNotPlayable)?;
        let rtx = self.rtx_ssrc.zip(codec.rtx_payload_type);
        let sequence = repair.outgoing as u16;
        let original = Fields {
            marker: packet.header.marker,
            payload_type: codec.payload_type,
            sequence,
            timestamp: packet.header.timestamp.wrapping_add(source.timestamp_shift),
            ssrc: self.ssrc,
        };
        let (fields, index) = match rtx {
            Some((ssrc, payload_type)) => {
                let index = self.next_rtx_index;
                (Fields { payload_type, sequence: index as u16, ssrc, ..original }, index)
            }
            None => (original, repair.outgoing),
        };
        let tables = (&attachment.extensions, source.shifts);
        let written = rewrite::write(now, packet, tables, fields, rtx.map(|_| sequence), out)?;
        source.shifts.pictures.apply(codec.name, &mut out[written.payload()]);
        self.next_rtx_index += u64::from(rtx.is_some());
        if let Some(words) = &self.words {
            words.put_next_rtx_index(self.next_rtx_index);
        }
        self.repairs.handle_repaired(now, written.len);
        self.counts.retransmitted += 1;
        self.counts.bytes += written.len as u64;
        Ok(Outgoing { len: written.len, index })
    }

    /// Notes a PLI or FIR: the viewer's decoder needs a key frame.
    pub fn handle_key_frame_request(&mut self, now: Time) {
        self.counts.key_frame_requests_received += 1;
        // Without a source one is wanted anyway.
        if self.source_log().is_some() {
            self.refresh.handle_request(now, self.repairs.are_under_way(now));
        }
    }

    /// The key frame that this subscription waits for. Tell `Feed::want_key_frame` each time; it bounds the requests.
    pub fn key_frame_wanted(&mut self, now: Time) -> Option<Wish> {
        let waits = self.kind == MediaKind::Video && self.replay.is_none();
        let attachment = self.attachment.as_ref().filter(|_| waits)?;
        let layers = attachment.key_frame_wanted();
        layers.or_else(|| attachment.source.as_ref().filter(|_| self.refresh.is_wanted(now)).map(Source::refresh))
    }

    /// The log that the stream follows, whose `Feed::sender_report` it needs.
    pub fn source_log(&self) -> Option<u32> {
        self.attachment.as_ref()?.source.as_ref().map(|source| source.log)
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn report(&self) -> SubscriptionReport {
        SubscriptionReport {
            subscription: self.id,
            publication: self.publication(),
            packets: self.counts.packets,
            bytes: self.counts.bytes,
            retransmitted: self.counts.retransmitted,
            nacks_received: self.counts.nacks_received,
            fraction_lost: self.reports.fraction_lost(),
            key_frame_requests_received: self.counts.key_frame_requests_received,
        }
    }
}
