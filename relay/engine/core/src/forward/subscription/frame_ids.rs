//! The frame numbers that packets carry beside RTP: VP8's and VP9's picture ids, and the dependency descriptor's frame number (AV1
//! RTP specification, appendix A). Owns the shifts that let them grow when a subscription changes its source; must never know a log
//! or an SSRC. Read `rewrite.rs` next.
//!
//! To a receiver an old number means an old frame: Chromium drops a key frame whose descriptor number lies behind the last one,
//! and the picture stays frozen.

use crate::codec::picture_ids::{Offsets, Rewriter};
use crate::command::CodecName;

/// What is added to the numbers of one source, wrapping at their own width. It stays with the source, for repairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shifts {
    pub pictures: Offsets,
    pub frame: u16,
}

/// The newest numbers that an outgoing stream carried.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameIds {
    pictures: Rewriter,
    frame: Option<u16>,
}

impl FrameIds {
    /// `present 1 | frame 16 | pictures 32`, from bit 48 down.
    pub fn pack(&self) -> u64 {
        self.frame.map_or(0, |frame| 1 << 48 | u64::from(frame) << 32) | u64::from(self.pictures.pack())
    }

    /// Resumes from what `pack` made. The shifts of the present source follow with `follow`.
    pub fn unpack(packed: u64) -> FrameIds {
        let frame = (packed >> 48 & 1 == 1).then_some((packed >> 32) as u16);
        FrameIds { pictures: Rewriter::unpack(packed as u32), frame }
    }

    /// Sets the shifts of the source that is followed.
    pub fn follow(&mut self, shifts: Shifts) {
        self.pictures.follow(shifts.pictures);
    }

    /// The shifts of a source that begins with this payload and dependency descriptor, so that its first numbers follow the newest.
    pub fn begin(&mut self, codec: CodecName, payload: &[u8], descriptor: Option<&[u8]>) -> Shifts {
        let pictures = self.pictures.switch(codec, payload);
        let frame = descriptor.and_then(frame_number).zip(self.frame);
        Shifts { pictures, frame: frame.map_or(0, |(first, newest)| newest.wrapping_add(1).wrapping_sub(first)) }
    }

    /// Rewrites the picture numbers of a packet of the present source, if it is of VP8 or VP9.
    pub fn rewrite_pictures(&mut self, codec: CodecName, payload: &mut [u8]) {
        self.pictures.rewrite(codec, payload);
    }

    /// Notes a dependency descriptor as it came; it goes out shifted.
    pub fn handle_descriptor(&mut self, descriptor: &[u8], shifts: Shifts) {
        let Some(frame) = frame_number(descriptor).map(|frame| frame.wrapping_add(shifts.frame)) else { return };
        if self.frame.is_none_or(|newest| frame.wrapping_sub(newest) as i16 > 0) {
            self.frame = Some(frame);
        }
    }
}

impl Shifts {
    /// `frame 16 | tl0 8 | picture id 16`, from bit 40 down.
    pub fn pack(&self) -> u64 {
        u64::from(self.pictures.picture_id) | u64::from(self.pictures.tl0) << 16 | u64::from(self.frame) << 24
    }

    pub fn unpack(packed: u64) -> Shifts {
        let pictures = Offsets { picture_id: packed as u16, tl0: (packed >> 16) as u8 };
        Shifts { pictures, frame: (packed >> 24) as u16 }
    }

    /// Rewrites the frame number of a dependency descriptor.
    pub fn rewrite_descriptor(&self, descriptor: &mut [u8]) {
        if let Some([_, high, low]) = descriptor.first_chunk_mut::<3>() {
            [*high, *low] = u16::from_be_bytes([*high, *low]).wrapping_add(self.frame).to_be_bytes();
        }
    }
}

/// `|start|end|template 6| frame number 16 | ...`
fn frame_number(descriptor: &[u8]) -> Option<u16> {
    descriptor.first_chunk::<3>().map(|[_, high, low]| u16::from_be_bytes([*high, *low]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_goes_on_one_after_the_newest_across_the_wrap() {
        let mut ids = FrameIds::default();
        assert_eq!(ids.begin(CodecName::Av1, &[], Some(&[0xc0, 0xff, 0xff])), Shifts::default());
        ids.handle_descriptor(&[0xc0, 0xff, 0xff], Shifts::default());
        ids.handle_descriptor(&[0xc0, 0xff, 0xfe], Shifts::default());
        let shifts = ids.begin(CodecName::Av1, &[], Some(&[0xc0, 0x12, 0x34, 7]));
        let mut descriptor = [0xc0, 0x12, 0x35, 7];
        shifts.rewrite_descriptor(&mut descriptor);
        assert_eq!(descriptor, [0xc0, 0, 1, 7]);
    }

    #[test]
    fn numbers_and_shifts_survive_packing() {
        let picture = [0x90, 0xe0, 0x80 | 0x12, 0x34, 7, 0x20, 0xaa];
        let mut ids = FrameIds::default();
        assert_eq!(FrameIds::unpack(ids.pack()).pack(), ids.pack());
        ids.rewrite_pictures(CodecName::Vp8, &mut picture.clone());
        ids.handle_descriptor(&[0xc0, 0xff, 0xfe], Shifts::default());
        let mut again = FrameIds::unpack(ids.pack());
        let shifts = again.begin(CodecName::Vp8, &[0x90, 0xe0, 0x80, 5, 9, 0x20, 0xaa], Some(&[0, 0, 1]));
        assert_eq!(shifts, ids.begin(CodecName::Vp8, &[0x90, 0xe0, 0x80, 5, 9, 0x20, 0xaa], Some(&[0, 0, 1])));
        assert_ne!(shifts, Shifts::default());
        assert_eq!(Shifts::unpack(shifts.pack()), shifts);
    }

    #[test]
    fn vp8_pictures_go_on_one_after_the_newest() {
        let picture = |id: u16, tl0| [0x90, 0xe0, 0x80 | (id >> 8) as u8, id as u8, tl0, 0x20, 0xaa];
        let mut ids = FrameIds::default();
        ids.begin(CodecName::Vp8, &picture(9, 1), None);
        ids.rewrite_pictures(CodecName::Vp8, &mut picture(9, 1));
        ids.begin(CodecName::Vp8, &picture(5_000, 77), None);
        let mut payload = picture(5_001, 78);
        ids.rewrite_pictures(CodecName::Vp8, &mut payload);
        assert_eq!(payload, picture(11, 3));
    }

    #[test]
    fn what_a_source_does_not_carry_is_left_alone() {
        let mut ids = FrameIds::default();
        ids.handle_descriptor(&[0, 0, 9], Shifts::default());
        assert_eq!(ids.begin(CodecName::H264, &[0x65], None), Shifts::default());
        assert_eq!(ids.begin(CodecName::H264, &[0x65], Some(&[1, 2])), Shifts::default());
        let mut short = [1, 2];
        Shifts { frame: 7, ..Shifts::default() }.rewrite_descriptor(&mut short);
        assert_eq!(short, [1, 2]);
    }
}
