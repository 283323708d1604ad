//! The VP8 payload descriptor (RFC 7741 section 4.2), and the first bit of the frame behind it. Must never know sequence numbers or
//! timestamps. Read `picture_ids.rs` next, which shifts its numbers.
//!
//! ```text
//! |X|R|N|S|R| PID |                S: start of partition PID, N: non-reference frame
//! |I|L|T|K|  RSV  |                if X
//! |M| PictureID   | PictureID low| if I; the second byte if M
//! |   TL0PICIDX   |                if L
//! |TID|Y| KEYIDX  |                if T or K
//! | VP8 payload header: ... P |    in the first packet; P = 0 is a key frame
//! ```

use super::Traits;
use super::picture_ids::{Numbers, PictureId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub non_reference: bool,
    pub partition_start: bool,
    pub partition: u8,
    pub numbers: Numbers,
    pub temporal: Option<u8>,
    /// Bytes of descriptor before the VP8 payload.
    pub len: usize,
}

impl Descriptor {
    pub fn parse(payload: &[u8]) -> Option<Descriptor> {
        let first = *payload.first()?;
        let mut descriptor = Descriptor {
            non_reference: first & 0x20 != 0,
            partition_start: first & 0x10 != 0,
            partition: first & 0x07,
            numbers: Numbers::default(),
            temporal: None,
            len: 1,
        };
        if first & 0x80 == 0 {
            return Some(descriptor);
        }
        let flags = *payload.get(1)?;
        let mut at = 2;
        if flags & 0x80 != 0 {
            let id = PictureId::parse(payload, at)?;
            descriptor.numbers.picture_id = Some(id);
            at += id.len();
        }
        if flags & 0x40 != 0 {
            descriptor.numbers.tl0 = Some((*payload.get(at)?, at));
            at += 1;
        }
        if flags & 0x30 != 0 {
            let byte = *payload.get(at)?;
            descriptor.temporal = (flags & 0x20 != 0).then_some(byte >> 6);
            at += 1;
        }
        descriptor.len = at;
        Some(descriptor)
    }
}

pub fn inspect(payload: &[u8]) -> Traits {
    let Some(descriptor) = Descriptor::parse(payload) else { return Traits::default() };
    let frame_start = descriptor.partition_start && descriptor.partition == 0;
    // RFC 7741 section 4.3: P, the lowest bit of the first byte, is 0 in a key frame.
    let key = payload.get(descriptor.len).is_some_and(|byte| byte & 1 == 0);
    Traits {
        key_frame_start: frame_start && key,
        discardable: descriptor.non_reference,
        temporal: descriptor.temporal.unwrap_or(0),
        ..Traits::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // As Chromium sends it: X, S; I, L, T; 15-bit picture id; TL0PICIDX; TID and KEYIDX; then frame tag and start code.
    const KEY: [u8; 12] = [0x90, 0xe0, 0x92, 0x34, 0x07, 0x00, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a];
    const DELTA: [u8; 8] = [0x90, 0xe0, 0x92, 0x35, 0x08, 0x00, 0x31, 0x0a];

    #[test]
    fn key_frames_and_delta_frames_are_told_apart() {
        assert_eq!(inspect(&KEY), Traits { key_frame_start: true, ..Traits::default() });
        assert_eq!(inspect(&DELTA), Traits::default());
        assert!(inspect(&[0x10, 0x50, 0x02, 0x00]).key_frame_start, "without extension byte");
        assert!(!inspect(&[0x00, 0x50, 0x02, 0x00]).key_frame_start, "the frame's second packet");
        assert!(!inspect(&[0x11, 0x50, 0x02, 0x00]).key_frame_start, "the second partition");
        assert!(!inspect(&[0x10]).key_frame_start, "descriptor only");
    }

    #[test]
    fn temporal_layer_and_non_reference_frames_are_read() {
        let traits = inspect(&[0xb0, 0xe0, 0x80, 0x01, 0x05, 0xa0, 0x11]);
        assert_eq!(traits, Traits { discardable: true, temporal: 2, ..Traits::default() });
        assert_eq!(inspect(&[0x80, 0x10, 0xdf, 1]).temporal, 0, "K without T carries no temporal id");
    }

    #[test]
    fn every_field_of_the_descriptor_is_found() {
        let descriptor = Descriptor::parse(&KEY).unwrap();
        assert_eq!(descriptor.numbers.picture_id, Some(PictureId { value: 0x1234, long: true, at: 2 }));
        assert_eq!((descriptor.numbers.tl0, descriptor.temporal, descriptor.len), (Some((7, 4)), Some(0), 6));
        let short = Descriptor::parse(&[0x80, 0x80, 0x7f, 9]).unwrap();
        assert_eq!(short.numbers.picture_id, Some(PictureId { value: 0x7f, long: false, at: 2 }));
        for len in 0..6 {
            assert_eq!(Descriptor::parse(&KEY[..len]), None);
        }
    }
}
