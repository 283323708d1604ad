//! Opens and seals a transport's packets: which address may send, and which keys serve. Must never know what a packet
//! carries. Read `srtp/mod.rs` next.

use millrace_arena::prefetch;

use super::Transport;
use super::lasting::Habit;
use super::srtp::{Srtp, Tags};
use crate::drop::Drop;
use crate::outbox::{Outbox, Path};
use crate::time::{Span, Time};

impl Transport {
    /// Opens SRTP in place, from known addresses only; returns the length of the RTP packet.
    pub fn open_rtp(&mut self, now: Time, path: Path, packet: &mut [u8]) -> Result<usize, Drop> {
        if self.ice.selected() != Some(path) {
            return self.open_rtp_from_elsewhere(now, path, packet);
        }
        let len = self.srtp.as_mut().ok_or(Drop::SrtpNoKeys)?.open_rtp(packet)?;
        self.phase_due = None;
        self.ice.note_heard();
        Ok(len)
    }

    /// Of a client that answers no requests, this may be a reason to follow it.
    fn open_rtp_from_elsewhere(&mut self, now: Time, path: Path, packet: &mut [u8]) -> Result<usize, Drop> {
        let srtp = self.opener(path)?;
        let is_newest = srtp.is_newest(packet);
        let len = srtp.open_rtp(packet)?;
        self.phase_due = None;
        if is_newest {
            self.ice.note_media_from(now, path, &mut self.events);
        }
        Ok(len)
    }

    /// Opens SRTCP in place, from known addresses only; gives the length of the RTCP packet.
    pub fn open_rtcp(&mut self, _now: Time, path: Path, packet: &mut [u8]) -> Result<usize, Drop> {
        let len = self.opener(path)?.open_rtcp(packet)?;
        self.note_media(path);
        Ok(len)
    }

    /// The SSRCs that came from a client that has sent no check for this long; none of one that sends checks, or that would not answer
    /// a request.
    pub fn ssrcs_without_checks(&self, now: Time, span: Span) -> Vec<u32> {
        let is_found_by_them = self.ice.sends_no_checks(now, span) && self.ice.habit() == Habit::Answers;
        self.srtp.as_ref().filter(|_| is_found_by_them).map(Srtp::ssrcs).unwrap_or_default()
    }

    /// Opens SRTP or SRTCP in place from an address that no check came from, and has that address asked back when the packet is authentic
    /// and new.
    pub fn open_from_unknown(
        &mut self,
        now: Time,
        path: Path,
        packet: &mut [u8],
        is_rtp: bool,
        outbox: &mut Outbox,
    ) -> Result<usize, Drop> {
        let received = packet.len();
        let srtp = self.srtp.as_mut().ok_or(Drop::SrtpNoKeys)?;
        let len = if is_rtp { srtp.open_rtp(packet)? } else { srtp.open_rtcp(packet)? };
        self.phase_due = None;
        self.ice.ask_source(now, path, received, outbox, &mut self.events);
        Ok(len)
    }

    /// Fetches what sealing a packet reads first.
    pub fn prefetch(&self) {
        prefetch(&self.phase);
        self.ice.prefetch();
        prefetch(&self.srtp);
    }

    /// Fetches the keys. To be called when what `prefetch` fetched has come.
    pub fn prefetch_keys(&self) {
        if let Some(srtp) = &self.srtp {
            srtp.prefetch_keys();
        }
    }

    /// Seals the RTP packet in `buffer[..len]` in place and returns the sealed length; `SEAL_ROOM` bytes must follow.
    /// See `Srtp::seal_rtp` for what `index` must be.
    pub fn seal_rtp(&self, index: u64, buffer: &mut [u8], len: usize) -> Result<usize, Drop> {
        self.srtp.as_ref().ok_or(Drop::NotConnected)?.seal_rtp(index, buffer, len)
    }

    /// As `seal_rtp`, but the packet is whole only once `tags` has finished the bytes among which it begins at `start`.
    pub fn seal_rtp_later(
        &self,
        index: u64,
        buffer: &mut [u8],
        len: usize,
        tags: (&mut Tags, usize),
    ) -> Result<usize, Drop> {
        self.srtp.as_ref().ok_or(Drop::NotConnected)?.seal_rtp_later(index, buffer, len, tags)
    }

    /// Seals the RTCP packet in `buffer[..len]` in place and returns the sealed length; `SEAL_ROOM` bytes must follow.
    pub fn seal_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, Drop> {
        self.srtp.as_mut().ok_or(Drop::NotConnected)?.seal_rtcp(buffer, len)
    }

    fn opener(&mut self, path: Path) -> Result<&mut Srtp, Drop> {
        if !self.ice.is_known(path) {
            return Err(Drop::UnknownSource);
        }
        self.srtp.as_mut().ok_or(Drop::SrtpNoKeys)
    }

    /// Something authentic has come, so it is not stalled.
    fn note_media(&mut self, path: Path) {
        self.phase_due = None;
        if self.ice.selected() == Some(path) {
            self.ice.note_heard();
        }
    }
}
