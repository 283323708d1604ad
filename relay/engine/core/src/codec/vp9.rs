//! The VP9 payload descriptor (RFC 9628 section 4.2), as far as key frames and layers need it. Must never read the VP9
//! bitstream behind it. Read `av1.rs` next.
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

pub fn inspect(payload: &[u8]) -> Traits {
    parse(payload).unwrap_or_default()
}

fn parse(payload: &[u8]) -> Option<Traits> {
    let first = *payload.first()?;
    let predicted = first & 0x40 != 0;
    let frame_start = first & 0x08 != 0;
    let mut at = 1;
    if first & 0x80 != 0 {
        at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
    }
    let (mut spatial, mut temporal) = (0, 0);
    if first & 0x20 != 0 {
        let layer = *payload.get(at)?;
        temporal = layer >> 5;
        spatial = layer >> 1 & 0x07;
        at += 1;
    }
    // A descriptor without a byte of VP9 behind its fixed part starts nothing.
    payload.get(at)?;
    Some(Traits {
        // RFC 9628 section 4.2: P is 0 in every layer frame of a key picture; only the lowest layer stands alone.
        key_frame_start: frame_start && !predicted && spatial == 0,
        // Z says only that no higher spatial layer depends on the frame; later pictures still may.
        discardable: false,
        spatial,
        temporal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_frames_and_delta_frames_of_flexible_mode_are_told_apart() {
        // I, F, B, E, V: 15-bit picture id, scalability structure, uncompressed header of a key frame.
        let key = [0x9e, 0x80, 0x01, 0x08, 0x82, 0x49, 0x83, 0x42];
        assert_eq!(inspect(&key), Traits { key_frame_start: true, ..Traits::default() });
        // I, P, F, B: one P_DIFF.
        let delta = [0xd8, 0x80, 0x02, 0x02, 0x86, 0x00];
        assert_eq!(inspect(&delta), Traits::default());
        let second_packet_of_key = [0x94, 0x80, 0x01, 0x55];
        assert!(!inspect(&second_packet_of_key).key_frame_start);
    }

    #[test]
    fn key_frames_and_delta_frames_of_non_flexible_mode_are_told_apart() {
        // As Chromium sends it: I, L, B, V; 15-bit picture id; TID 0, SID 0; TL0PICIDX; scalability structure.
        let key = [0xaa, 0xff, 0xff, 0x00, 0x11, 0x18, 0x02, 0x80, 0x01, 0xe0, 0x82, 0x49];
        assert_eq!(inspect(&key), Traits { key_frame_start: true, ..Traits::default() });
        // I, P, L, B, E; TID 2, U.
        let delta = [0xec, 0x80, 0x00, 0x50, 0x12, 0x86];
        assert_eq!(inspect(&delta), Traits { temporal: 2, ..Traits::default() });
    }

    #[test]
    fn only_the_lowest_spatial_layer_starts_a_key_frame() {
        let upper = [0xa8, 0x05, 0x05, 0x12, 0x82];
        assert_eq!(inspect(&upper), Traits { spatial: 2, ..Traits::default() });
        let lowest = [0xa8, 0x05, 0x00, 0x12, 0x82];
        assert!(inspect(&lowest).key_frame_start);
    }

    #[test]
    fn a_descriptor_that_is_cut_off_has_no_traits() {
        for len in 0..4 {
            assert_eq!(inspect(&[0xa8, 0x85, 0x05, 0x04][..len]), Traits::default());
        }
    }
}
