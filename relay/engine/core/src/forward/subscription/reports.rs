//! When an outgoing stream's sender reports are due, on the viewer's timeline, and what its receiver reports say (RFC 3550 section
//! 6.4). Owns the clock that the viewer sees; must never know a log. Read `reporting.rs` next, which asks.
//!
//! The publisher's own mapping from wall clock to timestamps is extended to now and shifted as the stream is. So a viewer can play
//! audio and video of one publisher together.

use millrace_arena::SenderReport;

use crate::rtcp::{ReportBlock, SenderInfo, ntp};
use crate::time::{Span, Time};

use super::timeline::ticks;

/// The time between two sender reports: often enough that a viewer's clocks stay together, at 60 bytes a second.
const INTERVAL: Span = Span::from_secs(1);
/// How often to look for the publisher's first report.
const RETRY: Span = Span::from_millis(100);
/// How long to wait for the publisher's first report, before arrival times take its place: longer than RFC 3550 section 6.2 lets a sender
/// wait for its second one, should the first be lost.
const PATIENCE: Span = Span::from_secs(10);
/// Reports whose echo is awaited; one is sent each second.
const REMEMBERED: usize = 4;

/// Whose clock the reports to one viewer follow. It is one for all its streams, and kept once told: players jump when it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The publisher's where its report has come, arrival times after `PATIENCE`.
    Undecided,
    /// The publisher's, whose report about another stream has come.
    Publisher,
    /// Arrival times, as another stream was reported by them.
    Arrival,
}

/// How the source's timestamps relate to its wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    pub publisher: Option<SenderReport>,
    pub clock: Clock,
    /// outgoing timestamp = source timestamp + this, wrapping.
    pub shift: u32,
    pub clock_rate: u32,
    /// The newest outgoing timestamp, and when its packet arrived, in microseconds.
    pub newest: (u32, u64),
    /// When the stream began to follow this source.
    pub since: Time,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Reports {
    due_at: Option<Time>,
    /// A report by arrival times was sent about the present source.
    guesses: bool,
    /// LSR values that the viewer may echo, and when they were sent.
    sent: [(u32, Time); REMEMBERED],
    next: usize,
    fraction_lost: u8,
    round_trip: Option<Span>,
}

impl Reports {
    /// Has the mapping of a new source reported soon.
    pub fn handle_source(&mut self, now: Time) {
        self.due_at = Some(now);
        self.guesses = false;
    }

    /// True when the viewer was told a mapping by arrival times.
    pub fn guesses(&self) -> bool {
        self.guesses
    }

    pub fn stop(&mut self) {
        self.due_at = None;
        self.guesses = false;
    }

    pub fn due_at(&self) -> Option<Time> {
        self.due_at
    }

    /// The report that is due, without its counts, which the caller fills in; `None` when there is no mapping yet. Call `handle_sent` once
    /// it is written.
    pub fn take_due(&mut self, now: Time, mapping: &Mapping) -> Option<SenderInfo> {
        let is_late = now.since(mapping.since) >= PATIENCE;
        let guesses = match mapping.clock {
            Clock::Arrival => true,
            Clock::Publisher => false,
            Clock::Undecided => mapping.publisher.is_none() && is_late,
        };
        let (ntp, timestamp) = match mapping.publisher.filter(|_| !guesses) {
            Some(publisher) => {
                let passed = now.since(Time(publisher.at_us));
                let timestamp = publisher.rtp.wrapping_add(ticks(passed.0, mapping.clock_rate));
                (publisher.ntp.wrapping_add(ntp_span(passed)), timestamp.wrapping_add(mapping.shift))
            }
            None if !guesses => {
                self.due_at = Some(now + RETRY);
                return None;
            }
            None => {
                self.guesses = true;
                let (timestamp, arrived_us) = mapping.newest;
                let passed = now.since(Time(arrived_us));
                (ntp::from_time(now), timestamp.wrapping_add(ticks(passed.0, mapping.clock_rate)))
            }
        };
        Some(SenderInfo { ntp, rtp_timestamp: timestamp, ..SenderInfo::default() })
    }

    pub fn handle_sent(&mut self, now: Time, info: &SenderInfo) {
        self.sent[self.next] = (ntp::middle(info.ntp), now);
        self.next = (self.next + 1) % REMEMBERED;
        self.due_at = Some(now + INTERVAL);
    }

    /// Takes a receiver report about this stream. The round trip is measured from when we sent the report that it echoes: our NTP times
    /// are the publisher's, and do not tell our own clock.
    pub fn handle_block(&mut self, now: Time, block: &ReportBlock) {
        self.fraction_lost = block.fraction_lost;
        let echoed = |(middle, _): &&(u32, Time)| block.last_sender_report != 0 && *middle == block.last_sender_report;
        if let Some((_, sent_at)) = self.sent.iter().find(echoed) {
            let held_us = (u64::from(block.delay) * 1_000_000) >> 16;
            // A delay longer than the whole time is one tick of rounding, or a forged report.
            self.round_trip = Some(Span(now.since(*sent_at).0.saturating_sub(held_us)));
        }
    }

    /// 0..1, from the last receiver report.
    pub fn fraction_lost(&self) -> f64 {
        f64::from(self.fraction_lost) / 256.0
    }

    pub fn round_trip(&self) -> Option<Span> {
        self.round_trip
    }
}

/// A span in 32.32 fixed-point seconds.
fn ntp_span(span: Span) -> u64 {
    ((u128::from(span.0) << 32) / 1_000_000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time(9_000_000) + Span::from_millis(ms)
    }

    fn mapping(publisher: Option<SenderReport>) -> Mapping {
        Mapping {
            publisher,
            clock: Clock::Undecided,
            shift: 1_000,
            clock_rate: 90_000,
            newest: (77, at(0).0),
            since: at(0),
        }
    }

    #[test]
    fn the_publishers_mapping_is_carried_on_to_now() {
        let publisher = SenderReport { ntp: 5 << 32, rtp: u32::MAX, at_us: at(0).0 };
        let info = Reports::default().take_due(at(1_500), &mapping(Some(publisher))).unwrap();
        assert_eq!(info.ntp, (6 << 32) + (1 << 31));
        assert_eq!(info.rtp_timestamp, 135_000 - 1 + 1_000);
    }

    #[test]
    fn without_a_publishers_report_arrival_times_are_used_after_a_while() {
        let mut reports = Reports::default();
        reports.handle_source(at(0));
        assert_eq!(reports.take_due(at(0), &mapping(None)), None);
        assert_eq!(reports.due_at(), Some(at(100)));
        assert_eq!(reports.take_due(at(9_999), &mapping(None)), None);
        let info = reports.take_due(at(10_000), &mapping(None)).unwrap();
        assert_eq!((info.ntp, info.rtp_timestamp), (ntp::from_time(at(10_000)), 77 + 900_000));
        assert!(reports.guesses());
    }

    #[test]
    fn a_viewers_streams_are_reported_by_one_clock() {
        let publisher = Some(SenderReport { ntp: 5 << 32, rtp: 0, at_us: at(0).0 });
        let report =
            |publisher, clock| Reports::default().take_due(at(60_000), &Mapping { clock, ..mapping(publisher) });
        assert_eq!(report(None, Clock::Publisher), None, "it waits for the other stream's clock");
        assert_eq!(report(publisher, Clock::Arrival).unwrap().ntp, ntp::from_time(at(60_000)), "it comes too late");
        assert_eq!(report(publisher, Clock::Publisher).unwrap().ntp, 65 << 32);
    }

    #[test]
    fn the_round_trip_is_what_the_echo_took_less_what_the_viewer_held_it() {
        let mut reports = Reports::default();
        let info = SenderInfo { ntp: 0x1234_5678_9abc_def0, ..SenderInfo::default() };
        reports.handle_sent(at(0), &info);
        reports.handle_sent(at(1_000), &SenderInfo { ntp: 1 << 60, ..info });
        let block = ReportBlock {
            last_sender_report: 0x5678_9abc,
            delay: 1 << 15,
            fraction_lost: 64,
            ..ReportBlock::default()
        };
        reports.handle_block(at(540), &block);
        assert_eq!(reports.round_trip(), Some(Span::from_millis(40)));
        assert_eq!(reports.fraction_lost(), 0.25);
        reports.handle_block(at(9_000), &ReportBlock { last_sender_report: 9, ..block });
        assert_eq!(reports.round_trip(), Some(Span::from_millis(40)), "an echo of nothing that we sent");
        reports.handle_block(at(9_000), &ReportBlock { last_sender_report: 0, ..block });
        assert_eq!(reports.round_trip(), Some(Span::from_millis(40)), "no report seen yet");
    }
}
