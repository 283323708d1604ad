//! Feedback about media: generic NACK and PLI (RFC 4585), FIR (RFC 5104), REMB (draft-alvestrand-rmcat-remb-03). Must never
//! decide whether to act on it. Read `transport_cc.rs` next.

use super::{reports, word};

/// Bits of a NACK entry's bitmask (RFC 4585 section 6.2.1).
const MASK_BITS: u16 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nack<'a> {
    pub sender_ssrc: u32,
    pub media_ssrc: u32,
    entries: &'a [u8],
}

impl<'a> Nack<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Nack<'a>> {
        Some(Nack { sender_ssrc: word(body, 0)?, media_ssrc: word(body, 4)?, entries: &body[8..] })
    }

    /// The sequence numbers that are asked for, in wire order; at most 17 for each four bytes.
    pub fn sequences(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.entries.chunks_exact(4).flat_map(|entry| {
            let first = u16::from_be_bytes([entry[0], entry[1]]);
            let mask = u16::from_be_bytes([entry[2], entry[3]]);
            let following = (0..MASK_BITS).filter(move |bit| mask >> bit & 1 != 0);
            std::iter::once(first).chain(following.map(move |bit| first.wrapping_add(bit + 1)))
        })
    }
}

/// One entry of a NACK: the first sequence number of `rest` and the others that its bitmask reaches. Returns the entry
/// and how many numbers of `rest`, which must be in ascending order, it covers.
pub(super) fn nack_entry(rest: &[u16]) -> Option<([u8; 4], usize)> {
    let (&first, others) = rest.split_first()?;
    let mut mask = 0u16;
    let mut covered = 1;
    for sequence in others {
        match sequence.wrapping_sub(first) {
            0 => {}
            ahead @ 1..=MASK_BITS => mask |= 1 << (ahead - 1),
            _ => break,
        }
        covered += 1;
    }
    let ([a, b], [c, d]) = (first.to_be_bytes(), mask.to_be_bytes());
    Some(([a, b, c, d], covered))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pli {
    pub sender_ssrc: u32,
    pub media_ssrc: u32,
}

impl Pli {
    pub(super) fn parse(body: &[u8]) -> Option<Pli> {
        Some(Pli { sender_ssrc: word(body, 0)?, media_ssrc: word(body, 4)? })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fir<'a> {
    pub sender_ssrc: u32,
    entries: &'a [u8],
}

impl<'a> Fir<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Fir<'a>> {
        Some(Fir { sender_ssrc: word(body, 0)?, entries: body.get(8..)? })
    }

    /// (media SSRC, command sequence number): a number seen before repeats the command.
    pub fn entries(&self) -> impl Iterator<Item = (u32, u8)> + use<'a> {
        self.entries.chunks_exact(8).filter_map(|entry| Some((word(entry, 0)?, entry[4])))
    }
}

/// The receiver's estimate of the bitrate that all the named streams together may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remb<'a> {
    pub sender_ssrc: u32,
    /// Bits per second; saturates.
    pub bitrate: u64,
    ssrcs: &'a [u8],
}

pub(super) const REMB_NAME: &[u8; 4] = b"REMB";

pub(super) fn is_remb(body: &[u8]) -> bool {
    body.get(8..12) == Some(REMB_NAME)
}

impl<'a> Remb<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Remb<'a>> {
        let packed = word(body, 12)?;
        let (count, exponent, mantissa) = (packed >> 24, packed >> 18 & 0x3f, u64::from(packed & 0x3_ffff));
        let bitrate = if exponent > mantissa.leading_zeros() { u64::MAX } else { mantissa << exponent };
        let ssrcs = body.get(16..16 + 4 * count as usize)?;
        Some(Remb { sender_ssrc: word(body, 0)?, bitrate: if mantissa == 0 { 0 } else { bitrate }, ssrcs })
    }

    pub fn ssrcs(&self) -> impl Iterator<Item = u32> + use<'a> {
        reports::ssrcs(self.ssrcs)
    }
}

/// An exponent of 6 bits and a mantissa of 18 for `bitrate`, rounded down.
pub(super) fn remb_bitrate(bitrate: u64) -> u32 {
    let exponent = (u64::BITS - bitrate.leading_zeros()).saturating_sub(18);
    exponent << 18 | (bitrate >> exponent) as u32
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, iterate};
    use super::*;

    #[test]
    fn a_nack_names_the_first_packet_and_the_bits_after_it() {
        let datagram = [0x81, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xfe, 0x80, 0x05, 0, 9, 0, 0];
        let Some(Ok(Packet::Nack(nack))) = iterate(&datagram).next() else { panic!("not a NACK") };
        assert_eq!((nack.sender_ssrc, nack.media_ssrc), (1, 2));
        assert_eq!(nack.sequences().collect::<Vec<_>>(), [65534, 65535, 1, 14, 9]);
    }

    #[test]
    fn a_nack_entry_reaches_sixteen_numbers_past_its_first() {
        assert_eq!(nack_entry(&[65534, 65535, 1, 14, 15]), Some(([0xff, 0xfe, 0x80, 0x05], 4)));
        assert_eq!(nack_entry(&[7, 7, 8]), Some(([0, 7, 0, 1], 3)));
        assert_eq!(nack_entry(&[]), None);
    }

    #[test]
    fn a_fir_names_streams_and_command_numbers() {
        let datagram = [0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 3, 0, 0, 0];
        let Some(Ok(Packet::Fir(fir))) = iterate(&datagram).next() else { panic!("not a FIR") };
        assert_eq!(fir.entries().collect::<Vec<_>>(), [(9, 3)]);
    }

    #[test]
    fn a_remb_is_told_from_other_application_feedback() {
        let mut datagram =
            [0x8f, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1, 0x03, 0x00, 0x01, 0, 0, 0, 9];
        let Some(Ok(Packet::Remb(remb))) = iterate(&datagram).next() else { panic!("not a REMB") };
        assert_eq!((remb.bitrate, remb.ssrcs().collect::<Vec<_>>()), (0x3_0001, vec![9]));
        datagram[17] = 0xff;
        let Some(Ok(Packet::Remb(remb))) = iterate(&datagram).next() else { panic!("not a REMB") };
        assert_eq!(remb.bitrate, u64::MAX, "an exponent of 63");
        datagram[16] = 2;
        assert!(iterate(&datagram).next().unwrap().is_err(), "more SSRCs than bytes");
        datagram[12] = b'X';
        assert_eq!(iterate(&datagram).next(), Some(Ok(Packet::Unknown { packet_type: 206, count: 15 })));
    }

    #[test]
    fn a_bitrate_loses_only_what_the_mantissa_cannot_hold() {
        for bitrate in [0, 1, 0x3_ffff, 0x4_0000, 2_500_000, 1 << 40, u64::MAX] {
            let packed = remb_bitrate(bitrate);
            let back = u64::from(packed & 0x3_ffff) << (packed >> 18);
            assert!(back <= bitrate && bitrate - back <= bitrate >> 17, "{bitrate} came back as {back}");
        }
    }
}
