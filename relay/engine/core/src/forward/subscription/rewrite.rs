//! Writes a logged packet as one subscriber gets it: a new header, the subscriber's extension ids and mid, and for a repair the RTX
//! form (RFC 4588). Must never decide whether a packet is sent. Read `frame_ids.rs` next for the numbers in payload and extensions.
//!
//! ```text
//! log         | V X M PT seq | timestamp | SSRC | CSRC.. | extensions        | payload | padding |
//! outgoing    | V X M pt seq'| timestamp'| ssrc | mapped, mid, send time     | payload'| filling |
//! RTX         | V X M rtx rs | timestamp'| rtx  | mapped, mid, send time | seq' | payload'|
//! ```

use std::ops::Range;

use crate::command::{Extension, ExtensionKind};
use crate::drop::Drop;
use crate::rtp::extensions::{self, Elements};
use crate::rtp::header::FIXED_LEN;
use crate::rtp::{Fields, Header};
use crate::time::Time;

use super::frame_ids::Shifts;
use super::playout::{self, Delay};
use crate::forward::feed::LoggedPacket;

/// The longest mid that is written, in bytes: RFC 8843 section 15 limits it to what a one-byte element holds.
const MAX_MID: usize = 16;
/// The greatest id and length of the one-byte form (RFC 8285 section 4.2).
const MAX_SHORT_ID: u8 = 14;
const MAX_SHORT_LEN: usize = 16;
/// The longest block of that form: every id once.
const SHORT_ROOM: usize = extensions::HEAD + MAX_SHORT_ID as usize * (1 + MAX_SHORT_LEN) + 2;

/// A mid. Its bytes lie here and not behind a pointer, as every packet reads them.
#[derive(Clone, Copy, Debug)]
struct Mid {
    bytes: [u8; MAX_MID],
    len: usize,
}

impl Mid {
    fn new(mid: &str) -> Option<Mid> {
        let mut bytes = [0; MAX_MID];
        bytes.get_mut(..mid.len())?.copy_from_slice(mid.as_bytes());
        Some(Mid { bytes, len: mid.len() })
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The P bit of the first byte.
const PADDED: u8 = 0x20;

/// How the header extensions of a source become a subscriber's.
#[derive(Clone, Debug)]
pub struct ExtensionMap {
    /// The subscriber's id by the publisher's; 0 leaves the element out.
    to: [u8; 256],
    mid: Option<(u8, Mid)>,
    abs_send_time: u8,
    /// Every element that is written has an id of its own, and one that fits the one-byte form.
    is_short: bool,
    /// A packet's bytes may depend on when and beside which other packets it is sent.
    may_differ: bool,
    /// Both sides' ids of the dependency descriptor.
    descriptor: (u8, u8),
    /// Both sides' ids of the playout delay; the subscriber's is 0 where it must not change.
    delay: (u8, u8),
    /// The playout delay that the subscriber's player is asked for.
    told: Option<Delay>,
}

impl ExtensionMap {
    /// Without `stamps` a packet's bytes depend on the source alone, so that it can be sealed twice.
    pub fn new(source: &[Extension], subscriber: &[Extension], mid: &str, stamps: bool) -> ExtensionMap {
        let id = |list: &[Extension], kind| list.iter().find(|extension| extension.kind == kind).map_or(0, |e| e.id);
        let mut to = [0; 256];
        for extension in source.iter().filter(|extension| passes_through(extension.kind)) {
            to[usize::from(extension.id)] = id(subscriber, extension.kind);
        }
        to[0] = 0;
        let kind = ExtensionKind::DependencyDescriptor;
        let mid_id = id(subscriber, ExtensionKind::Mid);
        let mid = Mid::new(mid).filter(|_| mid_id != 0).map(|mid| (mid_id, mid));
        let abs_send_time = if stamps { id(subscriber, ExtensionKind::AbsSendTime) } else { 0 };
        let ids = to.iter().copied().chain(mid.map(|(id, _)| id)).chain([abs_send_time]).filter(|id| *id != 0);
        let mut seen = 0u16;
        let is_new = |id: u8| {
            let bit = 1u16.checked_shl(id.into()).filter(|_| id <= MAX_SHORT_ID).unwrap_or(0);
            let is_new = bit & !seen != 0;
            seen |= bit;
            is_new
        };
        let is_short = ids.map(is_new).fold(true, |all, is_new| all & is_new) && mid.is_none_or(|(_, mid)| mid.len > 0);
        let delay = ExtensionKind::PlayoutDelay;
        ExtensionMap {
            to,
            mid,
            abs_send_time,
            is_short,
            may_differ: stamps,
            descriptor: (id(source, kind), id(subscriber, kind)),
            delay: (id(source, delay), if stamps { id(subscriber, delay) } else { 0 }),
            told: None,
        }
    }

    /// Sets the playout delay that each packet carries, unless the publisher asks for more.
    pub fn set_playout_delay(&mut self, told: Option<Delay>) {
        self.told = told.filter(|_| self.delay.1 != 0);
    }

    /// The dependency descriptor of a packet from this source.
    pub fn descriptor<'a>(&self, packet: &LoggedPacket<'a>) -> Option<&'a [u8]> {
        let id = self.descriptor.0;
        packet.extensions().find(|(found, _)| *found == id && id != 0).map(|(_, value)| value)
    }
}

/// True for kinds whose value means the same to the subscriber. The others describe the publisher's own transport or m-line.
fn passes_through(kind: ExtensionKind) -> bool {
    use ExtensionKind as Kind;
    !matches!(kind, Kind::Mid | Kind::Rid | Kind::RepairedRid | Kind::TransportCc | Kind::AbsSendTime)
}

/// Where `write` has put the head and payload of one outgoing packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Padding included.
    pub len: usize,
    pub payload_offset: usize,
    pub padding: usize,
}

impl Written {
    pub fn payload(&self) -> Range<usize> {
        self.payload_offset..self.len - self.padding
    }
}

/// Writes the packet for a subscriber to the front of `out`. With `original` it becomes the RTX packet of that sequence number.
pub fn write(
    now: Time,
    packet: &LoggedPacket<'_>,
    (map, shifts): (&ExtensionMap, Shifts),
    fields: Fields,
    original: Option<u16>,
    out: &mut [u8],
) -> Result<Written, Drop> {
    let sent_at = abs_send_time(now);
    let (fixed, rest) = out.split_at_mut_checked(FIXED_LEN).ok_or(Drop::RtpTooLarge)?;
    let block = match rest.first_chunk_mut() {
        Some(room) if map.is_short && map.told.is_none() && packet.is_short() => {
            write_short(packet, map, sent_at, room)
        }
        _ => write_any(packet, map, sent_at, rest)?,
    };
    fields.write(block > 0, fixed).ok_or(Drop::RtpTooLarge)?;
    let mut payload_offset = FIXED_LEN + block;
    if shifts.frame != 0 {
        shift_descriptor(map.descriptor.1, shifts, &mut out[..payload_offset]);
    }
    if let Some(sequence) = original {
        // RFC 4588 section 4: the original sequence number precedes the original payload.
        let room = out.get_mut(payload_offset..payload_offset + 2).ok_or(Drop::RtpTooLarge)?;
        room.copy_from_slice(&sequence.to_be_bytes());
        payload_offset += 2;
    }
    let payload = packet.payload();
    let room = out.get_mut(payload_offset..payload_offset + payload.len()).ok_or(Drop::RtpTooLarge)?;
    room.copy_from_slice(payload);
    let end = payload_offset + payload.len();
    let padding = if map.may_differ && original.is_none() { packet.filling } else { 0 };
    if let Some(room) = out.get_mut(end..end + usize::from(padding)).filter(|room| !room.is_empty()) {
        // RFC 3550 section 5.1: the last byte counts the padding, itself included.
        room.fill(0);
        room[usize::from(padding) - 1] = padding;
        out[0] |= PADDED;
        return Ok(Written { len: end + usize::from(padding), payload_offset, padding: padding.into() });
    }
    Ok(Written { len: end, payload_offset, padding: 0 })
}

/// Writes an extension block of the one-byte form, straight into the packet; returns its length.
fn write_short(packet: &LoggedPacket<'_>, map: &ExtensionMap, sent_at: [u8; 3], out: &mut [u8; SHORT_ROOM]) -> usize {
    let mut at = extensions::HEAD;
    let mut put = |id: u8, value: &[u8]| {
        out[at] = id << 4 | (value.len() - 1) as u8;
        out[at + 1..at + 1 + value.len()].copy_from_slice(value);
        at += 1 + value.len();
    };
    for (id, value) in packet.extensions() {
        let to = map.to[usize::from(id)];
        if to != 0 {
            put(to, value);
        }
    }
    if let Some((id, mid)) = &map.mid {
        put(*id, mid.bytes());
    }
    if map.abs_send_time != 0 {
        put(map.abs_send_time, &sent_at);
    }
    extensions::finish_short(out, at)
}

/// Writes an extension block of any form; returns its length.
fn write_any(packet: &LoggedPacket<'_>, map: &ExtensionMap, sent_at: [u8; 3], out: &mut [u8]) -> Result<usize, Drop> {
    let told = map.told.map(|told| match packet.extensions().find(|(id, _)| *id == map.delay.0 && *id != 0) {
        Some((_, publisher)) => playout::combine(publisher, told),
        None => told,
    });
    let mut elements = Elements::new();
    for (id, value) in packet.extensions() {
        let to = map.to[usize::from(id)];
        if to != 0 {
            elements.set(to, value);
        }
    }
    if let Some(told) = &told {
        elements.set(map.delay.1, told);
    }
    if let Some((id, mid)) = &map.mid {
        elements.set(*id, mid.bytes());
    }
    if map.abs_send_time != 0 {
        elements.set(map.abs_send_time, &sent_at);
    }
    elements.write(out).ok_or(Drop::RtpTooLarge)
}

/// Shifts the frame number in a head that was just written. It is needed after a switch of source only.
fn shift_descriptor(id: u8, shifts: Shifts, head: &mut [u8]) {
    let Ok(header) = Header::parse(head) else { return };
    let range = extensions::iterate(head, header.extension).find(|(found, _)| *found == id).map(|(_, range)| range);
    if let Some(range) = range.filter(|_| id != 0) {
        shifts.rewrite_descriptor(&mut head[range]);
    }
}

/// 24 bits of seconds in 6.18 fixed point (draft of the WebRTC project, abs-send-time).
fn abs_send_time(now: Time) -> [u8; 3] {
    let [.., a, b, c] = ((u128::from(now.0) << 18) / 1_000_000).to_be_bytes();
    [a, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::feed::Scratch;
    use ExtensionKind as Kind;
    use proptest::prelude::*;

    const FIELDS: Fields = Fields { marker: true, payload_type: 101, sequence: 7, timestamp: 9, ssrc: 0xabcd };

    fn list(kinds: &[(u8, Kind)]) -> Vec<Extension> {
        kinds.iter().map(|(id, kind)| Extension { id: *id, kind: *kind }).collect()
    }

    /// A packet with these extension elements, a CSRC and three bytes of padding.
    fn packet(values: &[(u8, &[u8])]) -> Vec<u8> {
        let mut elements = Elements::new();
        assert!(values.iter().all(|(id, value)| elements.set(*id, value)));
        let mut block = [0; 512];
        let len = elements.write(&mut block).unwrap();
        let mut bytes = vec![0xa1 | u8::from(len > 0) << 4, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 9, 9, 9, 9];
        bytes.extend(&block[..len]);
        bytes.extend([1, 2, 3, 4, 0, 0, 3]);
        bytes
    }

    fn written(map: &ExtensionMap, shifts: Shifts, bytes: &[u8], original: Option<u16>) -> (Header, Vec<u8>) {
        let mut scratch = Scratch::new(1);
        scratch.load(bytes);
        let mut out = [0; 1500];
        let packet = scratch.packets().next().unwrap();
        let Written { len, .. } = write(Time(1_500_000), &packet, (map, shifts), FIELDS, original, &mut out).unwrap();
        (Header::parse(&out[..len]).unwrap(), out[..len].to_vec())
    }

    fn elements(header: &Header, bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        extensions::iterate(bytes, header.extension).map(|(id, range)| (id, bytes[range].to_vec())).collect()
    }

    #[test]
    fn extensions_are_renumbered_and_foreign_ones_left_out() {
        let source = list(&[
            (1, Kind::Mid),
            (2, Kind::Rid),
            (3, Kind::AudioLevel),
            (4, Kind::TransportCc),
            (5, Kind::PlayoutDelay),
        ]);
        let subscriber = list(&[(3, Kind::Mid), (4, Kind::AbsSendTime), (9, Kind::AudioLevel), (1, Kind::TransportCc)]);
        let map = ExtensionMap::new(&source, &subscriber, "v", true);
        let bytes = packet(&[(1, b"0"), (2, b"f"), (3, &[0x85]), (4, &[0, 1]), (5, &[0, 0, 0]), (8, &[1])]);
        let (header, out) = written(&map, Shifts::default(), &bytes, None);
        assert_eq!(header.fields(), FIELDS);
        assert_eq!((header.csrc_count, header.padding), (0, 0));
        assert_eq!(header.payload(&out), [1, 2, 3, 4]);
        let expected = [(9, vec![0x85]), (3, b"v".to_vec()), (4, vec![0x06, 0, 0])];
        assert_eq!(elements(&header, &out), expected);
    }

    #[test]
    fn a_playout_delay_is_told_where_it_may_change_and_the_longer_wins() {
        let source = list(&[(5, Kind::PlayoutDelay)]);
        let subscriber = list(&[(7, Kind::PlayoutDelay)]);
        let told = Some([0x01, 0x43, 0xe8]);
        let values = |stamps, bytes: &[u8]| {
            let mut map = ExtensionMap::new(&source, &subscriber, "", stamps);
            map.set_playout_delay(told);
            let (header, out) = written(&map, Shifts::default(), bytes, None);
            elements(&header, &out)
        };
        assert_eq!(values(true, &packet(&[])), [(7, vec![0x01, 0x43, 0xe8])]);
        assert_eq!(values(true, &packet(&[(5, &[0x10, 0x02, 0x00])])), [(7, vec![0x10, 0x02, 0x00])]);
        assert_eq!(values(false, &packet(&[])), []);
    }

    proptest! {
        #[test]
        fn the_short_way_writes_what_the_general_one_does(
            ids in prop::sample::subsequence((1..=14u8).collect::<Vec<_>>(), 4),
            values in prop::collection::vec((1..=7u8, prop::collection::vec(any::<u8>(), 0..20)), 0..6),
            mid in "[a-z]{0,17}", stamps: bool,
        ) {
            let kinds = [Kind::AudioLevel, Kind::PlayoutDelay, Kind::AbsSendTime, Kind::Mid];
            let subscriber: Vec<_> = ids.iter().zip(kinds).map(|(id, kind)| Extension { id: *id, kind }).collect();
            let source = list(&[(2, Kind::AudioLevel), (3, Kind::PlayoutDelay), (5, Kind::Mid)]);
            let map = ExtensionMap::new(&source, &subscriber, &mid, stamps);
            let mut bytes = vec![0x90, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
            let mut elements = Elements::new();
            values.iter().for_each(|(id, value)| assert!(elements.set(*id, value)));
            let mut block = [0; 512];
            let len = elements.write(&mut block).unwrap();
            bytes[0] = 0x80 | u8::from(len > 0) << 4;
            bytes.extend(&block[..len]);
            bytes.extend([1, 2, 3]);
            let (_, written) = written(&map, Shifts::default(), &bytes, None);
            let general = ExtensionMap { is_short: false, ..map };
            prop_assert_eq!(written, super::tests::written(&general, Shifts::default(), &bytes, None).1);
        }
    }

    #[test]
    fn a_packet_without_extensions_stays_without() {
        let map = ExtensionMap::new(&[], &[], "v", true);
        let (header, out) = written(&map, Shifts::default(), &packet(&[]), None);
        assert_eq!(header.extension, None);
        assert_eq!(out.len(), 16);
    }

    #[test]
    fn a_value_too_long_for_the_one_byte_form_takes_the_other() {
        let descriptor = [7; 40];
        let source = list(&[(5, Kind::DependencyDescriptor)]);
        let map = ExtensionMap::new(&source, &list(&[(2, Kind::DependencyDescriptor)]), "", false);
        let shifts = Shifts { frame: 1, ..Shifts::default() };
        let (header, out) = written(&map, shifts, &packet(&[(5, &descriptor)]), None);
        let mut expected = descriptor.to_vec();
        expected[2] = 8;
        assert_eq!(elements(&header, &out), [(2, expected)]);
        assert_eq!(header.extension.unwrap().profile, extensions::TWO_BYTE);
    }

    #[test]
    fn a_repair_carries_the_original_sequence_before_the_payload() {
        let map = ExtensionMap::new(&[], &list(&[(3, Kind::Mid)]), "1", true);
        let (header, out) = written(&map, Shifts::default(), &packet(&[]), Some(0x1234));
        assert_eq!(header.payload(&out), [0x12, 0x34, 1, 2, 3, 4]);
    }

    #[test]
    fn without_stamps_the_bytes_do_not_depend_on_the_time() {
        let subscriber = list(&[(3, Kind::Mid), (4, Kind::AbsSendTime)]);
        let map = ExtensionMap::new(&[], &subscriber, "1", false);
        let (header, out) = written(&map, Shifts::default(), &packet(&[]), None);
        assert_eq!(elements(&header, &out), [(3, b"1".to_vec())]);
    }

    #[test]
    fn filling_is_padding_and_only_where_bytes_may_differ() {
        let mut scratch = Scratch::new(2);
        scratch.load_frame(&[&packet(&[]), &[&packet(&[])[..], &[9, 3]].concat()]);
        for (stamps, expected) in [(true, 2), (false, 0)] {
            let map = ExtensionMap::new(&[], &list(&[(3, Kind::Mid)]), "1", stamps);
            let mut out = [0; 100];
            let short = scratch.packets().next().unwrap();
            let written = write(Time(0), &short, (&map, Shifts::default()), FIELDS, None, &mut out).unwrap();
            let header = Header::parse(&out[..written.len]).unwrap();
            assert_eq!((usize::from(header.padding), written.padding), (expected, expected));
            assert_eq!((header.payload(&out), &out[written.payload()]), (&[1, 2, 3, 4][..], &[1, 2, 3, 4][..]));
            let repair = write(Time(0), &short, (&map, Shifts::default()), FIELDS, Some(1), &mut out).unwrap();
            assert_eq!(repair.padding, 0);
        }
    }

    #[test]
    fn a_buffer_that_is_too_small_is_refused() {
        let mut scratch = Scratch::new(1);
        scratch.load(&packet(&[]));
        let map = ExtensionMap::new(&[], &list(&[(3, Kind::Mid)]), "1", true);
        let packet = scratch.packets().next().unwrap();
        for len in 0..26 {
            let mut out = vec![0; len];
            let result = write(Time(0), &packet, (&map, Shifts::default()), FIELDS, Some(1), &mut out);
            assert_eq!(result, Err(Drop::RtpTooLarge), "room for {len}");
        }
    }
}
