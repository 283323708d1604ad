//! A worker's cursor in one track log. Each packet is copied out and parsed once, for all subscriptions of the worker. Owns the
//! cursor; must never know a subscription. Read `subscription/mod.rs` next, which takes these packets.
//!
//! ```text
//! log, in order of arrival   ... [key frame] . . . . . . [cursor] . . . [head]
//!                                 replay, for one that joins   next_batch, for all
//! ```

use millrace_arena::{Arena, EntryMeta, Facts, LogReader, MARKER, MAX_PACKET, Missing, SenderReport};

use crate::drop::Drop;
use crate::rtp::{Header, extensions};
use crate::time::{Span, Time};

use super::key_frames::{Wish, Wishes};

/// Header extension elements of one packet that are read; further ones are left out.
const MAX_ELEMENTS: usize = extensions::MAX_ELEMENTS;
/// Bytes of padding that a packet gets at the most. libwebrtc's parts of a frame differ by one byte, and by a few more where the first or
/// last carries another header extension.
const MAX_FILLING: usize = 4;
/// The oldest key frame to join at. What follows an older one would have to be played late or in haste.
const JOIN_AGE: Span = Span::from_millis(500);
/// The most packets of a key frame to join at.
const MAX_KEY_FRAME_PACKETS: u64 = 500;

/// One packet as it lies in the scratch: parsed, and still as the publisher sent it.
#[derive(Clone, Copy, Debug)]
pub struct LoggedPacket<'a> {
    pub log: u32,
    /// Its place in the order of arrival.
    pub position: u64,
    pub meta: EntryMeta,
    pub header: Header,
    pub bytes: &'a [u8],
    elements: &'a [(u8, u16, u8)],
    is_short: bool,
    /// Bytes of padding that make it as long as the packets that follow it in its frame (`Scratch::level`).
    pub filling: u8,
    /// What was measured of its log, when it was read.
    pub facts: Facts,
}

impl<'a> LoggedPacket<'a> {
    /// The payload without padding; empty when the packet was padding only.
    pub fn payload(&self) -> &'a [u8] {
        self.header.payload(self.bytes)
    }

    /// Id and value of each header extension element.
    pub fn extensions(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let bytes = self.bytes;
        self.elements
            .iter()
            .map(move |(id, at, len)| (*id, &bytes[usize::from(*at)..usize::from(*at) + usize::from(*len)]))
    }

    /// True when each header extension element has an id of its own and fits the one-byte form (RFC 8285 section 4.2).
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    pub fn has(&self, flag: u16) -> bool {
        self.meta.flags & flag != 0
    }

    pub fn arrived_at(&self) -> Time {
        Time(self.meta.arrived_us)
    }
}

#[derive(Clone, Debug)]
struct Slot {
    position: u64,
    meta: EntryMeta,
    header: Header,
    elements: [(u8, u16, u8); MAX_ELEMENTS],
    elements_count: usize,
    is_short: bool,
    filling: u8,
}

/// The memory into which a worker copies packets, allocated once.
#[derive(Debug)]
pub struct Scratch {
    log: u32,
    facts: Facts,
    bytes: Box<[u8]>,
    slots: Vec<Slot>,
    capacity: usize,
}

impl Scratch {
    /// Room for `packets` at a time.
    pub fn new(packets: usize) -> Scratch {
        let bytes = vec![0; packets * MAX_PACKET].into_boxed_slice();
        Scratch { log: 0, facts: Facts::default(), bytes, slots: Vec::with_capacity(packets), capacity: packets }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn get(&self, at: usize) -> Option<LoggedPacket<'_>> {
        let slot = self.slots.get(at)?;
        let bytes = &self.bytes[at * MAX_PACKET..][..usize::from(slot.meta.len)];
        let elements = &slot.elements[..slot.elements_count];
        Some(LoggedPacket {
            log: self.log,
            position: slot.position,
            meta: slot.meta,
            header: slot.header,
            bytes,
            elements,
            is_short: slot.is_short,
            filling: slot.filling,
            facts: self.facts,
        })
    }

    /// What was read, in order of arrival.
    pub fn packets(&self) -> impl Iterator<Item = LoggedPacket<'_>> {
        (0..self.slots.len()).filter_map(|at| self.get(at))
    }

    fn clear(&mut self, log: u32) {
        self.log = log;
        self.slots.clear();
    }

    fn is_full(&self) -> bool {
        self.slots.len() == self.capacity
    }

    /// Copies and parses one packet. The writer has parsed it before, so a packet that does not parse was torn.
    fn read(&mut self, reader: &LogReader, position: u64, index: u64) -> Result<(), Missing> {
        let room = &mut self.bytes[self.slots.len() * MAX_PACKET..][..MAX_PACKET];
        let meta = reader.read(index, room)?;
        let slot = parse(position, meta, &room[..usize::from(meta.len)]).ok_or(Missing::Overtaken)?;
        self.slots.push(slot);
        Ok(())
    }

    /// Finds the padding that makes packets of a frame equally long, so that the kernel takes them as one GSO send. libwebrtc splits a
    /// frame into parts that differ by one byte, the longer ones last, and a GSO send ends where packets become longer.
    fn level(&mut self) {
        let (mut timestamp, mut longest) = (0, 0);
        for slot in self.slots.iter_mut().rev() {
            let len = slot.header.payload_range().len();
            let is_like =
                slot.header.timestamp == timestamp && len > 0 && longest > len && longest - len <= MAX_FILLING;
            if is_like {
                slot.filling = (longest - len) as u8;
            } else {
                (timestamp, longest) = (slot.header.timestamp, len);
            }
        }
    }

    #[cfg(test)]
    pub fn load(&mut self, packet: &[u8]) {
        self.load_frame(&[packet]);
    }

    #[cfg(test)]
    pub fn load_frame(&mut self, packets: &[&[u8]]) {
        self.clear(0);
        for (at, packet) in packets.iter().enumerate() {
            self.bytes[at * MAX_PACKET..][..packet.len()].copy_from_slice(packet);
            let meta = EntryMeta { len: packet.len() as u16, ..EntryMeta::default() };
            self.slots.push(parse(at as u64, meta, packet).expect("a test's packet parses"));
        }
        self.level();
    }
}

fn parse(position: u64, meta: EntryMeta, packet: &[u8]) -> Option<Slot> {
    let header = Header::parse(packet).ok()?;
    let elements = [(0, 0, 0); MAX_ELEMENTS];
    let mut slot = Slot { position, meta, header, elements, elements_count: 0, is_short: true, filling: 0 };
    let mut seen = 0u16;
    for (id, range) in extensions::iterate(packet, header.extension).take(MAX_ELEMENTS) {
        // A packet of MAX_PACKET bytes: offsets fit 16 bits; RFC 8285: a value has at most 255 bytes.
        slot.elements[slot.elements_count] = (id, range.start as u16, range.len() as u8);
        slot.elements_count += 1;
        let bit = 1u16.checked_shl(id.into()).unwrap_or(0);
        slot.is_short &= bit & !seen != 0 && (1..=16).contains(&range.len());
        seen |= bit;
    }
    Some(slot)
}

/// One worker's cursor in one log.
#[derive(Debug)]
pub struct Feed {
    log: u32,
    publication: u64,
    slot: u8,
    reader: Option<LogReader>,
    position: u64,
    wishes: Wishes,
}

impl Feed {
    /// Begins at the log's present end, and has this slot told when the log advances. A log that is not open for this publication
    /// yet is opened by `connect`.
    pub fn open(arena: &Arena, log: u32, publication: u64, slot: u8) -> Feed {
        let mut feed = Feed { log, publication, slot, reader: None, position: 0, wishes: Wishes::default() };
        if feed.connect(arena) {
            feed.position = feed.head();
        }
        feed
    }

    /// Opens the log if it was not open before; then every packet in it is new. True when it is open now.
    pub fn connect(&mut self, arena: &Arena) -> bool {
        if self.reader.is_none() {
            self.reader = LogReader::open(arena, self.log, self.publication);
            if let Some(reader) = &self.reader {
                reader.set_interest(self.slot, true);
            }
        }
        self.reader.is_some()
    }

    pub fn log(&self) -> u32 {
        self.log
    }

    pub fn publication(&self) -> u64 {
        self.publication
    }

    /// The slot that writes the log, which key frame requests go to.
    pub fn owner(&self) -> Option<u8> {
        self.reader.as_ref().map(LogReader::owner)
    }

    /// False when the log was never opened, or its publication has ended.
    pub fn is_open(&self) -> bool {
        self.reader.as_ref().is_some_and(LogReader::is_open)
    }

    fn head(&self) -> u64 {
        self.reader.as_ref().map_or(0, LogReader::head)
    }

    /// True when `next_batch` would read something.
    pub fn has_more(&self) -> bool {
        self.head() > self.position
    }

    /// Reads the next packets into `scratch`, as many as it holds. Returns how many the writer had overwritten before.
    pub fn next_batch(&mut self, scratch: &mut Scratch) -> u64 {
        let (position, overtaken) = self.read_from(self.position, u64::MAX, scratch);
        self.position = position;
        overtaken
    }

    /// Reads packets from `position` on, up to the cursor, for a subscription that joins at a key frame behind it. Returns the
    /// position to go on from, `None` at the end.
    pub fn replay(&self, position: u64, scratch: &mut Scratch) -> Option<u64> {
        let (position, _) = self.read_from(position, self.position, scratch);
        (position < self.position).then_some(position)
    }

    fn read_from(&self, mut position: u64, end: u64, scratch: &mut Scratch) -> (u64, u64) {
        scratch.clear(self.log);
        let mut overtaken = 0;
        let Some(reader) = &self.reader else { return (position, 0) };
        scratch.facts = reader.facts();
        while position < end && !scratch.is_full() {
            if let Some(index) = reader.arrival(position) {
                overtaken += u64::from(scratch.read(reader, position, index).is_err());
                position += 1;
                continue;
            }
            let head = reader.head();
            if head <= position {
                // The end; or the log was opened for another publication, whose head does not concern us.
                break;
            }
            let oldest = reader.oldest(head).max(position + 1).min(end);
            overtaken += oldest - position;
            position = oldest;
        }
        scratch.level();
        (position, overtaken)
    }

    /// Reads one packet by its index, for a repair.
    pub fn read(&self, index: u64, scratch: &mut Scratch) -> Result<(), Drop> {
        scratch.clear(self.log);
        let reader = self.reader.as_ref().ok_or(Drop::LogOvertaken)?;
        scratch.read(reader, 0, index).map_err(|_| Drop::LogOvertaken)
    }

    /// The position to `replay` from so that a decoder can start at once: the last key frame, when it is young and whole.
    pub fn join_at(&self, now: Time, scratch: &mut Scratch) -> Option<u64> {
        let reader = self.reader.as_ref()?;
        let key_frame = reader.key_frame()?;
        let is_young = now.since(Time(key_frame.at_us)) <= JOIN_AGE;
        let mut is_whole = || self.is_whole(reader, key_frame.index, scratch);
        (is_young && key_frame.position < self.position && is_whole()).then_some(key_frame.position)
    }

    /// True when no packet is missing from a frame's first to its marker, or to the newest if the marker is still to come.
    fn is_whole(&self, reader: &LogReader, first: u64, scratch: &mut Scratch) -> bool {
        for index in first..first + MAX_KEY_FRAME_PACKETS {
            scratch.clear(self.log);
            match scratch.read(reader, 0, index) {
                Ok(()) if scratch.slots[0].meta.flags & MARKER != 0 => return true,
                Ok(()) => {}
                Err(_) => return index > first && index > reader.highest(),
            }
        }
        false
    }

    /// When the newest packet arrived; `None` when none has. For the choice between a publication's logs.
    pub fn last_arrival(&self, scratch: &mut Scratch) -> Option<Time> {
        let reader = self.reader.as_ref()?;
        let index = reader.arrival(reader.head().checked_sub(1)?)?;
        scratch.clear(self.log);
        scratch.read(reader, 0, index).ok()?;
        scratch.slots.first().map(|slot| Time(slot.meta.arrived_us))
    }

    /// What the publisher's worker has measured.
    pub fn facts(&self) -> Facts {
        self.reader.as_ref().map_or(Facts::default(), LogReader::facts)
    }

    pub fn sender_report(&self) -> Option<SenderReport> {
        // A report of zeros withdraws the one before it: the publisher's stream has started over.
        self.reader.as_ref()?.sender_report().filter(|report| report.ntp != 0)
    }

    /// Notes that a subscription wants a key frame. True when the publisher's worker has to be told now.
    pub fn want_key_frame(&mut self, now: Time, wish: Wish) -> bool {
        self.wishes.want(now, wish)
    }

    /// Closes the cursor; this slot is no longer told when the log advances.
    pub fn close(self) {
        if let Some(reader) = self.reader {
            reader.set_interest(self.slot, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_frame_are_made_equally_long_where_little_is_missing() {
        let filled = |parts: &[(u32, usize)]| {
            let packet = |(timestamp, len): &(u32, usize)| {
                let mut packet = vec![0x80, 96, 0, 1];
                packet.extend(timestamp.to_be_bytes());
                packet.extend([0, 0, 0, 3]);
                packet.resize(12 + len, 7);
                packet
            };
            let packets: Vec<_> = parts.iter().map(packet).collect();
            let mut scratch = Scratch::new(parts.len());
            scratch.load_frame(&packets.iter().map(Vec::as_slice).collect::<Vec<_>>());
            scratch.packets().map(|packet| packet.filling).collect::<Vec<_>>()
        };
        assert_eq!(filled(&[(9, 1_000), (9, 1_000), (9, 1_001), (9, 1_001)]), [1, 1, 0, 0]);
        assert_eq!(filled(&[(9, 998), (9, 1_002), (9, 1_001), (9, 400)]), [4, 0, 0, 0], "the last may be shorter");
        assert_eq!(filled(&[(9, 990), (9, 1_000), (8, 1_001)]), [0, 0, 0], "too short; another frame's");
        assert_eq!(filled(&[(9, 0), (9, 2)]), [0, 0], "padding only is left out");
    }
}
