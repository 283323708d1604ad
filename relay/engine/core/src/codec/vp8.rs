//! The VP8 payload descriptor (RFC 7741 section 4.2): reading it, and shifting picture ids so that they are continuous when a
//! subscription changes its source. Must never know sequence numbers or timestamps. Read `../forward/subscription/mod.rs` next.
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

/// A picture id as it lies in the descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureId {
    pub value: u16,
    /// 15 bits wide instead of 7.
    pub long: bool,
    /// Offset of its first byte in the payload.
    at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub non_reference: bool,
    pub partition_start: bool,
    pub partition: u8,
    pub picture_id: Option<PictureId>,
    /// TL0PICIDX, and its offset in the payload.
    tl0: Option<(u8, usize)>,
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
            picture_id: None,
            tl0: None,
            temporal: None,
            len: 1,
        };
        if first & 0x80 == 0 {
            return Some(descriptor);
        }
        let flags = *payload.get(1)?;
        let mut at = 2;
        if flags & 0x80 != 0 {
            let high = *payload.get(at)?;
            let long = high & 0x80 != 0;
            let value = if long { u16::from_be_bytes([high & 0x7f, *payload.get(at + 1)?]) } else { u16::from(high) };
            descriptor.picture_id = Some(PictureId { value, long, at });
            at += if long { 2 } else { 1 };
        }
        if flags & 0x40 != 0 {
            descriptor.tl0 = Some((*payload.get(at)?, at));
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

    pub fn tl0_picture_index(&self) -> Option<u8> {
        self.tl0.map(|(value, _)| value)
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

/// What is added to one source's numbers. It stays with the source: a retransmission from before a switch needs the old shift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    pub picture_id: u16,
    pub tl0: u8,
}

impl Offsets {
    /// Shifts the numbers of one packet, in place; a field that is absent stays absent, and one of 7 bits stays so wide.
    pub fn apply(self, payload: &mut [u8]) {
        if self == Offsets::default() {
            return;
        }
        let Some(descriptor) = Descriptor::parse(payload) else { return };
        if let Some(id) = descriptor.picture_id {
            let shifted = id.value.wrapping_add(self.picture_id);
            if id.long {
                payload[id.at] = 0x80 | (shifted >> 8) as u8 & 0x7f;
                payload[id.at + 1] = shifted as u8;
            } else {
                payload[id.at] = shifted as u8 & 0x7f;
            }
        }
        if let Some((tl0, at)) = descriptor.tl0 {
            payload[at] = tl0.wrapping_add(self.tl0);
        }
    }
}

/// The picture numbers of one outgoing stream, continuous over changes of its source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewriter {
    offsets: Offsets,
    /// The highest picture id (15 bits) and the highest TL0PICIDX that went out.
    picture_id: Option<u16>,
    tl0: Option<u8>,
}

impl Rewriter {
    /// The numbers that went out: `present 1 | tl0 8 | present 1 | picture id 15`, from bit 24 down.
    pub fn pack(&self) -> u32 {
        let picture_id = self.picture_id.map_or(0, |id| 1 << 15 | u32::from(id & 0x7fff));
        picture_id | self.tl0.map_or(0, |tl0| 1 << 24 | u32::from(tl0) << 16)
    }

    /// Resumes from what `pack` made. The shifts of the present source follow with `follow`.
    pub fn unpack(packed: u32) -> Rewriter {
        let picture_id = (packed >> 15 & 1 == 1).then_some(packed as u16 & 0x7fff);
        let tl0 = (packed >> 24 & 1 == 1).then_some((packed >> 16) as u8);
        Rewriter { offsets: Offsets::default(), picture_id, tl0 }
    }

    /// Sets the shifts of the source that is followed.
    pub fn follow(&mut self, offsets: Offsets) {
        self.offsets = offsets;
    }

    /// The next source begins with the packet `payload`, as it came from the publisher: its picture follows the last
    /// one that went out. Returns the new offsets.
    pub fn switch(&mut self, payload: &[u8]) -> Offsets {
        self.offsets = Offsets::default();
        if let Some(descriptor) = Descriptor::parse(payload) {
            if let (Some(last), Some(id)) = (self.picture_id, descriptor.picture_id) {
                self.offsets.picture_id = last.wrapping_add(1).wrapping_sub(id.value) & 0x7fff;
            }
            if let (Some(last), Some((tl0, _))) = (self.tl0, descriptor.tl0) {
                self.offsets.tl0 = last.wrapping_add(1).wrapping_sub(tl0);
            }
        }
        self.offsets
    }

    /// Rewrites one packet of the present source.
    pub fn rewrite(&mut self, payload: &mut [u8]) {
        self.offsets.apply(payload);
        let Some(descriptor) = Descriptor::parse(payload) else { return };
        if let Some(id) = descriptor.picture_id {
            // A short id is compared within its own seven bits.
            let shift = if id.long { 1 } else { 9 };
            let newer = |last: u16| (id.value.wrapping_sub(last) << shift) as i16 > 0;
            if self.picture_id.is_none_or(newer) {
                self.picture_id = Some(id.value);
            }
        }
        if let Some(tl0) = descriptor.tl0_picture_index()
            && self.tl0.is_none_or(|last| tl0.wrapping_sub(last) as i8 > 0)
        {
            self.tl0 = Some(tl0);
        }
    }

    pub fn offsets(&self) -> Offsets {
        self.offsets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // As Chromium sends it: X, S; I, L, T; 15-bit picture id; TL0PICIDX; TID and KEYIDX; then frame tag and start code.
    const KEY: [u8; 12] = [0x90, 0xe0, 0x92, 0x34, 0x07, 0x00, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a];
    const DELTA: [u8; 8] = [0x90, 0xe0, 0x92, 0x35, 0x08, 0x00, 0x31, 0x0a];

    fn numbers(payload: &[u8]) -> (Option<u16>, Option<u8>) {
        let descriptor = Descriptor::parse(payload).unwrap();
        (descriptor.picture_id.map(|id| id.value), descriptor.tl0_picture_index())
    }

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
        assert_eq!(descriptor.picture_id, Some(PictureId { value: 0x1234, long: true, at: 2 }));
        assert_eq!((descriptor.tl0_picture_index(), descriptor.temporal, descriptor.len), (Some(7), Some(0), 6));
        let short = Descriptor::parse(&[0x80, 0x80, 0x7f, 9]).unwrap();
        assert_eq!(short.picture_id, Some(PictureId { value: 0x7f, long: false, at: 2 }));
        for len in 0..6 {
            assert_eq!(Descriptor::parse(&KEY[..len]), None);
        }
    }

    #[test]
    fn pictures_stay_continuous_over_a_switch() {
        let mut rewriter = Rewriter::default();
        let (mut first, mut second) = (KEY, DELTA);
        rewriter.rewrite(&mut first);
        rewriter.rewrite(&mut second);
        assert_eq!((first, second), (KEY, DELTA), "nothing is shifted before the first switch");

        let mut other = KEY;
        other[2..5].copy_from_slice(&[0x80, 0x05, 0xff]);
        rewriter.switch(&other);
        rewriter.rewrite(&mut other);
        assert_eq!(numbers(&other), (Some(0x1236), Some(9)));
        let mut next = DELTA;
        next[2..5].copy_from_slice(&[0x80, 0x06, 0x00]);
        rewriter.rewrite(&mut next);
        assert_eq!(numbers(&next), (Some(0x1237), Some(10)));
    }

    #[test]
    fn picture_ids_wrap_within_their_width() {
        let offsets = Offsets { picture_id: 2, tl0: 3 };
        let mut long = KEY;
        long[2..5].copy_from_slice(&[0xff, 0xff, 0xfe]);
        offsets.apply(&mut long);
        assert_eq!(numbers(&long), (Some(1), Some(1)));
        assert_eq!(long[2], 0x80, "still long");
        let mut short = [0x90, 0x80, 0x7f, 0x01];
        offsets.apply(&mut short);
        assert_eq!(short, [0x90, 0x80, 0x01, 0x01]);
    }

    #[test]
    fn a_late_packet_does_not_pull_the_numbers_back() {
        let mut rewriter = Rewriter::default();
        let (mut newer, mut older) = (DELTA, KEY);
        rewriter.rewrite(&mut newer);
        rewriter.rewrite(&mut older);
        rewriter.switch(&KEY);
        let mut first = KEY;
        rewriter.rewrite(&mut first);
        assert_eq!(numbers(&first), (Some(0x1236), Some(9)));
    }

    proptest! {
        #[test]
        fn rewriting_changes_only_the_two_fields(mut payload in prop::collection::vec(any::<u8>(), 0..40), picture_id in 0u16..0x8000, tl0: u8) {
            let before = Descriptor::parse(&payload);
            let original = payload.clone();
            Offsets { picture_id, tl0 }.apply(&mut payload);
            let after = Descriptor::parse(&payload);
            prop_assert_eq!(before.map(|d| (d.len, d.temporal)), after.map(|d| (d.len, d.temporal)));
            let Some((before, after)) = before.zip(after) else { return Ok(()) };
            prop_assert_eq!(&payload[before.len..], &original[before.len..]);
            if let (Some(old), Some(new)) = (before.picture_id, after.picture_id) {
                let mask = if old.long { 0x7fff } else { 0x7f };
                prop_assert_eq!(new.value, old.value.wrapping_add(picture_id) & mask);
            }
            prop_assert_eq!(after.tl0_picture_index(), before.tl0_picture_index().map(|old| old.wrapping_add(tl0)));
        }
    }
}
