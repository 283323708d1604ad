//! A client's address as three words, for the hand-over rings and the address table, and a ufrag as three words that are no address.
//! Owns these encodings; must never know a ring or a table. Read `addresses.rs` next.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

const IPV6: u64 = 1 << 16;
const UFRAG: u64 = 2 << 16;
/// The longest ufrag that fits three words. Ours have ten characters.
const MAX_UFRAG: usize = 16;

/// Address in two words, then `port | family << 16 | socket << 24 | scope << 32`. The flow label is left out: it is no
/// part of an address's identity.
pub(crate) fn pack(socket: u8, remote: &SocketAddr) -> [u64; 3] {
    let (ip, scope, family) = match remote {
        SocketAddr::V4(v4) => (u128::from(u32::from(*v4.ip())), 0, 0),
        SocketAddr::V6(v6) => (u128::from(*v6.ip()), v6.scope_id(), IPV6),
    };
    let rest = u64::from(remote.port()) | family | u64::from(socket) << 24 | u64::from(scope) << 32;
    [(ip >> 64) as u64, ip as u64, rest]
}

pub(crate) fn unpack(words: [u64; 3]) -> (u8, SocketAddr) {
    let [high, low, rest] = words;
    let (port, scope) = (rest as u16, (rest >> 32) as u32);
    let remote = if rest & IPV6 == 0 {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from(low as u32)), port)
    } else {
        let ip = Ipv6Addr::from(u128::from(high) << 64 | u128::from(low));
        SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope))
    };
    ((rest >> 24) as u8, remote)
}

/// A ufrag's characters in two words, then `length | family << 16`. `None` when it is too long.
pub(crate) fn pack_ufrag(ufrag: &str) -> Option<[u64; 3]> {
    let mut bytes = [0; MAX_UFRAG];
    bytes.get_mut(..ufrag.len())?.copy_from_slice(ufrag.as_bytes());
    let text = u128::from_le_bytes(bytes);
    Some([(text >> 64) as u64, text as u64, ufrag.len() as u64 | UFRAG])
}

/// The ufrag that these words are, if they are one.
pub(crate) fn unpack_ufrag(words: [u64; 3]) -> Option<String> {
    let [high, low, rest] = words;
    let bytes = (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
    let is_ufrag = rest & !0xffff == UFRAG;
    String::from_utf8(bytes.get(..(rest as u16).into())?.to_vec()).ok().filter(|_| is_ufrag)
}

#[cfg(all(test, not(modelled)))]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_from_its_words() {
        for text in ["192.0.2.7:65535", "[2001:db8::1]:7882", "[::ffff:192.0.2.7]:1", "[fe80::1%3]:9"] {
            let remote: SocketAddr = text.parse().expect("an address");
            assert_eq!(unpack(pack(200, &remote)), (200, remote));
        }
    }

    #[test]
    fn a_mapped_address_is_not_the_address_that_it_maps() {
        let plain = "192.0.2.7:1".parse().expect("an address");
        let mapped = "[::ffff:192.0.2.7]:1".parse().expect("an address");
        assert_ne!(pack(0, &plain), pack(0, &mapped));
    }

    #[test]
    fn a_ufrag_comes_back_from_its_words_and_is_no_address() {
        for text in ["", "00abcdefgh", "0123456789abcdef"] {
            assert_eq!(pack_ufrag(text).and_then(unpack_ufrag).as_deref(), Some(text));
        }
        assert_eq!(pack_ufrag("0123456789abcdefg"), None);
        let address = "[2001:db8::1]:10".parse().expect("an address");
        assert_eq!(unpack_ufrag(pack(0, &address)), None);
    }
}
