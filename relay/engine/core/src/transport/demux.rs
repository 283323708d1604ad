//! Tells by its first bytes which protocol a datagram on the one UDP port belongs to. Owns RFC 7983's table and
//! nothing else; must never look at what a datagram says or where it came from. Read `stun.rs` next.

/// What a datagram is, as far as its first two bytes can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Stun,
    Dtls,
    Rtp,
    Rtcp,
    Unknown,
}

/// The shortest datagram that is accepted, in bytes: an RTCP packet's head.
const SHORTEST: usize = 8;

/// RFC 7983 section 7 for the first byte; RFC 5761 section 4 for the second, where the RTCP packet types 192..=223
/// are the payload types 64..=95 with the marker bit, which RTP must not use beside RTCP.
pub fn classify(datagram: &[u8]) -> Kind {
    if datagram.len() < SHORTEST {
        return Kind::Unknown;
    }
    match (datagram[0], datagram[1]) {
        (0..=3, _) => Kind::Stun,
        (20..=63, _) => Kind::Dtls,
        (128..=191, 192..=223) => Kind::Rtcp,
        (128..=191, _) => Kind::Rtp,
        _ => Kind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte_has_its_protocol() {
        for first in 0..=255u8 {
            let expected = match first {
                0..=3 => Kind::Stun,
                20..=63 => Kind::Dtls,
                128..=191 => Kind::Rtp,
                _ => Kind::Unknown,
            };
            assert_eq!(classify(&[first, 96, 0, 0, 0, 0, 0, 0]), expected, "first byte {first}");
        }
    }

    #[test]
    fn the_second_byte_tells_rtcp_from_rtp() {
        for second in 0..=255u8 {
            let expected = if (192..=223).contains(&second) { Kind::Rtcp } else { Kind::Rtp };
            assert_eq!(classify(&[0x80, second, 0, 0, 0, 0, 0, 0]), expected, "second byte {second}");
        }
    }

    #[test]
    fn a_runt_is_unknown() {
        for len in 0..SHORTEST {
            assert_eq!(classify(&vec![0x80; len]), Kind::Unknown);
        }
    }
}
