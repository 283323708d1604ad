//! SRTP and SRTCP of one transport: finds a packet's header and index, refuses replays, opens and seals in place. Owns
//! the keys and the receiving state; must never know what a stream carries or where a packet goes. Read `../mod.rs` next.

mod cipher;
mod hmac;
mod keys;
mod replay;
pub mod sha1_lanes;
mod tags;

use millrace_arena::SessionWords;
use serde::{Deserialize, Serialize};

use self::cipher::{Cipher, Forged, GCM_TAG, RTCP_CLEAR, WORD};
use self::replay::{KEPT_WORDS, Refused, Streams};
use crate::drop::Drop;

pub use self::keys::{MasterKey, Profile};
pub use self::replay::StreamState;
pub use self::tags::Tags;

/// Room that sealing needs behind the packet, whatever the profile.
pub const SEAL_ROOM: usize = GCM_TAG + WORD;

const RTP_HEADER: usize = 12;
/// RFC 3711 section 3.3.1: 32 bits of rollover counter, 16 of sequence number.
const RTP_INDEXES: u64 = 1 << 48;
/// RFC 3711 section 3.4.
const RTCP_INDEXES: u32 = 1 << 31;
/// Where the words of a session hold the next SRTCP index, and the receiving state of RTP and of RTCP.
const RTCP_INDEX_WORD: usize = 0;
const RTP_STREAMS_WORDS: usize = 8;
const RTCP_STREAMS_WORDS: usize = RTP_STREAMS_WORDS + KEPT_WORDS;
/// Words that are not SRTP's begin here.
pub const SRTP_WORDS: usize = RTCP_STREAMS_WORDS + KEPT_WORDS;

/// Both directions' keys, as the handshake made them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keying {
    pub profile: Profile,
    pub local: MasterKey,
    pub remote: MasterKey,
}

/// An `Srtp` as a plain record, for a successor.
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
    /// The next SRTCP index. One counter serves all SSRCs: RFC 3711 asks that it rises for each, and allows gaps.
    rtcp_index: u32,
    rtp_streams: Streams,
    rtcp_streams: Streams,
    words: Option<SessionWords>,
}

impl SrtpState {
    /// Brings the counters up to date from the words in which a predecessor saved them.
    pub fn update(&mut self, words: &SessionWords) {
        self.rtcp_index = u32::try_from(words.get(RTCP_INDEX_WORD)).unwrap_or(RTCP_INDEXES);
        self.rtp_streams = StreamState::read(words, RTP_STREAMS_WORDS);
        self.rtcp_streams = StreamState::read(words, RTCP_STREAMS_WORDS);
    }
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
            words: None,
        })
    }

    /// Saves what changes with every packet in these words, from now on.
    pub fn save_in(&mut self, words: &SessionWords) {
        words.put(RTCP_INDEX_WORD, self.rtcp_index.into());
        self.rtp_streams.save_in(words.clone(), RTP_STREAMS_WORDS);
        self.rtcp_streams.save_in(words.clone(), RTCP_STREAMS_WORDS);
        self.words = Some(words.clone());
    }

    /// Fetches the key that seals RTP.
    pub fn prefetch_keys(&self) {
        self.local.prefetch_rtp();
    }

    pub fn profile(&self) -> Profile {
        self.keying.profile
    }

    /// The streams that have brought an authentic packet, those of reports first.
    pub fn ssrcs(&self) -> Vec<u32> {
        self.rtcp_streams.ssrcs().chain(self.rtp_streams.ssrcs()).collect()
    }

    /// Whether this packet, if it authenticates, is newer than all that its stream brought.
    pub fn is_newest(&self, packet: &[u8]) -> bool {
        let Some(header) = packet.first_chunk::<RTP_HEADER>() else { return false };
        let (ssrc, sequence) = (read_u32(&header[8..12]), u16::from_be_bytes([header[2], header[3]]));
        self.rtp_streams.is_ahead(ssrc, sequence)
    }

    /// Opens one SRTP packet in place and returns the RTP packet's length. After an error its content is spoilt.
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

    /// Opens one SRTCP packet in place and returns the RTCP packet's length.
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

    /// Seals the RTP packet in the first `len` bytes and returns the new length. `index` is the rollover counter and the
    /// sequence number that the header carries; a stream begins below 65,536, since its receiver assumes a counter of
    /// zero. One index must never seal two different packets: with GCM that gives the key away.
    pub fn seal_rtp(&self, index: u64, buffer: &mut [u8], len: usize) -> Result<usize, Drop> {
        self.seal_rtp_later(index, buffer, len, (&mut Tags::default(), 0))
    }

    /// As `seal_rtp`, but the packet is whole only once `tags` has finished the bytes among which it begins at `start`.
    pub fn seal_rtp_later(
        &self,
        index: u64,
        buffer: &mut [u8],
        len: usize,
        tags: (&mut Tags, usize),
    ) -> Result<usize, Drop> {
        let total = len + self.local.rtp_overhead();
        let packet = buffer.get_mut(..total).ok_or(Drop::SrtpMalformed)?;
        let clear = rtp_header_len(&packet[..len]).ok_or(Drop::SrtpMalformed)?;
        if index >= RTP_INDEXES || packet[2..4] != (index as u16).to_be_bytes() {
            return Err(Drop::SrtpMalformed);
        }
        let ssrc = read_u32(&packet[8..12]);
        self.local.seal_rtp_later(ssrc, index, packet, clear, tags);
        Ok(total)
    }

    /// Seals the RTCP packet in the first `len` bytes and returns the new length.
    pub fn seal_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, Drop> {
        let total = len + self.local.rtcp_overhead();
        let packet = buffer.get_mut(..total).ok_or(Drop::SrtpMalformed)?;
        if len < RTCP_CLEAR || self.rtcp_index >= RTCP_INDEXES {
            return Err(Drop::SrtpMalformed);
        }
        let ssrc = read_u32(&packet[4..8]);
        if let Some(words) = &self.words {
            // Before the packet can leave, so that a successor never seals another one under this index.
            words.put(RTCP_INDEX_WORD, u64::from(self.rtcp_index) + 1);
        }
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

    /// Resumes what was exported. `None` when the keys are not of the profile's length.
    pub fn import(state: &SrtpState, max_streams: usize) -> Option<Srtp> {
        let mut srtp = Srtp::new(state.keying.clone(), max_streams)?;
        srtp.rtcp_index = state.rtcp_index;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SSRC: u32 = 0xCAFE_BABE;

    /// Two ends with each other's keys.
    fn pair(profile: Profile) -> (Srtp, Srtp) {
        let key = |fill: u8| {
            MasterKey::new(profile, &vec![fill; profile.key_len()], &vec![fill ^ 0xFF; profile.salt_len()]).unwrap()
        };
        let one = Keying { profile, local: key(1), remote: key(2) };
        let other = Keying { profile, local: key(2), remote: key(1) };
        (Srtp::new(one, 4).unwrap(), Srtp::new(other, 4).unwrap())
    }

    fn rtp(ssrc: u32, sequence: u16, csrcs: u8, extension: Option<&[u8]>, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80 | csrcs | if extension.is_some() { 0x10 } else { 0 }, 96];
        packet.extend(sequence.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(ssrc.to_be_bytes());
        packet.extend((0..csrcs).flat_map(|i| [0, 0, 0, i]));
        if let Some(words) = extension {
            packet.extend([0xBE, 0xDE]);
            packet.extend((words.len() as u16 / 4).to_be_bytes());
            packet.extend(words);
        }
        packet.extend(payload);
        packet
    }

    fn seal(srtp: &Srtp, index: u64, plain: &[u8]) -> Vec<u8> {
        let mut buffer = plain.to_vec();
        buffer.resize(plain.len() + SEAL_ROOM, 0);
        let len = srtp.seal_rtp(index, &mut buffer, plain.len()).unwrap();
        buffer.truncate(len);
        buffer
    }

    fn seal_rtcp(srtp: &mut Srtp, plain: &[u8]) -> Vec<u8> {
        let mut buffer = plain.to_vec();
        buffer.resize(plain.len() + SEAL_ROOM, 0);
        let len = srtp.seal_rtcp(&mut buffer, plain.len()).unwrap();
        buffer.truncate(len);
        buffer
    }

    fn profiles() -> impl Strategy<Value = Profile> {
        proptest::sample::select(&Profile::PREFERRED[..])
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_once(
            profile in profiles(), sequence: u16, csrcs in 0u8..16,
            extension in proptest::option::of(proptest::collection::vec(any::<[u8; 4]>(), 0..8)),
            payload in proptest::collection::vec(any::<u8>(), 0..1200),
        ) {
            let (sender, mut receiver) = pair(profile);
            let extension = extension.map(|words| words.concat());
            let plain = rtp(SSRC, sequence, csrcs, extension.as_deref(), &payload);
            let sealed = seal(&sender, sequence.into(), &plain);
            let clear = plain.len() - payload.len();
            prop_assert_eq!(&sealed[..clear], &plain[..clear]);
            let mut opened = sealed.clone();
            let len = receiver.open_rtp(&mut opened).unwrap();
            prop_assert_eq!(&opened[..len], &plain[..]);
            prop_assert_eq!(receiver.open_rtp(&mut sealed.clone()), Err(Drop::SrtpReplay));
        }

        #[test]
        fn rtcp_that_is_sealed_opens_once(profile in profiles(), body in proptest::collection::vec(any::<u8>(), 0..900)) {
            let (mut sender, mut receiver) = pair(profile);
            let plain = [&[0x80, 200, 0, 1, 0, 0, 0, 9][..], &body].concat();
            for _ in 0..3 {
                let sealed = seal_rtcp(&mut sender, &plain);
                let mut opened = sealed.clone();
                let len = receiver.open_rtcp(&mut opened).unwrap();
                prop_assert_eq!(&opened[..len], &plain[..]);
                prop_assert_eq!(receiver.open_rtcp(&mut sealed.clone()), Err(Drop::SrtpReplay));
            }
        }

        #[test]
        fn any_flipped_bit_is_refused(profile in profiles(), at: proptest::sample::Index, bit in 0u8..8) {
            let (mut sender, mut receiver) = pair(profile);
            let plain = rtp(SSRC, 5, 2, Some(&[0x10, 1, 0, 0]), &[3; 40]);
            let mut packet = seal(&sender, 5, &plain);
            let whole = packet.clone();
            packet[at.index(whole.len())] ^= 1 << bit;
            prop_assert!(receiver.open_rtp(&mut packet).is_err());
            prop_assert!(receiver.open_rtp(&mut whole.clone()).is_ok(), "the forgery left no trace");
            let whole = seal_rtcp(&mut sender, &[0x80, 201, 0, 2, 0, 0, 0, 9, 1, 2, 3, 4]);
            let mut packet = whole.clone();
            packet[at.index(whole.len())] ^= 1 << bit;
            prop_assert!(receiver.open_rtcp(&mut packet).is_err());
            prop_assert!(receiver.open_rtcp(&mut whole.clone()).is_ok());
        }

        /// Packets around several wraps, in an order disturbed by up to 60 places, all arrive, each once.
        #[test]
        fn reordering_around_the_wrap_loses_nothing(
            profile in profiles(), start in 65_400u64..65_600, wraps in 0u64..2,
            disturbance in proptest::collection::vec(0u64..60, 200),
        ) {
            let (sender, mut receiver) = pair(profile);
            let mut at = 0;
            while at < wraps * 65_536 + start {
                // Bring the receiver up to the wrap that is tested.
                let mut packet = seal(&sender, at, &rtp(SSRC, at as u16, 0, None, &[0; 8]));
                receiver.open_rtp(&mut packet).unwrap();
                at = (at + 20_000).min(wraps * 65_536 + start);
            }
            let mut order: Vec<u64> = (0..200).collect();
            order.sort_by_key(|i| i + disturbance[*i as usize]);
            for i in order {
                let index = at + i;
                let plain = rtp(SSRC, index as u16, 0, None, &index.to_be_bytes());
                let mut packet = seal(&sender, index, &plain);
                let len = receiver.open_rtp(&mut packet).unwrap();
                prop_assert_eq!(&packet[..len], &plain[..]);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_never_open(
            profile in profiles(), mut bytes in proptest::collection::vec(any::<u8>(), 0..200), first in 0x80u8..0xC0,
        ) {
            let (_, mut receiver) = pair(profile);
            prop_assert!(receiver.open_rtp(&mut bytes.clone()).is_err());
            prop_assert!(receiver.open_rtcp(&mut bytes.clone()).is_err());
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            prop_assert!(receiver.open_rtp(&mut bytes.clone()).is_err());
            prop_assert!(receiver.open_rtcp(&mut bytes).is_err());
            prop_assert_eq!(receiver.export().rtp_streams, []);
        }
    }

    #[test]
    fn only_streams_that_authenticate_take_up_room() {
        let (sender, mut receiver) = pair(Profile::Aes128CmSha1_80);
        for ssrc in 0..100 {
            let mut forged = rtp(ssrc, 1, 0, None, &[0; 40]);
            assert_eq!(receiver.open_rtp(&mut forged), Err(Drop::SrtpAuthentication));
        }
        for ssrc in 0..5 {
            let mut packet = seal(&sender, 1, &rtp(ssrc, 1, 0, None, &[0; 40]));
            let expected = if ssrc < 4 { Ok(52) } else { Err(Drop::TooManyStreams) };
            assert_eq!(receiver.open_rtp(&mut packet), expected);
        }
    }

    #[test]
    fn plain_rtp_is_refused() {
        for profile in Profile::PREFERRED {
            let (_, mut receiver) = pair(profile);
            assert_eq!(receiver.open_rtp(&mut rtp(1, 1, 0, None, &[0; 200])), Err(Drop::SrtpAuthentication));
            assert_eq!(receiver.open_rtp(&mut rtp(1, 1, 0, None, &[])), Err(Drop::SrtpMalformed));
        }
    }

    #[test]
    fn an_index_that_is_not_the_headers_is_not_sealed() {
        let (sender, _) = pair(Profile::Aes128Gcm);
        let mut buffer = rtp(1, 7, 0, None, &[0; 40]);
        let len = buffer.len();
        assert_eq!(sender.seal_rtp(7, &mut buffer, len), Err(Drop::SrtpMalformed), "no room");
        buffer.resize(len + SEAL_ROOM, 0);
        assert_eq!(sender.seal_rtp(8, &mut buffer, len), Err(Drop::SrtpMalformed));
        assert_eq!(sender.seal_rtp(RTP_INDEXES + 7, &mut buffer, len), Err(Drop::SrtpMalformed));
        assert_eq!(sender.seal_rtp(65_536 + 7, &mut buffer, len), Ok(len + GCM_TAG));
    }

    #[test]
    fn a_written_down_state_goes_on_across_a_wrap_and_repeats_no_rtcp_index() {
        let (mut one, mut other) = pair(Profile::Aes256Gcm);
        for index in [65_530, 65_540] {
            let mut packet = seal(&one, index, &rtp(SSRC, index as u16, 0, None, &[1; 8]));
            other.open_rtp(&mut packet).unwrap();
        }
        let before = seal_rtcp(&mut other, &[0x80, 201, 0, 1, 0, 0, 0, 9]);
        let packed = rmp_serde::to_vec(&other.export()).unwrap();
        let state: SrtpState = rmp_serde::from_slice(&packed).unwrap();
        assert_eq!(state, other.export());
        let mut successor = Srtp::import(&state, 4).unwrap();
        let mut replayed = seal(&one, 65_540, &rtp(SSRC, 4, 0, None, &[1; 8]));
        assert_eq!(successor.open_rtp(&mut replayed), Err(Drop::SrtpReplay));
        let mut next = seal(&one, 65_541, &rtp(SSRC, 5, 0, None, &[1; 8]));
        assert_eq!(successor.open_rtp(&mut next), Ok(20));
        let after = seal_rtcp(&mut successor, &[0x80, 201, 0, 1, 0, 0, 0, 9]);
        for sealed in [before, after] {
            one.open_rtcp(&mut sealed.clone()).unwrap();
        }
    }
}
