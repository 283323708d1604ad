//! SRTP protection profiles and the derivation of session keys from master keys (RFC 3711 section 4.3, RFC 7714
//! section 11). Owns key material on its way to the ciphers; must never see a packet. Read `cipher.rs` next.

use aes::cipher::{InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use aes::{Aes128Enc, Aes256Enc};
use serde::{Deserialize, Serialize};

/// An SRTP protection profile, in our order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    Aes128Gcm,
    Aes256Gcm,
    Aes128CmSha1_80,
}

impl Profile {
    pub const PREFERRED: [Profile; 3] = [Profile::Aes128Gcm, Profile::Aes256Gcm, Profile::Aes128CmSha1_80];

    /// As metrics and reports show it.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Aes128Gcm => "AEAD_AES_128_GCM",
            Profile::Aes256Gcm => "AEAD_AES_256_GCM",
            Profile::Aes128CmSha1_80 => "AES128_CM_SHA1_80",
        }
    }

    pub fn key_len(self) -> usize {
        match self {
            Profile::Aes128Gcm | Profile::Aes128CmSha1_80 => 16,
            Profile::Aes256Gcm => 32,
        }
    }

    pub fn salt_len(self) -> usize {
        match self {
            Profile::Aes128Gcm | Profile::Aes256Gcm => 12,
            Profile::Aes128CmSha1_80 => 14,
        }
    }
}

/// One direction's master key and salt, as long as the profile says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterKey {
    #[serde(with = "serde_bytes")]
    key: Vec<u8>,
    #[serde(with = "serde_bytes")]
    salt: Vec<u8>,
}

impl MasterKey {
    /// `None` unless key and salt have the profile's lengths.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Option<MasterKey> {
        let fits = key.len() == profile.key_len() && salt.len() == profile.salt_len();
        fits.then(|| MasterKey { key: key.to_vec(), salt: salt.to_vec() })
    }

    pub(super) fn fits(&self, profile: Profile) -> bool {
        self.key.len() == profile.key_len() && self.salt.len() == profile.salt_len()
    }

    /// Fills `out` with the session key of this label, with a key derivation rate of zero.
    pub(super) fn derive(&self, label: Label, out: &mut [u8]) {
        // The salt is 112 bits; GCM's 96 are padded on the right (RFC 7714 section 11).
        let mut iv = [0; 16];
        iv[..self.salt.len()].copy_from_slice(&self.salt);
        iv[7] ^= label as u8;
        out.fill(0);
        if self.key.len() == 32 {
            let cipher = Aes256Enc::new_from_slice(&self.key).expect("32 bytes are an AES-256 key");
            key_stream(&cipher, &iv, out);
        } else {
            let cipher = Aes128Enc::new_from_slice(&self.key).expect("a master key of 16 bytes is an AES-128 key");
            key_stream(&cipher, &iv, out);
        }
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// RFC 3711 sections 4.3.1 and 4.3.2.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Label {
    RtpEncryption = 0,
    RtpAuthentication = 1,
    RtpSalt = 2,
    RtcpEncryption = 3,
    RtcpAuthentication = 4,
    RtcpSalt = 5,
}

/// XORs the AES-CM key stream that begins with this counter block into `out` (RFC 3711 section 4.1.1).
pub(super) fn key_stream<'c, C>(cipher: &'c C, counter: &[u8; 16], out: &mut [u8])
where
    &'c C: aes::cipher::BlockEncryptMut + aes::cipher::BlockCipher,
    ctr::CtrCore<&'c C, ctr::flavors::Ctr128BE>: aes::cipher::StreamCipherCore
        + InnerIvInit<Inner = &'c C>
        + aes::cipher::IvSizeUser<IvSize = aes::cipher::consts::U16>
        + aes::cipher::BlockSizeUser<BlockSize = aes::cipher::consts::U16>,
    &'c C: aes::cipher::BlockSizeUser<BlockSize = aes::cipher::consts::U16>,
{
    let core = ctr::CtrCore::<&C, ctr::flavors::Ctr128BE>::inner_iv_init(cipher, counter.into());
    StreamCipherCoreWrapper::from_core(core).apply_keystream(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::vectors::vector;

    const VECTORS: &str = include_str!("../../../tests/vectors/srtp_rfc3711.txt");

    #[test]
    fn derivation_gives_the_rfcs_keys() {
        let master = MasterKey { key: vector(VECTORS, "master_key"), salt: vector(VECTORS, "master_salt") };
        for (label, name) in [
            (Label::RtpEncryption, "derived_cipher_key"),
            (Label::RtpAuthentication, "derived_auth_key"),
            (Label::RtpSalt, "derived_salt"),
        ] {
            let expected = vector(VECTORS, name);
            let mut derived = vec![0xFF; expected.len()];
            master.derive(label, &mut derived);
            assert_eq!(derived, expected, "{name}");
        }
    }

    #[test]
    fn the_key_stream_is_the_rfcs() {
        let key: [u8; 16] = vector(VECTORS, "session_key").try_into().unwrap();
        let mut counter = [0; 16];
        counter[..14].copy_from_slice(&vector(VECTORS, "session_salt"));
        let expected = vector(VECTORS, "key_stream");
        let mut out = vec![0; expected.len()];
        key_stream(&Aes128Enc::new(&key.into()), &counter, &mut out);
        assert_eq!(out, expected);
    }

    #[test]
    fn keys_of_another_length_are_not_taken_and_never_shown() {
        assert!(MasterKey::new(Profile::Aes128Gcm, &[0; 16], &[0; 14]).is_none());
        assert!(MasterKey::new(Profile::Aes256Gcm, &[0; 16], &[0; 12]).is_none());
        let key = MasterKey::new(Profile::Aes256Gcm, &[7; 32], &[7; 12]).unwrap();
        assert_eq!(format!("{key:?}"), "MasterKey(..)");
    }
}
