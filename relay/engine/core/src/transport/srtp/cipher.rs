//! The ciphers of SRTP and SRTCP, packet by packet and in place: AEAD by ring (RFC 7714), AES-CM with HMAC-SHA1-80
//! (RFC 3711). Must never know a sequence number's history or a stream. Read `keys.rs` next.
//!
//! ```text
//! SRTP  GCM   header (AAD) | ciphertext | tag 16
//!       CM    header       | ciphertext | tag 10            the tag covers all before it, then the ROC
//! SRTCP GCM   8 bytes      | ciphertext | tag 16 | E, index  AAD is the 8 bytes, then E, index
//!       CM    8 bytes      | ciphertext | E, index | tag 10  the tag covers all before it
//! ```

use aes::Aes128Enc;
use aes::cipher::KeyInit;
use millrace_arena::{prefetch, prefetch_front};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use subtle::ConstantTimeEq;

use super::hmac::{self, HmacKey};
use super::keys::{Label, MasterKey, Profile, key_stream};
use super::tags::Tags;

/// RFC 7714 section 12.
pub(super) const GCM_TAG: usize = 16;
pub(super) const CM_TAG: usize = hmac::TAG;
/// The SRTCP trailer: E bit and index.
pub(super) const WORD: usize = 4;
/// RTCP's header and the sender's SSRC stay in the clear (RFC 3711 section 3.4).
pub(super) const RTCP_CLEAR: usize = 8;
const ENCRYPTED: u32 = 1 << 31;
/// AES-128: eleven of 16 bytes.
const AES_ROUND_KEYS: usize = 176;

/// The tag does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forged;

/// The session keys of one direction.
pub(super) enum Cipher {
    Gcm { rtp: Box<GcmKey>, rtcp: Box<GcmKey> },
    Cm { rtp: Box<CmKey>, rtcp: Box<CmKey> },
}

impl Cipher {
    pub fn new(profile: Profile, master: &MasterKey) -> Cipher {
        let rtp = [Label::RtpEncryption, Label::RtpAuthentication, Label::RtpSalt];
        let rtcp = [Label::RtcpEncryption, Label::RtcpAuthentication, Label::RtcpSalt];
        match profile {
            Profile::Aes128Gcm | Profile::Aes256Gcm => Cipher::Gcm {
                rtp: Box::new(GcmKey::new(profile, master, rtp)),
                rtcp: Box::new(GcmKey::new(profile, master, rtcp)),
            },
            Profile::Aes128CmSha1_80 => {
                Cipher::Cm { rtp: Box::new(CmKey::new(master, rtp)), rtcp: Box::new(CmKey::new(master, rtcp)) }
            }
        }
    }

    /// Fetches the key that seals RTP.
    pub fn prefetch_rtp(&self) {
        match self {
            Cipher::Gcm { rtp, .. } => prefetch(&**rtp),
            Cipher::Cm { rtp, .. } => {
                // The key's other form, for CPUs without AES instructions, is longer and stays empty.
                prefetch_front(&rtp.cipher, AES_ROUND_KEYS);
                prefetch(&rtp.salt);
                prefetch(&rtp.hmac);
            }
        }
    }

    /// What sealing adds to an RTP packet.
    pub fn rtp_overhead(&self) -> usize {
        match self {
            Cipher::Gcm { .. } => GCM_TAG,
            Cipher::Cm { .. } => CM_TAG,
        }
    }

    pub fn rtcp_overhead(&self) -> usize {
        self.rtp_overhead() + WORD
    }

    /// Seals `packet`, which ends with `rtp_overhead` bytes of room; `clear` bytes of header stay as they are.
    pub fn seal_rtp(&self, ssrc: u32, index: u64, packet: &mut [u8], clear: usize) {
        let (whole, tag) = packet.split_at_mut(packet.len() - self.rtp_overhead());
        match self {
            Cipher::Gcm { rtp, .. } => {
                let (header, payload) = whole.split_at_mut(clear);
                rtp.seal(ssrc, index, header, payload, tag);
            }
            Cipher::Cm { rtp, .. } => {
                rtp.apply(ssrc, index, &mut whole[clear..]);
                tag.copy_from_slice(&rtp.hmac.tag(whole, roc(index)));
            }
        }
    }

    /// As `seal_rtp`, for a packet that begins at `start` of the bytes that `tags` will finish: an AES-CM packet gets its tag then.
    pub fn seal_rtp_later(
        &self,
        ssrc: u32,
        index: u64,
        packet: &mut [u8],
        clear: usize,
        (tags, start): (&mut Tags, usize),
    ) {
        match self {
            Cipher::Cm { rtp, .. } if tags.are_deferred() => {
                let len = packet.len() - CM_TAG;
                rtp.apply(ssrc, index, &mut packet[clear..len]);
                tags.push(rtp.hmac, start, len, roc(index));
            }
            _ => self.seal_rtp(ssrc, index, packet, clear),
        }
    }

    /// Opens `packet`, which is at least `clear` and the overhead long. After `Forged` its content is spoilt.
    pub fn open_rtp(&self, ssrc: u32, index: u64, packet: &mut [u8], clear: usize) -> Result<(), Forged> {
        match self {
            Cipher::Gcm { rtp, .. } => {
                let (header, sealed) = packet.split_at_mut(clear);
                rtp.open(ssrc, index, header, sealed)
            }
            Cipher::Cm { rtp, .. } => {
                let (whole, tag) = packet.split_at_mut(packet.len() - CM_TAG);
                rtp.verify(whole, roc(index), tag)?;
                rtp.apply(ssrc, index, &mut whole[clear..]);
                Ok(())
            }
        }
    }

    /// Seals `packet`, which ends with `rtcp_overhead` bytes of room.
    pub fn seal_rtcp(&self, ssrc: u32, index: u32, packet: &mut [u8]) {
        let word = (ENCRYPTED | index).to_be_bytes();
        let (whole, trailer) = packet.split_at_mut(packet.len() - self.rtcp_overhead());
        let (clear, payload) = whole.split_at_mut(RTCP_CLEAR);
        match self {
            Cipher::Gcm { rtcp, .. } => {
                let (tag, last) = trailer.split_at_mut(GCM_TAG);
                rtcp.seal(ssrc, index.into(), &rtcp_aad(clear, word), payload, tag);
                last.copy_from_slice(&word);
            }
            Cipher::Cm { rtcp, .. } => {
                let (first, tag) = trailer.split_at_mut(WORD);
                rtcp.apply(ssrc, index.into(), payload);
                first.copy_from_slice(&word);
                tag.copy_from_slice(&rtcp.hmac.tag(whole, word));
            }
        }
    }

    /// The E bit and the index of a packet that is at least `RTCP_CLEAR` and the overhead long.
    pub fn rtcp_word(&self, packet: &[u8]) -> (bool, u32) {
        let end = match self {
            Cipher::Gcm { .. } => packet.len(),
            Cipher::Cm { .. } => packet.len() - CM_TAG,
        };
        let mut word = [0; WORD];
        word.copy_from_slice(&packet[end - WORD..end]);
        let word = u32::from_be_bytes(word);
        (word & ENCRYPTED != 0, word & !ENCRYPTED)
    }

    /// Opens an SRTCP packet of at least `RTCP_CLEAR` and the overhead. One that is authenticated and not encrypted (RFC 3711
    /// section 3.4) is accepted, too.
    pub fn open_rtcp(&self, ssrc: u32, packet: &mut [u8]) -> Result<(), Forged> {
        let (encrypted, index) = self.rtcp_word(packet);
        let word = (if encrypted { ENCRYPTED | index } else { index }).to_be_bytes();
        let len = packet.len();
        match self {
            Cipher::Gcm { rtcp, .. } => {
                let (clear, sealed) = packet[..len - WORD].split_at_mut(RTCP_CLEAR);
                if encrypted {
                    return rtcp.open(ssrc, index.into(), &rtcp_aad(clear, word), sealed);
                }
                rtcp.verify_plain(ssrc, index, &packet[..len - WORD - GCM_TAG], word, &packet[len - WORD - GCM_TAG..])
            }
            Cipher::Cm { rtcp, .. } => {
                let (whole, trailer) = packet.split_at_mut(len - CM_TAG - WORD);
                rtcp.verify(whole, word, &trailer[WORD..])?;
                if encrypted {
                    rtcp.apply(ssrc, index.into(), &mut whole[RTCP_CLEAR..]);
                }
                Ok(())
            }
        }
    }
}

/// The rollover counter as it is authenticated (RFC 3711 section 4.2).
fn roc(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

/// RFC 7714 section 9.2.
fn rtcp_aad(clear: &[u8], word: [u8; WORD]) -> [u8; RTCP_CLEAR + WORD] {
    let mut aad = [0; RTCP_CLEAR + WORD];
    aad[..RTCP_CLEAR].copy_from_slice(clear);
    aad[RTCP_CLEAR..].copy_from_slice(&word);
    aad
}

pub(super) struct GcmKey {
    key: LessSafeKey,
    salt: [u8; 12],
}

impl GcmKey {
    fn new(profile: Profile, master: &MasterKey, [encryption, _, salting]: [Label; 3]) -> GcmKey {
        let algorithm = if profile == Profile::Aes256Gcm { &AES_256_GCM } else { &AES_128_GCM };
        let mut key = [0; 32];
        let key = &mut key[..profile.key_len()];
        let mut salt = [0; 12];
        master.derive(encryption, key);
        master.derive(salting, &mut salt);
        GcmKey::of_session(algorithm, key, salt)
    }

    fn of_session(algorithm: &'static Algorithm, key: &[u8], salt: [u8; 12]) -> GcmKey {
        let key = UnboundKey::new(algorithm, key).expect("the profile's key length is the algorithm's");
        GcmKey { key: LessSafeKey::new(key), salt }
    }

    /// RFC 7714 sections 8.1 and 9.1: SSRC and 48 bits of index; SRTCP's 31 bits sit at the same end.
    fn nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let mut nonce = self.salt;
        for (byte, value) in nonce[2..6].iter_mut().zip(ssrc.to_be_bytes()) {
            *byte ^= value;
        }
        for (byte, value) in nonce[6..12].iter_mut().zip(&index.to_be_bytes()[2..]) {
            *byte ^= value;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&self, ssrc: u32, index: u64, aad: &[u8], payload: &mut [u8], tag: &mut [u8]) {
        let made = self.key.seal_in_place_separate_tag(self.nonce(ssrc, index), Aad::from(aad), payload);
        tag.copy_from_slice(made.expect("a datagram is far below AES-GCM's 64 GiB").as_ref());
    }

    fn open(&self, ssrc: u32, index: u64, aad: &[u8], sealed: &mut [u8]) -> Result<(), Forged> {
        self.key.open_in_place(self.nonce(ssrc, index), Aad::from(aad), sealed).map(|_| ()).map_err(|_| Forged)
    }

    /// RFC 7714 section 9.3: all of an unencrypted SRTCP packet is associated data. No browser sends these, so the
    /// copy does not matter.
    fn verify_plain(
        &self,
        ssrc: u32,
        index: u32,
        whole: &[u8],
        word: [u8; WORD],
        trailer: &[u8],
    ) -> Result<(), Forged> {
        let aad = [whole, &word].concat();
        let mut tag = [0; GCM_TAG];
        tag.copy_from_slice(&trailer[..GCM_TAG]);
        self.open(ssrc, index.into(), &aad, &mut tag)
    }
}

pub(super) struct CmKey {
    cipher: Aes128Enc,
    salt: [u8; 14],
    hmac: HmacKey,
}

impl CmKey {
    fn new(master: &MasterKey, [encryption, authentication, salting]: [Label; 3]) -> CmKey {
        let (mut key, mut auth, mut salt) = ([0; 16], [0; 20], [0; 14]);
        master.derive(encryption, &mut key);
        master.derive(authentication, &mut auth);
        master.derive(salting, &mut salt);
        CmKey { cipher: Aes128Enc::new(&key.into()), salt, hmac: HmacKey::new(&auth) }
    }

    /// RFC 3711 section 4.1.1; SRTCP's index takes the place of the packet index.
    fn apply(&self, ssrc: u32, index: u64, payload: &mut [u8]) {
        let mut counter = [0; 16];
        counter[..14].copy_from_slice(&self.salt);
        for (byte, value) in counter[4..8].iter_mut().zip(ssrc.to_be_bytes()) {
            *byte ^= value;
        }
        for (byte, value) in counter[8..14].iter_mut().zip(&index.to_be_bytes()[2..]) {
            *byte ^= value;
        }
        key_stream(&self.cipher, &counter, payload);
    }

    fn verify(&self, whole: &[u8], last: [u8; 4], tag: &[u8]) -> Result<(), Forged> {
        if bool::from(self.hmac.tag(whole, last).ct_eq(tag)) { Ok(()) } else { Err(Forged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::vectors::vector;

    const GCM_VECTORS: &str = include_str!("../../../tests/vectors/srtp_rfc7714.txt");
    const CM_VECTORS: &str = include_str!("../../../tests/vectors/srtp_rfc3711.txt");

    fn gcm(algorithm: &'static Algorithm, key: &str) -> Cipher {
        let salt: [u8; 12] = vector(GCM_VECTORS, "salt").try_into().unwrap();
        let key = || Box::new(GcmKey::of_session(algorithm, &vector(GCM_VECTORS, key), salt));
        Cipher::Gcm { rtp: key(), rtcp: key() }
    }

    /// Sealing gives the vector, and opening the vector gives the packet.
    fn check(cipher: &Cipher, vectors: &str, [rtp, srtp, rtcp, srtcp]: [&str; 4], index: u64, rtcp_index: u32) {
        let [rtp, srtp, rtcp, srtcp] = [rtp, srtp, rtcp, srtcp].map(|name| vector(vectors, name));
        let ssrc = u32::from_be_bytes(rtp[8..12].try_into().unwrap());
        let mut packet = rtp.clone();
        packet.resize(rtp.len() + cipher.rtp_overhead(), 0);
        cipher.seal_rtp(ssrc, index, &mut packet, 12);
        assert_eq!(packet, srtp);
        assert_eq!(cipher.open_rtp(ssrc, index, &mut packet, 12), Ok(()));
        assert_eq!(packet[..rtp.len()], rtp);

        let ssrc = u32::from_be_bytes(rtcp[4..8].try_into().unwrap());
        let mut packet = rtcp.clone();
        packet.resize(rtcp.len() + cipher.rtcp_overhead(), 0);
        cipher.seal_rtcp(ssrc, rtcp_index, &mut packet);
        assert_eq!(packet, srtcp);
        assert_eq!(cipher.rtcp_word(&packet), (true, rtcp_index));
        assert_eq!(cipher.open_rtcp(ssrc, &mut packet), Ok(()));
        assert_eq!(packet[..rtcp.len()], rtcp);
    }

    #[test]
    fn gcm_gives_the_rfcs_packets() {
        let names = ["rtp", "srtp_128", "rtcp", "srtcp_128"];
        check(&gcm(&AES_128_GCM, "key_128"), GCM_VECTORS, names, 0xF17B, 0x5D4);
        let names = ["rtp", "srtp_256", "rtcp", "srtcp_256"];
        check(&gcm(&AES_256_GCM, "key_256"), GCM_VECTORS, names, 0xF17B, 0x5D4);
    }

    #[test]
    fn cm_gives_the_reference_packets() {
        let (key, salt) = (vector(CM_VECTORS, "master_key"), vector(CM_VECTORS, "master_salt"));
        let master = MasterKey::new(Profile::Aes128CmSha1_80, &key, &salt).unwrap();
        let cipher = Cipher::new(Profile::Aes128CmSha1_80, &master);
        check(&cipher, CM_VECTORS, ["rtp", "srtp", "rtcp", "srtcp"], 0x1234, 1);
    }

    #[test]
    fn authenticated_but_unencrypted_rtcp_opens_and_is_protected() {
        let cipher = gcm(&AES_128_GCM, "key_128");
        let (tagged, rtcp) = (vector(GCM_VECTORS, "srtcp_128_tagged"), vector(GCM_VECTORS, "rtcp"));
        let mut packet = tagged.clone();
        assert_eq!(cipher.open_rtcp(0x4D61_7273, &mut packet), Ok(()));
        assert_eq!(packet[..rtcp.len()], rtcp);
        let mut packet = tagged;
        packet[20] ^= 1;
        assert_eq!(cipher.open_rtcp(0x4D61_7273, &mut packet), Err(Forged));
    }
}
