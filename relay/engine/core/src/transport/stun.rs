//! STUN messages as ICE uses them: parsing with every check that needs no key, the integrity check, and what routing
//! needs. Must never know a session or decide what an authenticated message means. Read `stun_writer.rs` next.
//!
//! ```text
//!  0                   1                   2                   3
//!  |0 0|  type, 14 bits  |   length of the attributes, multiple of 4 |
//!  |                   magic cookie 0x2112A442                       |
//!  |                   transaction id, 12 bytes                      |
//!  | attributes: type u16, length u16, value padded to 4 ...         |
//!  | ... MESSAGE-INTEGRITY (24 bytes whole), FINGERPRINT (8 bytes)   |
//! ```

use ring::hmac;
use subtle::ConstantTimeEq;

use crate::drop::Drop;

/// RFC 8489 section 5.
pub const HEADER_LEN: usize = 20;
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// RFC 8489 section 5 with the method Binding.
pub const BINDING_REQUEST: u16 = 0x0001;
pub const BINDING_INDICATION: u16 = 0x0011;
pub const BINDING_SUCCESS: u16 = 0x0101;
pub const BINDING_ERROR: u16 = 0x0111;

/// Attribute types: RFC 8489 section 18.3, RFC 8445 section 16.1.
pub mod attribute {
    pub const USERNAME: u16 = 0x0006;
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub const ERROR_CODE: u16 = 0x0009;
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub const PRIORITY: u16 = 0x0024;
    pub const USE_CANDIDATE: u16 = 0x0025;
    pub const FINGERPRINT: u16 = 0x8028;
    pub const ICE_CONTROLLED: u16 = 0x8029;
    pub const ICE_CONTROLLING: u16 = 0x802A;
}

/// RFC 8489 section 14.7: keeps FINGERPRINT apart from the CRC-32 of other protocols.
const FINGERPRINT_XOR: u32 = 0x5354_554E;
const INTEGRITY_LEN: usize = 20;
/// Types below are comprehension-required (RFC 8489 section 14).
const OPTIONAL_FROM: u16 = 0x8000;
/// As many unknown attribute types as an answer lists: enough to debug a client, small enough for any request.
const UNKNOWN_LISTED: usize = 4;

/// Why bytes are not a STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StunError {
    Malformed,
    /// FINGERPRINT is present and wrong.
    Fingerprint,
}

impl From<StunError> for Drop {
    fn from(error: StunError) -> Drop {
        match error {
            StunError::Malformed => Drop::StunMalformed,
            StunError::Fingerprint => Drop::StunIntegrity,
        }
    }
}

/// The key of short-term credentials (RFC 8489 section 9.1.1): the password as it is.
pub struct Integrity(hmac::Key);

impl Integrity {
    pub fn new(password: &[u8]) -> Integrity {
        Integrity(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password))
    }

    /// The HMAC over the message up to, not including, MESSAGE-INTEGRITY; the header's length includes that attribute.
    fn context(&self, before: &[u8]) -> hmac::Context {
        let counted = (before.len() - HEADER_LEN + 4 + INTEGRITY_LEN) as u16;
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&before[..2]);
        context.update(&counted.to_be_bytes());
        context.update(&before[4..]);
        context
    }

    pub(super) fn sign(&self, before: &[u8]) -> hmac::Tag {
        self.context(before).sign()
    }

    /// In constant time.
    fn matches(&self, before: &[u8], tag: &[u8]) -> bool {
        self.sign(before).as_ref().ct_eq(tag).into()
    }
}

/// A well-formed STUN message whose FINGERPRINT, if it has one, is right. Not yet authenticated.
#[derive(Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    username: Option<&'a str>,
    /// Where MESSAGE-INTEGRITY begins.
    integrity_at: Option<usize>,
    priority: Option<u32>,
    use_candidate: bool,
    claims_controlled: bool,
    claims_controlling: bool,
    mapped: Option<&'a [u8]>,
    error_code: Option<u16>,
    unknown: [u16; UNKNOWN_LISTED],
    unknown_count: usize,
}

impl<'a> Message<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, StunError> {
        let mut message = Message::parse_header(bytes)?;
        let mut at = HEADER_LEN;
        while at < bytes.len() {
            let header = bytes.get(at..at + 4).ok_or(StunError::Malformed)?;
            let kind = u16::from_be_bytes([header[0], header[1]]);
            let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let value = bytes.get(at + 4..at + 4 + len).ok_or(StunError::Malformed)?;
            let next = at + 4 + len.next_multiple_of(4);
            // RFC 8489 section 14.7: FINGERPRINT comes last.
            if kind == attribute::FINGERPRINT {
                if next != bytes.len() {
                    return Err(StunError::Malformed);
                }
                verify_fingerprint(&bytes[..at], value)?;
            } else if message.integrity_at.is_none() {
                // RFC 8489 section 14.5: what follows MESSAGE-INTEGRITY is not protected and is ignored.
                message.take_attribute(at, kind, value)?;
            }
            at = next;
        }
        Ok(message)
    }

    fn parse_header(bytes: &'a [u8]) -> Result<Message<'a>, StunError> {
        let header = bytes.get(..HEADER_LEN).ok_or(StunError::Malformed)?;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let cookie = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        // RFC 7983 section 7 leaves STUN the first bytes 0 to 3, which is less than its own two zero bits would.
        if header[0] > 3 || cookie != MAGIC_COOKIE || len % 4 != 0 || HEADER_LEN + len != bytes.len() {
            return Err(StunError::Malformed);
        }
        Ok(Message {
            bytes,
            username: None,
            integrity_at: None,
            priority: None,
            use_candidate: false,
            claims_controlled: false,
            claims_controlling: false,
            mapped: None,
            error_code: None,
            unknown: [0; UNKNOWN_LISTED],
            unknown_count: 0,
        })
    }

    fn take_attribute(&mut self, at: usize, kind: u16, value: &'a [u8]) -> Result<(), StunError> {
        match kind {
            attribute::USERNAME => {
                // RFC 8489 section 14: of attributes that repeat, the first counts.
                let username = std::str::from_utf8(value).map_err(|_| StunError::Malformed)?;
                self.username.get_or_insert(username);
            }
            attribute::MESSAGE_INTEGRITY if value.len() == INTEGRITY_LEN => self.integrity_at = Some(at),
            attribute::MESSAGE_INTEGRITY => return Err(StunError::Malformed),
            attribute::PRIORITY => {
                let value: [u8; 4] = value.try_into().map_err(|_| StunError::Malformed)?;
                self.priority = Some(u32::from_be_bytes(value));
            }
            attribute::USE_CANDIDATE => self.use_candidate = true,
            attribute::ICE_CONTROLLED => self.claims_controlled = true,
            attribute::ICE_CONTROLLING => self.claims_controlling = true,
            attribute::XOR_MAPPED_ADDRESS => self.mapped = Some(value),
            attribute::ERROR_CODE => {
                let &[_, _, class, number, ..] = value else { return Err(StunError::Malformed) };
                self.error_code = Some(u16::from(class & 7) * 100 + u16::from(number));
            }
            _ if kind < OPTIONAL_FROM => {
                if let Some(listed) = self.unknown.get_mut(self.unknown_count) {
                    *listed = kind;
                    self.unknown_count += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub fn kind(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    pub fn is_binding_request(&self) -> bool {
        self.kind() == BINDING_REQUEST
    }

    pub fn is_binding_indication(&self) -> bool {
        self.kind() == BINDING_INDICATION
    }

    pub fn is_binding_success(&self) -> bool {
        self.kind() == BINDING_SUCCESS
    }

    /// Success or an error.
    pub fn is_answer(&self) -> bool {
        matches!(self.kind(), BINDING_SUCCESS | BINDING_ERROR)
    }

    /// Bytes on the wire.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn transaction(&self) -> &'a [u8; 12] {
        self.bytes[8..HEADER_LEN].try_into().expect("a parsed message has its whole header")
    }

    /// As sent: `ours:theirs` in a request to us (RFC 8445 section 7.2.2).
    pub fn username(&self) -> Option<&'a str> {
        self.username
    }

    /// The part of USERNAME before the colon: in a request to us, our ufrag.
    pub fn server_ufrag(&self) -> Option<&'a str> {
        self.username?.split_once(':').map(|(server, _)| server)
    }

    pub fn priority(&self) -> Option<u32> {
        self.priority
    }

    pub fn use_candidate(&self) -> bool {
        self.use_candidate
    }

    /// ICE-CONTROLLED is present: the sender believes that we control.
    pub fn claims_controlled(&self) -> bool {
        self.claims_controlled
    }

    /// ICE-CONTROLLING is present.
    pub fn claims_controlling(&self) -> bool {
        self.claims_controlling
    }

    pub fn error_code(&self) -> Option<u16> {
        self.error_code
    }

    /// The comprehension-required attributes that we do not know, the first few.
    pub fn unknown_attributes(&self) -> &[u16] {
        &self.unknown[..self.unknown_count]
    }

    /// XOR-MAPPED-ADDRESS of an answer (RFC 8489 section 14.2).
    pub fn mapped_address(&self) -> Option<std::net::SocketAddr> {
        let value = self.mapped?;
        let mut mask = [0; 16];
        mask.copy_from_slice(&self.bytes[4..HEADER_LEN]);
        match value {
            [_, 1, port_high, port_low, address @ ..] if address.len() == 4 => {
                let octets: [u8; 4] = std::array::from_fn(|i| address[i] ^ mask[i]);
                Some((octets, unmask_port(*port_high, *port_low)).into())
            }
            [_, 2, port_high, port_low, address @ ..] if address.len() == 16 => {
                let octets: [u8; 16] = std::array::from_fn(|i| address[i] ^ mask[i]);
                Some((octets, unmask_port(*port_high, *port_low)).into())
            }
            _ => None,
        }
    }

    /// True when MESSAGE-INTEGRITY is present and was made with this key. Takes the same time whatever the bytes.
    pub fn is_authentic(&self, key: &Integrity) -> bool {
        let Some(at) = self.integrity_at else { return false };
        key.matches(&self.bytes[..at], &self.bytes[at + 4..at + 4 + INTEGRITY_LEN])
    }
}

fn unmask_port(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low]) ^ (MAGIC_COOKIE >> 16) as u16
}

fn verify_fingerprint(before: &[u8], value: &[u8]) -> Result<(), StunError> {
    let value: [u8; 4] = value.try_into().map_err(|_| StunError::Malformed)?;
    if u32::from_be_bytes(value) == fingerprint(before) { Ok(()) } else { Err(StunError::Fingerprint) }
}

/// The fingerprint of the message up to, not including, FINGERPRINT; the header's length includes that attribute.
pub(super) fn fingerprint(before: &[u8]) -> u32 {
    let crc = before.iter().fold(!0, |crc: u32, byte| CRC_TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8));
    !crc ^ FINGERPRINT_XOR
}

/// CRC-32 of ITU-T V.42, reflected: one table step for each byte.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::transport::vectors::vector;

    const VECTORS: &str = include_str!("../../tests/vectors/stun_rfc5769.txt");
    const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

    #[test]
    fn the_rfcs_request_authenticates_and_reads_as_printed() {
        let bytes = vector(VECTORS, "request");
        let message = Message::parse(&bytes).unwrap();
        assert!(message.is_binding_request() && message.claims_controlled() && !message.use_candidate());
        assert_eq!(message.username(), Some("evtj:h6vY"));
        assert_eq!(message.server_ufrag(), Some("evtj"));
        assert_eq!(message.priority(), Some(0x6E00_01FF));
        assert!(message.is_authentic(&Integrity::new(PASSWORD)));
        assert!(message.unknown_attributes().is_empty());
    }

    #[test]
    fn the_rfcs_answers_carry_their_addresses() {
        for (name, address) in
            [("answer_ipv4", "192.0.2.1:32853"), ("answer_ipv6", "[2001:db8:1234:5678:11:2233:4455:6677]:32853")]
        {
            let bytes = vector(VECTORS, name);
            let message = Message::parse(&bytes).unwrap();
            assert!(message.is_binding_success() && message.is_authentic(&Integrity::new(PASSWORD)));
            assert_eq!(message.mapped_address(), Some(address.parse().unwrap()));
        }
    }

    #[test]
    fn the_rfcs_long_term_request_authenticates_and_its_foreign_attributes_are_listed() {
        let bytes = vector(VECTORS, "request_long_term");
        let message = Message::parse(&bytes).unwrap();
        let username = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
        assert_eq!(message.username(), Some(username));
        let secret = format!("{username}:example.org:TheMatrIX");
        let key = openssl::hash::hash(openssl::hash::MessageDigest::md5(), secret.as_bytes()).unwrap();
        assert!(message.is_authentic(&Integrity::new(&key)));
        assert_eq!(message.unknown_attributes(), [0x0015, 0x0014]);
    }

    #[test]
    fn any_flipped_bit_is_noticed_by_integrity_or_fingerprint() {
        let bytes = vector(VECTORS, "request");
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let authentic = Message::parse(&bytes).is_ok_and(|message| message.is_authentic(&Integrity::new(PASSWORD)));
            // Inside FINGERPRINT's type it becomes an attribute after MESSAGE-INTEGRITY, which nothing protects.
            let unprotected = (bytes.len() - 8..bytes.len() - 6).contains(&(bit / 8));
            assert!(!authentic || unprotected, "bit {bit}");
        }
    }

    #[test]
    fn crc_is_the_one_of_v42() {
        assert_eq!(fingerprint(b"123456789") ^ FINGERPRINT_XOR, 0xCBF4_3926);
    }

    #[test]
    fn a_length_that_is_not_the_datagrams_is_refused() {
        let mut bytes = [0; 20];
        bytes[1] = 1;
        bytes[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        assert!(Message::parse(&bytes).is_ok());
        bytes[3] = 4;
        assert_eq!(Message::parse(&bytes).err(), Some(StunError::Malformed));
    }

    proptest! {
        #[test]
        fn arbitrary_attributes_never_panic(attributes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut bytes = vec![0, 1];
            bytes.extend((attributes.len() as u16).to_be_bytes());
            bytes.extend(MAGIC_COOKIE.to_be_bytes());
            bytes.extend([7; 12]);
            bytes.extend(&attributes);
            if let Ok(message) = Message::parse(&bytes) {
                prop_assert!(!message.is_authentic(&Integrity::new(b"guess")));
                let _ = (message.server_ufrag(), message.mapped_address(), message.unknown_attributes());
            }
        }
    }
}
