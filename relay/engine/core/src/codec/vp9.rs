//! The VP9 payload descriptor (RFC 9628 section 4.2), as far as key frames and layers need it. Of the bitstream behind it, it must
//! never read more than the first four bytes, and never rely on them: they may be encrypted. Read `av1.rs` next.
//!
//! ```text
//! |I|P|L|F|B|E|V|Z|                P: predicted from another picture, F: flexible mode, B: start of a frame
//! |M| PICTURE ID  | low byte |     if I; the second byte if M
//! | TID |U| SID |D|                if L
//! |   TL0PICIDX   |                if L and not F
//! | P_DIFF      |N|                if P and F, up to three, while N
//! | scalability structure          if V
//! ```

use super::Traits;
use super::picture_ids::{Numbers, PictureId};

pub fn inspect(payload: &[u8]) -> Traits {
    parse(payload).unwrap_or_default()
}

/// What the fixed part of a descriptor tells, and where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    predicted: bool,
    frame_start: bool,
    structure: bool,
    pub spatial: u8,
    pub temporal: u8,
    pub numbers: Numbers,
    len: usize,
}

impl Descriptor {
    pub fn parse(payload: &[u8]) -> Option<Descriptor> {
        let first = *payload.first()?;
        let has = |flag: u8| first & flag != 0;
        let mut numbers = Numbers::default();
        let mut at = 1;
        if has(0x80) {
            let id = PictureId::parse(payload, at)?;
            numbers.picture_id = Some(id);
            at += id.len();
        }
        let (mut spatial, mut temporal) = (0, 0);
        if has(0x20) {
            let layer = *payload.get(at)?;
            temporal = layer >> 5;
            spatial = layer >> 1 & 0x07;
            at += 1;
            if !has(0x10) {
                numbers.tl0 = Some((*payload.get(at)?, at));
                at += 1;
            }
        }
        let (predicted, frame_start, structure) = (has(0x40), has(0x08), has(0x02));
        Some(Descriptor { predicted, frame_start, structure, spatial, temporal, numbers, len: at })
    }
}

fn parse(payload: &[u8]) -> Option<Traits> {
    let Descriptor { predicted, frame_start, structure, spatial, temporal, len: at, .. } = Descriptor::parse(payload)?;
    // A descriptor without a byte of VP9 behind its fixed part starts nothing.
    payload.get(at)?;
    // RFC 9628 section 4.2: P is 0 in every layer frame of a key picture; only the lowest layer stands alone.
    let key_frame_start = frame_start && !predicted && spatial == 0;
    let behind = || payload.get(if structure { after_structure(payload, at)? } else { at }..);
    Some(Traits {
        key_frame_start,
        is_doubtful: key_frame_start && !behind().is_some_and(begins_key_frame),
        is_predicted: predicted,
        // Z says only that no higher spatial layer depends on the frame; later pictures still may.
        discardable: false,
        spatial,
        temporal,
    })
}

/// Where the VP9 data begins behind the scalability structure at `at` (RFC 9628 section 4.2.1).
fn after_structure(payload: &[u8], mut at: usize) -> Option<usize> {
    let head = *payload.get(at)?;
    let (layers, resolutions, groups) = (usize::from(head >> 5) + 1, head & 0x10 != 0, head & 0x08 != 0);
    at += 1;
    if resolutions {
        at += 4 * layers;
    }
    if groups {
        let pictures = *payload.get(at)?;
        at += 1;
        for _ in 0..pictures {
            at += 1 + usize::from(*payload.get(at)? >> 2 & 0x03);
        }
    }
    Some(at)
}

/// Width and height of the highest spatial layer, where the scalability structure tells them.
pub(super) fn largest_resolution(payload: &[u8]) -> Option<(u16, u16)> {
    let Descriptor { structure: true, len: at, .. } = Descriptor::parse(payload)? else { return None };
    let head = *payload.get(at)?;
    let last = at + 1 + 4 * usize::from(head >> 5);
    let [w0, w1, h0, h1] = *payload.get(last..)?.first_chunk().filter(|_| head & 0x10 != 0)?;
    Some((u16::from_be_bytes([w0, w1]), u16::from_be_bytes([h0, h1])))
}

/// The uncompressed header of the key frame that begins in this packet.
pub(super) fn key_frame_header(payload: &[u8]) -> Option<&[u8]> {
    let descriptor = Descriptor::parse(payload)?;
    let at = if descriptor.structure { after_structure(payload, descriptor.len)? } else { descriptor.len };
    payload.get(at..).filter(|data| descriptor.frame_start && begins_key_frame(data))
}

/// True when this is the uncompressed header of a key frame (VP9 bitstream specification, section 6.2): frame marker, profile,
/// no frame shown again, frame type 0, two flags, and the sync code.
fn begins_key_frame(data: &[u8]) -> bool {
    let Some(head) = data.first_chunk().map(|head| u32::from_be_bytes(*head)) else { return false };
    let is_profile_3 = head >> 28 == 0b1011;
    // Profile 3 has one bit more before the frame's type, so the last bit of its sync code is in the fifth byte.
    let (fixed, code) = if is_profile_3 { (9, 0x49_83_42 >> 1) } else { (8, 0x49_83_42) };
    let frame_type = head >> (34 - fixed) & 0b11;
    head >> 30 == 0b10 && frame_type == 0 && head << fixed >> fixed == code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_frames_and_delta_frames_of_flexible_mode_are_told_apart() {
        // I, F, B, E, V: 15-bit picture id, scalability structure, uncompressed header of a key frame.
        let key = [0x9e, 0x80, 0x01, 0x08, 0x00, 0x82, 0x49, 0x83, 0x42];
        assert_eq!(inspect(&key), Traits { key_frame_start: true, ..Traits::default() });
        // I, P, F, B: one P_DIFF.
        let delta = [0xd8, 0x80, 0x02, 0x02, 0x86, 0x00];
        assert_eq!(inspect(&delta), Traits { is_predicted: true, ..Traits::default() });
        let second_packet_of_key = [0x94, 0x80, 0x01, 0x55];
        assert!(!inspect(&second_packet_of_key).key_frame_start);
    }

    #[test]
    fn key_frames_and_delta_frames_of_non_flexible_mode_are_told_apart() {
        // As Chromium sends it: I, L, B, V; 15-bit picture id; TID 0, SID 0; TL0PICIDX; scalability structure.
        let key =
            [0xaa, 0xff, 0xff, 0x00, 0x11, 0x18, 0x02, 0x80, 0x01, 0xe0, 0x01, 0x04, 0x01, 0x82, 0x49, 0x83, 0x42];
        assert_eq!(inspect(&key), Traits { key_frame_start: true, ..Traits::default() });
        // I, P, L, B, E; TID 2, U.
        let delta = [0xec, 0x80, 0x00, 0x50, 0x12, 0x86];
        assert_eq!(inspect(&delta), Traits { temporal: 2, is_predicted: true, ..Traits::default() });
    }

    #[test]
    fn only_the_lowest_spatial_layer_starts_a_key_frame() {
        let upper = [0xa8, 0x05, 0x05, 0x12, 0x82];
        assert_eq!(inspect(&upper), Traits { spatial: 2, ..Traits::default() });
        let lowest = [0xa8, 0x05, 0x00, 0x12, 0x82];
        assert!(inspect(&lowest).key_frame_start);
    }

    #[test]
    fn a_start_is_doubtful_when_no_key_frame_follows_the_descriptor() {
        // I, B: 15-bit picture id. So do some payloaders describe every frame: they never set P.
        let with_data = |data: &[u8]| inspect(&[&[0x88, 0x80, 0x01], data].concat());
        assert!(!with_data(&[0x82, 0x49, 0x83, 0x42]).is_doubtful);
        assert!(!with_data(&[0xb0, 0xa4, 0xc1, 0xa1]).is_doubtful, "profile 3");
        for other in
            [[0x86, 0x49, 0x83, 0x42], [0x8a, 0x49, 0x83, 0x42], [0x02, 0x49, 0x83, 0x42], [0x82, 0x49, 0x83, 0x43]]
        {
            assert!(with_data(&other).is_doubtful && with_data(&other).key_frame_start, "{other:x?}");
        }
        assert!(with_data(&[0x82]).is_doubtful, "too short to tell");
        // I, L, F, B, V: two spatial layers with their sizes and one picture of a group, predicted from two others.
        let structure =
            [0xba, 0x80, 0x01, 0x00, 0x38, 1, 64, 0, 180, 2, 128, 1, 104, 1, 0x08, 1, 2, 0x82, 0x49, 0x83, 0x42];
        assert_eq!(inspect(&structure), Traits { key_frame_start: true, ..Traits::default() });
    }

    #[test]
    fn a_descriptor_that_is_cut_off_has_no_traits() {
        for len in 0..4 {
            assert_eq!(inspect(&[0xa8, 0x85, 0x05, 0x04][..len]), Traits::default());
        }
    }
}
