//! When the packets of one transport arrived, and the transport-cc feedback that reports it
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01). Must never know which stream a packet belongs to: the numbering is the
//! transport's. Read `../rtcp/transport_cc.rs` next for the wire form.
//!
//! ```text
//!  indexes      reported                 due                 to come
//!          ───────────────────┬────────────────────────┬──────────────▶
//!                            next                     end
//!          └──────── ring: the WINDOW below end ───────┘
//! ```

use crate::rtcp::Writer;
use crate::rtcp::transport_cc::{HEAD_LEN, Symbol, TICK_US, TICKS_PER_REFERENCE, TransportCcHead, encode_chunk};
use crate::rtcp::writer::MAX_COMPOUND;
use crate::rtp::sequence::Unwrapper;
use crate::time::{Span, Time};

/// The time between two reports. libwebrtc's estimator accepts 50 to 250 ms. The shorter it is, the sooner a sender reacts to a queue;
/// twenty small packets a second cost nothing.
const INTERVAL: Span = Span::from_millis(50);

/// So many packets, each so soon after the one before, are a burst: a probe, whose result decides whether a sender sends more, or a large
/// frame. It is reported soon, as a cluster of libwebrtc's lasts 15 ms and is judged when its feedback is in.
const BURST: u32 = 15;
const BURST_GAP: Span = Span::from_millis(5);
const BURST_REPORT: Span = Span::from_millis(20);

/// Packets that are remembered: 50 ms at 250 Mbit/s. A power of two.
const WINDOW: usize = 1024;

/// The arrivals of one transport.
#[derive(Debug)]
pub struct Arrivals {
    unwrapper: Unwrapper,
    /// Arrival in ticks of 250 us plus one, by index modulo WINDOW; 0 when it has not arrived. Empty until the first
    /// packet: a viewer never sends one.
    ticks: Vec<u64>,
    /// The lowest index of the next report.
    next: u64,
    /// One past the highest index that arrived.
    end: u64,
    /// When the next report is due; `None` while there is nothing to report.
    due: Option<Time>,
    reported_at: Option<Time>,
    /// The packets of the present burst, and when the last one came.
    burst: u32,
    last_at: Time,
    feedback_count: u8,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self::new()
    }
}

impl Arrivals {
    pub fn new() -> Arrivals {
        Arrivals {
            unwrapper: Unwrapper::new(),
            ticks: Vec::new(),
            next: 0,
            end: 0,
            due: None,
            reported_at: None,
            burst: 0,
            last_at: Time::default(),
            feedback_count: 0,
        }
    }

    /// Notes a packet with this transport-wide sequence number. Of duplicates the first counts.
    pub fn record(&mut self, now: Time, wide_sequence: u16) {
        let index = self.unwrapper.index(wide_sequence);
        if self.ticks.is_empty() {
            self.ticks = vec![0; WINDOW];
            (self.next, self.end) = (index, index);
        }
        if index >= self.end {
            self.advance(index + 1);
        } else if self.end - index > WINDOW as u64 {
            return;
        }
        let slot = &mut self.ticks[index as usize % WINDOW];
        if *slot != 0 {
            return;
        }
        *slot = now.0 / TICK_US + 1;
        // A packet that was reported missing and came late is reported again, with those that follow it. Senders use the first
        // arrival that is reported of each.
        self.next = self.next.min(index);
        let earliest = self.reported_at.map_or(now, |at| at + INTERVAL);
        let due = self.due.unwrap_or(earliest.max(now));
        self.burst = if now.since(self.last_at) <= BURST_GAP { self.burst + 1 } else { 1 };
        self.last_at = now;
        self.due = Some(if self.burst >= BURST { due.min(now + BURST_REPORT) } else { due });
    }

    /// When to call `write_feedback`; `None` while nothing has arrived since the last report.
    pub fn next_deadline(&self) -> Option<Time> {
        self.due
    }

    /// Writes the reports that are due, as many as fit. True when there was not enough room: send what is written, and call again with an
    /// empty writer.
    pub fn write_feedback(&mut self, now: Time, writer: &mut Writer<'_>, sender_ssrc: u32, media_ssrc: u32) -> bool {
        if self.due.is_none_or(|due| due > now) {
            return false;
        }
        while self.next < self.end {
            let written = self.report(writer, sender_ssrc, media_ssrc);
            if written == 0 {
                return true;
            }
            self.next += written;
        }
        (self.due, self.reported_at, self.burst) = (None, Some(now), 0);
        false
    }

    /// Advances the window. Arrivals that fall out of it are not reported any more.
    fn advance(&mut self, end: u64) {
        let fresh = (end - self.end).min(WINDOW as u64);
        for index in end - fresh..end {
            self.ticks[index as usize % WINDOW] = 0;
        }
        self.end = end;
        self.next = self.next.max(end.saturating_sub(WINDOW as u64));
    }

    fn arrived(&self, index: u64) -> Option<u64> {
        self.ticks[index as usize % WINDOW].checked_sub(1)
    }

    /// Writes one report from `next` on, and returns how many packets it covers: 0 when there is no room.
    fn report(&mut self, writer: &mut Writer<'_>, sender_ssrc: u32, media_ssrc: u32) -> u64 {
        let Some(first) = (self.next..self.end).find_map(|index| self.arrived(index)) else {
            return self.end - self.next;
        };
        let reference = first / TICKS_PER_REFERENCE;
        let mut draft = Draft::new(writer.room());
        let mut symbols = [Symbol::NotReceived; WINDOW];
        let symbols = self.symbols(reference, &mut symbols);
        let mut count = 0;
        let mut before = reference * TICKS_PER_REFERENCE;
        while let Some((chunk, covered)) = draft.next_chunk(&symbols[count..]) {
            draft.push_chunk(chunk);
            for (index, symbol) in (self.next + count as u64..).zip(&symbols[count..count + covered]) {
                let Some(ticks) = self.arrived(index) else { continue };
                draft.push_delta(*symbol, ticks.wrapping_sub(before));
                before = ticks;
            }
            count += covered;
        }
        let head = TransportCcHead {
            sender_ssrc,
            media_ssrc,
            base_sequence: self.next as u16,
            status_count: count as u16,
            reference: reference as u32 & 0xff_ffff,
            feedback_count: self.feedback_count,
        };
        // A report without an arrival would tell nothing. With one it needs room for the missing packets before it, too.
        if draft.deltas_len == 0 || !writer.transport_cc(&head, draft.chunks(), draft.deltas()) {
            return 0;
        }
        self.feedback_count = self.feedback_count.wrapping_add(1);
        count as u64
    }

    /// The symbol of each packet from `next` on, up to the first whose delta does not fit a report with this reference: that packet begins
    /// the next report.
    fn symbols<'s>(&self, reference: u64, symbols: &'s mut [Symbol; WINDOW]) -> &'s [Symbol] {
        let mut before = reference * TICKS_PER_REFERENCE;
        let mut count = 0;
        for (index, symbol) in (self.next..self.end).zip(symbols.iter_mut()) {
            if let Some(ticks) = self.arrived(index) {
                let delta = ticks.wrapping_sub(before) as i64;
                *symbol = match delta {
                    0..=0xff => Symbol::SmallDelta,
                    -0x8000..=0x7fff => Symbol::LargeDelta,
                    _ => break,
                };
                before = ticks;
            }
            count += 1;
        }
        &symbols[..count]
    }
}

/// The chunks and deltas of a report that is being made, within the room that the datagram has.
struct Draft {
    room: usize,
    chunks: [u16; MAX_COMPOUND / 2],
    chunks_len: usize,
    deltas: [u8; MAX_COMPOUND],
    deltas_len: usize,
}

impl Draft {
    fn new(room: usize) -> Draft {
        // The RTCP header, and up to three zeroes at the end.
        let room = room.min(MAX_COMPOUND).saturating_sub(4 + HEAD_LEN) / 4 * 4;
        Draft { room, chunks: [0; MAX_COMPOUND / 2], chunks_len: 0, deltas: [0; MAX_COMPOUND], deltas_len: 0 }
    }

    fn chunks(&self) -> &[u16] {
        &self.chunks[..self.chunks_len]
    }

    fn deltas(&self) -> &[u8] {
        &self.deltas[..self.deltas_len]
    }

    /// The next chunk that fits together with its deltas, and how many packets it covers.
    fn next_chunk(&self, symbols: &[Symbol]) -> Option<(u16, usize)> {
        let left = self.room.checked_sub(2 * self.chunks_len + self.deltas_len + 2)?;
        // As many of the packets as have room for their deltas.
        let mut cost = 0;
        let affordable = symbols.iter().take_while(|symbol| {
            cost += **symbol as usize;
            cost <= left
        });
        encode_chunk(&symbols[..affordable.count()])
    }

    fn push_chunk(&mut self, chunk: u16) {
        self.chunks[self.chunks_len] = chunk;
        self.chunks_len += 1;
    }

    fn push_delta(&mut self, symbol: Symbol, delta: u64) {
        let len = symbol as usize;
        let bytes = (delta as u16).to_be_bytes();
        self.deltas[self.deltas_len..self.deltas_len + len].copy_from_slice(&bytes[2 - len..]);
        self.deltas_len += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::{Packet, iterate};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const SENDER: u32 = 0x1111_1111;
    const MEDIA: u32 = 0x2222_2222;

    /// One report as an independent reading of the draft has it: feedback count, reference time, and for each packet its
    /// sequence number and arrival.
    struct Decoded {
        feedback_count: u8,
        statuses: Vec<(u16, Option<u64>)>,
    }

    /// Expands the chunks to a list first and reads the deltas after, as the draft tells it; panics where it is broken.
    fn decode(packet: &[u8]) -> Decoded {
        let u16_at = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        assert_eq!(packet[..2], [0x8f, 205]);
        assert_eq!(u16_at(2) as usize * 4 + 4, packet.len());
        assert_eq!(packet[4..12], [0x11, 0x11, 0x11, 0x11, 0x22, 0x22, 0x22, 0x22]);
        let count = u16_at(14) as usize;
        let reference = u64::from(u32::from_be_bytes([0, packet[16], packet[17], packet[18]]));
        let mut symbols = Vec::new();
        let mut at = 20;
        while symbols.len() < count {
            let chunk = format!("{:016b}", u16_at(at));
            at += 2;
            let digits = |from: usize| u8::from_str_radix(&chunk[from..from + 2], 2).unwrap();
            match &chunk[..2] {
                "00" | "01" => {
                    let run = usize::from_str_radix(&chunk[3..], 2).unwrap();
                    assert!(run > 0 && symbols.len() + run <= count, "a run past the end");
                    symbols.extend(vec![digits(1); run]);
                }
                "10" => symbols.extend(chunk[2..].bytes().map(|bit| bit - b'0')),
                _ => symbols.extend((2..16).step_by(2).map(digits)),
            }
        }
        assert!(symbols[count..].iter().all(|symbol| *symbol == 0), "unused symbols are zero");
        let mut ticks = reference as i64 * 256;
        let mut statuses = Vec::new();
        for (i, symbol) in symbols[..count].iter().enumerate() {
            let delta = match symbol {
                0 => None,
                1 => Some(i64::from(packet[at])),
                2 => Some(i64::from(i16::from_be_bytes([packet[at], packet[at + 1]]))),
                _ => panic!("a reserved symbol"),
            };
            at += *symbol as usize;
            ticks += delta.unwrap_or(0);
            statuses.push((u16_at(12).wrapping_add(i as u16), delta.map(|_| ticks as u64)));
        }
        assert!(packet.len() - at < 4 && packet[at..].iter().all(|byte| *byte == 0), "zeroes to the next word");
        assert!(statuses.iter().any(|status| status.1.is_some()), "a report that says nothing");
        Decoded { feedback_count: packet[19], statuses }
    }

    /// All reports that are due, over as many datagrams as they take. Our own parser must agree with the decoder.
    fn feedback(arrivals: &mut Arrivals, now: Time, room: usize) -> Vec<Decoded> {
        let mut decoded = Vec::new();
        loop {
            let mut buffer = vec![0xff; room];
            let mut writer = Writer::new(&mut buffer);
            let more = arrivals.write_feedback(now, &mut writer, SENDER, MEDIA);
            assert!(writer.len() <= MAX_COMPOUND && !(more && writer.is_empty()));
            let mut rest = writer.written();
            for packet in iterate(writer.written()) {
                let Ok(Packet::TransportCc(report)) = packet else { panic!("not transport-cc") };
                let len = 4 + 4 * u16::from_be_bytes([rest[2], rest[3]]) as usize;
                let one = decode(&rest[..len]);
                let ours = report.statuses().map(|status| (status.sequence, status.arrived));
                assert!(ours.eq(one.statuses.iter().map(|status| (status.0, status.1.map(|ticks| ticks as u32)))));
                decoded.push(one);
                rest = &rest[len..];
            }
            if !more {
                return decoded;
            }
        }
    }

    fn statuses(decoded: &[Decoded]) -> Vec<(u16, Option<u64>)> {
        decoded.iter().flat_map(|report| report.statuses.iter().copied()).collect()
    }

    #[test]
    fn a_report_tells_when_each_packet_arrived_and_which_are_missing() {
        let mut arrivals = Arrivals::new();
        for (sequence, at) in [(65_534, 1_000_000), (65_535, 1_000_250), (2, 1_070_000), (1, 1_069_000)] {
            arrivals.record(Time(at), sequence);
        }
        let reports = feedback(&mut arrivals, Time(1_100_000), 1500);
        assert_eq!(reports.len(), 1);
        let expected = [(65_534, Some(4000)), (65_535, Some(4001)), (0, None), (1, Some(4276)), (2, Some(4280))];
        assert_eq!(statuses(&reports), expected);
    }

    #[test]
    fn a_burst_is_reported_soon_after_it() {
        let at = |ms: u64| Time(1_000_000 + ms * 1_000);
        let mut arrivals = Arrivals::new();
        arrivals.record(at(0), 0);
        assert_eq!(statuses(&feedback(&mut arrivals, at(0), 1500)).len(), 1);
        for number in 1..=14 {
            arrivals.record(at(5 + u64::from(number)), number);
        }
        assert_eq!(arrivals.next_deadline(), Some(at(50)), "no burst yet");
        arrivals.record(at(20), 15);
        assert_eq!(arrivals.next_deadline(), Some(at(40)));
        arrivals.record(at(24), 16);
        assert_eq!(arrivals.next_deadline(), Some(at(40)), "one that goes on does not wait for its end");
        assert_eq!(statuses(&feedback(&mut arrivals, at(40), 1500)).len(), 16);
        for number in 17..60 {
            arrivals.record(at(u64::from(number) * 6), number);
        }
        assert_eq!(arrivals.next_deadline(), Some(at(102)), "a packet each 6 ms is none");
    }

    #[test]
    fn reports_are_counted_and_apart_by_the_interval() {
        let mut arrivals = Arrivals::new();
        assert_eq!(arrivals.next_deadline(), None);
        let mut times = Vec::new();
        for packet in 0..100 {
            let now = Time(1_000_000 + packet * 5_000);
            arrivals.record(now, packet as u16);
            if arrivals.next_deadline().is_some_and(|due| due <= now) {
                let reports = feedback(&mut arrivals, now, 1500);
                assert_eq!(reports.len(), 1);
                assert_eq!(reports[0].feedback_count as usize, times.len());
                times.push(now);
            }
        }
        assert_eq!(times.len(), 10);
        assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) == INTERVAL));
        assert!(feedback(&mut arrivals, times[9], 1500).is_empty(), "nothing before it is due");
    }

    #[test]
    fn a_quiet_transport_reports_nothing() {
        let mut arrivals = Arrivals::new();
        arrivals.record(Time(0), 1);
        assert_eq!(feedback(&mut arrivals, Time(0), 1500).len(), 1);
        assert_eq!(arrivals.next_deadline(), None);
        assert!(feedback(&mut arrivals, Time(10_000_000), 1500).is_empty());
    }

    #[test]
    fn a_late_packet_is_reported_again_as_received() {
        let mut arrivals = Arrivals::new();
        arrivals.record(Time(0), 10);
        arrivals.record(Time(0), 12);
        assert_eq!(statuses(&feedback(&mut arrivals, Time(0), 1500))[1], (11, None));
        arrivals.record(Time(60_000), 11);
        let reports = feedback(&mut arrivals, Time(60_000), 1500);
        assert_eq!(statuses(&reports), [(11, Some(240)), (12, Some(0))]);
    }

    #[test]
    fn a_duplicate_does_not_change_an_arrival() {
        let mut arrivals = Arrivals::new();
        arrivals.record(Time(0), 10);
        arrivals.record(Time(5_000), 10);
        assert_eq!(statuses(&feedback(&mut arrivals, Time(5_000), 1500)), [(10, Some(0))]);
    }

    #[test]
    fn a_pause_that_no_delta_can_say_begins_a_new_report() {
        let mut arrivals = Arrivals::new();
        arrivals.record(Time(0), 10);
        arrivals.record(Time(20_000_000), 12);
        let reports = feedback(&mut arrivals, Time(20_000_000), 1500);
        assert_eq!(reports.len(), 2);
        assert_eq!(reports[0].statuses, [(10, Some(0)), (11, None)]);
        assert_eq!(reports[1].statuses, [(12, Some(80_000))]);
    }

    #[test]
    fn the_reference_time_wraps_at_24_bits() {
        let mut arrivals = Arrivals::new();
        let wrap_us = (1 << 24) * 64_000;
        arrivals.record(Time(wrap_us + 64_000), 10);
        assert_eq!(statuses(&feedback(&mut arrivals, Time(wrap_us + 64_000), 1500)), [(10, Some(256))]);
    }

    #[test]
    fn a_report_that_would_be_too_large_is_split() {
        let mut arrivals = Arrivals::new();
        for packet in 0..1000u64 {
            // Every delta is large: 100 ms.
            arrivals.record(Time(packet * 100_000), packet as u16);
        }
        let reports = feedback(&mut arrivals, Time(100_000_000), 1500);
        assert!(reports.len() >= 2);
        let expected: Vec<_> = (0..1000u64).map(|packet| (packet as u16, Some(packet * 400))).collect();
        assert_eq!(statuses(&reports), expected);
    }

    #[test]
    fn a_jump_forgets_what_the_window_does_not_hold() {
        let mut arrivals = Arrivals::new();
        arrivals.record(Time(0), 0);
        arrivals.record(Time(0), 30_000);
        arrivals.record(Time(0), 1);
        let found = statuses(&feedback(&mut arrivals, Time(0), 1500));
        assert_eq!(found.len(), WINDOW);
        assert_eq!(found.iter().filter(|status| status.1.is_some()).collect::<Vec<_>>(), [&(30_000, Some(0))]);
    }

    proptest! {
        /// Packets with loss, reordering, pauses and any room to write in: what the reports say is what happened.
        #[test]
        fn feedback_round_trips_every_arrival(
            start: u16,
            packets in prop::collection::vec((0u64..8, 0u64..200_000, prop::bool::weighted(0.2)), 1..600),
            pause in 0u64..12_000_000,
            room in 64usize..1500,
        ) {
            let mut arrivals = Arrivals::new();
            let mut truth = BTreeMap::new();
            let mut heard = BTreeMap::new();
            let (mut now, mut index) = (1_000_000, 65_536 + u64::from(start));
            for (i, (step, wait, due)) in packets.iter().enumerate() {
                now += wait / 10 + if i == 100 { pause } else { 0 };
                // A step of 0 is a packet that comes late: three numbers back.
                index += step;
                let arrived = if *step == 0 { index - 3 } else { index };
                arrivals.record(Time(now), arrived as u16);
                truth.entry(arrived as u16).or_insert(now / 250);
                if *due || i + 1 == packets.len() {
                    now += INTERVAL.0;
                    for (sequence, at) in statuses(&feedback(&mut arrivals, Time(now), room)) {
                        if let Some(at) = at {
                            prop_assert_eq!(*heard.entry(sequence).or_insert(at), at);
                        }
                    }
                    prop_assert_eq!(&heard, &truth);
                }
            }
        }

        #[test]
        fn arbitrary_arrivals_never_panic(packets in prop::collection::vec(any::<(u16, u64)>(), 0..50), room in 64usize..300) {
            let mut arrivals = Arrivals::new();
            for (sequence, at) in packets {
                let now = Time(at >> 1);
                arrivals.record(now, sequence);
                feedback(&mut arrivals, now + INTERVAL, room);
            }
        }
    }
}
