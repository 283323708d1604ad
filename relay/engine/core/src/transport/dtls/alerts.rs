//! Alerts of an established DTLS 1.2 association, opened and sealed by us. So OpenSSL's connection, a hundred times as large, can
//! be freed after the handshake. Owns the alerts' keys and our next record number; must never see another kind of record. Read
//! `established.rs` next, which has these keys.
//!
//! ```text
//!  type 1 │ version 2 │ epoch 2 │ sequence 6 │ length 2 │ explicit nonce 8 (GCM) │ level 1 │ description 1 │ tag 16
//!  └────────────── header, authenticated ──────────────┘                          └───── encrypted ────┘
//! ```

use openssl::ssl::SslRef;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::record_limits::{ALERT, RECORD_HEADER, Record, records};
use crate::command::DtlsRole;

/// RFC 6347 section 4.1: the one's complement of 1.2.
const VERSION: [u8; 2] = [0xFE, 0xFD];
/// The only epoch with encryption, as there is no renegotiation.
const EPOCH: u64 = 1 << 48;
const ALERT_LEN: usize = 2;
const TAG: usize = 16;
const NONCE: usize = 12;
/// RFC 5288 section 3: four bytes of the nonce come from the key block, the other eight are in the record.
const GCM_SALT: usize = 4;
/// RFC 5246 section 8.1.
const MASTER_SECRET: usize = 48;
const RANDOM: usize = 32;

/// Level and description (RFC 5246 section 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alert(u8, u8);

impl Alert {
    /// Its level is a warning; it ends the association all the same.
    pub const CLOSE_NOTIFY: Alert = Alert(1, 0);

    pub fn is_fatal(self) -> bool {
        self.0 == 2
    }
}

/// The cipher suites that `contexts.rs` allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Suite {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Suite {
    /// By OpenSSL's name of a cipher suite.
    fn of(name: &str) -> Option<Suite> {
        match name {
            name if name.ends_with("AES128-GCM-SHA256") => Some(Suite::Aes128Gcm),
            name if name.ends_with("AES256-GCM-SHA384") => Some(Suite::Aes256Gcm),
            name if name.ends_with("CHACHA20-POLY1305") => Some(Suite::ChaCha20Poly1305),
            _ => None,
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Suite::Aes128Gcm => &AES_128_GCM,
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }

    /// Of the pseudorandom function (RFC 5289 section 3.2, RFC 7905 section 3).
    fn hash(self) -> hmac::Algorithm {
        match self {
            Suite::Aes256Gcm => hmac::HMAC_SHA384,
            Suite::Aes128Gcm | Suite::ChaCha20Poly1305 => hmac::HMAC_SHA256,
        }
    }

    /// Bytes of a nonce that the key block gives.
    fn salt_len(self) -> usize {
        match self {
            Suite::Aes128Gcm | Suite::Aes256Gcm => GCM_SALT,
            Suite::ChaCha20Poly1305 => NONCE,
        }
    }

    fn explicit_len(self) -> usize {
        NONCE - self.salt_len()
    }

    /// RFC 5288 section 3, RFC 7905 section 2.
    fn nonce(self, salt: &[u8], explicit: &[u8], number: u64) -> Nonce {
        let mut nonce = [0; NONCE];
        nonce[..salt.len()].copy_from_slice(salt);
        nonce[salt.len()..].copy_from_slice(explicit);
        if explicit.is_empty() {
            nonce[4..].iter_mut().zip(number.to_be_bytes()).for_each(|(byte, other)| *byte ^= other);
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// The numbers of the last encrypted record that OpenSSL sent; ours come after it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LastSealed {
    sequence: u64,
    explicit: u64,
}

impl LastSealed {
    /// Notes the encrypted records of a datagram that OpenSSL sent.
    pub fn note(&mut self, datagram: &[u8]) {
        for record in records(datagram).map_while(Result::ok).filter(|record| record.epoch == 1) {
            self.sequence = record.number & (EPOCH - 1);
            self.explicit = record.body.first_chunk().map_or(0, |explicit| u64::from_be_bytes(*explicit));
        }
    }
}

/// Keys of both directions.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AlertKeys {
    suite: Suite,
    local: DirectionKey,
    remote: DirectionKey,
    /// Sequence number and explicit nonce of the next record that we send. Neither was used before.
    sequence: u64,
    explicit: u64,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct DirectionKey {
    key: ByteBuf,
    salt: ByteBuf,
}

impl AlertKeys {
    /// The keys of a complete handshake; `None` for a cipher suite that we do not allow.
    pub fn export(ssl: &SslRef, role: DtlsRole, last: LastSealed) -> Option<AlertKeys> {
        let suite = Suite::of(ssl.current_cipher()?.name())?;
        let mut master = [0; MASTER_SECRET];
        if ssl.session()?.master_key(&mut master) != master.len() {
            return None;
        }
        // RFC 5246 section 6.3: the server's random first, and no MAC keys for an AEAD.
        let mut seed = b"key expansion".to_vec();
        let mut random = [0; RANDOM];
        ssl.server_random(&mut random);
        seed.extend(random);
        ssl.client_random(&mut random);
        seed.extend(random);
        let (key, salt) = (suite.algorithm().key_len(), suite.salt_len());
        let mut block = vec![0; 2 * (key + salt)];
        expand(suite.hash(), &master, &seed, &mut block);
        let (keys, salts) = block.split_at(2 * key);
        let of = |i: usize| DirectionKey {
            key: ByteBuf::from(&keys[i * key..(i + 1) * key]),
            salt: ByteBuf::from(&salts[i * salt..(i + 1) * salt]),
        };
        let (local, remote) = match role {
            DtlsRole::Client => (of(0), of(1)),
            DtlsRole::Server => (of(1), of(0)),
        };
        let (sequence, explicit) = (last.sequence + 1, last.explicit.wrapping_add(1));
        Some(AlertKeys { suite, local, remote, sequence, explicit })
    }

    /// The alert in a record; `None` when the record is no alert, or not the peer's. Replays are not refused: an alert that matters
    /// ends the association.
    pub fn open(&self, record: &Record<'_>) -> Option<Alert> {
        let explicit = self.suite.explicit_len();
        if record.version != VERSION || record.body.len() != explicit + ALERT_LEN + TAG {
            return None;
        }
        let (explicit, sealed) = record.body.split_at(explicit);
        let nonce = self.suite.nonce(&self.remote.salt, explicit, record.number);
        let mut text = [0; ALERT_LEN + TAG];
        text.copy_from_slice(sealed);
        let opened = self.cipher(&self.remote)?.open_in_place(nonce, header(record.number), &mut text).ok()?;
        Some(Alert(opened[0], opened[1]))
    }

    /// The record of an alert.
    pub fn seal(&mut self, alert: Alert) -> Option<Vec<u8>> {
        let number = EPOCH | self.sequence;
        let explicit = self.explicit.to_be_bytes();
        let explicit = &explicit[..self.suite.explicit_len()];
        (self.sequence, self.explicit) = (self.sequence + 1, self.explicit.wrapping_add(1));
        let mut text = [alert.0, alert.1];
        let nonce = self.suite.nonce(&self.local.salt, explicit, number);
        let tag = self.cipher(&self.local)?.seal_in_place_separate_tag(nonce, header(number), &mut text).ok()?;
        let len = (explicit.len() + ALERT_LEN + TAG) as u16;
        let mut record = Vec::with_capacity(RECORD_HEADER + usize::from(len));
        record.push(ALERT);
        record.extend(VERSION);
        record.extend(number.to_be_bytes());
        record.extend(len.to_be_bytes());
        record.extend(explicit);
        record.extend(text);
        record.extend(tag.as_ref());
        Some(record)
    }

    /// The expanded key. It has half a kilobyte, so it is made anew for each of the few alerts.
    fn cipher(&self, direction: &DirectionKey) -> Option<LessSafeKey> {
        let fits = direction.salt.len() == self.suite.salt_len();
        let key = UnboundKey::new(self.suite.algorithm(), &direction.key).ok().filter(|_| fits)?;
        Some(LessSafeKey::new(key))
    }
}

impl std::fmt::Debug for AlertKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AlertKeys(..)")
    }
}

/// The data that is authenticated with an alert (RFC 5246 section 6.2.3.3; RFC 6347 section 4.1.2.1 for the epoch).
fn header(number: u64) -> Aad<[u8; 13]> {
    let mut bytes = [0; 13];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8] = ALERT;
    bytes[9..11].copy_from_slice(&VERSION);
    bytes[12] = ALERT_LEN as u8;
    Aad::from(bytes)
}

/// The pseudorandom function of TLS 1.2 (RFC 5246 section 5); `seed` begins with the label.
fn expand(hash: hmac::Algorithm, secret: &[u8], seed: &[u8], out: &mut [u8]) {
    let key = hmac::Key::new(hash, secret);
    let mut link = hmac::sign(&key, seed);
    for part in out.chunks_mut(hash.digest_algorithm().output_len()) {
        let block = hmac::sign(&key, &[link.as_ref(), seed].concat());
        part.copy_from_slice(&block.as_ref()[..part.len()]);
        link = hmac::sign(&key, link.as_ref());
    }
}
