//! Socket addresses as the kernel lays them out. Owns that conversion; must never choose an address.
//! Read `receive.rs` next.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Writes an address for the kernel and returns how much of the storage it takes.
pub(super) fn encode(address: &SocketAddr, storage: &mut libc::sockaddr_storage) -> libc::socklen_t {
    let storage = (storage as *mut libc::sockaddr_storage).cast::<u8>();
    match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: a `sockaddr_storage` is large enough and aligned for every kind of address.
            unsafe { storage.cast::<libc::sockaddr_in>().write(raw) };
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { storage.cast::<libc::sockaddr_in6>().write(raw) };
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

/// Reads an address that the kernel wrote; `None` when it is of no family that we bind.
pub fn decode(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let raw = (storage as *const libc::sockaddr_storage).cast::<u8>();
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage begins with a `sockaddr_in`, all of whose bits are plain integers.
            let v4 = unsafe { raw.cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, with a `sockaddr_in6`.
            let v6 = unsafe { raw.cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            // Without the flow label: it is no part of an address's identity.
            Some(SocketAddr::V6(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id)))
        }
        _ => None,
    }
}

/// An empty address.
pub fn empty() -> libc::sockaddr_storage {
    // SAFETY: all zero is a valid value of this struct of integers: family AF_UNSPEC.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernels_form() {
        for text in ["127.0.0.1:7882", "255.255.255.255:65535", "[::1]:1", "[fe80::1%7]:9"] {
            let address: SocketAddr = text.parse().expect("an address");
            let mut storage = empty();
            encode(&address, &mut storage);
            assert_eq!(decode(&storage), Some(address));
        }
        assert_eq!(decode(&empty()), None);
    }
}
