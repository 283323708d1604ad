//! The picture numbers of VP8 and VP9 payload descriptors (RFC 7741 section 4.2, RFC 9628 section 4.2): shifting them so that they are
//! continuous when a subscription changes its source. Must never leave a number out: VP9's pictures name others by difference. Read
//! `../forward/subscription/frame_ids.rs` next.

use super::{vp8, vp9};
use crate::command::CodecName;

/// A picture id as it lies in the descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureId {
    pub value: u16,
    /// 15 bits wide instead of 7.
    pub long: bool,
    /// Offset of its first byte in the payload.
    pub(super) at: usize,
}

impl PictureId {
    /// Reads `|M| PictureID |`, with a second byte if M.
    pub(super) fn parse(payload: &[u8], at: usize) -> Option<PictureId> {
        let high = *payload.get(at)?;
        let long = high & 0x80 != 0;
        let value = if long { u16::from_be_bytes([high & 0x7f, *payload.get(at + 1)?]) } else { u16::from(high) };
        Some(PictureId { value, long, at })
    }

    /// Its bytes in the payload.
    pub(super) fn len(self) -> usize {
        if self.long { 2 } else { 1 }
    }
}

/// The numbers of one packet's descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub picture_id: Option<PictureId>,
    /// TL0PICIDX, and its offset in the payload.
    pub tl0: Option<(u8, usize)>,
}

impl Numbers {
    /// `None` for another codec, and for a descriptor that is cut off.
    pub fn parse(codec: CodecName, payload: &[u8]) -> Option<Numbers> {
        match codec {
            CodecName::Vp8 => vp8::Descriptor::parse(payload).map(|descriptor| descriptor.numbers),
            CodecName::Vp9 => vp9::Descriptor::parse(payload).map(|descriptor| descriptor.numbers),
            _ => None,
        }
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
    pub fn apply(self, codec: CodecName, payload: &mut [u8]) {
        if self == Offsets::default() {
            return;
        }
        let Some(numbers) = Numbers::parse(codec, payload) else { return };
        if let Some(id) = numbers.picture_id {
            let shifted = id.value.wrapping_add(self.picture_id);
            if id.long {
                payload[id.at] = 0x80 | (shifted >> 8) as u8 & 0x7f;
                payload[id.at + 1] = shifted as u8;
            } else {
                payload[id.at] = shifted as u8 & 0x7f;
            }
        }
        if let Some((tl0, at)) = numbers.tl0 {
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
    pub fn switch(&mut self, codec: CodecName, payload: &[u8]) -> Offsets {
        self.offsets = Offsets::default();
        if let Some(numbers) = Numbers::parse(codec, payload) {
            if let (Some(last), Some(id)) = (self.picture_id, numbers.picture_id) {
                self.offsets.picture_id = last.wrapping_add(1).wrapping_sub(id.value) & 0x7fff;
            }
            if let (Some(last), Some((tl0, _))) = (self.tl0, numbers.tl0) {
                self.offsets.tl0 = last.wrapping_add(1).wrapping_sub(tl0);
            }
        }
        self.offsets
    }

    /// Rewrites one packet of the present source.
    pub fn rewrite(&mut self, codec: CodecName, payload: &mut [u8]) {
        self.offsets.apply(codec, payload);
        let Some(numbers) = Numbers::parse(codec, payload) else { return };
        if let Some(id) = numbers.picture_id {
            // A short id is compared within its own seven bits.
            let shift = if id.long { 1 } else { 9 };
            let newer = |last: u16| (id.value.wrapping_sub(last) << shift) as i16 > 0;
            if self.picture_id.is_none_or(newer) {
                self.picture_id = Some(id.value);
            }
        }
        if let Some((tl0, _)) = numbers.tl0
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

    const VP8: CodecName = CodecName::Vp8;
    // As Chromium sends it: X, S; I, L, T; 15-bit picture id; TL0PICIDX; TID and KEYIDX; then frame tag and start code.
    const KEY: [u8; 12] = [0x90, 0xe0, 0x92, 0x34, 0x07, 0x00, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a];
    const DELTA: [u8; 8] = [0x90, 0xe0, 0x92, 0x35, 0x08, 0x00, 0x31, 0x0a];

    fn numbers(payload: &[u8]) -> (Option<u16>, Option<u8>) {
        let numbers = Numbers::parse(VP8, payload).unwrap();
        (numbers.picture_id.map(|id| id.value), numbers.tl0.map(|(tl0, _)| tl0))
    }

    #[test]
    fn pictures_stay_continuous_over_a_switch() {
        let mut rewriter = Rewriter::default();
        let (mut first, mut second) = (KEY, DELTA);
        rewriter.rewrite(VP8, &mut first);
        rewriter.rewrite(VP8, &mut second);
        assert_eq!((first, second), (KEY, DELTA), "nothing is shifted before the first switch");

        let mut other = KEY;
        other[2..5].copy_from_slice(&[0x80, 0x05, 0xff]);
        rewriter.switch(VP8, &other);
        rewriter.rewrite(VP8, &mut other);
        assert_eq!(numbers(&other), (Some(0x1236), Some(9)));
        let mut next = DELTA;
        next[2..5].copy_from_slice(&[0x80, 0x06, 0x00]);
        rewriter.rewrite(VP8, &mut next);
        assert_eq!(numbers(&next), (Some(0x1237), Some(10)));
    }

    #[test]
    fn picture_ids_wrap_within_their_width() {
        let offsets = Offsets { picture_id: 2, tl0: 3 };
        let mut long = KEY;
        long[2..5].copy_from_slice(&[0xff, 0xff, 0xfe]);
        offsets.apply(VP8, &mut long);
        assert_eq!(numbers(&long), (Some(1), Some(1)));
        assert_eq!(long[2], 0x80, "still long");
        let mut short = [0x90, 0x80, 0x7f, 0x01];
        offsets.apply(VP8, &mut short);
        assert_eq!(short, [0x90, 0x80, 0x01, 0x01]);
    }

    #[test]
    fn a_late_packet_does_not_pull_the_numbers_back() {
        let mut rewriter = Rewriter::default();
        let (mut newer, mut older) = (DELTA, KEY);
        rewriter.rewrite(VP8, &mut newer);
        rewriter.rewrite(VP8, &mut older);
        rewriter.switch(VP8, &KEY);
        let mut first = KEY;
        rewriter.rewrite(VP8, &mut first);
        assert_eq!(numbers(&first), (Some(0x1236), Some(9)));
    }

    #[test]
    fn vp9_pictures_stay_continuous_over_a_switch() {
        // As Chromium sends it: I, L, B; 15-bit picture id; TID and SID; TL0PICIDX.
        let picture = |id: u16, tl0: u8| [0xa8, 0x80 | (id >> 8) as u8, id as u8, 0x00, tl0, 0x82, 0x49, 0x83, 0x42];
        let mut rewriter = Rewriter::default();
        rewriter.rewrite(CodecName::Vp9, &mut picture(20_044, 244));
        rewriter.switch(CodecName::Vp9, &picture(300, 3));
        let mut next = picture(301, 4);
        rewriter.rewrite(CodecName::Vp9, &mut next);
        assert_eq!(next, picture(20_046, 246));
        // Flexible mode has no TL0PICIDX: what lies there is a difference to another picture.
        let mut flexible = [0xf8, 0x81, 0x2e, 0x00, 0x02, 0x86];
        rewriter.rewrite(CodecName::Vp9, &mut flexible);
        assert_eq!(flexible, [0xf8, 0x80 | (20_047u16 >> 8) as u8, 20_047u16 as u8, 0x00, 0x02, 0x86]);
    }

    proptest! {
        #[test]
        fn rewriting_changes_only_the_two_fields(
            mut payload in prop::collection::vec(any::<u8>(), 0..40), picture_id in 0u16..0x8000, tl0: u8, vp9: bool,
        ) {
            let codec = if vp9 { CodecName::Vp9 } else { CodecName::Vp8 };
            let before = Numbers::parse(codec, &payload);
            let original = payload.clone();
            Offsets { picture_id, tl0 }.apply(codec, &mut payload);
            let after = Numbers::parse(codec, &payload);
            prop_assert_eq!(before.is_some(), after.is_some());
            let Some((before, after)) = before.zip(after) else {
                prop_assert_eq!(payload, original);
                return Ok(());
            };
            let ids = before.picture_id.map_or(0..0, |id| id.at..id.at + id.len());
            let changed = |at: &usize| ids.contains(at) || before.tl0.is_some_and(|(_, place)| place == *at);
            prop_assert!((0..payload.len()).all(|at| changed(&at) || payload[at] == original[at]));
            prop_assert_eq!(before.picture_id.is_some(), after.picture_id.is_some());
            if let (Some(old), Some(new)) = (before.picture_id, after.picture_id) {
                let mask = if old.long { 0x7fff } else { 0x7f };
                prop_assert_eq!((new.value, new.long), (old.value.wrapping_add(picture_id) & mask, old.long));
            }
            prop_assert_eq!(after.tl0, before.tl0.map(|(old, at)| (old.wrapping_add(tl0), at)));
        }
    }
}
