//! The RTCP of one subscription: its sender reports and BYE, and what the viewer's receiver reports change. Owns nothing; must never
//! touch a packet's numbers. Read `reports.rs` next, which owns the clock that the viewer sees.

use millrace_arena::SenderReport;

use super::reports::{Clock, Mapping};
use crate::command::MediaKind;
use crate::rtcp::{ReportBlock, SenderInfo, Writer};
use crate::time::{Span, Time};

use super::Subscription;

/// Bytes of a sender report without blocks, and of a source description without its name and padding.
const SENDER_REPORT_LEN: usize = 28;
const SDES_LEN: usize = 14;

impl Subscription {
    /// When `write_sender_report` has something to write, or `key_frame_wanted` to ask for.
    pub fn next_deadline(&self) -> Option<Time> {
        [self.reports.due_at(), self.refresh.due_at()].into_iter().flatten().min()
    }

    /// Writes the sender report and its CNAME when they are due. False when they find no room: seal what is written, and call again.
    pub fn write_sender_report(
        &mut self,
        now: Time,
        (publisher, clock): (Option<SenderReport>, Clock),
        writer: &mut Writer<'_>,
    ) -> bool {
        if self.reports.due_at().is_none_or(|at| at > now) {
            return true;
        }
        let Some(mapping) = self.mapping(publisher, clock) else {
            self.reports.stop();
            return true;
        };
        let Some(info) = self.reports.take_due(now, &mapping) else { return true };
        let info = SenderInfo {
            ssrc: self.ssrc,
            packet_count: self.counts.packets as u32,
            octet_count: self.counts.octets as u32,
            ..info
        };
        let is_room = writer.room() >= SENDER_REPORT_LEN + SDES_LEN + self.cname.len();
        if !is_room || !writer.sender_report(&info, &[]) || !writer.sdes_cname(self.ssrc, &self.cname) {
            return false;
        }
        self.reports.handle_sent(now, &info);
        true
    }

    /// True when the viewer was told a mapping by arrival times of the present source.
    pub fn guesses_clock(&self) -> bool {
        self.reports.guesses()
    }

    fn mapping(&self, publisher: Option<SenderReport>, clock: Clock) -> Option<Mapping> {
        let attachment = self.attachment.as_ref()?;
        let source = attachment.source.as_ref()?;
        Some(Mapping {
            publisher,
            clock,
            shift: source.timestamp_shift,
            clock_rate: attachment.formats.codec().clock_rate,
            newest: self.timeline.newest()?,
            since: Time(source.since_us),
        })
    }

    /// Takes the block about this stream of a viewer's receiver report.
    pub fn handle_receiver_report(&mut self, now: Time, block: &ReportBlock) {
        self.reports.handle_block(now, block);
        if self.kind == MediaKind::Video {
            self.playout.handle_report(now, block.fraction_lost, self.reports.round_trip());
            if let Some(attachment) = &mut self.attachment {
                attachment.extensions.set_playout_delay(self.playout.told());
            }
        }
    }

    /// The round trip, from the viewer's receiver reports.
    pub fn round_trip(&self) -> Option<Span> {
        self.reports.round_trip()
    }

    /// Writes BYE for this stream. False when it finds no room.
    pub fn write_bye(&self, writer: &mut Writer<'_>) -> bool {
        let begins = !writer.is_empty() || writer.receiver_report(self.ssrc, &[]);
        begins && writer.bye(&[self.ssrc])
    }
}
