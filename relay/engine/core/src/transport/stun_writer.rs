//! Writes STUN messages into a caller's buffer, always signed and fingerprinted. Owns the wire form of what we send;
//! must never decide what to send. Read `ice/mod.rs` next: it answers checks with this.

use std::net::{IpAddr, SocketAddr};

use super::stun::{HEADER_LEN, Integrity, MAGIC_COOKIE, attribute, fingerprint};

/// MESSAGE-INTEGRITY and FINGERPRINT, whole.
const TRAILER_LEN: usize = 24 + 8;

/// A message that is being written. If it does not fit the buffer, `finish` returns `None`; nothing panics.
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
    overflowed: bool,
}

impl<'a> Writer<'a> {
    pub fn new(buffer: &'a mut [u8], kind: u16, transaction: &[u8; 12]) -> Writer<'a> {
        let mut writer = Writer { buffer, len: 0, overflowed: false };
        writer.put(&kind.to_be_bytes());
        writer.put(&[0, 0]);
        writer.put(&MAGIC_COOKIE.to_be_bytes());
        writer.put(transaction);
        writer
    }

    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Writer<'a> {
        self.put_attribute(kind, value);
        self
    }

    /// RFC 8489 section 14.2: XORed so that no middlebox rewrites it.
    pub fn xor_mapped_address(mut self, address: SocketAddr) -> Writer<'a> {
        let port = address.port() ^ (MAGIC_COOKIE >> 16) as u16;
        let mut value = [0; 20];
        value[2..4].copy_from_slice(&port.to_be_bytes());
        let len = match address.ip().to_canonical() {
            IpAddr::V4(ip) => {
                value[1] = 1;
                value[4..8].copy_from_slice(&ip.octets());
                8
            }
            IpAddr::V6(ip) => {
                value[1] = 2;
                value[4..20].copy_from_slice(&ip.octets());
                20
            }
        };
        if self.len >= HEADER_LEN {
            for (byte, mask) in value[4..len].iter_mut().zip(&self.buffer[4..HEADER_LEN]) {
                *byte ^= mask;
            }
        }
        self.put_attribute(attribute::XOR_MAPPED_ADDRESS, &value[..len]);
        self
    }

    /// RFC 8489 section 14.8, without a phrase: answers stay smaller than questions.
    pub fn error_code(self, code: u16) -> Writer<'a> {
        self.attribute(attribute::ERROR_CODE, &[0, 0, (code / 100) as u8, (code % 100) as u8])
    }

    /// Signs and fingerprints the message, and returns its length.
    pub fn finish(mut self, key: &Integrity) -> Option<usize> {
        let total = self.len + TRAILER_LEN;
        if self.overflowed || total > self.buffer.len() {
            return None;
        }
        let attributes = u16::try_from(total - HEADER_LEN).ok()?;
        self.buffer[2..4].copy_from_slice(&attributes.to_be_bytes());
        let tag = key.sign(&self.buffer[..self.len]);
        self.put_attribute(attribute::MESSAGE_INTEGRITY, tag.as_ref());
        let crc = fingerprint(&self.buffer[..self.len]);
        self.put_attribute(attribute::FINGERPRINT, &crc.to_be_bytes());
        Some(self.len)
    }

    fn put_attribute(&mut self, kind: u16, value: &[u8]) {
        self.put(&kind.to_be_bytes());
        self.put(&(value.len() as u16).to_be_bytes());
        self.put(value);
        self.put(&[0; 3][..value.len().next_multiple_of(4) - value.len()]);
    }

    fn put(&mut self, bytes: &[u8]) {
        match self.buffer.get_mut(self.len..self.len + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.overflowed = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::stun::{BINDING_REQUEST, BINDING_SUCCESS, Message};

    #[test]
    fn what_is_written_parses_and_authenticates() {
        let key = Integrity::new(b"secret");
        let mut buffer = [0; 128];
        let len = Writer::new(&mut buffer, BINDING_REQUEST, &[9; 12])
            .attribute(attribute::USERNAME, b"00server:client")
            .attribute(attribute::PRIORITY, &7u32.to_be_bytes())
            .attribute(attribute::USE_CANDIDATE, &[])
            .finish(&key)
            .unwrap();
        let message = Message::parse(&buffer[..len]).unwrap();
        assert!(message.is_binding_request() && message.use_candidate());
        assert_eq!(message.server_ufrag(), Some("00server"));
        assert_eq!(message.priority(), Some(7));
        assert!(message.is_authentic(&key));
        assert!(!message.is_authentic(&Integrity::new(b"Secret")));
    }

    #[test]
    fn mapped_addresses_survive_the_mask_in_both_families() {
        for address in ["192.0.2.1:32853", "[2001:db8::1]:9"] {
            let address: SocketAddr = address.parse().unwrap();
            let mut buffer = [0; 128];
            let writer = Writer::new(&mut buffer, BINDING_SUCCESS, &[3; 12]).xor_mapped_address(address);
            let len = writer.finish(&Integrity::new(b"k")).unwrap();
            assert_eq!(Message::parse(&buffer[..len]).unwrap().mapped_address(), Some(address));
        }
    }

    #[test]
    fn a_message_that_does_not_fit_is_not_finished() {
        for room in 0..76 {
            let mut buffer = vec![0; room];
            let writer = Writer::new(&mut buffer, BINDING_SUCCESS, &[3; 12]);
            let writer = writer.xor_mapped_address("[2001:db8::1]:9".parse().unwrap());
            assert_eq!(writer.finish(&Integrity::new(b"k")), None, "{room} bytes");
        }
    }
}
