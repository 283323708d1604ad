//! Sender and receiver reports, SDES, BYE (RFC 3550 sections 6.4 to 6.6) and extended reports (RFC 3611). Must never judge
//! what they report. Read `feedback.rs` next.

use super::word;

/// A report block: how one stream was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    pub ssrc: u32,
    /// Lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Since the start, 24 bits with sign: duplicates make it negative.
    pub cumulative_lost: i32,
    /// Extended highest sequence number.
    pub highest_sequence: u32,
    /// In ticks of the stream's clock.
    pub jitter: u32,
    /// LSR: the middle 32 bits of the last sender report's NTP timestamp, 0 when none came.
    pub last_sender_report: u32,
    /// DLSR, in 1/65536 s.
    pub delay: u32,
}

impl ReportBlock {
    pub const LEN: usize = 24;

    fn parse(bytes: &[u8; Self::LEN]) -> ReportBlock {
        let words = |at: usize| word(bytes, at).unwrap_or_default();
        ReportBlock {
            ssrc: words(0),
            fraction_lost: bytes[4],
            cumulative_lost: (words(4) << 8) as i32 >> 8,
            highest_sequence: words(8),
            jitter: words(12),
            last_sender_report: words(16),
            delay: words(20),
        }
    }

    pub(super) fn write(&self, out: &mut [u8; Self::LEN]) {
        let lost = self.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
        let second = u32::from(self.fraction_lost) << 24 | lost;
        let words = [self.ssrc, second, self.highest_sequence, self.jitter, self.last_sender_report, self.delay];
        for (bytes, word) in out.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
    }
}

/// The part of a sender report that is about the sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    pub ssrc: u32,
    /// 32.32 fixed-point seconds of the sender's clock.
    pub ntp: u64,
    /// The same moment on the stream's timeline.
    pub rtp_timestamp: u32,
    pub packet_count: u32,
    /// Payload bytes, without headers and padding.
    pub octet_count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport<'a> {
    pub info: SenderInfo,
    blocks: &'a [u8],
}

impl<'a> SenderReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<SenderReport<'a>> {
        let info = SenderInfo {
            ssrc: word(body, 0)?,
            ntp: u64::from(word(body, 4)?) << 32 | u64::from(word(body, 8)?),
            rtp_timestamp: word(body, 12)?,
            packet_count: word(body, 16)?,
            octet_count: word(body, 20)?,
        };
        Some(SenderReport { info, blocks: body.get(24..24 + count as usize * ReportBlock::LEN)? })
    }

    pub fn blocks(&self) -> impl Iterator<Item = ReportBlock> + use<'a> {
        blocks(self.blocks)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverReport<'a> {
    pub ssrc: u32,
    blocks: &'a [u8],
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<ReceiverReport<'a>> {
        Some(ReceiverReport { ssrc: word(body, 0)?, blocks: body.get(4..4 + count as usize * ReportBlock::LEN)? })
    }

    pub fn blocks(&self) -> impl Iterator<Item = ReportBlock> + use<'a> {
        blocks(self.blocks)
    }
}

fn blocks(bytes: &[u8]) -> impl Iterator<Item = ReportBlock> {
    bytes.chunks_exact(ReportBlock::LEN).filter_map(|chunk| chunk.first_chunk()).map(ReportBlock::parse)
}

/// Source descriptions, of which we read the CNAME only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sdes<'a> {
    count: u8,
    body: &'a [u8],
}

impl<'a> Sdes<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Sdes<'a> {
        Sdes { count, body }
    }

    /// (SSRC, CNAME, when there is one) of each chunk; ends at the first that is cut off.
    pub fn chunks(&self) -> impl Iterator<Item = (u32, Option<&'a [u8]>)> + use<'a> {
        let mut rest = self.body;
        (0..self.count).map_while(move |_| {
            let ssrc = word(rest, 0)?;
            let mut at = 4;
            let mut cname = None;
            // Items of (type, length, text) up to a zero type; then padding to the next word.
            loop {
                let kind = *rest.get(at)?;
                if kind == 0 {
                    break;
                }
                let len = *rest.get(at + 1)? as usize;
                let text = rest.get(at + 2..at + 2 + len)?;
                if kind == 1 {
                    cname = cname.or(Some(text));
                }
                at += 2 + len;
            }
            rest = rest.get((at + 1).next_multiple_of(4)..).unwrap_or_default();
            Some((ssrc, cname))
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bye<'a> {
    ssrcs: &'a [u8],
}

impl<'a> Bye<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Bye<'a>> {
        Some(Bye { ssrcs: body.get(..4 * count as usize)? })
    }

    pub fn ssrcs(&self) -> impl Iterator<Item = u32> + use<'a> {
        ssrcs(self.ssrcs)
    }
}

pub(super) fn ssrcs(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).filter_map(|chunk| word(chunk, 0))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedReport<'a> {
    pub ssrc: u32,
    blocks: &'a [u8],
}

impl<'a> ExtendedReport<'a> {
    const RECEIVER_REFERENCE_TIME: u8 = 4;
    const DELAY_SINCE_LAST: u8 = 5;

    pub(super) fn parse(body: &'a [u8]) -> Option<ExtendedReport<'a>> {
        Some(ExtendedReport { ssrc: word(body, 0)?, blocks: body.get(4..)? })
    }

    /// The receiver's NTP time (RRTR, RFC 3611 section 4.4), for round-trip measurement without sender reports.
    pub fn receiver_reference_time(&self) -> Option<u64> {
        let (_, block) = self.blocks().find(|(kind, _)| *kind == Self::RECEIVER_REFERENCE_TIME)?;
        Some(u64::from(word(block, 0)?) << 32 | u64::from(word(block, 4)?))
    }

    /// (SSRC, last RRTR, delay since) of the DLRR blocks (RFC 3611 section 4.5).
    pub fn delays(&self) -> impl Iterator<Item = (u32, u32, u32)> + use<'a> {
        self.blocks()
            .filter(|(kind, _)| *kind == Self::DELAY_SINCE_LAST)
            .flat_map(|(_, block)| block.chunks_exact(12))
            .filter_map(|entry| Some((word(entry, 0)?, word(entry, 4)?, word(entry, 8)?)))
    }

    /// (block type, content), up to the first block that is cut off.
    fn blocks(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut rest = self.blocks;
        std::iter::from_fn(move || {
            let (&[kind, _, l0, l1], after) = rest.split_first_chunk::<4>()?;
            let (block, next) = after.split_at_checked(4 * u16::from_be_bytes([l0, l1]) as usize)?;
            rest = next;
            Some((kind, block))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, iterate};

    fn one(datagram: &[u8]) -> Packet<'_> {
        let mut packets = iterate(datagram);
        let first = packets.next().unwrap().unwrap();
        assert_eq!(packets.next(), None);
        first
    }

    #[test]
    fn a_sender_report_with_a_block_is_read() {
        let mut datagram = vec![0x81, 200, 0, 12];
        for word in [7u32, 0x8000_0001, 0x4000_0000, 90_000, 10, 1200] {
            datagram.extend(word.to_be_bytes());
        }
        datagram.extend([0, 0, 0, 9, 0x40, 0xff, 0xff, 0xfe]);
        for word in [0x0001_0002u32, 55, 0x1234_5678, 0x0001_0000] {
            datagram.extend(word.to_be_bytes());
        }
        let Packet::SenderReport(report) = one(&datagram) else { panic!("not a sender report") };
        assert_eq!((report.info.ssrc, report.info.ntp), (7, 0x8000_0001_4000_0000));
        assert_eq!((report.info.rtp_timestamp, report.info.packet_count, report.info.octet_count), (90_000, 10, 1200));
        let blocks: Vec<_> = report.blocks().collect();
        assert_eq!((blocks.len(), blocks[0].ssrc, blocks[0].fraction_lost), (1, 9, 64));
        assert_eq!((blocks[0].cumulative_lost, blocks[0].highest_sequence), (-2, 0x0001_0002));
        assert_eq!((blocks[0].jitter, blocks[0].last_sender_report, blocks[0].delay), (55, 0x1234_5678, 0x0001_0000));
        datagram[0] = 0x82;
        assert!(iterate(&datagram).next().unwrap().is_err(), "more blocks than bytes");
    }

    #[test]
    fn cnames_of_several_chunks_are_read() {
        let datagram = [
            0x82, 202, 0, 7, //
            0, 0, 0, 1, 2, 1, b'x', 1, 2, b'a', b'b', 0, // NAME x, CNAME ab
            0, 0, 0, 2, 1, 1, b'c', 0, //
            0, 0, 0, 3, 1, 200, b'd', 0, // beyond the count, and cut off
        ];
        let Packet::Sdes(sdes) = one(&datagram) else { panic!("not SDES") };
        assert_eq!(sdes.chunks().collect::<Vec<_>>(), [(1, Some(&b"ab"[..])), (2, Some(&b"c"[..]))]);
    }

    #[test]
    fn a_bye_names_its_sources_and_may_give_a_reason() {
        let datagram = [0x82, 203, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 3, b'e', b'n', b'd'];
        let Packet::Bye(bye) = one(&datagram) else { panic!("not BYE") };
        assert_eq!(bye.ssrcs().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn reference_time_and_delays_of_an_extended_report_are_read() {
        let datagram = [
            0x80, 207, 0, 8, 0, 0, 0, 1, //
            4, 0, 0, 2, 0, 0, 0, 5, 0x80, 0, 0, 0, // RRTR
            5, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0, 7, // DLRR
        ];
        let Packet::ExtendedReport(report) = one(&datagram) else { panic!("not XR") };
        assert_eq!(report.receiver_reference_time(), Some(0x0000_0005_8000_0000));
        assert_eq!(report.delays().collect::<Vec<_>>(), [(9, 8, 7)]);
    }
}
