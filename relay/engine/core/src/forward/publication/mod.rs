//! A track that a participant sends. Writes its encodings' packets into their track logs, and the RTCP to the publisher: reports,
//! NACK, PLI. Must never know a viewer: it sees a bit for each slot that reads, and wishes for key frames. Read `incoming.rs` next
//! for a packet's way, `nack.rs` and `../key_frames.rs` for requests.

mod budget;
mod incoming;
mod indexes;
mod ladder;
mod nack;
mod parameter_sets;
pub mod streams;

use millrace_arena::{Arena, LogWriter};

use crate::command::{MediaKind, Publish, TrackCodec};
use crate::drop::Drop;
use crate::event::PublicationReport;
use crate::rtcp::{ReportBlock, SenderInfo, Writer};
use crate::rtp::Header;
use crate::time::{Span, Time};

use self::budget::Budget;
use self::incoming::Incoming;
use self::ladder::Ladder;
use crate::forward::key_frames::Wish;
use crate::forward::subscription::layers::Order;

/// The SSRC of our reports to publishers. We send publishers no media, so any constant that is not theirs will do; browsers that
/// only receive use 1.
pub const REPORTER_SSRC: u32 = 1;
/// The CNAME of that SSRC, which RFC 3550 section 6.5.1 wants in each compound.
const REPORTER_CNAME: &str = "millrace";
/// RFC 3550's five seconds are for large groups; a browser adapts faster with a report each second.
const REPORT_INTERVAL: Span = Span::from_secs(1);
/// A BYE counts after this long without a packet. An end, and the start that may follow, are events for every worker and every viewer
/// of the room; a stranger's two packets must not cause one of each.
const BYE_PATIENCE: Span = Span::from_millis(500);
/// A change of codec is told no sooner than this after the one before, for the same reason. Packets are forwarded by their own.
const CODEC_PATIENCE: Span = Span::from_millis(500);
/// Sequence numbers of one NACK packet: the bound of `Missing` takes a few.
const MAX_NACK: usize = 256;
/// The head of a NACK packet (RFC 4585 section 6.1), and the empty receiver report that begins a compound.
const NACK_HEAD: usize = 12;
const EMPTY_REPORT: usize = 8;

#[derive(Debug)]
pub struct Publication {
    id: u64,
    transport: u64,
    kind: MediaKind,
    encodings: Vec<Incoming>,
    budget: Budget,
    /// Until the order of the encodings is decided.
    ladder: Option<Ladder>,
    /// More than one codec was negotiated.
    has_choice: bool,
    /// The payload type that `take_codec` told last, and when.
    told_codec: Option<(u8, Time)>,
    fir_command: u8,
    report_at: Option<Time>,
    nacks_sent: u64,
    started: bool,
    ended: bool,
    /// When the BYE of all streams counts.
    ends_at: Option<Time>,
}

impl Publication {
    /// Opens the track log of each encoding.
    pub fn new(publish: &Publish, arena: &Arena, slot: u8) -> Result<Publication, String> {
        let codecs = publish.track_codecs();
        let track = (publish.kind, &codecs[..]);
        // Encodings of several sizes have several sets, and an offer does not say which is whose.
        let sets = if publish.encodings.len() == 1 { &publish.parameter_sets[..] } else { &[] };
        let open = |encoding| Incoming::open(arena, (publish.publication, slot), track, encoding, sets);
        let encodings = publish.encodings.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Publication::with(publish, encodings))
    }

    /// Resumes the track logs that a predecessor wrote. `None` when they are not this publication's any more.
    pub fn resume(now: Time, publish: &Publish, arena: &Arena, slot: u8) -> Option<Publication> {
        let codecs = publish.track_codecs();
        let track = (publish.kind, &codecs[..]);
        let resume = |encoding| Incoming::resume(now, arena, (publish.publication, slot), track, encoding);
        let Some(encodings) = publish.encodings.iter().map(resume).collect::<Option<_>>() else {
            Publication::give_up(publish, arena, slot);
            return None;
        };
        let mut publication = Publication::with(publish, encodings);
        // A predecessor that died while it told its order may have told it in some of the logs.
        if let Some(order) = publication.encodings.iter().map(Incoming::order).find(|order| order.is_measured()) {
            publication.set_order(order);
        }
        // A FIR under a number that the predecessor used would be no new request (RFC 5104 section 4.3.1.2).
        publication.fir_command = (now.0 >> 18) as u8;
        Some(publication)
    }

    /// Closes the track logs that a predecessor left open, so that their readers notice.
    pub fn give_up(publish: &Publish, arena: &Arena, slot: u8) {
        let logs = publish.encodings.iter().map(|encoding| encoding.log);
        logs.filter_map(|log| LogWriter::resume(arena, log, publish.publication, slot)).for_each(LogWriter::close);
    }

    fn with(publish: &Publish, encodings: Vec<Incoming>) -> Publication {
        Publication {
            id: publish.publication,
            transport: publish.transport,
            kind: publish.kind,
            encodings,
            budget: Budget::default(),
            ladder: Ladder::new(publish.encodings.len()),
            has_choice: publish.codecs.len() > 1,
            told_codec: None,
            fir_command: 0,
            report_at: None,
            nacks_sent: 0,
            started: false,
            ended: false,
            ends_at: None,
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

    pub fn logs(&self) -> impl Iterator<Item = u32> {
        self.encodings.iter().map(|encoding| encoding.log)
    }

    /// Appends an opened RTP packet of one encoding, or of its retransmissions, to the log.
    pub fn handle_rtp(&mut self, now: Time, encoding: usize, is_rtx: bool, packet: &[u8]) -> Result<(), Drop> {
        let header = Header::parse(packet).map_err(|_| Drop::RtpMalformed)?;
        let incoming = self.encodings.get_mut(encoding).ok_or(Drop::RtpUnknownStream)?;
        if is_rtx {
            incoming.handle_rtx(now, &header, packet)?;
        } else if let Some(cost) = incoming.handle_media(now, &header, packet)? {
            let answering = self.encodings.iter().filter(|encoding| encoding.key_frames.has_answered());
            self.budget.handle_answer(cost, answering.map(|encoding| encoding.frames.price()).sum());
        }
        self.budget.handle_packet(packet.len());
        if let Some(ladder) = &mut self.ladder
            && let Some(order) = ladder.handle_packet(now, encoding, packet.len(), self.encodings[encoding].size())
        {
            self.set_order(order);
        }
        self.report_at = self.report_at.or(Some(now + REPORT_INTERVAL));
        self.ends_at = None;
        Ok(())
    }

    fn set_order(&mut self, order: Order) {
        self.encodings.iter_mut().for_each(|encoding| encoding.set_order(order));
        self.ladder = None;
    }

    pub fn handle_sender_report(&mut self, now: Time, encoding: usize, info: &SenderInfo) {
        if let Some(incoming) = self.encodings.get_mut(encoding) {
            incoming.handle_sender_report(now, info);
        }
    }

    /// Notes that an SSRC of this encoding said BYE. A later packet cancels that.
    pub fn handle_bye(&mut self, now: Time, encoding: usize, ssrc: u32) {
        if let Some(incoming) = self.encodings.get_mut(encoding) {
            incoming.said_bye |= incoming.ssrc() == Some(ssrc);
        }
        if self.is_over() && !self.ended {
            self.ends_at = self.ends_at.or(Some(now + BYE_PATIENCE));
        }
    }

    /// True once when the first packet is in a log, and once when a packet follows after `take_ended` was true.
    pub fn take_started(&mut self) -> bool {
        if self.started && !self.ended {
            return false;
        }
        let starts = self.encodings.iter().any(|encoding| encoding.counts.packets > 0 && !encoding.said_bye);
        self.started |= starts;
        self.ended &= !starts;
        starts
    }

    /// True once when every stream that ever sent has said BYE and none has sent for `BYE_PATIENCE`; again only after `take_started`
    /// was true.
    pub fn take_ended(&mut self, now: Time) -> bool {
        if self.ends_at.is_none_or(|at| at > now) {
            return false;
        }
        self.ends_at = None;
        let ends = self.is_over() && !self.ended;
        self.ended |= ends;
        ends
    }

    /// The codec in use when it is to be told: once with the first packet, and once for each change, of the lowest encoding that sends.
    pub fn take_codec(&mut self, now: Time) -> Option<TrackCodec> {
        if !self.has_choice {
            return None;
        }
        let codec = self.encodings.iter().find(|encoding| encoding.ssrc().is_some())?.codec;
        let number = codec.codec.payload_type;
        if self.told_codec.is_some_and(|(told, at)| told == number || now.since(at) < CODEC_PATIENCE) {
            return None;
        }
        self.told_codec = Some((number, now));
        Some(codec)
    }

    fn is_over(&self) -> bool {
        let mut used = self.encodings.iter().filter(|encoding| encoding.ssrc().is_some()).peekable();
        used.peek().is_some() && used.all(|encoding| encoding.said_bye)
    }

    /// Visits each log that has advanced since the last call, with one bit for each slot that reads it.
    pub fn take_advanced(&mut self, mut visit: impl FnMut(u32, u64)) {
        for encoding in self.encodings.iter_mut().filter(|encoding| encoding.has_news) {
            encoding.has_news = false;
            visit(encoding.log, encoding.interested());
        }
    }

    /// Notes that a viewer, on any worker, waits for a key frame of this log.
    pub fn want_key_frame(&mut self, now: Time, wish: Wish) {
        let is_video = self.kind == MediaKind::Video;
        if let Some(encoding) = self.encodings.iter_mut().find(|encoding| is_video && encoding.log == wish.log) {
            encoding.key_frames.want(now, wish.sees_nothing);
        }
    }

    /// When `write_feedback` has something to write, or `take_ended` may become true.
    pub fn next_deadline(&self) -> Option<Time> {
        [self.next_feedback(), self.ends_at].into_iter().flatten().min()
    }

    pub fn feedback_due(&self, now: Time) -> bool {
        self.next_feedback().is_some_and(|at| at <= now)
    }

    fn next_feedback(&self) -> Option<Time> {
        let encodings = self.encodings.iter().filter(|encoding| encoding.ssrc().is_some());
        let allowed = self.budget.allowed();
        let feedback = encodings.flat_map(|encoding| {
            let answers = encoding.codec.pli || encoding.codec.fir;
            let key_frame = encoding.key_frames.next_deadline(allowed, encoding.key_frame_gap());
            let key_frame = key_frame.filter(|_| answers);
            [encoding.missing.next_deadline(), key_frame]
        });
        feedback.flatten().chain(self.report_at).min()
    }

    /// Writes the RTCP that is due. What finds no room stays due: seal what is written, and call again while `feedback_due`.
    pub fn write_feedback(&mut self, now: Time, writer: &mut Writer<'_>) {
        self.write_report(now, writer);
        for at in 0..self.encodings.len() {
            self.write_nack(now, at, writer);
            self.write_key_frame_request(now, at, writer);
        }
    }

    fn write_report(&mut self, now: Time, writer: &mut Writer<'_>) {
        if self.report_at.is_none_or(|at| at > now) {
            return;
        }
        let mut blocks = [ReportBlock::default(); 4];
        let mut count = 0;
        for encoding in self.encodings.iter_mut().take(blocks.len()) {
            let block = encoding.ssrc().and_then(|ssrc| encoding.reception.report_block(now, ssrc));
            if let Some(block) = block {
                blocks[count] = block;
                count += 1;
            }
        }
        // A report that finds no room is not worth a datagram of its own: the next one tells as much.
        let begins = writer.is_empty();
        let written = writer.receiver_report(REPORTER_SSRC, &blocks[..count]);
        let _named = written && begins && writer.sdes_cname(REPORTER_SSRC, REPORTER_CNAME);
        self.report_at = Some(now + REPORT_INTERVAL);
    }

    fn write_nack(&mut self, now: Time, at: usize, writer: &mut Writer<'_>) {
        let encoding = &mut self.encodings[at];
        let Some(ssrc) = encoding.ssrc().filter(|_| encoding.codec.nack) else { return };
        let room = writer.room().saturating_sub(NACK_HEAD + EMPTY_REPORT) / 4;
        let mut sequences = [0; MAX_NACK];
        let mut count = 0;
        let oldest = encoding.oldest();
        let Incoming { missing, indexes, .. } = encoding;
        missing.ask(now, oldest, |index| {
            let fits = count < room.min(MAX_NACK);
            if fits {
                sequences[count] = indexes.sequence(index);
                count += 1;
            }
            fits
        });
        if count > 0 && begin_compound(writer) {
            self.nacks_sent += writer.nack(REPORTER_SSRC, ssrc, &sequences[..count]) as u64;
        }
    }

    fn write_key_frame_request(&mut self, now: Time, at: usize, writer: &mut Writer<'_>) {
        let encoding = &mut self.encodings[at];
        let Some(ssrc) = encoding.ssrc().filter(|_| encoding.codec.pli || encoding.codec.fir) else { return };
        let room = EMPTY_REPORT + 20;
        let gap = encoding.key_frame_gap();
        if writer.room() < room || !encoding.key_frames.ask(now, self.budget.allowed(), gap) || !begin_compound(writer)
        {
            return;
        }
        let knows_pli = encoding.codec.pli;
        self.encodings.iter_mut().for_each(|encoding| encoding.key_frames.handle_any_asked(now));
        let _written = if knows_pli {
            writer.pli(REPORTER_SSRC, ssrc)
        } else {
            self.fir_command = self.fir_command.wrapping_add(1);
            writer.fir(REPORTER_SSRC, &[(ssrc, self.fir_command)])
        };
    }

    /// The round trip: from a request for a packet to its arrival, the shortest of the encodings.
    pub fn round_trip(&self) -> Option<Span> {
        self.encodings.iter().filter_map(|encoding| encoding.missing.round_trip()).min()
    }

    pub fn key_frame_requests_sent(&self) -> u64 {
        self.encodings.iter().map(|encoding| encoding.key_frames.asked()).sum()
    }

    pub fn nacks_sent(&self) -> u64 {
        self.nacks_sent
    }

    pub fn packets_recovered(&self) -> u64 {
        self.encodings.iter().map(|encoding| encoding.counts.recovered).sum()
    }

    pub fn report(&self) -> PublicationReport {
        let sum = |field: fn(&Incoming) -> u64| self.encodings.iter().map(field).sum();
        PublicationReport {
            publication: self.id,
            packets: sum(|encoding| encoding.counts.packets),
            bytes: sum(|encoding| encoding.counts.bytes),
            packets_lost: sum(|encoding| encoding.counts.lost_before + encoding.reception.lost().max(0) as u64),
            packets_recovered: self.packets_recovered(),
            jitter_ms: self.encodings.iter().map(|encoding| encoding.reception.jitter_ms()).fold(0.0, f64::max),
            nacks_sent: self.nacks_sent,
            key_frame_requests_sent: self.key_frame_requests_sent(),
            key_frames: sum(|encoding| encoding.counts.key_frames),
        }
    }

    /// Closes the track logs; readers finish what they hold.
    pub fn close(self) {
        self.encodings.into_iter().for_each(Incoming::close);
    }
}

/// Begins the compound with a report (RFC 3550 section 6.1). Some receivers drop a compound without. False when it finds no room.
fn begin_compound(writer: &mut Writer<'_>) -> bool {
    !writer.is_empty() || writer.receiver_report(REPORTER_SSRC, &[])
}
