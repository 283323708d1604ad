//! A client that watches: counts every packet and follows its sequence numbers; one of a sample also authenticates each,
//! holds it to order and completeness, and measures how long it took. Must never know who sends. Read `world.rs` next.

use hdrhistogram::Histogram;
use millrace_core::rtcp::{self, Packet, Writer};
use millrace_core::rtp::sequence::Unwrapper;
use millrace_core::rtp::{Header, Reception};
use millrace_core::time::{Span, Time};

use crate::answer::Answer;
use crate::clock;
use crate::link::{Link, Tools};
use crate::stream::Trailer;

/// The time between two reports: libwebrtc's for video.
const REPORT_EVERY: Span = Span::from_secs(1);
/// Sequence numbers asked for at once after a gap.
const NACK_MOST: u64 = 64;

/// What all viewers together received, or one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub packets: u64,
    /// Bytes of whole datagrams.
    pub bytes: u64,
    pub rtcp: u64,
    /// RTX packets.
    pub repairs: u64,
    /// Steps back in the sequence numbers of a stream, and numbers that were left out.
    pub reordered: u64,
    pub gaps: u64,
    pub raw: u64,
}

impl Counts {
    pub fn since(&self, before: &Counts) -> Counts {
        Counts {
            packets: self.packets - before.packets,
            bytes: self.bytes - before.bytes,
            rtcp: self.rtcp - before.rtcp,
            repairs: self.repairs - before.repairs,
            reordered: self.reordered - before.reordered,
            gaps: self.gaps - before.gaps,
            raw: self.raw - before.raw,
        }
    }

    pub fn add(&mut self, other: &Counts) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.rtcp += other.rtcp;
        self.repairs += other.repairs;
        self.reordered += other.reordered;
        self.gaps += other.gaps;
        self.raw += other.raw;
    }
}

/// What the sample measured.
pub struct Findings {
    pub authentic: u64,
    pub forged: u64,
    /// Packets of ours that were lost, came after a later one, or came twice.
    pub missing: u64,
    pub out_of_order: u64,
    /// Packets that opened, but are not as a publisher of ours sent them.
    pub strange: u64,
    /// Nanoseconds from the publisher's send to the arrival.
    pub latency: Histogram<u64>,
}

impl Findings {
    pub fn new() -> Findings {
        // No packet is under way for a minute.
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that the histogram can hold");
        Findings { authentic: 0, forged: 0, missing: 0, out_of_order: 0, strange: 0, latency }
    }
}

/// One stream, from its packets' headers.
struct Seen {
    ssrc: u32,
    unwrapper: Unwrapper,
    reception: Reception,
}

pub struct Viewer {
    pub counts: Counts,
    is_sample: bool,
    rtx_payload_types: Vec<u8>,
    seen: Vec<Seen>,
    /// The number of the next packet of each publisher's stream.
    next_number: Vec<(u32, u64)>,
    ssrc: u32,
    report_at: Time,
    pub first_media_at: Option<Time>,
    last_plain: usize,
    /// When each packet came and when it was sent, in nanoseconds: of a viewer of the sample, if times are recorded.
    pub arrivals: Option<Vec<(u64, u64)>>,
}

impl Viewer {
    pub fn new(is_sample: bool, ssrc: u32) -> Viewer {
        Viewer {
            counts: Counts::default(),
            is_sample,
            rtx_payload_types: Vec::new(),
            seen: Vec::new(),
            next_number: Vec::new(),
            ssrc,
            report_at: Time(0),
            first_media_at: None,
            last_plain: 0,
            arrivals: None,
        }
    }

    pub fn accept(&mut self, answer: &Answer) {
        self.rtx_payload_types = answer.media.iter().filter_map(|section| section.rtx_payload_type).collect();
    }

    pub fn is_sample(&self) -> bool {
        self.is_sample
    }

    /// Handles a sealed RTP packet that came at this time.
    pub fn handle_rtp(
        &mut self,
        now: Time,
        packet: &mut [u8],
        stamp: Option<u64>,
        link: &mut Link,
        findings: &mut Findings,
        tools: &mut Tools,
    ) {
        let Some(fixed) = packet.first_chunk::<12>().copied() else { return };
        let payload_type = fixed[1] & 0x7f;
        self.counts.bytes += packet.len() as u64;
        self.first_media_at.get_or_insert(now);
        if self.rtx_payload_types.contains(&payload_type) {
            self.counts.repairs += 1;
            if self.is_sample {
                self.verify(now, packet, None, true, link, findings);
            }
            return;
        }
        self.counts.packets += 1;
        self.last_plain = packet.len();
        let ssrc = u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]);
        let timestamp = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        self.follow(now, ssrc, u16::from_be_bytes([fixed[2], fixed[3]]), timestamp, link, tools);
        if self.is_sample {
            self.verify(now, packet, stamp, false, link, findings);
        }
    }

    /// Bytes of the last media packet: what the raw measurement sends.
    pub fn datagram_len(&self) -> usize {
        self.last_plain
    }

    /// Follows the numbers in the clear header, and asks for what was left out.
    fn follow(&mut self, now: Time, ssrc: u32, sequence: u16, timestamp: u32, link: &mut Link, tools: &mut Tools) {
        let place = self.seen.iter().position(|seen| seen.ssrc == ssrc).unwrap_or_else(|| {
            let reception = Reception::new(90_000);
            self.seen.push(Seen { ssrc, unwrapper: Unwrapper::new(), reception });
            self.seen.len() - 1
        });
        let seen = &mut self.seen[place];
        let before = seen.unwrapper.highest();
        let index = seen.unwrapper.index(sequence);
        seen.reception.received(now, index, timestamp);
        let Some(before) = before else { return };
        if index <= before {
            self.counts.reordered += 1;
        } else if index > before + 1 {
            let lost = index - before - 1;
            self.counts.gaps += lost;
            let wanted: Vec<u16> = (before + 1..index).take(lost.min(NACK_MOST) as usize).map(|i| i as u16).collect();
            let mut writer = Writer::new(&mut tools.buffer);
            if writer.nack(self.ssrc, ssrc, &wanted) > 0 {
                let len = writer.len();
                link.send_rtcp(&mut tools.buffer, len);
            }
        }
    }

    /// Opens the packet and checks it against its trailer.
    fn verify(
        &mut self,
        now: Time,
        packet: &mut [u8],
        stamp: Option<u64>,
        is_repair: bool,
        link: &mut Link,
        findings: &mut Findings,
    ) {
        let Some(len) = link.open_rtp(now, packet) else {
            findings.forged += 1;
            return;
        };
        findings.authentic += 1;
        let packet = &packet[..len];
        let trailer = Header::parse(packet).ok().and_then(|header| Trailer::parse(header.payload(packet)));
        let Some(trailer) = trailer else {
            findings.strange += 1;
            return;
        };
        let number = trailer.number;
        match self.next_number.iter_mut().find(|(stream, _)| *stream == trailer.stream) {
            None => self.next_number.push((trailer.stream, number + 1)),
            Some((_, next)) if number >= *next => {
                findings.missing += number - *next;
                *next = number + 1;
            }
            Some(_) => {
                findings.missing = findings.missing.saturating_sub(1);
                findings.out_of_order += u64::from(!is_repair);
            }
        }
        if !is_repair {
            let arrived = stamp.unwrap_or_else(clock::stamp);
            findings.latency.saturating_record(arrived.saturating_sub(trailer.sent_ns).max(1));
            if let Some(arrivals) = &mut self.arrivals {
                arrivals.push((arrived, trailer.sent_ns));
            }
        }
    }

    /// Handles an opened RTCP datagram, whose sender reports our reports refer to.
    pub fn handle_rtcp(&mut self, now: Time, datagram: &[u8]) {
        self.counts.rtcp += 1;
        for packet in rtcp::iterate(datagram).flatten() {
            if let Packet::SenderReport(report) = packet
                && let Some(seen) = self.seen.iter_mut().find(|seen| seen.ssrc == report.info.ssrc)
            {
                seen.reception.sender_report(now, report.info.ntp);
            }
        }
    }

    /// Sends the reports that are due, and returns when to call again.
    pub fn upkeep(&mut self, now: Time, link: &mut Link, tools: &mut Tools) -> Time {
        if self.report_at > now || !link.is_connected() {
            return self.report_at.max(now + Span::from_millis(20));
        }
        self.report_at = now + REPORT_EVERY;
        let blocks: Vec<_> =
            self.seen.iter_mut().take(8).filter_map(|seen| seen.reception.report_block(now, seen.ssrc)).collect();
        let mut writer = Writer::new(&mut tools.buffer);
        if writer.receiver_report(self.ssrc, &blocks) {
            let len = writer.len();
            link.send_rtcp(&mut tools.buffer, len);
        }
        self.report_at
    }
}
