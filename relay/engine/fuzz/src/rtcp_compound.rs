//! Every list of every packet can be walked. What our writer can write, it writes as the same bytes again.

use std::collections::BTreeSet;

use millrace_core::rtcp::{self, Packet, Writer};

pub fn run(datagram: &[u8]) {
    let mut failed = false;
    for packet in rtcp::iterate(datagram) {
        assert!(!failed, "nothing follows an error");
        match packet {
            Ok(packet) => rtcp_packet(&packet),
            Err(_) => failed = true,
        }
    }
}

fn rtcp_packet(packet: &Packet<'_>) {
    let mut out = [0xff; 1500];
    let mut writer = Writer::new(&mut out);
    let written = match packet {
        Packet::SenderReport(report) => writer.sender_report(&report.info, &report.blocks().collect::<Vec<_>>()),
        Packet::ReceiverReport(report) => writer.receiver_report(report.ssrc, &report.blocks().collect::<Vec<_>>()),
        Packet::Bye(bye) => writer.bye(&bye.ssrcs().collect::<Vec<_>>()),
        Packet::Pli(pli) => writer.pli(pli.sender_ssrc, pli.media_ssrc),
        Packet::Fir(fir) => writer.fir(fir.sender_ssrc, &fir.entries().collect::<Vec<_>>()),
        Packet::Nack(nack) => {
            let sequences: Vec<_> = nack.sequences().collect();
            writer.nack(nack.sender_ssrc, nack.media_ssrc, &sequences) == sequences.len() && !sequences.is_empty()
        }
        Packet::Remb(remb) => writer.remb(remb.sender_ssrc, remb.bitrate, &remb.ssrcs().collect::<Vec<_>>()),
        Packet::TransportCc(report) => return assert!(report.statuses().count() <= report.head.status_count.into()),
        Packet::Sdes(sdes) => return assert!(sdes.chunks().count() <= 31),
        Packet::ExtendedReport(report) => {
            report.receiver_reference_time();
            return assert!(report.delays().count() <= 65_535);
        }
        Packet::Unknown { count, .. } => return assert!(*count < 32),
    };
    assert_eq!(written, !writer.is_empty());
    if !written {
        return;
    }
    let again: Vec<_> = rtcp::iterate(writer.written()).collect();
    match (packet, &again[..]) {
        // A mask may name the same packet as its neighbour, and the entries may be packed otherwise.
        (Packet::Nack(first), [Ok(Packet::Nack(second))]) => {
            let sorted = |nack: &rtcp::Nack<'_>| nack.sequences().collect::<BTreeSet<_>>();
            assert_eq!(sorted(first), sorted(second));
        }
        // Bytes that RFC 5104 reserves are written as zero, and an entry cut off is left out.
        (Packet::Fir(first), [Ok(Packet::Fir(second))]) => assert!(first.entries().eq(second.entries())),
        // A bitrate may be written with several exponents, and one past 64 bits saturates.
        (Packet::Remb(first), [Ok(Packet::Remb(second))]) => {
            assert!(second.bitrate <= first.bitrate && first.bitrate - second.bitrate <= first.bitrate >> 17);
            assert!(first.ssrcs().eq(second.ssrcs()));
        }
        (first, [Ok(second)]) => assert_eq!(first, second),
        (first, _) => panic!("{first:?} came back as {again:?}"),
    }
}
