//! Writes RTCP packets one behind the other into a datagram. Owns the bound on its size; must never know when something is
//! due or to whom it goes. Read `../forward/publication/mod.rs` next, which calls it.

use super::feedback::{REMB_NAME, nack_entry, remb_bitrate};
use super::transport_cc::{HEAD_LEN, TransportCcHead};
use super::{ReportBlock, SenderInfo, kind};

/// The most that a datagram may be (1200 bytes), less SRTCP's index (4) and the longest authentication tag (16).
pub const MAX_COMPOUND: usize = 1200 - 20;

/// Blocks, sources or SSRCs that the five-bit count can name.
const MAX_COUNT: usize = 31;

/// A datagram under construction. A packet that does not fit is not written, and the method returns false or zero. Then the caller sends
/// what is written, and goes on with a new datagram.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    pub fn new(out: &'a mut [u8]) -> Writer<'a> {
        let limit = out.len().min(MAX_COMPOUND);
        Writer { out: &mut out[..limit], len: 0 }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes left.
    pub fn room(&self) -> usize {
        self.out.len() - self.len
    }

    pub fn written(&self) -> &[u8] {
        &self.out[..self.len]
    }

    /// At most 31 blocks.
    #[must_use]
    pub fn sender_report(&mut self, info: &SenderInfo, blocks: &[ReportBlock]) -> bool {
        let Some(body) = self.packet(kind::SENDER_REPORT, blocks.len(), 24 + blocks.len() * ReportBlock::LEN) else {
            return false;
        };
        let (ntp_seconds, ntp_fraction) = ((info.ntp >> 32) as u32, info.ntp as u32);
        let words = [info.ssrc, ntp_seconds, ntp_fraction, info.rtp_timestamp, info.packet_count, info.octet_count];
        put_words(&mut body[..24], &words);
        put_blocks(&mut body[24..], blocks);
        true
    }

    /// At most 31 blocks.
    #[must_use]
    pub fn receiver_report(&mut self, ssrc: u32, blocks: &[ReportBlock]) -> bool {
        let Some(body) = self.packet(kind::RECEIVER_REPORT, blocks.len(), 4 + blocks.len() * ReportBlock::LEN) else {
            return false;
        };
        put_words(&mut body[..4], &[ssrc]);
        put_blocks(&mut body[4..], blocks);
        true
    }

    /// One chunk with its CNAME, of at most 255 bytes.
    #[must_use]
    pub fn sdes_cname(&mut self, ssrc: u32, cname: &str) -> bool {
        let Ok(len) = u8::try_from(cname.len()) else { return false };
        // The item, and at least one zero byte that ends the chunk (RFC 3550 section 6.5).
        let Some(body) = self.packet(kind::SDES, 1, (4 + 2 + cname.len() + 1).next_multiple_of(4)) else {
            return false;
        };
        put_words(&mut body[..4], &[ssrc]);
        body[4..6].copy_from_slice(&[1, len]);
        body[6..6 + cname.len()].copy_from_slice(cname.as_bytes());
        body[6 + cname.len()..].fill(0);
        true
    }

    /// At most 31 sources.
    #[must_use]
    pub fn bye(&mut self, ssrcs: &[u32]) -> bool {
        let Some(body) = self.packet(kind::BYE, ssrcs.len(), 4 * ssrcs.len()) else { return false };
        put_words(body, ssrcs);
        true
    }

    /// Asks for `sequences`, which must be in ascending order (as indexes: it may wrap). Returns how many of them, from the
    /// front, found room.
    #[must_use]
    pub fn nack(&mut self, sender_ssrc: u32, media_ssrc: u32, sequences: &[u16]) -> usize {
        let mut entries = [[0; 4]; MAX_COMPOUND / 4];
        let room = self.room().saturating_sub(12) / 4;
        let (mut count, mut covered) = (0, 0);
        while count < room
            && let Some((entry, more)) = nack_entry(&sequences[covered..])
        {
            entries[count] = entry;
            count += 1;
            covered += more;
        }
        if count == 0 {
            return 0;
        }
        let Some(body) = self.packet(kind::TRANSPORT_FEEDBACK, kind::NACK.into(), 8 + 4 * count) else { return 0 };
        put_words(&mut body[..8], &[sender_ssrc, media_ssrc]);
        body[8..].copy_from_slice(entries[..count].as_flattened());
        covered
    }

    #[must_use]
    pub fn pli(&mut self, sender_ssrc: u32, media_ssrc: u32) -> bool {
        let Some(body) = self.packet(kind::PAYLOAD_FEEDBACK, kind::PLI.into(), 8) else { return false };
        put_words(body, &[sender_ssrc, media_ssrc]);
        true
    }

    /// Full intra request for each (media SSRC, command sequence number): a new command needs a new number.
    #[must_use]
    pub fn fir(&mut self, sender_ssrc: u32, entries: &[(u32, u8)]) -> bool {
        let Some(body) = self.packet(kind::PAYLOAD_FEEDBACK, kind::FIR.into(), 8 + 8 * entries.len()) else {
            return false;
        };
        // RFC 5104 section 4.3.1.2: the media SSRC of the head is unused and zero.
        put_words(&mut body[..8], &[sender_ssrc, 0]);
        for (out, (ssrc, command)) in body[8..].chunks_exact_mut(8).zip(entries) {
            put_words(out, &[*ssrc, u32::from(*command) << 24]);
        }
        true
    }

    /// `chunks` and `deltas` as `congestion::arrivals` makes them.
    #[must_use]
    pub fn transport_cc(&mut self, head: &TransportCcHead, chunks: &[u16], deltas: &[u8]) -> bool {
        let len = HEAD_LEN + 2 * chunks.len() + deltas.len();
        let packet = self.packet(kind::TRANSPORT_FEEDBACK, kind::TRANSPORT_CC.into(), len.next_multiple_of(4));
        let Some(body) = packet else { return false };
        let range = u32::from(head.base_sequence) << 16 | u32::from(head.status_count);
        let time = head.reference << 8 | u32::from(head.feedback_count);
        put_words(&mut body[..HEAD_LEN], &[head.sender_ssrc, head.media_ssrc, range, time]);
        let (chunks_out, rest) = body[HEAD_LEN..].split_at_mut(2 * chunks.len());
        for (out, chunk) in chunks_out.chunks_exact_mut(2).zip(chunks) {
            out.copy_from_slice(&chunk.to_be_bytes());
        }
        let (deltas_out, padding) = rest.split_at_mut(deltas.len());
        deltas_out.copy_from_slice(deltas);
        padding.fill(0);
        true
    }

    /// `bitrate` in bits per second, rounded down to a mantissa of 18 bits; for at most 255 streams.
    #[must_use]
    pub fn remb(&mut self, sender_ssrc: u32, bitrate: u64, ssrcs: &[u32]) -> bool {
        let Ok(count) = u8::try_from(ssrcs.len()) else { return false };
        let packet = self.packet(kind::PAYLOAD_FEEDBACK, kind::APPLICATION.into(), 16 + 4 * ssrcs.len());
        let Some(body) = packet else { return false };
        let packed = u32::from(count) << 24 | remb_bitrate(bitrate);
        put_words(&mut body[..16], &[sender_ssrc, 0, u32::from_be_bytes(*REMB_NAME), packed]);
        put_words(&mut body[16..], ssrcs);
        true
    }

    /// The body of a new packet, all of it to be written by the caller; its length must be a multiple of four.
    fn packet(&mut self, packet_type: u8, count: usize, body_len: usize) -> Option<&mut [u8]> {
        if count > MAX_COUNT || self.room() < 4 + body_len {
            return None;
        }
        let packet = &mut self.out[self.len..self.len + 4 + body_len];
        self.len += packet.len();
        let (head, body) = packet.split_at_mut(4);
        head[..2].copy_from_slice(&[0x80 | count as u8, packet_type]);
        head[2..].copy_from_slice(&((body_len / 4) as u16).to_be_bytes());
        Some(body)
    }
}

fn put_words(out: &mut [u8], words: &[u32]) {
    for (bytes, word) in out.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
}

fn put_blocks(out: &mut [u8], blocks: &[ReportBlock]) {
    for (bytes, block) in out.as_chunks_mut().0.iter_mut().zip(blocks) {
        block.write(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, Pli, iterate};
    use super::*;
    use proptest::prelude::*;

    fn block() -> impl Strategy<Value = ReportBlock> {
        (any::<(u32, u8, u32, u32, u32, u32)>(), -0x80_0000i32..0x80_0000).prop_map(|(any, cumulative_lost)| {
            let (ssrc, fraction_lost, highest_sequence, jitter, last_sender_report, delay) = any;
            ReportBlock { ssrc, fraction_lost, cumulative_lost, highest_sequence, jitter, last_sender_report, delay }
        })
    }

    /// The only packet in what `write` wrote, handed to `check`.
    fn round_trip(write: impl FnOnce(&mut Writer<'_>), check: impl FnOnce(Packet<'_>)) {
        let mut buffer = [0xff; 1500];
        let mut writer = Writer::new(&mut buffer);
        write(&mut writer);
        assert_eq!(writer.len() % 4, 0);
        let mut packets = iterate(writer.written());
        check(packets.next().unwrap().unwrap());
        assert_eq!(packets.next(), None);
    }

    #[test]
    fn a_compound_is_read_back_packet_by_packet() {
        let mut buffer = [0xff; 1500];
        let mut writer = Writer::new(&mut buffer);
        assert!(writer.receiver_report(1, &[]) && writer.sdes_cname(1, "abcde") && writer.pli(1, 2));
        let packets: Vec<_> = iterate(writer.written()).map(Result::unwrap).collect();
        assert_eq!(packets.len(), 3);
        let Packet::Sdes(sdes) = packets[1] else { panic!("not SDES") };
        assert_eq!(sdes.chunks().collect::<Vec<_>>(), [(1, Some(&b"abcde"[..]))]);
        assert_eq!(packets[2], Packet::Pli(Pli { sender_ssrc: 1, media_ssrc: 2 }));
    }

    #[test]
    fn what_does_not_fit_is_not_begun() {
        let mut buffer = [0; 1500];
        let mut writer = Writer::new(&mut buffer);
        while writer.pli(1, 2) {}
        assert!(writer.len() <= MAX_COMPOUND && writer.room() < 12);
        assert!(!writer.receiver_report(1, &[ReportBlock::default()]) && !writer.remb(1, 2, &[3]));
        assert_eq!(writer.nack(1, 2, &[3]), 0);
        assert!(iterate(writer.written()).all(|packet| packet.is_ok()));

        let mut small = [0; 11];
        assert!(!Writer::new(&mut small).pli(1, 2));
        assert!(!Writer::new(&mut buffer).receiver_report(1, &[ReportBlock::default(); 32]), "the count has five bits");
        assert!(!Writer::new(&mut buffer).sdes_cname(1, &"x".repeat(256)));
    }

    #[test]
    fn a_long_nack_goes_on_in_the_next_datagram() {
        let wanted: Vec<u16> = (0..400).map(|i| 60_000u16.wrapping_add(i * 20)).collect();
        let mut asked = Vec::new();
        while asked.len() < wanted.len() {
            let mut buffer = [0; 1500];
            let mut writer = Writer::new(&mut buffer);
            let count = writer.nack(1, 2, &wanted[asked.len()..]);
            let Some(Ok(Packet::Nack(nack))) = iterate(writer.written()).next() else { panic!("not a NACK") };
            let sequences: Vec<_> = nack.sequences().collect();
            assert_eq!(sequences.len(), count);
            asked.extend(sequences);
        }
        assert_eq!(asked, wanted);
    }

    proptest! {
        #[test]
        fn reports_are_read_back(any: (u32, u64, u32, u32, u32), blocks in prop::collection::vec(block(), 0..=31)) {
            let (ssrc, ntp, rtp_timestamp, packet_count, octet_count) = any;
            let info = SenderInfo { ssrc, ntp, rtp_timestamp, packet_count, octet_count };
            round_trip(|writer| assert!(writer.sender_report(&info, &blocks)), |packet| {
                let Packet::SenderReport(report) = packet else { panic!("not a sender report") };
                assert_eq!(report.info, info);
                assert!(report.blocks().eq(blocks.iter().copied()));
            });
            round_trip(|writer| assert!(writer.receiver_report(ssrc, &blocks)), |packet| {
                let Packet::ReceiverReport(report) = packet else { panic!("not a receiver report") };
                assert_eq!(report.ssrc, ssrc);
                assert!(report.blocks().eq(blocks.iter().copied()));
            });
        }

        #[test]
        fn lists_are_read_back(sender: u32, ssrcs in prop::collection::vec(any::<u32>(), 0..=31), bitrate in 0u64..1 << 18) {
            round_trip(|writer| assert!(writer.bye(&ssrcs)), |packet| {
                let Packet::Bye(bye) = packet else { panic!("not BYE") };
                assert!(bye.ssrcs().eq(ssrcs.iter().copied()));
            });
            let entries: Vec<_> = ssrcs.iter().map(|ssrc| (*ssrc, *ssrc as u8)).collect();
            round_trip(|writer| assert!(writer.fir(sender, &entries)), |packet| {
                let Packet::Fir(fir) = packet else { panic!("not a FIR") };
                assert_eq!(fir.sender_ssrc, sender);
                assert!(fir.entries().eq(entries.iter().copied()));
            });
            round_trip(|writer| assert!(writer.remb(sender, bitrate, &ssrcs)), |packet| {
                let Packet::Remb(remb) = packet else { panic!("not a REMB") };
                assert_eq!((remb.sender_ssrc, remb.bitrate), (sender, bitrate));
                assert!(remb.ssrcs().eq(ssrcs.iter().copied()));
            });
        }

        #[test]
        fn a_nack_asks_for_exactly_what_was_wanted(start: u16, gaps in prop::collection::vec(1u16..40, 1..60)) {
            let wanted: Vec<u16> = gaps.iter().scan(start, |at, gap| { *at = at.wrapping_add(*gap); Some(*at) }).collect();
            round_trip(|writer| assert_eq!(writer.nack(1, 2, &wanted), wanted.len()), |packet| {
                let Packet::Nack(nack) = packet else { panic!("not a NACK") };
                assert_eq!(nack.sequences().collect::<Vec<_>>(), wanted);
            });
        }

        #[test]
        fn a_cname_of_any_length_is_read_back(ssrc: u32, cname in "[a-z]{0,255}") {
            round_trip(|writer| assert!(writer.sdes_cname(ssrc, &cname)), |packet| {
                let Packet::Sdes(sdes) = packet else { panic!("not SDES") };
                assert_eq!(sdes.chunks().collect::<Vec<_>>(), [(ssrc, Some(cname.as_bytes()))]);
            });
        }
    }
}
