//! Tells the kernel which worker owns a client's address, by the flow map of the steering program. Owns the map's key and
//! value layout, which `master/kernel/steering.py` shares; must never decide who owns what. Read `reactor.rs` next.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::udp::duplicate;

/// Commands of bpf(2), from `enum bpf_cmd`.
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;

/// The part of `union bpf_attr` that changing an element takes.
#[repr(C)]
struct Attributes {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The flow map: source address and port to slot.
pub struct FlowMap {
    map: OwnedFd,
}

impl FlowMap {
    pub fn share(fd: RawFd) -> io::Result<FlowMap> {
        Ok(FlowMap { map: duplicate(fd)? })
    }

    /// Has the kernel deliver a client's datagrams to `owner`, or to no slot in particular. After an error hand-over does it.
    pub fn steer(&self, remote: &SocketAddr, owner: Option<u8>) -> io::Result<()> {
        let key = key(remote);
        let value = u32::from(owner.unwrap_or(0));
        let command = if owner.is_some() { MAP_UPDATE_ELEM } else { MAP_DELETE_ELEM };
        let mut attributes = Attributes {
            map: self.map.as_raw_fd() as u32,
            pad: 0,
            key: (&raw const key).expose_provenance() as u64,
            value: if owner.is_some() { (&raw const value).expose_provenance() as u64 } else { 0 },
            flags: 0,
        };
        // SAFETY: key and value outlive the call; their sizes are those that the map was made with, which the kernel reads.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, command, &raw mut attributes, size_of::<Attributes>() as libc::c_uint)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// The address as IPv6 (IPv4 mapped into ::ffff:0:0/96) and the port, both in network order, then two zeros.
fn key(remote: &SocketAddr) -> [u8; 20] {
    let ip = match remote {
        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped(),
        SocketAddr::V6(v6) => *v6.ip(),
    };
    let mut key = [0; 20];
    key[..16].copy_from_slice(&ip.octets());
    key[16..18].copy_from_slice(&remote.port().to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use std::os::fd::FromRawFd;

    use super::*;

    #[test]
    fn the_key_is_what_the_steering_program_makes_of_a_packet() {
        let v4 = key(&"192.0.2.7:7882".parse().expect("an address"));
        assert_eq!(v4, *b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x07\x1e\xca\0\0");
        let v6 = key(&"[2001:db8::1]:258".parse().expect("an address"));
        assert_eq!(v6, *b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\x02\0\0");
    }

    /// A hash map of the flow map's shape; `None` without the privilege to make one.
    fn make_map() -> Option<OwnedFd> {
        const MAP_CREATE: libc::c_long = 0;
        // Type (BPF_MAP_TYPE_HASH), key bytes, value bytes, entries.
        let mut attributes = [1u32, 20, 4, 2];
        let size = size_of_val(&attributes) as libc::c_uint;
        // SAFETY: the attributes outlive the call and their size is given.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, MAP_CREATE, attributes.as_mut_ptr(), size) };
        // SAFETY: the descriptor was just opened and nothing else owns it.
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    }

    fn look_up(map: &OwnedFd, remote: &SocketAddr) -> Option<u32> {
        const MAP_LOOKUP_ELEM: libc::c_long = 1;
        let (key, mut value) = (key(remote), 0u32);
        let (key, out) = ((&raw const key).expose_provenance() as u64, (&raw mut value).expose_provenance() as u64);
        let mut attributes = Attributes { map: map.as_raw_fd() as u32, pad: 0, key, value: out, flags: 0 };
        let size = size_of::<Attributes>() as libc::c_uint;
        // SAFETY: key and value outlive the call and have the sizes that the map was made with.
        let result = unsafe { libc::syscall(libc::SYS_bpf, MAP_LOOKUP_ELEM, &raw mut attributes, size) };
        (result == 0).then_some(value)
    }

    #[test]
    fn a_flow_is_the_last_owners_until_it_is_forgotten() {
        let Some(map) = make_map() else { return };
        let flows = FlowMap::share(map.as_raw_fd()).expect("open");
        let remote: SocketAddr = "192.0.2.7:7882".parse().expect("an address");
        for owner in [3, 5] {
            flows.steer(&remote, Some(owner)).expect("room");
            assert_eq!(look_up(&map, &remote), Some(u32::from(owner)));
        }
        assert_eq!(look_up(&map, &"192.0.2.7:7883".parse().expect("an address")), None);
        flows.steer(&remote, None).expect("it is there");
        assert_eq!(look_up(&map, &remote), None);
    }

    #[test]
    fn a_descriptor_that_is_no_map_is_an_error_and_no_more() {
        let file = std::fs::File::open("/dev/null").expect("always there");
        let map = FlowMap::share(file.as_raw_fd()).expect("open");
        assert!(map.steer(&"192.0.2.7:1".parse().expect("an address"), Some(1)).is_err());
        assert!(map.steer(&"192.0.2.7:1".parse().expect("an address"), None).is_err());
    }
}
