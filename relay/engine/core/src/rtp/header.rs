//! The RTP header (RFC 3550 section 5.1): where each part of a packet lies, and the writing of outgoing headers. Must never
//! look at extension elements or the payload. Read `extensions.rs` next.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |V=2|P|X|  CC   |M|     PT      |       sequence number         |
//! |                           timestamp                           |
//! |                             SSRC                              |
//! |                     CSRC, CC times                            |
//! |      profile (if X)           |  length in 32-bit words       |
//! |                     extension block                           |
//! |  payload ...                     | padding (if P) | its count |
//! ```

use std::ops::Range;

/// The bytes before the CSRC list.
pub const FIXED_LEN: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtpError {
    /// Shorter than its own fields say.
    Truncated,
    /// Not version 2.
    Version,
    /// The padding count is zero or runs into the header.
    Padding,
}

/// The data of a header extension: `start..start + len` of the packet, the four bytes before it not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionBlock {
    pub profile: u16,
    pub start: usize,
    /// Bytes, a multiple of four.
    pub len: usize,
}

/// A parsed header. It holds offsets, not slices, so that the packet can be changed meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    pub csrc_count: u8,
    pub extension: Option<ExtensionBlock>,
    pub payload_offset: usize,
    /// Where the payload ends and the padding begins.
    pub payload_end: usize,
    /// Bytes of padding, its count included; 0 without padding.
    pub padding: u8,
}

impl Header {
    pub fn parse(packet: &[u8]) -> Result<Header, RtpError> {
        let (fixed, rest) = packet.split_first_chunk::<FIXED_LEN>().ok_or(RtpError::Truncated)?;
        if fixed[0] >> 6 != 2 {
            return Err(RtpError::Version);
        }
        let csrc_count = fixed[0] & 0x0f;
        let mut payload_offset = FIXED_LEN + 4 * csrc_count as usize;
        let mut extension = None;
        if fixed[0] & 0x10 != 0 {
            let head = rest.get(4 * csrc_count as usize..).and_then(|after| after.first_chunk::<4>());
            let [p0, p1, l0, l1] = *head.ok_or(RtpError::Truncated)?;
            let start = payload_offset + 4;
            let len = 4 * u16::from_be_bytes([l0, l1]) as usize;
            extension = Some(ExtensionBlock { profile: u16::from_be_bytes([p0, p1]), start, len });
            payload_offset = start + len;
        }
        if payload_offset > packet.len() {
            return Err(RtpError::Truncated);
        }
        let padding = if fixed[0] & 0x20 != 0 { packet[packet.len() - 1] } else { 0 };
        let room = packet.len() - payload_offset;
        if fixed[0] & 0x20 != 0 && (padding == 0 || padding as usize > room) {
            return Err(RtpError::Padding);
        }
        Ok(Header {
            marker: fixed[1] & 0x80 != 0,
            payload_type: fixed[1] & 0x7f,
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            csrc_count,
            extension,
            payload_offset,
            payload_end: packet.len() - padding as usize,
            padding,
        })
    }

    /// Where the payload lies, padding excluded.
    pub fn payload_range(&self) -> Range<usize> {
        self.payload_offset..self.payload_end
    }

    /// The payload of `packet`, padding excluded; empty when `packet` is not the one that was parsed.
    pub fn payload<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet.get(self.payload_range()).unwrap_or_default()
    }

    pub fn fields(&self) -> Fields {
        Fields {
            marker: self.marker,
            payload_type: self.payload_type,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
        }
    }
}

/// The fixed part of an outgoing header. We write neither CSRCs (we mix nothing) nor padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    pub marker: bool,
    /// 7 bits.
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
}

impl Fields {
    /// Writes the fixed part to the front of `out` and returns its length, `None` when it does not fit. With
    /// `has_extension`, an extension block (`extensions::Elements::write`) must follow it.
    pub fn write(&self, has_extension: bool, out: &mut [u8]) -> Option<usize> {
        let fixed = out.first_chunk_mut::<FIXED_LEN>()?;
        fixed[0] = 0x80 | u8::from(has_extension) << 4;
        fixed[1] = u8::from(self.marker) << 7 | self.payload_type & 0x7f;
        fixed[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        fixed[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        fixed[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        Some(FIXED_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: [u8; 14] = [0x80, 0xef, 0x12, 0x34, 0, 0, 0, 9, 0xde, 0xad, 0xbe, 0xef, 7, 8];

    #[test]
    fn a_plain_packet_is_read() {
        let header = Header::parse(&PLAIN).unwrap();
        assert_eq!(
            header.fields(),
            Fields { marker: true, payload_type: 111, sequence: 0x1234, timestamp: 9, ssrc: 0xdeadbeef }
        );
        assert_eq!((header.csrc_count, header.extension, header.padding), (0, None, 0));
        assert_eq!(header.payload(&PLAIN), [7, 8]);
    }

    #[test]
    fn csrcs_extension_and_padding_are_kept_out_of_the_payload() {
        let mut packet = PLAIN[..12].to_vec();
        packet[0] |= 0x30 | 2;
        packet.extend([0; 8]);
        packet.extend([0xbe, 0xde, 0, 1, 0x10, 0xaa, 0, 0]);
        packet.extend([1, 2, 3, 0, 0, 3]);
        let header = Header::parse(&packet).unwrap();
        assert_eq!(header.extension, Some(ExtensionBlock { profile: 0xbede, start: 24, len: 4 }));
        assert_eq!(header.payload(&packet), [1, 2, 3]);
        assert_eq!(header.padding, 3);
    }

    #[test]
    fn a_packet_of_padding_only_has_an_empty_payload() {
        let mut packet = PLAIN.to_vec();
        packet[0] |= 0x20;
        packet[13] = 2;
        assert_eq!(Header::parse(&packet).unwrap().payload(&packet), []);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let with = |at: usize, byte: u8| {
            let mut packet = PLAIN.to_vec();
            packet[at] = byte;
            Header::parse(&packet)
        };
        for len in 0..12 {
            assert_eq!(Header::parse(&PLAIN[..len]), Err(RtpError::Truncated));
        }
        assert_eq!(with(0, 0x40), Err(RtpError::Version));
        assert_eq!(with(0, 0x81), Err(RtpError::Truncated), "CSRC list past the end");
        assert_eq!(with(0, 0x90), Err(RtpError::Truncated), "extension head past the end");
        let mut padded = PLAIN;
        padded[0] = 0xa0;
        for (count, expected) in [(0, false), (1, true), (2, true), (3, false), (255, false)] {
            padded[13] = count;
            assert_eq!(Header::parse(&padded).is_ok(), expected, "padding of {count}");
        }
        padded[11] = 1;
        assert_eq!(Header::parse(&padded[..12]), Err(RtpError::Padding), "no room for padding");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_ranges_stay_inside(mut packet in prop::collection::vec(any::<u8>(), 0..200), valid in any::<bool>()) {
            if valid && !packet.is_empty() {
                packet[0] = 0x80 | packet[0] & 0x3f;
            }
            if let Ok(header) = Header::parse(&packet) {
                prop_assert!(header.payload_offset <= header.payload_end && header.payload_end <= packet.len());
                prop_assert_eq!(header.payload(&packet).len() + header.padding as usize + header.payload_offset, packet.len());
            }
        }

        #[test]
        fn written_fields_are_read_back(marker: bool, payload_type in 0u8..128, sequence: u16, timestamp: u32, ssrc: u32) {
            let fields = Fields { marker, payload_type, sequence, timestamp, ssrc };
            let mut out = [0xff; 20];
            prop_assert_eq!(fields.write(false, &mut out), Some(12));
            prop_assert_eq!(Header::parse(&out).unwrap().fields(), fields);
            prop_assert_eq!(fields.write(false, &mut out[..11]), None);
        }
    }
}
