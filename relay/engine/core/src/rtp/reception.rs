//! How one RTP stream is received, for the report blocks that go back to its sender (RFC 3550 section 6.4.1, appendices A.3
//! and A.8). Must never know which packets are missing: that is `../forward/publication/nack.rs`. Read `../rtcp/reports.rs` next.

use super::sequence::FIRST_CYCLE;
use crate::rtcp::{ReportBlock, ntp};
use crate::time::Time;

/// The statistics of one SSRC.
#[derive(Clone, Debug)]
pub struct Reception {
    clock_rate: u32,

    // By every packet.
    first: Option<u64>,
    highest: u64,
    received: u64,
    /// Arrival less timestamp of the last packet, in ticks.
    transit: u32,
    /// Sixteen times the jitter, in ticks (appendix A.8).
    jitter: u32,

    // By every sender report: the middle of its NTP timestamp, and when it came.
    sender_report: Option<(u32, Time)>,

    // By every report block.
    expected_before: u64,
    received_before: u64,
}

impl Reception {
    /// `clock_rate` in Hz.
    pub fn new(clock_rate: u32) -> Reception {
        Reception {
            clock_rate,
            first: None,
            highest: 0,
            received: 0,
            transit: 0,
            jitter: 0,
            sender_report: None,
            expected_before: 0,
            received_before: 0,
        }
    }

    /// Notes a packet of this SSRC, its sequence unwrapped by `sequence::Unwrapper`. Not to be called for duplicates, nor for packets
    /// recovered by retransmission, which belong to another SSRC (RFC 4588).
    pub fn received(&mut self, now: Time, index: u64, timestamp: u32) {
        let transit = self.ticks(now).wrapping_sub(timestamp);
        if self.first.is_none() {
            (self.highest, self.transit) = (index, transit);
        }
        self.first = Some(self.first.unwrap_or(index).min(index));
        self.received += 1;
        if index >= self.highest {
            self.highest = index;
            // Appendix A.8: J += (|D| - J) / 16. Packets out of order would measure the reordering, not the path.
            let difference = (transit.wrapping_sub(self.transit) as i32).unsigned_abs();
            self.jitter = self.jitter.saturating_add(difference) - ((self.jitter.saturating_add(8)) >> 4);
            self.transit = transit;
        }
    }

    /// Notes a sender report of this SSRC.
    pub fn sender_report(&mut self, now: Time, ntp: u64) {
        self.sender_report = Some((ntp::middle(ntp), now));
    }

    /// The report block. Its fraction is about the time since the last block, the rest about all time. `None` before the first packet.
    pub fn report_block(&mut self, now: Time, ssrc: u32) -> Option<ReportBlock> {
        self.first?;
        let expected = self.expected();
        let expected_since = expected.saturating_sub(self.expected_before);
        let lost_since = expected_since.saturating_sub(self.received - self.received_before);
        // Lost is at most expected, so the fraction fits but for 256/256.
        let fraction_lost = (lost_since << 8).checked_div(expected_since).unwrap_or(0).min(255) as u8;
        (self.expected_before, self.received_before) = (expected, self.received);
        let (last_sender_report, delay) =
            self.sender_report.map_or((0, 0), |(middle, at)| (middle, ntp::delay(now.since(at))));
        Some(ReportBlock {
            ssrc,
            fraction_lost,
            cumulative_lost: self.lost().clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_sequence: self.highest.wrapping_sub(FIRST_CYCLE) as u32,
            jitter: self.jitter >> 4,
            last_sender_report,
            delay,
        })
    }

    /// Packets expected and not received; negative when more came than expected.
    pub fn lost(&self) -> i64 {
        self.expected() as i64 - self.received as i64
    }

    pub fn packets(&self) -> u64 {
        self.received
    }

    pub fn jitter_ms(&self) -> f64 {
        f64::from(self.jitter >> 4) * 1_000.0 / f64::from(self.clock_rate.max(1))
    }

    fn expected(&self) -> u64 {
        self.first.map_or(0, |first| self.highest - first + 1)
    }

    /// `at` on a clock of the stream's rate, wrapping as timestamps do.
    fn ticks(&self, at: Time) -> u32 {
        let rate = u64::from(self.clock_rate);
        ((at.0 / 1_000_000).wrapping_mul(rate)).wrapping_add(at.0 % 1_000_000 * rate / 1_000_000) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Span;

    const START: u64 = FIRST_CYCLE + 1000;

    /// 20 ms of 48 kHz each.
    fn receive(reception: &mut Reception, packets: impl IntoIterator<Item = u64>) {
        for packet in packets {
            reception.received(Time(20_000 * packet), START + packet, 960 * packet as u32);
        }
    }

    #[test]
    fn nothing_is_reported_before_the_first_packet() {
        assert_eq!(Reception::new(48_000).report_block(Time(5), 1), None);
    }

    #[test]
    fn loss_is_reported_in_total_and_since_the_last_report() {
        let mut reception = Reception::new(48_000);
        receive(&mut reception, 0..100);
        let block = reception.report_block(Time(2_000_000), 7).unwrap();
        assert_eq!((block.ssrc, block.fraction_lost, block.cumulative_lost, block.jitter), (7, 0, 0, 0));
        assert_eq!(block.highest_sequence, 1099);
        receive(&mut reception, (100..200).filter(|packet| packet % 4 != 1));
        let block = reception.report_block(Time(4_000_000), 7).unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (64, 25));
        receive(&mut reception, 200..300);
        let block = reception.report_block(Time(6_000_000), 7).unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 25));
    }

    #[test]
    fn late_packets_are_not_lost() {
        let mut reception = Reception::new(48_000);
        receive(&mut reception, [3, 1, 0, 2, 5]);
        let block = reception.report_block(Time(1), 7).unwrap();
        assert_eq!((block.cumulative_lost, block.fraction_lost), (1, (256 / 6) as u8));
        receive(&mut reception, [4]);
        assert_eq!(reception.report_block(Time(1), 7).unwrap().cumulative_lost, 0);
        assert_eq!((reception.lost(), reception.packets()), (0, 6));
    }

    #[test]
    fn the_highest_sequence_counts_its_cycles() {
        let mut reception = Reception::new(90_000);
        reception.received(Time(0), FIRST_CYCLE + 65_535, 0);
        reception.received(Time(0), FIRST_CYCLE + 65_536, 0);
        assert_eq!(reception.report_block(Time(0), 1).unwrap().highest_sequence, 0x0001_0000);
    }

    #[test]
    fn jitter_approaches_the_mean_deviation_of_the_transit_time() {
        let mut reception = Reception::new(90_000);
        for packet in 0..1000u64 {
            // Every second packet is 10 ms late, so that neighbours differ by 900 ticks.
            reception.received(Time(20_000 * packet + packet % 2 * 10_000), START + packet, 1800 * packet as u32);
        }
        let jitter = reception.report_block(Time(0), 1).unwrap().jitter;
        assert!((890..=901).contains(&jitter), "{jitter}");
        assert!((reception.jitter_ms() - 10.0).abs() < 0.2);
    }

    #[test]
    fn absurd_timestamps_do_not_overflow() {
        let mut reception = Reception::new(u32::MAX);
        for packet in 0..200u64 {
            reception.received(Time(u64::MAX - packet), START + packet, (packet % 2) as u32 * 0x8000_0000);
        }
        assert!(reception.report_block(Time(u64::MAX), 1).is_some());
    }

    #[test]
    fn the_last_sender_report_and_its_age_are_echoed() {
        let mut reception = Reception::new(90_000);
        receive(&mut reception, [0]);
        reception.sender_report(Time(1_000_000), 0x1111_2222_3333_4444);
        let block = reception.report_block(Time(1_000_000) + Span::from_millis(500), 1).unwrap();
        assert_eq!((block.last_sender_report, block.delay), (0x2222_3333, 0x8000));
    }
}
