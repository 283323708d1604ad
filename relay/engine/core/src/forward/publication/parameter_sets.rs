//! When H264's parameter sets are put before a key frame: its publisher sent them once, or in its offer only, and a viewer that begins
//! there would never see a picture. Owns what was seen of the present picture; must never write a packet. Read `incoming.rs` next,
//! which does, and `indexes.rs` for its place.

use crate::codec::h264::{self, Part};
use crate::codec::parameter_sets::ParameterSets;

#[derive(Debug)]
pub struct KeptSets {
    sets: ParameterSets,
    /// The parameter sets that came with the picture of this timestamp.
    seen: Seen,
    /// The IDR picture that is under way.
    picture: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    timestamp: u32,
    sps: bool,
    pps: bool,
}

impl KeptSets {
    /// With those of the offer, or of a predecessor.
    pub fn new(known: &[u8]) -> KeptSets {
        let mut sets = ParameterSets::new();
        sets.take_all(known);
        KeptSets { sets, seen: Seen::default(), picture: None }
    }

    pub fn sets(&self) -> &ParameterSets {
        &self.sets
    }

    /// Looks at a packet of H264. Returns whether other sets are kept now, and whether they have to be put before this packet.
    pub fn handle_packet(&mut self, payload: &[u8], timestamp: u32, marker: bool, is_newest: bool) -> (bool, bool) {
        let (mut has_changed, mut is_needed) = (false, false);
        h264::each_part(payload, |part| match part {
            Part::Sps(unit) | Part::Pps(unit) => {
                // An old one that comes late must not take the place of a new one.
                if is_newest || !self.sets.is_complete() {
                    has_changed |= self.sets.take(unit);
                }
                if is_newest {
                    if self.seen.timestamp != timestamp {
                        self.seen = Seen { timestamp, ..Seen::default() };
                    }
                    self.seen.sps |= matches!(part, Part::Sps(_));
                    self.seen.pps |= matches!(part, Part::Pps(_));
                }
            }
            Part::IdrStart if self.picture != Some(timestamp) => {
                let has_both = self.seen.timestamp == timestamp && self.seen.sps && self.seen.pps;
                is_needed |= is_newest && !has_both && self.sets.is_complete();
                self.picture = Some(timestamp);
            }
            Part::IdrStart => {}
            Part::OtherSlice if is_newest => (self.seen, self.picture) = (Seen::default(), None),
            Part::OtherSlice => {}
        });
        // Some encoders' timestamps never move; there a picture ends with its marker.
        if marker && is_newest && self.picture == Some(timestamp) {
            (self.seen, self.picture) = (Seen::default(), None);
        }
        (has_changed, is_needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: [u8; 6] = [0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01];
    const PPS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];
    const IDR: [u8; 3] = [0x65, 0x88, 0x80];
    const SLICE: [u8; 3] = [0x41, 0x9a, 0x02];

    fn aggregate(units: &[&[u8]]) -> Vec<u8> {
        let mut payload = vec![0x78];
        units.iter().for_each(|unit| payload.extend([&(unit.len() as u16).to_be_bytes(), *unit].concat()));
        payload
    }

    /// Whether sets are needed before each packet: payload, timestamp, marker.
    fn needed(sets: &mut KeptSets, packets: &[(&[u8], u32, bool)]) -> Vec<bool> {
        packets
            .iter()
            .map(|(payload, timestamp, marker)| sets.handle_packet(payload, *timestamp, *marker, true).1)
            .collect()
    }

    #[test]
    fn sets_that_came_once_are_needed_before_each_later_key_frame() {
        let mut sets = KeptSets::new(&[]);
        let first = [(&SPS[..], 0, false), (&PPS[..], 0, false), (&IDR[..], 0, false), (&IDR[..], 0, true)];
        assert_eq!(needed(&mut sets, &first), [false; 4]);
        let next = [
            (&SLICE[..], 3, true),
            (&IDR[..], 6, false),
            (&IDR[..], 6, true),
            (&SLICE[..], 9, true),
            (&IDR[..], 12, true),
        ];
        assert_eq!(needed(&mut sets, &next), [false, true, false, false, true]);
    }

    #[test]
    fn sets_that_come_with_each_key_frame_are_not_needed() {
        let mut sets = KeptSets::new(&[]);
        let together = aggregate(&[&SPS, &PPS, &IDR]);
        for timestamp in [0, 3, 3] {
            assert_eq!(
                needed(&mut sets, &[(&together, timestamp, true), (&SLICE, timestamp + 1, true)]),
                [false, false]
            );
        }
    }

    #[test]
    fn sets_with_the_timestamp_of_the_picture_before_are_needed_again() {
        let mut sets = KeptSets::new(&[]);
        let packets = [(&SLICE[..], 0, true), (&SPS[..], 0, false), (&PPS[..], 0, false), (&IDR[..], 3, true)];
        assert_eq!(needed(&mut sets, &packets), [false, false, false, true]);
    }

    #[test]
    fn where_only_one_kind_came_both_are_needed() {
        let mut sets = KeptSets::new(&[]);
        needed(&mut sets, &[(&SPS, 0, false), (&PPS, 0, false), (&IDR, 0, true)]);
        assert_eq!(needed(&mut sets, &[(&SPS, 3, false), (&IDR, 3, true)]), [false, true]);
    }

    #[test]
    fn without_both_kinds_nothing_can_be_put_anywhere() {
        let mut sets = KeptSets::new(&[]);
        assert_eq!(needed(&mut sets, &[(&SPS, 0, false), (&IDR, 0, true), (&IDR, 3, true)]), [false; 3]);
    }

    #[test]
    fn those_of_the_offer_are_needed_before_the_first_key_frame() {
        let mut sets = KeptSets::new(&aggregate(&[&SPS, &PPS])[1..]);
        assert_eq!(
            needed(&mut sets, &[(&[0x7c, 0x85, 0x88], 0, false), (&[0x7c, 0x45, 0x88], 0, true)]),
            [true, false]
        );
    }

    #[test]
    fn a_set_that_comes_late_takes_no_newer_ones_place() {
        let mut sets = KeptSets::new(&[]);
        needed(&mut sets, &[(&SPS, 0, false), (&PPS, 0, false), (&IDR, 0, true)]);
        let other = [0x67, 0x64, 0xc0, 0x1f, 0xda, 0x01];
        assert_eq!(sets.handle_packet(&other, 0, false, false), (false, false));
        assert_eq!(sets.handle_packet(&other, 3, false, true), (true, false));
    }

    #[test]
    fn where_timestamps_never_move_a_picture_ends_with_its_marker() {
        let mut sets = KeptSets::new(&[]);
        let packets = [
            (&SPS[..], 0, false),
            (&PPS[..], 0, false),
            (&IDR[..], 0, true),
            (&IDR[..], 0, true),
            (&SLICE[..], 0, true),
        ];
        assert_eq!(needed(&mut sets, &packets), [false, false, false, true, false]);
    }
}
