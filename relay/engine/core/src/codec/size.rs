//! The size of the picture that a key frame begins, from the key frame's first packet. Owns the headers in which each codec tells it;
//! must never be trusted for more than to compare encodings, as it is whatever the sender wrote. Read
//! `../forward/publication/ladder.rs` next, which compares.
//!
//! | codec | where | source |
//! |---|---|---|
//! | VP8 | frame header | RFC 6386 section 9.1 |
//! | VP9 | scalability structure, else uncompressed header | RFC 9628 section 4.2.1, VP9 bitstream specification 6.2 |
//! | H264 | sequence parameter set, cropped | ITU-T H.264 section 7.3.2.1.1 |
//! | AV1 | sequence header | AV1 section 5.5.1 |

use super::{av1, h264, vp8, vp9};
use crate::command::CodecName;

/// Bytes of a sequence parameter set that are looked at: its size lies behind the scaling lists, which have at most 300.
const MAX_SPS: usize = 512;

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub width: u16,
    pub height: u16,
}

impl Size {
    pub fn pixels(self) -> u32 {
        u32::from(self.width) * u32::from(self.height)
    }

    fn new(width: u32, height: u32) -> Option<Size> {
        let size = Size { width: u16::try_from(width).ok()?, height: u16::try_from(height).ok()? };
        (size.pixels() > 0).then_some(size)
    }
}

/// The size, where this payload is the first of a key frame and tells it.
pub fn size(codec: CodecName, payload: &[u8]) -> Option<Size> {
    match codec {
        CodecName::Opus => None,
        CodecName::Vp8 => of_vp8(payload),
        CodecName::Vp9 => of_vp9(payload),
        CodecName::H264 => of_h264(payload),
        CodecName::Av1 => of_av1(av1::sequence_header(payload)?),
    }
}

/// `frame tag 24 | 9d 01 2a | scale 2, width 14 | scale 2, height 14`, the last two little-endian.
fn of_vp8(payload: &[u8]) -> Option<Size> {
    let frame = payload.get(vp8::Descriptor::parse(payload)?.len..)?;
    let [tag, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1] = *frame.first_chunk::<10>()? else { return None };
    let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    if tag & 1 == 0 { Size::new(side(w0, w1), side(h0, h1)) } else { None }
}

fn of_vp9(payload: &[u8]) -> Option<Size> {
    if let Some((width, height)) = vp9::largest_resolution(payload) {
        return Size::new(width.into(), height.into());
    }
    let mut bits = Bits::new(vp9::key_frame_header(payload)?);
    bits.take(2)?;
    let profile = bits.take(1)? | bits.take(1)? << 1;
    // Profile 3's reserved bit, then show_existing_frame, frame_type, show_frame, error_resilient_mode and the sync code.
    bits.skip(if profile == 3 { 1 } else { 0 } + 4 + 24)?;
    bits.skip(u32::from(profile >= 2))?;
    let is_rgb = bits.take(3)? == 7;
    bits.skip(match (is_rgb, profile & 1) {
        (false, 0) => 1,
        (false, _) => 4,
        (true, 0) => 0,
        (true, _) => 1,
    })?;
    Size::new(bits.take(16)? + 1, bits.take(16)? + 1)
}

fn of_h264(payload: &[u8]) -> Option<Size> {
    let mut found = None;
    h264::each_part(payload, |part| {
        if let h264::Part::Sps(unit) = part {
            found = found.or(of_sps(unit));
        }
    });
    found
}

fn of_sps(unit: &[u8]) -> Option<Size> {
    let mut raw = [0; MAX_SPS];
    let len = without_emulation(unit.get(1..)?, &mut raw);
    let mut bits = Bits::new(&raw[..len]);
    let profile = bits.take(8)?;
    bits.skip(16)?;
    bits.exp_golomb()?;
    let mut chroma = 1;
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
        chroma = bits.exp_golomb()?;
        bits.skip(u32::from(chroma == 3))?;
        bits.exp_golomb()?;
        bits.exp_golomb()?;
        bits.skip(1)?;
        if bits.take(1)? == 1 {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                if bits.take(1)? == 1 {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.exp_golomb()?;
    match bits.exp_golomb()? {
        0 => _ = bits.exp_golomb()?,
        1 => {
            bits.skip(1)?;
            bits.exp_golomb()?;
            bits.exp_golomb()?;
            for _ in 0..bits.exp_golomb()?.min(255) {
                bits.exp_golomb()?;
            }
        }
        _ => {}
    }
    bits.exp_golomb()?;
    bits.skip(1)?;
    let (columns, rows) = (bits.exp_golomb()?, bits.exp_golomb()?);
    // Without frame_mbs_only_flag a map unit is two macroblocks high.
    let tall = 2 - bits.take(1)?;
    bits.skip(tall - 1)?;
    bits.skip(1)?;
    let mut width = columns.checked_add(1)?.checked_mul(16)?;
    let mut height = rows.checked_add(1)?.checked_mul(16 * tall)?;
    if bits.take(1)? == 1 {
        let crop: [u32; 4] = [bits.exp_golomb()?, bits.exp_golomb()?, bits.exp_golomb()?, bits.exp_golomb()?];
        let (across, down) = (if matches!(chroma, 1 | 2) { 2 } else { 1 }, if chroma == 1 { 2 } else { 1 });
        width = width.checked_sub(crop[0].checked_add(crop[1])?.checked_mul(across)?)?;
        height = height.checked_sub(crop[2].checked_add(crop[3])?.checked_mul(down * tall)?)?;
    }
    Size::new(width, height)
}

fn skip_scaling_list(bits: &mut Bits<'_>, len: usize) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..len {
        if next != 0 {
            let code = i64::from(bits.exp_golomb()?);
            let delta = if code & 1 == 1 { (code + 1) / 2 } else { -(code / 2) };
            next = (last + delta).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

/// Takes out the bytes that keep start codes apart (section 7.4.1.1). Returns how many are left.
fn without_emulation(unit: &[u8], out: &mut [u8]) -> usize {
    let (mut len, mut zeros) = (0, 0);
    for &byte in unit {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        let Some(room) = out.get_mut(len) else { break };
        *room = byte;
        len += 1;
        zeros = if byte == 0 { zeros + 1 } else { 0 };
    }
    len
}

fn of_av1(header: &[u8]) -> Option<Size> {
    let mut bits = Bits::new(header);
    bits.skip(4)?;
    if bits.take(1)? == 1 {
        bits.skip(5)?;
    } else {
        let mut delay_bits = None;
        if bits.take(1)? == 1 {
            bits.skip(64)?;
            if bits.take(1)? == 1 {
                bits.exp_golomb()?;
            }
            if bits.take(1)? == 1 {
                delay_bits = Some(bits.take(5)? + 1);
                bits.skip(32 + 5 + 5)?;
            }
        }
        let has_display_delay = bits.take(1)? == 1;
        for _ in 0..=bits.take(5)? {
            bits.skip(12)?;
            let level = bits.take(5)?;
            bits.skip(u32::from(level > 7))?;
            if let Some(delay_bits) = delay_bits
                && bits.take(1)? == 1
            {
                bits.skip(2 * delay_bits + 1)?;
            }
            if has_display_delay && bits.take(1)? == 1 {
                bits.skip(4)?;
            }
        }
    }
    let (across, down) = (bits.take(4)? + 1, bits.take(4)? + 1);
    Size::new(bits.take(across)? + 1, bits.take(down)? + 1)
}

/// Bits of a header, the most significant of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Bits<'a> {
        Bits { bytes, at: 0 }
    }

    /// The next `count` bits, at most 32, as a number.
    fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0u64;
        for _ in 0..count {
            let byte = *self.bytes.get(self.at / 8)?;
            value = value << 1 | u64::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        u32::try_from(value).ok()
    }

    fn skip(&mut self, count: u32) -> Option<()> {
        self.at += count as usize;
        (self.at <= self.bytes.len() * 8).then_some(())
    }

    /// ue(v) of H264 (section 9.1), which is AV1's uvlc().
    fn exp_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.take(1)? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        u32::try_from((1u64 << zeros) - 1 + u64::from(self.take(zeros)?)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(codec: CodecName, payload: &[u8]) -> Option<(u16, u16)> {
        size(codec, payload).map(|size| (size.width, size.height))
    }

    #[test]
    fn vp8_tells_it_behind_the_start_code() {
        let key = [0x90, 0xe0, 0x92, 0x34, 0x07, 0x00, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x42, 0x68, 0x81];
        assert_eq!(found(CodecName::Vp8, &key), Some((640, 360)), "the scale is none of it");
        let mut delta = key;
        delta[6] |= 1;
        assert_eq!(found(CodecName::Vp8, &delta), None);
        assert_eq!(found(CodecName::Vp8, &key[..15]), None);
    }

    #[test]
    fn vp9_tells_it_in_the_structure_or_in_the_frame() {
        // Chromium's, non-flexible: structure of one layer with its size, 640x480.
        let structure =
            [0xaa, 0xff, 0xff, 0, 0x11, 0x18, 0x02, 0x80, 0x01, 0xe0, 0x01, 0x04, 0x01, 0x82, 0x49, 0x83, 0x42];
        assert_eq!(found(CodecName::Vp9, &structure), Some((640, 480)));
        // Two layers: the upper one's counts.
        let two = [0x9a, 0x80, 0x01, 0x30, 1, 64, 0, 180, 2, 128, 1, 104, 0x82, 0x49, 0x83, 0x42];
        assert_eq!(found(CodecName::Vp9, &two), Some((640, 360)));
        // libvpx, profile 0: color_space 0 and color_range 0, then 639 and 359.
        let frame = [0x88, 0x80, 0x01, 0x82, 0x49, 0x83, 0x42, 0x00, 0x27, 0xf0, 0x16, 0x70];
        assert_eq!(found(CodecName::Vp9, &frame), Some((640, 360)));
    }

    #[test]
    fn h264_tells_it_in_the_parameter_set_less_what_is_cropped() {
        // libx264, High profile, 1920x1080 (1088 coded lines).
        let high = [
            0x67, 0x64, 0x00, 0x28, 0xac, 0xd9, 0x40, 0x78, 0x02, 0x27, 0xe5, 0xc0, 0x44, 0x00, 0x00, 0x03, 0x00, 0x04,
            0x00, 0x00, 0x03, 0x00, 0xf0, 0x3c, 0x60, 0xc6, 0x58,
        ];
        assert_eq!(found(CodecName::H264, &high), Some((1920, 1080)));
        // OpenH264, Constrained Baseline, 640x360 of 368 coded lines.
        let baseline = [0x67, 0x42, 0xc0, 0x1e, 0x8c, 0x8d, 0x40, 0x50, 0x17, 0xfc, 0xb0, 0x0f, 0x08, 0x84, 0x6a];
        assert_eq!(found(CodecName::H264, &baseline), Some((640, 360)));
        assert_eq!(found(CodecName::H264, &[0x65, 0x88, 0x84]), None);
    }

    proptest! {
        #[test]
        fn arbitrary_payloads_never_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            for codec in [CodecName::Opus, CodecName::Vp8, CodecName::Vp9, CodecName::H264, CodecName::Av1] {
                size(codec, &payload);
                size(codec, &[&[0x67, 0x64, 0, 0x28][..], &payload].concat());
                size(codec, &[&[0x18, 0x7f, 0x08][..], &payload].concat());
            }
        }

        #[test]
        fn a_written_av1_header_is_read_back(width in 1u32..=65_535, height in 1u32..=65_535, points in 0u32..3, timing: bool) {
            let mut out = Vec::new();
            let mut put = |value: u64, count: u32| out.extend((0..count).rev().map(|bit| value >> bit & 1));
            put(0, 5);
            put(timing.into(), 1);
            if timing {
                put(1, 32);
                put(30, 32);
                put(1, 1);
                // uvlc of 1, then a decoder model whose delays have 6 bits.
                put(0b010, 3);
                put(1, 1);
                put(5, 5);
                put(0, 42);
            }
            put(1, 1);
            put(points.into(), 5);
            for _ in 0..=points {
                put(1, 12);
                put(9, 5);
                put(1, 1);
                if timing {
                    put(1, 1);
                    put(0, 13);
                }
                put(1, 1);
                put(3, 4);
            }
            put(15, 4);
            put(15, 4);
            put(u64::from(width) - 1, 16);
            put(u64::from(height) - 1, 16);
            put(0, 7);
            let header: Vec<u8> = out.chunks_exact(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | *bit as u8)).collect();
            let packet = [&[0x18, 0x08][..], &header].concat();
            prop_assert_eq!(found(CodecName::Av1, &packet), Some((width as u16, height as u16)));
        }
    }
}
