//! A client that sends: its streams' frames as bursts when they are due, sender reports, key frames and packets again
//! when asked. Must never know who watches. Read `viewer.rs` next.

use std::net::UdpSocket;

use anyhow::Result;
use millrace_core::rtcp::{self, Packet, SenderInfo, Writer, ntp};
use millrace_core::time::{Span, Time};

use crate::answer::Answer;
use crate::clock;
use crate::link::{Link, Tools};
use crate::net::Messages;
use crate::offer::{ABS_SEND_TIME, MID, Media, TRANSPORT_CC};
use crate::stream::{Numbering, Shape, Stream};

const REPORT_EVERY: Span = Span::from_secs(1);
/// Sealed packets that are remembered for NACKs: a second of video.
const HISTORY: usize = 512;
/// A publisher that is late by more than this leaves frames out instead of sending them in one burst.
const LATE: Span = Span::from_millis(500);

pub struct Publisher {
    streams: Vec<Stream>,
    history: Vec<(u32, u16, Vec<u8>)>,
    oldest: usize,
    wide: u16,
    report_at: Time,
    paused: bool,
    /// RTP packets that went out, and those that the kernel refused.
    pub sent: u64,
    pub refused: u64,
    pub key_frame_requests_received: u64,
    pub repaired: u64,
    /// Frames left out because the generator was late.
    pub frames_left_out: u64,
    /// When each burst was sent, in nanoseconds, if times are recorded.
    pub bursts: Option<Vec<u64>>,
}

impl Publisher {
    pub fn new(streams: &[(Shape, Media)]) -> Publisher {
        Publisher {
            streams: streams.iter().map(|(shape, media)| Stream::new(*shape, media.ssrc)).collect(),
            history: Vec::new(),
            oldest: 0,
            wide: 0,
            report_at: Time(0),
            paused: true,
            sent: 0,
            refused: 0,
            key_frame_requests_received: 0,
            repaired: 0,
            frames_left_out: 0,
            bursts: None,
        }
    }

    /// Uses the answer's numbers; streams whose m-line was refused are dropped.
    pub fn accept(&mut self, answer: &Answer) {
        for (mid, (stream, section)) in self.streams.iter_mut().zip(&answer.media).enumerate() {
            stream.numbering = Numbering {
                payload_type: section.payload_type,
                mid: section.extension(MID.1).map(|id| (id, mid.to_string())),
                abs_send_time: section.extension(ABS_SEND_TIME.1),
                transport_cc: section.extension(TRANSPORT_CC.1),
            };
        }
        let mut accepted = answer.media.iter().map(|section| section.accepted);
        self.streams.retain(|_| accepted.next().unwrap_or(false));
    }

    /// Frames are due from `at` on; publishers with different ones do not burst together, and neither do a publisher's streams.
    pub fn start(&mut self, at: Time) {
        let count = self.streams.len() as u64;
        for (place, stream) in self.streams.iter_mut().enumerate() {
            let interval = 1_000_000 / u64::from(stream.shape.per_second);
            stream.start(at + Span(interval * place as u64 / count));
        }
        self.paused = false;
    }

    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// When the next frame is due.
    pub fn next_at(&self) -> Option<Time> {
        if self.paused { None } else { self.streams.iter().map(Stream::next_at).min() }
    }

    /// Sends every frame that is due.
    pub fn send_due(&mut self, now: Time, link: &Link) -> Result<()> {
        if self.paused || !link.is_connected() {
            return Ok(());
        }
        for place in 0..self.streams.len() {
            let late = now.since(self.streams[place].next_at());
            if late > LATE {
                let per_second = u64::from(self.streams[place].shape.per_second);
                self.frames_left_out += late.0 * per_second / 1_000_000;
                self.streams[place].start(now);
            }
            while self.streams[place].next_at() <= now {
                self.send_frame(place, link)?;
            }
        }
        Ok(())
    }

    fn send_frame(&mut self, place: usize, link: &Link) -> Result<()> {
        let Some(server) = link.server() else { return Ok(()) };
        let stream = &mut self.streams[place];
        let mut burst = [0; 32 * 1024];
        let mut messages = Messages::default();
        let mut used = 0;
        let now_ns = clock::stamp();
        for packet in 0..stream.shape.packets {
            let room = &mut burst[used..];
            let Some((index, len)) = stream.write(packet, self.wide, now_ns, room) else { break };
            let Some(len) = link.seal_rtp(index, room, len) else { break };
            remember(&mut self.history, &mut self.oldest, (stream.ssrc, index as u16), &room[..len]);
            messages.add_range(server, used, len);
            self.wide = self.wide.wrapping_add(1);
            used += len;
        }
        stream.next_frame();
        let taken = messages.send(link.socket(), &burst[..used])?;
        self.sent += taken as u64;
        if let Some(bursts) = &mut self.bursts {
            bursts.push(now_ns);
        }
        self.refused += (messages.len() - taken) as u64;
        Ok(())
    }

    /// Sends the reports that are due, and returns when to call again.
    pub fn upkeep(&mut self, now: Time, link: &mut Link, tools: &mut Tools) -> Time {
        if self.report_at > now || !link.is_connected() {
            return self.report_at.max(now + Span::from_millis(20));
        }
        self.report_at = now + REPORT_EVERY;
        for stream in self.streams.iter().filter(|stream| stream.packets > 0) {
            let mut writer = Writer::new(&mut tools.buffer);
            let info = SenderInfo {
                ssrc: stream.ssrc,
                ntp: ntp::from_time(now),
                rtp_timestamp: stream.timestamp,
                packet_count: stream.packets as u32,
                octet_count: stream.octets as u32,
            };
            let written = writer.sender_report(&info, &[]) && writer.sdes_cname(stream.ssrc, "load");
            let len = writer.len();
            if written {
                link.send_rtcp(&mut tools.buffer, len);
            }
        }
        self.report_at
    }

    /// Handles an opened RTCP datagram.
    pub fn handle_rtcp(&mut self, datagram: &[u8], link: &Link) {
        for packet in rtcp::iterate(datagram).flatten() {
            match packet {
                Packet::Pli(pli) => self.want_key_frame(pli.media_ssrc),
                Packet::Fir(fir) => fir.entries().for_each(|(ssrc, _)| self.want_key_frame(ssrc)),
                Packet::Nack(nack) => {
                    for sequence in nack.sequences() {
                        self.repair(nack.media_ssrc, sequence, link.socket(), link.server());
                    }
                }
                _ => {}
            }
        }
    }

    fn want_key_frame(&mut self, ssrc: u32) {
        self.key_frame_requests_received += 1;
        self.streams.iter_mut().filter(|stream| stream.ssrc == ssrc).for_each(Stream::want_key_frame);
    }

    /// Sends the same datagram again. The first never arrived, so the server's replay check accepts it.
    fn repair(&mut self, ssrc: u32, sequence: u16, socket: &UdpSocket, server: Option<std::net::SocketAddr>) {
        let found = self.history.iter().find(|(kept, number, _)| (*kept, *number) == (ssrc, sequence));
        if let (Some((_, _, datagram)), Some(server)) = (found, server) {
            self.repaired += 1;
            let _ = socket.send_to(datagram, server);
        }
    }
}

/// Remembers a sealed packet in place of the oldest one.
fn remember(history: &mut Vec<(u32, u16, Vec<u8>)>, oldest: &mut usize, (ssrc, sequence): (u32, u16), datagram: &[u8]) {
    if history.len() < HISTORY {
        history.push((ssrc, sequence, datagram.to_vec()));
        return;
    }
    let place = &mut history[*oldest];
    (place.0, place.1) = (ssrc, sequence);
    place.2.clear();
    place.2.extend_from_slice(datagram);
    *oldest = (*oldest + 1) % HISTORY;
}
