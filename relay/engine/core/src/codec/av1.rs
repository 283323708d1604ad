//! AV1 payloads (RTP Payload Format For AV1, v1.0): the aggregation header and, as far as needed, the OBUs behind it. Must
//! never follow references between frames: that is what the dependency descriptor is for. Read `mod.rs` next.
//!
//! ```text
//! |Z|Y| W |N|-|-|-|               Z: continues an OBU, W: number of elements or 0, N: new coded video sequence
//! | leb128 length | OBU ... |     each element; the W-th has no length
//! OBU: |F| type |X|S|-|           X: |TID|SID|-| follows, then S: leb128 size
//! ```

use super::Traits;

const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
const FRAME_HEADER: u8 = 3;
const FRAME: u8 = 6;

/// OBUs of one packet that are read; more than senders put into one. Further ones are not looked at.
const MAX_OBUS: usize = 16;

pub fn inspect(payload: &[u8]) -> Traits {
    let Some((&aggregation, rest)) = payload.split_first() else { return Traits::default() };
    let continues = aggregation & 0x80 != 0;
    let new_sequence = aggregation & 0x08 != 0;
    let elements = Elements { rest, left: aggregation >> 4 & 0x03, counted: aggregation & 0x30 != 0 };

    let mut traits = Traits::default();
    let mut layer = None;
    let mut sequence_header = None;
    let mut key = None;
    for element in elements.skip(continues.into()).take(MAX_OBUS) {
        let Some(obu) = Obu::parse(element) else { break };
        match obu.kind {
            SEQUENCE_HEADER => sequence_header = Some(obu.body),
            FRAME | FRAME_HEADER => key = key.or(obu.body.first().map(|first| is_key_frame(*first))),
            _ => {}
        }
        if obu.kind != TEMPORAL_DELIMITER {
            layer = layer.or(obu.layer);
        }
    }
    (traits.temporal, traits.spatial) = layer.unwrap_or_default();
    // N is set in the first packet of a coded video sequence. Some senders leave it out, so a sequence header counts too,
    // unless the frame behind it is plainly no key frame: encoders may repeat the header.
    let starts = match sequence_header {
        Some(header) => is_still_picture(header) || key != Some(false),
        None => new_sequence && key != Some(false) && !rest.is_empty(),
    };
    traits.key_frame_start = !continues && starts && traits.spatial == 0;
    traits
}

/// The body of the sequence header that this packet has.
pub(super) fn sequence_header(payload: &[u8]) -> Option<&[u8]> {
    let (&aggregation, rest) = payload.split_first()?;
    let elements = Elements { rest, left: aggregation >> 4 & 0x03, counted: aggregation & 0x30 != 0 };
    let mut obus = elements.skip((aggregation & 0x80 != 0).into()).take(MAX_OBUS).map_while(Obu::parse);
    obus.find(|obu| obu.kind == SEQUENCE_HEADER).map(|obu| obu.body)
}

/// AV1 section 5.9.2: show_existing_frame, then two bits of frame_type, KEY_FRAME being 0.
fn is_key_frame(first: u8) -> bool {
    first & 0xe0 == 0
}

/// AV1 section 5.5.1: reduced_still_picture_header; its frame headers lack the bits that `is_key_frame` reads.
fn is_still_picture(header: &[u8]) -> bool {
    header.first().is_some_and(|first| first & 0x08 != 0)
}

/// The OBU elements of a payload, their lengths taken off.
struct Elements<'a> {
    rest: &'a [u8],
    left: u8,
    /// The aggregation header says how many: then the last has no length.
    counted: bool,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() || self.counted && self.left == 0 {
            return None;
        }
        self.left = self.left.saturating_sub(1);
        if self.counted && self.left == 0 {
            return Some(std::mem::take(&mut self.rest));
        }
        let (len, after) = leb128(self.rest)?;
        let (element, rest) = after.split_at_checked(len)?;
        self.rest = rest;
        Some(element)
    }
}

struct Obu<'a> {
    kind: u8,
    /// (temporal, spatial)
    layer: Option<(u8, u8)>,
    body: &'a [u8],
}

impl<'a> Obu<'a> {
    fn parse(element: &'a [u8]) -> Option<Obu<'a>> {
        let (&head, mut body) = element.split_first()?;
        let mut layer = None;
        if head & 0x04 != 0 {
            let (&extension, rest) = body.split_first()?;
            layer = Some((extension >> 5, extension >> 3 & 0x03));
            body = rest;
        }
        // Senders should leave the size out, but some have it.
        if head & 0x02 != 0 {
            (_, body) = leb128(body)?;
        }
        Some(Obu { kind: head >> 3 & 0x0f, layer, body })
    }
}

/// A value of at most 32 bits (AV1 section 4.10.5) and what follows it.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    // As libaom writes it for 8-bit 4:2:0, shortened: type 1, no size; then profile 0, no still picture.
    const HEADER: [u8; 6] = [0x08, 0x00, 0x00, 0x00, 0x42, 0xab];
    const KEY: [u8; 4] = [0x30, 0x10, 0x00, 0x9c];
    const INTER: [u8; 4] = [0x30, 0x30, 0x00, 0x9c];

    fn packet(aggregation: u8, elements: &[&[u8]]) -> Vec<u8> {
        let count = (aggregation >> 4 & 3) as usize;
        let mut payload = vec![aggregation];
        for (i, element) in elements.iter().enumerate() {
            if count == 0 || i + 1 < count {
                payload.push(element.len() as u8);
            }
            payload.extend(*element);
        }
        payload
    }

    #[test]
    fn the_first_packet_of_a_coded_video_sequence_starts_a_key_frame() {
        assert!(inspect(&packet(0x28, &[&HEADER, &KEY])).key_frame_start);
        assert!(inspect(&packet(0x68, &[&HEADER, &KEY])).key_frame_start, "continued in the next packet");
        assert!(inspect(&packet(0x08, &[&HEADER, &KEY])).key_frame_start, "elements all with a length");
        assert!(inspect(&packet(0x20, &[&HEADER, &KEY])).key_frame_start, "N left out");
        assert!(inspect(&packet(0x30, &[&[0x12, 0x00], &HEADER, &KEY])).key_frame_start, "behind a temporal delimiter");
    }

    #[test]
    fn other_packets_start_nothing() {
        assert_eq!(inspect(&packet(0x10, &[&INTER])), Traits::default());
        assert!(!inspect(&packet(0x90, &[&HEADER])).key_frame_start, "a continuation");
        assert!(!inspect(&packet(0xa0, &[&[1, 2, 3], &INTER])).key_frame_start);
        assert!(!inspect(&packet(0x20, &[&HEADER, &INTER])).key_frame_start, "a repeated sequence header");
        assert!(!inspect(&[0x08]).key_frame_start, "nothing behind the header");
    }

    #[test]
    fn a_still_picture_is_a_start_whatever_its_frame_header_says() {
        assert!(inspect(&packet(0x28, &[&[0x08, 0x18, 0x00], &INTER])).key_frame_start);
    }

    #[test]
    fn sizes_inside_the_obus_are_understood() {
        assert!(
            inspect(&packet(0x28, &[&[0x0a, 0x05, 0, 0, 0, 0x42, 0xab], &[0x32, 0x03, 0x10, 0, 0]])).key_frame_start
        );
        assert!(
            !inspect(&packet(0x20, &[&[0x0a, 0x05, 0, 0, 0, 0x42, 0xab], &[0x32, 0x03, 0x30, 0, 0]])).key_frame_start
        );
    }

    #[test]
    fn layers_come_from_the_first_obu_that_has_them() {
        let traits = inspect(&packet(0x10, &[&[0x34, 0x48, 0x30, 0x00]]));
        assert_eq!(traits, Traits { temporal: 2, spatial: 1, ..Traits::default() });
        assert_eq!(inspect(&packet(0x20, &[&[0x12, 0x00], &[0x34, 0x20, 0x30]])).temporal, 1);
        assert!(!inspect(&packet(0x18, &[&[0x34, 0x08, 0x10, 0x00]])).key_frame_start, "an upper spatial layer");
    }

    #[test]
    fn lengths_past_the_end_end_the_reading() {
        assert_eq!(inspect(&[0x20, 0x7f, 0x08, 0x00]), Traits::default());
        assert_eq!(inspect(&[0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Traits::default());
        assert_eq!(leb128(&[0xe5, 0x8e, 0x26, 9]), Some((624_485, &[9][..])));
    }
}
