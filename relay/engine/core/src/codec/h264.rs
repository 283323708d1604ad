//! H264 payloads (RFC 6184) in packetization modes 0 and 1: single NAL unit, STAP-A and FU-A. Must never parse parameter
//! sets or store them. Read `parameter_sets.rs` next, which does.
//!
//! ```text
//! single: |F|NRI| type | NAL payload ...
//! STAP-A: |F|NRI|  24  | size 16 | NAL | size 16 | NAL ...
//! FU-A:   |F|NRI|  28  |S|E|R| type | fragment ...
//! ```

use super::Traits;
use super::parameter_sets::each_unit;

const SLICE: u8 = 1;
const IDR: u8 = 5;
pub(super) const SPS: u8 = 7;
pub(super) const PPS: u8 = 8;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

pub fn inspect(payload: &[u8]) -> Traits {
    let Some((&head, rest)) = payload.split_first() else { return Traits::default() };
    let unreferenced = head & 0x60 == 0;
    let (key_frame_start, discardable) = match head & 0x1f {
        STAP_A => (aggregate_starts_key_frame(rest), false),
        FU_A => {
            let Some((&fragment, body)) = rest.split_first() else { return Traits::default() };
            let kind = fragment & 0x1f;
            (fragment & 0x80 != 0 && starts_key_frame(kind, body), unreferenced && kind == SLICE)
        }
        kind => (starts_key_frame(kind, rest), unreferenced && kind == SLICE),
    };
    Traits { key_frame_start, discardable, ..Traits::default() }
}

/// True for the NAL units with which a decoder can begin: an SPS, which precedes the IDR picture that needs it, or an IDR picture, which
/// without an SPS uses that of the SDP.
fn starts_key_frame(kind: u8, body: &[u8]) -> bool {
    match kind {
        SPS => !body.is_empty(),
        // The slice header begins with first_mb_in_slice, ue(v): a set first bit is 0, the picture's first slice.
        IDR => body.first().is_some_and(|byte| byte & 0x80 != 0),
        _ => false,
    }
}

/// What a packet has of an access unit, as far as its start is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A whole sequence parameter set, picture parameter set.
    Sps(&'a [u8]),
    Pps(&'a [u8]),
    /// The beginning of an IDR picture's first slice.
    IdrStart,
    /// A slice of a picture that is no IDR picture, or some of it.
    OtherSlice,
}

/// Visits what a packet has of these, in its order. A fragment of a parameter set is none: no encoder's has more than a packet.
pub fn each_part<'a>(payload: &'a [u8], visit: impl FnMut(Part<'a>)) {
    let Some((&head, rest)) = payload.split_first() else { return };
    match head & 0x1f {
        STAP_A => each_unit(rest).filter_map(|unit| part(unit[0] & 0x1f, &unit[1..], Some(unit))).for_each(visit),
        FU_A => {
            let Some((&fragment, body)) = rest.split_first() else { return };
            let is_start = fragment & 0x80 != 0;
            let kind = fragment & 0x1f;
            if is_start || kind != IDR {
                part(kind, body, None).into_iter().for_each(visit);
            }
        }
        kind => part(kind, rest, Some(payload)).into_iter().for_each(visit),
    }
}

fn part<'a>(kind: u8, body: &[u8], whole: Option<&'a [u8]>) -> Option<Part<'a>> {
    match kind {
        SPS => whole.map(Part::Sps),
        PPS => whole.map(Part::Pps),
        IDR => starts_key_frame(kind, body).then_some(Part::IdrStart),
        SLICE..IDR => Some(Part::OtherSlice),
        _ => None,
    }
}

fn aggregate_starts_key_frame(units: &[u8]) -> bool {
    each_unit(units).any(|unit| starts_key_frame(unit[0] & 0x1f, &unit[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS_UNIT: [u8; 5] = [0x67, 0x42, 0xc0, 0x1f, 0x8c];
    const PPS_UNIT: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];

    fn aggregate(units: &[&[u8]]) -> Vec<u8> {
        let mut payload = vec![0x78];
        for unit in units {
            payload.extend((unit.len() as u16).to_be_bytes());
            payload.extend(*unit);
        }
        payload
    }

    #[test]
    fn single_nal_units_are_told_apart() {
        assert!(inspect(&SPS_UNIT).key_frame_start);
        assert!(!inspect(&PPS_UNIT).key_frame_start);
        assert!(inspect(&[0x65, 0x88, 0x84]).key_frame_start);
        assert!(!inspect(&[0x65, 0x04, 0x84]).key_frame_start, "a later slice of the picture");
        assert!(!inspect(&[0x41, 0x9a, 0x02]).key_frame_start);
        assert!(!inspect(&[0x09, 0x10]).key_frame_start, "access unit delimiter");
        assert!(!inspect(&[0x67]).key_frame_start);
    }

    #[test]
    fn an_aggregate_is_searched_to_its_end() {
        assert!(inspect(&aggregate(&[&SPS_UNIT, &PPS_UNIT])).key_frame_start);
        assert!(inspect(&aggregate(&[&[0x09, 0x10], &PPS_UNIT, &[0x65, 0x88]])).key_frame_start);
        assert!(!inspect(&aggregate(&[&PPS_UNIT, &[0x41, 0x9a]])).key_frame_start);
        assert!(!inspect(&[0x78, 0x00, 0x00, 0x00]).key_frame_start, "empty units");
        assert!(!inspect(&[0x78, 0xff, 0xff, 0x67, 0x42]).key_frame_start, "a size past the end");
    }

    #[test]
    fn only_the_first_fragment_of_an_idr_picture_starts_it() {
        assert!(inspect(&[0x7c, 0x85, 0x88, 0x84]).key_frame_start);
        assert!(!inspect(&[0x7c, 0x05, 0x88, 0x84]).key_frame_start, "middle");
        assert!(!inspect(&[0x7c, 0x45, 0x88, 0x84]).key_frame_start, "end");
        assert!(!inspect(&[0x7c, 0x81, 0x9a, 0x84]).key_frame_start, "of another picture");
        assert!(!inspect(&[0x7c, 0x85, 0x08, 0x84]).key_frame_start, "of a later slice");
    }

    #[test]
    fn unreferenced_slices_are_discardable() {
        assert!(inspect(&[0x01, 0x9e, 0x02]).discardable);
        assert!(inspect(&[0x1c, 0x81, 0x9e]).discardable);
        assert!(!inspect(&[0x41, 0x9a, 0x02]).discardable);
        assert!(!inspect(&[0x06, 0x05, 0x02]).discardable, "SEI is not a picture");
    }
}
