//! H264's parameter sets (RFC 6184 section 1.2): the SPS and PPS units without which no picture can be decoded, as a publisher sent
//! them last, in its offer or in packets. Owns how many are kept; must never know a stream. Read
//! `forward/publication/parameter_sets.rs` next, which says when they are missing.
//!
//! Kept as `size 16 | unit | size 16 | unit ...`: as in a STAP-A packet (RFC 6184 section 5.7.1).

use super::h264::{PPS, SPS};

/// Of all units with their sizes, so that each fits a packet. An SPS has 10 to 100 bytes and a PPS 4 to 20.
pub const MAX_BYTES: usize = 1_024;
/// H264 allows 32 SPS and 256 PPS; encoders use one or two of each.
const MAX_UNITS: usize = 16;

/// The newest unit of each kind and id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterSets {
    units: Vec<u8>,
}

impl ParameterSets {
    /// With room for all that may come, so that none is needed later.
    pub fn new() -> ParameterSets {
        ParameterSets { units: Vec::with_capacity(MAX_BYTES) }
    }

    /// Takes each whole unit of the form in which they are kept. Others, and what is cut off, are left out.
    pub fn take_all(&mut self, units: &[u8]) {
        for unit in each_unit(units) {
            self.take(unit);
        }
    }

    /// Takes an SPS or PPS in place of the one of its id. False when nothing changed, as what does not fit is left out.
    pub fn take(&mut self, unit: &[u8]) -> bool {
        let Some(id) = id(unit) else { return false };
        let Ok(size) = u16::try_from(unit.len()) else { return false };
        let (mut known, mut count) = (None, 0);
        let mut at = 0;
        for other in each_unit(&self.units) {
            let end = at + 2 + other.len();
            if self::id(other) == Some(id) {
                known = Some((at..end, other == unit));
            }
            at = end;
            count += 1;
        }
        let freed = match &known {
            Some((_, true)) => return false,
            Some((place, false)) => place.len(),
            None if count == MAX_UNITS => return false,
            None => 0,
        };
        if self.units.len() - freed + 2 + unit.len() > MAX_BYTES {
            return false;
        }
        if let Some((place, _)) = known {
            self.units.drain(place);
        }
        self.units.extend_from_slice(&size.to_be_bytes());
        self.units.extend_from_slice(unit);
        true
    }

    /// As they are kept.
    pub fn as_bytes(&self) -> &[u8] {
        &self.units
    }

    /// True when there are an SPS and a PPS.
    pub fn is_complete(&self) -> bool {
        let has = |kind| each_unit(&self.units).any(|unit| unit[0] & 0x1f == kind);
        has(SPS) && has(PPS)
    }

    /// Each, in the order in which a decoder needs them: a PPS refers to an SPS.
    pub fn in_order(&self) -> impl Iterator<Item = &[u8]> {
        let of = |kind| each_unit(&self.units).filter(move |unit| unit[0] & 0x1f == kind);
        of(SPS).chain(of(PPS))
    }
}

/// Each unit with at least one byte, up to the first that is cut off.
pub fn each_unit(mut units: &[u8]) -> impl Iterator<Item = &[u8]> {
    let all = std::iter::from_fn(move || {
        let (size, rest) = units.split_first_chunk::<2>()?;
        let (unit, next) = rest.split_at_checked(u16::from_be_bytes(*size).into())?;
        units = next;
        Some(unit)
    });
    all.filter(|unit| !unit.is_empty())
}

/// Kind and id of a parameter set (ITU-T H.264 sections 7.3.2.1.1 and 7.3.2.2); `None` for any other unit.
fn id(unit: &[u8]) -> Option<(u8, u32)> {
    let kind = unit.first()? & 0x1f;
    let id = match kind {
        // Behind profile, constraints and level.
        SPS => exp_golomb(unit.get(4..)?)?,
        PPS => exp_golomb(&unit[1..])?,
        _ => return None,
    };
    (id < if kind == SPS { 32 } else { 256 }).then_some((kind, id))
}

/// An unsigned Exp-Golomb number of at most 17 bits (ITU-T H.264 section 9.1), at the front of these bytes.
fn exp_golomb(bytes: &[u8]) -> Option<u32> {
    let mut front = [0; 4];
    let len = bytes.len().min(4);
    front[..len].copy_from_slice(&bytes[..len]);
    let word = u32::from_be_bytes(front);
    let zeros = word.leading_zeros();
    let bits = 2 * zeros + 1;
    (zeros <= 8 && bits as usize <= 8 * len).then(|| (word >> (32 - bits)) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPS_0: [u8; 9] = [0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xe9];
    const PPS_0: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];

    fn kept(units: &[&[u8]]) -> Vec<u8> {
        units.iter().flat_map(|unit| [&(unit.len() as u16).to_be_bytes(), *unit].concat()).collect()
    }

    #[test]
    fn the_newest_of_each_kind_and_id_is_kept() {
        let mut sets = ParameterSets::new();
        assert!(sets.take(&SPS_0) && !sets.is_complete());
        assert!(sets.take(&PPS_0) && sets.is_complete());
        assert!(!sets.take(&SPS_0), "known");
        let other = [0x67, 0x64, 0x00, 0x28, 0xac];
        assert!(sets.take(&other), "id 0 again");
        assert_eq!(sets.as_bytes(), kept(&[&PPS_0, &other]));
        // Id 1 is 010.
        let second = [0x68, 0x4e, 0x3c, 0x80];
        assert!(sets.take(&second));
        assert_eq!(sets.as_bytes(), kept(&[&PPS_0, &other, &second]));
        assert_eq!(sets.in_order().collect::<Vec<_>>(), [&other[..], &PPS_0, &second]);
    }

    #[test]
    fn what_is_no_parameter_set_is_left_out() {
        let mut sets = ParameterSets::new();
        for unit in
            [&[][..], &[0x65, 0x88], &[0x67], &[0x67, 0x42, 0xc0, 0x1f], &[0x68], &[0x68, 0x00, 0x00, 0x00, 0x00]]
        {
            assert!(!sets.take(unit), "{unit:x?}");
        }
        // Id 32 of an SPS: 000001 00001.
        assert!(!sets.take(&[0x67, 0x42, 0xc0, 0x1f, 0x04, 0x20]));
        sets.take_all(&[&[0xff, 0xff][..], &PPS_0].concat());
        assert_eq!(sets.as_bytes(), []);
    }

    #[test]
    fn they_never_grow_past_their_bounds() {
        let mut sets = ParameterSets::new();
        let mut long = PPS_0.to_vec();
        long.resize(MAX_BYTES, 1);
        assert!(!sets.take(&long), "no room for its size");
        long.truncate(MAX_BYTES - 2);
        assert!(sets.take(&long));
        assert!(!sets.take(&SPS_0));
        assert!(sets.take(&PPS_0), "in place of the long one");
        assert!(sets.take(&SPS_0));
        for id in 1..100_u32 {
            // 17 bits of Exp-Golomb at the most.
            let code = (id + 1) << (32 - (2 * (32 - (id + 1).leading_zeros()) - 1));
            sets.take(&[&[0x68], &code.to_be_bytes()[..]].concat());
        }
        assert_eq!(each_unit(sets.as_bytes()).count(), MAX_UNITS);
    }

    proptest! {
        #[test]
        fn arbitrary_units_are_kept_within_their_bounds(units in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..40)) {
            let mut sets = ParameterSets::new();
            for mut unit in units {
                if let Some(first) = unit.first_mut() {
                    *first = 0x67 + (*first & 1);
                }
                sets.take(&unit);
                prop_assert!(sets.as_bytes().len() <= MAX_BYTES);
                let mut again = ParameterSets::new();
                again.take_all(sets.as_bytes());
                prop_assert_eq!(&again, &sets);
            }
        }
    }
}
