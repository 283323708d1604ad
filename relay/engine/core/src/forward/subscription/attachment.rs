//! One publication as one outgoing stream forwards it: the log that it follows now, under which numbers, and those that it followed
//! before. Decides whether a packet starts, continues or switches a source; must never write bytes. Read `layers.rs` next for the
//! choice of a log, `numbering.rs` for the numbers.

use std::collections::VecDeque;

use millrace_arena::KEY_FRAME_START;

use crate::command::{Attach, MediaKind};
use crate::drop::Drop;

use super::formats::Formats;
use super::frame_ids::Shifts;
use super::layers::Layers;
use super::numbering::Numbering;
use super::rewrite::ExtensionMap;
use crate::forward::feed::LoggedPacket;
use crate::forward::key_frames::Wish;

/// The longest gap that is loss, in packets. No receiver asks for more, and its decoder needs a key frame.
const MAX_GAP: u64 = 1_000;
/// Sources from before a switch whose packets can still be repaired.
const MAX_PAST: usize = 2;

/// One source of a stream: a log from one packet on, of one SSRC and one codec, and its outgoing numbers.
#[derive(Clone, Debug)]
pub struct Source {
    pub log: u32,
    /// Its place among the publication's logs.
    pub encoding: usize,
    pub(super) ssrc: u32,
    /// The publisher's number of the codec; `None` where a predecessor of an older release did not save it.
    pub(super) payload_type: Option<u8>,
    /// The arrival after the newest that was looked at. Replays and batches may overlap, and a packet that went twice would be sealed
    /// twice under one SRTP index.
    pub(super) next_position: u64,
    pub numbering: Numbering,
    /// outgoing timestamp = source timestamp + this, wrapping.
    pub timestamp_shift: u32,
    pub shifts: Shifts,
    pub since_us: u64,
    /// A predecessor may have used outgoing indexes below this one. They are repaired, and never assigned.
    pub(super) floor: u64,
}

impl Source {
    pub fn begin(
        packet: &LoggedPacket<'_>,
        encoding: usize,
        outgoing: u64,
        timestamp_shift: u32,
        shifts: Shifts,
    ) -> Source {
        Source {
            log: packet.log,
            encoding,
            ssrc: packet.header.ssrc,
            payload_type: Some(packet.header.payload_type),
            next_position: packet.position,
            numbering: Numbering::new(packet.meta.index, outgoing),
            timestamp_shift,
            shifts,
            since_us: packet.meta.arrived_us,
            floor: 0,
        }
    }

    /// The outgoing index and timestamp of a packet of this source.
    pub fn assign(&mut self, packet: &LoggedPacket<'_>) -> Result<(u64, u32), Drop> {
        if packet.position < self.next_position {
            return Err(Drop::RtpDuplicate);
        }
        self.next_position = packet.position + 1;
        if packet.payload().is_empty() && self.numbering.skip(packet.meta.index) {
            return Err(Drop::RtpPadding);
        }
        let index = self.numbering.assign(packet.meta.index).ok_or(Drop::RtpTooOld)?;
        if index < self.floor {
            return Err(Drop::RtpDuplicate);
        }
        Ok((index, packet.header.timestamp.wrapping_add(self.timestamp_shift)))
    }

    /// The wish of a viewer whose decoder cannot go on.
    pub fn refresh(&self) -> Wish {
        Wish { log: self.log, sees_nothing: false }
    }

    /// True when the publisher started this log over or changed its codec, or too much is lost to continue.
    fn is_over(&self, packet: &LoggedPacket<'_>) -> bool {
        let ahead = packet.meta.index.saturating_sub(self.numbering.highest());
        let is_new = packet.position >= self.next_position;
        let is_other_codec = self.payload_type.is_some_and(|number| number != packet.header.payload_type);
        let is_over = self.ssrc != packet.header.ssrc || ahead > MAX_GAP || (is_other_codec && ahead > 0);
        self.log == packet.log && is_new && is_over
    }
}

/// What a packet is to its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It belongs to the source that is followed.
    Continue,
    /// A new source of this encoding begins here.
    Begin(usize),
}

#[derive(Debug)]
pub struct Attachment {
    pub publication: u64,
    pub formats: Formats,
    pub extensions: ExtensionMap,
    pub layers: Layers,
    pub source: Option<Source>,
    past: VecDeque<Source>,
}

impl Attachment {
    pub fn new(attach: &Attach, formats: Formats, extensions: ExtensionMap, wish: Option<u16>) -> Attachment {
        Attachment {
            publication: attach.publication,
            formats,
            extensions,
            layers: Layers::new(&attach.logs, wish),
            source: None,
            past: VecDeque::with_capacity(MAX_PAST),
        }
    }

    /// Decides what a packet is. A source that ends or is switched from is past then.
    pub fn step(&mut self, kind: MediaKind, packet: &LoggedPacket<'_>) -> Result<Step, Drop> {
        if !self.formats.handle_packet(packet.header.payload_type) {
            // What follows, if the publisher ever changes back, begins with a key frame.
            if self.source.as_ref().is_some_and(|source| source.is_over(packet)) {
                self.leave_source();
            }
            return Err(Drop::CodecNotPlayable);
        }
        let encoding = self.layers.handle_packet(packet).ok_or(Drop::LayerNotSelected)?;
        if self.source.as_ref().is_some_and(|source| source.is_over(packet)) {
            self.leave_source();
        }
        if self.source.as_ref().is_some_and(|source| source.log == packet.log) {
            return Ok(Step::Continue);
        }
        let current = self.source.as_ref().map(|source| source.encoding);
        let is_start = match kind {
            MediaKind::Audio => !packet.payload().is_empty(),
            MediaKind::Video => packet.has(KEY_FRAME_START),
        };
        if !is_start || !self.layers.may_switch(current, encoding) {
            let waits = current.is_none_or(|current| self.layers.is_better(encoding, current));
            return Err(if waits { Drop::AwaitsKeyFrame } else { Drop::LayerNotSelected });
        }
        self.leave_source();
        Ok(Step::Begin(encoding))
    }

    /// The outgoing index after the newest that was assigned here.
    pub fn next_index(&self) -> Option<u64> {
        self.sources().next().map(|source| source.numbering.highest_outgoing() + 1)
    }

    /// The key frame with which the stream begins, or changes its source.
    pub fn key_frame_wanted(&self) -> Option<Wish> {
        if !self.formats.is_playable() {
            return None;
        }
        let current = self.source.as_ref().map(|source| source.encoding);
        let sees_nothing = current.is_none_or(|encoding| !self.layers.is_alive(encoding));
        self.layers.awaited(current).map(|log| Wish { log, sees_nothing })
    }

    /// The source and its index behind an outgoing index.
    pub fn find(&self, outgoing: u64) -> Option<(&Source, u64)> {
        self.sources().find_map(|source| Some((source, source.numbering.source(outgoing)?)))
    }

    /// Newest first.
    fn sources(&self) -> impl Iterator<Item = &Source> {
        self.source.iter().chain(self.past.iter().rev())
    }

    fn leave_source(&mut self) {
        let Some(source) = self.source.take() else { return };
        if self.past.len() == MAX_PAST {
            self.past.pop_front();
        }
        self.past.push_back(source);
    }
}
