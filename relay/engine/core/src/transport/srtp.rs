//! SRTP and SRTCP of one transport: finds a packet's header and index, refuses replays, opens and seals in place. Owns
//! the keys and the receiving state; must never know what a stream carries or where a packet goes. Read `mod.rs` next.

use serde::{Deserialize, Serialize};

use super::srtp_cipher::{Cipher, Forged, GCM_TAG, RTCP_CLEAR, WORD};
use super::srtp_keys::{MasterKey, Profile};
use super::srtp_replay::{Refused, StreamState, Streams};
use crate::drop::Drop;

/// Room that sealing needs behind the packet, whatever the profile.
pub const SEAL_ROOM: usize = GCM_TAG + WORD;

const RTP_HEADER: usize = 12;
/// RFC 3711 section 3.3.1: 32 bits of rollover counter, 16 of sequence number.
const RTP_INDEXES: u64 = 1 << 48;
/// RFC 3711 section 3.4.
const RTCP_INDEXES: u32 = 1 << 31;
/// How far a successor skips ahead of the written-down SRTCP index, so that what its predecessor sent after writing it
/// is not sent again under the same index. More than a transport's RTCP in a minute; 2^31 is years away.
const RTCP_SKIP: u32 = 1 << 14;

/// Both directions' keys as the handshake gave them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keying {
    pub profile: Profile,
    pub local: MasterKey,
    pub remote: MasterKey,
}

/// All of an `Srtp` that must last for a successor to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SrtpState {
    pub keying: Keying,
    /// The next SRTCP index that we send.
    pub rtcp_index: u32,
    pub rtp_streams: Vec<StreamState>,
    pub rtcp_streams: Vec<StreamState>,
}

pub struct Srtp {
    keying: Keying,
    local: Cipher,
    remote: Cipher,
    /// One counter for all SSRCs: RFC 3711 asks for one that rises for each, and gaps are allowed.
    rtcp_index: u32,
    rtp_streams: Streams,
    rtcp_streams: Streams,
}

impl Srtp {
    /// `None` when the keys are not the profile's.
    pub fn new(keying: Keying, max_streams: usize) -> Option<Srtp> {
        if !keying.local.fits(keying.profile) || !keying.remote.fits(keying.profile) {
            return None;
        }
        Some(Srtp {
            local: Cipher::new(keying.profile, &keying.local),
            remote: Cipher::new(keying.profile, &keying.remote),
            keying,
            rtcp_index: 0,
            rtp_streams: Streams::new(max_streams),
            rtcp_streams: Streams::new(max_streams),
        })
    }

    pub fn profile(&self) -> Profile {
        self.keying.profile
    }

    /// Opens one SRTP packet in place and gives the RTP packet's length. After an error its content is spoilt.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<usize, Drop> {
        let clear = rtp_header_len(packet).ok_or(Drop::SrtpMalformed)?;
        let len = packet.len().checked_sub(self.remote.rtp_overhead()).filter(|len| *len >= clear);
        let len = len.ok_or(Drop::SrtpMalformed)?;
        let ssrc = read_u32(&packet[8..12]);
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        let index = self.rtp_streams.index_of(ssrc, sequence)?;
        self.rtp_streams.admit(ssrc, index)?;
        self.remote.open_rtp(ssrc, index, packet, clear)?;
        self.rtp_streams.accept(ssrc, index);
        Ok(len)
    }

    /// Opens one SRTCP packet in place and gives the RTCP packet's length.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, Drop> {
        let len = packet.len().checked_sub(self.remote.rtcp_overhead()).filter(|len| *len >= RTCP_CLEAR);
        let len = len.ok_or(Drop::SrtpMalformed)?;
        if packet[0] >> 6 != 2 {
            return Err(Drop::SrtpMalformed);
        }
        let ssrc = read_u32(&packet[4..8]);
        let (_, index) = self.remote.rtcp_word(packet);
        self.rtcp_streams.admit(ssrc, index.into())?;
        self.remote.open_rtcp(ssrc, packet)?;
        self.rtcp_streams.accept(ssrc, index.into());
        Ok(len)
    }

    /// Seals the RTP packet in the first `len` bytes and gives the new length. `index` is the rollover counter and the
    /// sequence number that the header carries; a stream begins below 65,536, since its receiver assumes a counter of
    /// zero. One index must never seal two different packets: with GCM that gives the key away.
    pub fn seal_rtp(&self, index: u64, buffer: &mut [u8], len: usize) -> Result<usize, Drop> {
        let total = len + self.local.rtp_overhead();
        let packet = buffer.get_mut(..total).ok_or(Drop::SrtpMalformed)?;
        let clear = rtp_header_len(&packet[..len]).ok_or(Drop::SrtpMalformed)?;
        if index >= RTP_INDEXES || packet[2..4] != (index as u16).to_be_bytes() {
            return Err(Drop::SrtpMalformed);
        }
        let ssrc = read_u32(&packet[8..12]);
        self.local.seal_rtp(ssrc, index, packet, clear);
        Ok(total)
    }

    /// Seals the RTCP packet in the first `len` bytes and gives the new length.
    pub fn seal_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, Drop> {
        let total = len + self.local.rtcp_overhead();
        let packet = buffer.get_mut(..total).ok_or(Drop::SrtpMalformed)?;
        if len < RTCP_CLEAR || self.rtcp_index >= RTCP_INDEXES {
            return Err(Drop::SrtpMalformed);
        }
        let ssrc = read_u32(&packet[4..8]);
        self.local.seal_rtcp(ssrc, self.rtcp_index, packet);
        self.rtcp_index += 1;
        Ok(total)
    }

    pub fn export(&self) -> SrtpState {
        SrtpState {
            keying: self.keying.clone(),
            rtcp_index: self.rtcp_index,
            rtp_streams: self.rtp_streams.export(),
            rtcp_streams: self.rtcp_streams.export(),
        }
    }

    /// A successor of the one that was exported. `None` when the keys are not the profile's.
    pub fn import(state: &SrtpState, max_streams: usize) -> Option<Srtp> {
        let mut srtp = Srtp::new(state.keying.clone(), max_streams)?;
        srtp.rtcp_index = state.rtcp_index.saturating_add(RTCP_SKIP);
        srtp.rtp_streams = Streams::import(&state.rtp_streams, max_streams);
        srtp.rtcp_streams = Streams::import(&state.rtcp_streams, max_streams);
        Some(srtp)
    }
}

impl From<Forged> for Drop {
    fn from(_: Forged) -> Drop {
        Drop::SrtpAuthentication
    }
}

impl From<Refused> for Drop {
    fn from(refused: Refused) -> Drop {
        match refused {
            Refused::Replay => Drop::SrtpReplay,
            Refused::TooManyStreams => Drop::TooManyStreams,
        }
    }
}

/// The part of an RTP packet that stays in the clear: fixed header, CSRCs, extension (RFC 3550 section 5.1).
fn rtp_header_len(packet: &[u8]) -> Option<usize> {
    if packet.len() < RTP_HEADER || packet[0] >> 6 != 2 {
        return None;
    }
    let mut len = RTP_HEADER + 4 * usize::from(packet[0] & 0x0F);
    if packet[0] & 0x10 != 0 {
        let words = packet.get(len + 2..len + 4)?;
        len += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
    }
    (len <= packet.len()).then_some(len)
}

fn read_u32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
