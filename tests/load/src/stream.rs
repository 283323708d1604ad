//! What a publisher sends: RTP packets of a given rhythm and size whose payload says which one it is and when it left.
//! Owns that payload; must never seal or send anything. Read `publisher.rs` next.
//!
//! ```text
//! video: | VP8 descriptor with a 15-bit picture id, 4 | frame tag, 3; start code and size, 7 if key | filler | trailer |
//! audio: | Opus TOC, 1 | filler | trailer |
//! trailer: | magic, 4 | stream, 4 | number of the packet in its stream, 8 | nanoseconds when it left, 8 |
//! ```

use millrace_core::rtp::Fields;
use millrace_core::rtp::extensions::Elements;
use millrace_core::time::{Span, Time};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Audio,
    Video,
}

/// The rhythm of a stream: bursts of packets of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub kind: Kind,
    /// Frames, which leave as one burst each.
    pub per_second: u32,
    pub packets: u32,
    /// Bytes of RTP payload of each packet.
    pub payload: usize,
    /// The second half of a frame's packets are one byte longer, as libwebrtc splits a frame that does not divide evenly.
    pub uneven: bool,
}

impl Shape {
    fn clock_rate(&self) -> u32 {
        if self.kind == Kind::Audio { 48_000 } else { 90_000 }
    }
}

pub const TRAILER: usize = 24;
const MAGIC: [u8; 4] = *b"load";
/// Frames from one key frame to the next: as long as a decoder would wait after a loss without asking.
const KEY_FRAME_EVERY: u64 = 300;

/// The trailer of a packet's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    pub stream: u32,
    pub number: u64,
    pub sent_ns: u64,
}

impl Trailer {
    pub fn parse(payload: &[u8]) -> Option<Trailer> {
        let trailer: &[u8; TRAILER] = payload.last_chunk()?;
        let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| trailer[at + i]));
        (trailer[..4] == MAGIC).then(|| Trailer { stream: word(0) as u32, number: word(8), sent_ns: word(16) })
    }

    fn write(&self, out: &mut [u8]) {
        let (head, rest) = out.split_at_mut(4);
        head.copy_from_slice(&MAGIC);
        rest[..4].copy_from_slice(&self.stream.to_be_bytes());
        rest[4..12].copy_from_slice(&self.number.to_be_bytes());
        rest[12..].copy_from_slice(&self.sent_ns.to_be_bytes());
    }
}

/// The numbers that the server's answer gives the stream.
#[derive(Clone, Debug, Default)]
pub struct Numbering {
    pub payload_type: u8,
    pub mid: Option<(u8, String)>,
    pub abs_send_time: Option<u8>,
    pub transport_cc: Option<u8>,
}

/// One outgoing stream.
pub struct Stream {
    pub shape: Shape,
    pub ssrc: u32,
    pub numbering: Numbering,
    /// Rollover counter and sequence number of the next packet.
    pub next_index: u64,
    pub timestamp: u32,
    pub packets: u64,
    pub octets: u64,
    frames: u64,
    wants_key_frame: bool,
    next_at: Time,
    /// Counted from the start of the run, so that errors do not add up.
    began_at: Time,
    began_frames: u64,
}

impl Stream {
    pub fn new(shape: Shape, ssrc: u32) -> Stream {
        Stream {
            shape,
            ssrc,
            numbering: Numbering::default(),
            // Below half the range, as RFC 3711 section 3.3.1 advises, so that the first wrap is not missed.
            next_index: u64::from(ssrc % 30_000),
            timestamp: ssrc.rotate_left(7),
            packets: 0,
            octets: 0,
            frames: 0,
            wants_key_frame: true,
            next_at: Time(0),
            began_at: Time(0),
            began_frames: 0,
        }
    }

    /// Begins, or resumes after a pause, with the first frame at `at`.
    pub fn start(&mut self, at: Time) {
        (self.began_at, self.began_frames, self.next_at) = (at, self.frames, at);
    }

    pub fn next_at(&self) -> Time {
        self.next_at
    }

    /// Makes the next frame a key frame.
    pub fn want_key_frame(&mut self) {
        self.wants_key_frame = true;
    }

    /// Advances to the frame after the one that was just written.
    pub fn next_frame(&mut self) {
        self.frames += 1;
        self.wants_key_frame = false;
        let ticks = self.shape.clock_rate() / self.shape.per_second;
        self.timestamp = self.timestamp.wrapping_add(ticks);
        let since = self.frames - self.began_frames;
        self.next_at = self.began_at + Span(since * 1_000_000 / u64::from(self.shape.per_second));
    }

    /// Writes the packet at `position` of the frame that is due. Returns its index and its length, `None` when `out` is too short.
    pub fn write(&mut self, position: u32, wide: u16, now_ns: u64, out: &mut [u8]) -> Option<(u64, usize)> {
        let index = self.next_index;
        let last = position + 1 == self.shape.packets;
        let marker = match self.shape.kind {
            Kind::Video => last,
            // RFC 3551 section 4.1: the first packet of a talkspurt.
            Kind::Audio => self.packets == 0,
        };
        let fields = Fields {
            marker,
            payload_type: self.numbering.payload_type,
            sequence: index as u16,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
        };
        // 6.18 fixed-point seconds, modulo 64 s.
        let send_time = ((u128::from(now_ns) << 18) / 1_000_000_000) as u32;
        let send_time = send_time.to_be_bytes();
        let wide = wide.to_be_bytes();
        let mut elements = Elements::new();
        if let Some((id, mid)) = &self.numbering.mid {
            elements.set(*id, mid.as_bytes());
        }
        if let Some(id) = self.numbering.abs_send_time {
            elements.set(id, &send_time[1..]);
        }
        if let Some(id) = self.numbering.transport_cc {
            elements.set(id, &wide);
        }
        let mut len = fields.write(!elements.is_empty(), out)?;
        len += elements.write(&mut out[len..])?;
        let size = self.shape.payload + usize::from(self.shape.uneven && 2 * position >= self.shape.packets);
        let payload = out.get_mut(len..len + size)?;
        self.write_payload(position, payload);
        let trailer = Trailer { stream: self.ssrc, number: self.packets, sent_ns: now_ns };
        let at = payload.len().checked_sub(TRAILER)?;
        trailer.write(&mut payload[at..]);
        self.next_index += 1;
        self.packets += 1;
        self.octets += size as u64;
        Some((index, len + size))
    }

    fn write_payload(&self, position: u32, payload: &mut [u8]) {
        match self.shape.kind {
            // CELT, 20 ms, stereo, one frame (RFC 6716 section 3.1).
            Kind::Audio => payload[0] = 0xfc,
            Kind::Video => {
                let is_key = self.wants_key_frame || self.frames.is_multiple_of(KEY_FRAME_EVERY);
                let picture = 0x8000 | self.frames as u16 & 0x7fff;
                // RFC 7741 section 4.2: X, S in the first packet; I; M and the picture id.
                payload[0] = if position == 0 { 0x90 } else { 0x80 };
                payload[1] = 0x80;
                payload[2..4].copy_from_slice(&picture.to_be_bytes());
                if position == 0 {
                    // RFC 6386 section 9.1: shown; the lowest bit is zero in a key frame, which has a size of 640x360.
                    payload[4..7].copy_from_slice(&[0x10 | u8::from(!is_key), 0, 0]);
                    if is_key {
                        payload[7..14].copy_from_slice(&[0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::codec;
    use millrace_core::rtp::Header;

    use super::*;

    fn video() -> Stream {
        Stream::new(Shape { kind: Kind::Video, per_second: 30, packets: 3, payload: 100, uneven: false }, 70_000)
    }

    #[test]
    fn packets_say_which_they_are_and_when_they_left() {
        let mut stream = video();
        stream.numbering = Numbering { payload_type: 96, mid: Some((4, "0".to_owned())), ..Numbering::default() };
        let mut out = [0; 200];
        for number in 0..3 {
            let (index, len) = stream.write(number, 0, 77, &mut out).unwrap();
            let header = Header::parse(&out[..len]).unwrap();
            assert_eq!((header.sequence, header.marker), (index as u16, number == 2));
            let trailer = Trailer::parse(header.payload(&out[..len])).unwrap();
            assert_eq!(trailer, Trailer { stream: 70_000, number: u64::from(number), sent_ns: 77 });
        }
        assert_eq!(stream.write(0, 0, 0, &mut [0; 60]), None);
        assert_eq!(Trailer::parse(&[0; 30]), None);
    }

    #[test]
    fn a_key_frame_comes_first_and_when_asked_for() {
        let mut stream = video();
        let mut out = [0; 200];
        let mut is_key = |stream: &mut Stream| {
            let (_, len) = stream.write(0, 0, 0, &mut out).unwrap();
            let payload = Header::parse(&out[..len]).unwrap().payload(&out[..len]).to_vec();
            stream.next_frame();
            codec::vp8::Descriptor::parse(&payload).is_some_and(|found| found.partition_start) && payload[4] & 1 == 0
        };
        assert!(is_key(&mut stream));
        assert!(!is_key(&mut stream));
        stream.want_key_frame();
        assert!(is_key(&mut stream));
        assert!(!is_key(&mut stream));
    }

    #[test]
    fn the_rhythm_keeps_no_error_over_a_pause() {
        let mut stream = video();
        for start in [1_000_000, 9_000_000] {
            stream.start(Time(start));
            for _ in 0..30 {
                stream.next_frame();
            }
            assert_eq!(stream.next_at(), Time(start + 1_000_000));
        }
    }
}
