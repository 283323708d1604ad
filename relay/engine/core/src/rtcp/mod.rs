//! RTCP as bytes (RFC 3550 section 6, RFC 4585, RFC 5104, RFC 3611, transport-cc, REMB): walking a datagram's packets and
//! naming them. Must never keep state or know what a report is about. Read `reports.rs` next, `writer.rs` for the way out.

pub mod feedback;
pub mod ntp;
pub mod reports;
pub mod transport_cc;
pub mod writer;

pub use feedback::{Fir, Nack, Pli, Remb};
pub use reports::{Bye, ExtendedReport, ReceiverReport, ReportBlock, Sdes, SenderInfo, SenderReport};
pub use transport_cc::TransportCc;
pub use writer::Writer;

/// Packet types, and the feedback message types (FMT) below them.
mod kind {
    pub const SENDER_REPORT: u8 = 200;
    pub const RECEIVER_REPORT: u8 = 201;
    pub const SDES: u8 = 202;
    pub const BYE: u8 = 203;
    pub const TRANSPORT_FEEDBACK: u8 = 205;
    pub const PAYLOAD_FEEDBACK: u8 = 206;
    pub const EXTENDED_REPORT: u8 = 207;

    pub const NACK: u8 = 1;
    pub const TRANSPORT_CC: u8 = 15;
    pub const PLI: u8 = 1;
    pub const FIR: u8 = 4;
    pub const APPLICATION: u8 = 15;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtcpError {
    /// Shorter than its own fields say.
    Truncated,
    /// Not version 2.
    Version,
    /// The padding count is zero or runs into the header.
    Padding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    SenderReport(SenderReport<'a>),
    ReceiverReport(ReceiverReport<'a>),
    Sdes(Sdes<'a>),
    Bye(Bye<'a>),
    Nack(Nack<'a>),
    Pli(Pli),
    Fir(Fir<'a>),
    TransportCc(TransportCc<'a>),
    Remb(Remb<'a>),
    ExtendedReport(ExtendedReport<'a>),
    /// Well-formed, and nothing that we act on.
    Unknown {
        packet_type: u8,
        /// The five bits beside the version: a count or a feedback message type.
        count: u8,
    },
}

/// The packets of a compound (or, RFC 5506, reduced-size) datagram. After an error nothing more comes, as the next packet's beginning is
/// unknown then.
pub fn iterate(datagram: &[u8]) -> Iterate<'_> {
    Iterate { rest: datagram }
}

#[derive(Clone, Debug)]
pub struct Iterate<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iterate<'a> {
    type Item = Result<Packet<'a>, RtcpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let packet = self.take();
        if packet.is_err() {
            self.rest = &[];
        }
        Some(packet)
    }
}

impl<'a> Iterate<'a> {
    fn take(&mut self) -> Result<Packet<'a>, RtcpError> {
        let (&[first, packet_type, l0, l1], after) = self.rest.split_first_chunk::<4>().ok_or(RtcpError::Truncated)?;
        if first >> 6 != 2 {
            return Err(RtcpError::Version);
        }
        let len = 4 * u16::from_be_bytes([l0, l1]) as usize;
        let (mut body, rest) = after.split_at_checked(len).ok_or(RtcpError::Truncated)?;
        self.rest = rest;
        if first & 0x20 != 0 {
            // RFC 3550 section 6.4.1: the last byte counts the padding, itself included.
            let padding = body.last().map_or(0, |count| *count as usize);
            if padding == 0 {
                return Err(RtcpError::Padding);
            }
            body = body.len().checked_sub(padding).map(|end| &body[..end]).ok_or(RtcpError::Padding)?;
        }
        parse(first & 0x1f, packet_type, body).ok_or(RtcpError::Truncated)
    }
}

fn parse(count: u8, packet_type: u8, body: &[u8]) -> Option<Packet<'_>> {
    Some(match (packet_type, count) {
        (kind::SENDER_REPORT, _) => Packet::SenderReport(SenderReport::parse(count, body)?),
        (kind::RECEIVER_REPORT, _) => Packet::ReceiverReport(ReceiverReport::parse(count, body)?),
        (kind::SDES, _) => Packet::Sdes(Sdes::parse(count, body)),
        (kind::BYE, _) => Packet::Bye(Bye::parse(count, body)?),
        (kind::EXTENDED_REPORT, _) => Packet::ExtendedReport(ExtendedReport::parse(body)?),
        (kind::TRANSPORT_FEEDBACK, kind::NACK) => Packet::Nack(Nack::parse(body)?),
        (kind::TRANSPORT_FEEDBACK, kind::TRANSPORT_CC) => Packet::TransportCc(TransportCc::parse(body)?),
        (kind::PAYLOAD_FEEDBACK, kind::PLI) => Packet::Pli(Pli::parse(body)?),
        (kind::PAYLOAD_FEEDBACK, kind::FIR) => Packet::Fir(Fir::parse(body)?),
        (kind::PAYLOAD_FEEDBACK, kind::APPLICATION) if feedback::is_remb(body) => Packet::Remb(Remb::parse(body)?),
        _ => Packet::Unknown { packet_type, count },
    })
}

/// The 32-bit number at `at`.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|word| u32::from_be_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Walks everything that a packet holds.
    fn walk(packet: &Packet<'_>) -> usize {
        match packet {
            Packet::SenderReport(report) => report.blocks().count(),
            Packet::ReceiverReport(report) => report.blocks().count(),
            Packet::Sdes(sdes) => sdes.chunks().count(),
            Packet::Bye(bye) => bye.ssrcs().count(),
            Packet::Nack(nack) => nack.sequences().count(),
            Packet::Fir(fir) => fir.entries().count(),
            Packet::TransportCc(report) => report.statuses().count(),
            Packet::Remb(remb) => remb.ssrcs().count(),
            Packet::ExtendedReport(report) => report.receiver_reference_time().iter().count() + report.delays().count(),
            Packet::Pli(_) | Packet::Unknown { .. } => 0,
        }
    }

    #[test]
    fn a_compound_is_walked_to_its_end() {
        let datagram = [
            0x80, 201, 0, 1, 0, 0, 0, 1, // RR without blocks
            0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, // PLI
            0x80, 204, 0, 0, // APP, empty
        ];
        let packets: Vec<_> = iterate(&datagram).map(Result::unwrap).collect();
        assert_eq!(packets.len(), 3);
        assert_eq!(packets[1], Packet::Pli(Pli { sender_ssrc: 1, media_ssrc: 2 }));
        assert_eq!(packets[2], Packet::Unknown { packet_type: 204, count: 0 });
    }

    #[test]
    fn an_error_ends_the_walk() {
        let cases: [(&[u8], RtcpError); 6] = [
            (&[0x80, 201, 0], RtcpError::Truncated),
            (&[0x80, 201, 0, 2, 0, 0, 0, 1], RtcpError::Truncated),
            (&[0x40, 201, 0, 1, 0, 0, 0, 1, 0x80, 204, 0, 0], RtcpError::Version),
            (&[0xa0, 201, 0, 1, 0, 0, 0, 0], RtcpError::Padding),
            (&[0xa0, 204, 0, 0], RtcpError::Padding),
            (&[0xa0, 201, 0, 1, 0, 0, 0, 9], RtcpError::Padding),
        ];
        for (datagram, error) in cases {
            assert_eq!(iterate(datagram).collect::<Vec<_>>(), [Err(error)]);
        }
    }

    #[test]
    fn padding_is_taken_off() {
        let datagram = [0xa1, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4];
        let packets: Vec<_> = iterate(&datagram).collect();
        assert_eq!(packets, [Ok(Packet::Pli(Pli { sender_ssrc: 1, media_ssrc: 2 }))]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
            iterate(&datagram).flatten().for_each(|packet| { walk(&packet); });
        }

        #[test]
        fn arbitrary_bodies_of_known_types_never_panic(count in 0u8..32, packet_type in 199u8..209, body in prop::collection::vec(any::<u8>(), 0..160)) {
            let mut datagram = vec![0x80 | count, packet_type, 0, (body.len() / 4) as u8];
            datagram.extend(body);
            iterate(&datagram).flatten().for_each(|packet| { walk(&packet); });
        }
    }
}
