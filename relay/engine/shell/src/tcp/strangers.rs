//! How many connections there may be of which no valid check has come: from one source, and in all. Owns the counts; must never know a
//! connection. Read `../tcp.rs` next.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Of one IPv4 address, or one IPv6 network of 64 bits: a company behind one address, whose clients all come back in one second.
const MAX_OF_SOURCE: usize = 128;
/// Of all.
pub const MAX_STRANGERS: usize = 256;

#[derive(Default)]
pub struct Strangers {
    count_by_source: HashMap<IpAddr, usize>,
    total: usize,
}

impl Strangers {
    pub fn has_room_for(&self, remote: IpAddr) -> bool {
        self.count(remote) < MAX_OF_SOURCE
    }

    /// True when one has to go before another comes.
    pub fn are_too_many(&self) -> bool {
        self.total >= MAX_STRANGERS
    }

    pub fn count(&self, remote: IpAddr) -> usize {
        self.count_by_source.get(&source_of(remote)).copied().unwrap_or(0)
    }

    pub fn add(&mut self, remote: IpAddr) {
        *self.count_by_source.entry(source_of(remote)).or_default() += 1;
        self.total += 1;
    }

    pub fn remove(&mut self, remote: IpAddr) {
        let source = source_of(remote);
        let Some(count) = self.count_by_source.get_mut(&source) else { return };
        *count -= 1;
        self.total -= 1;
        if *count == 0 {
            self.count_by_source.remove(&source);
        }
    }
}

/// Whoever has an IPv6 address has its network of 64 bits (RFC 6177).
fn source_of(remote: IpAddr) -> IpAddr {
    match remote.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_source_has_its_share_and_gets_it_back() {
        let mut strangers = Strangers::default();
        for n in 0..MAX_OF_SOURCE {
            let remote = ip(&format!("2001:db8::{n:x}"));
            assert!(strangers.has_room_for(remote));
            strangers.add(remote);
        }
        assert!(!strangers.has_room_for(ip("2001:db8::ffff")));
        assert!(strangers.has_room_for(ip("2001:db8:0:1::1")) && strangers.has_room_for(ip("192.0.2.1")));
        strangers.remove(ip("2001:db8::1"));
        assert!(strangers.has_room_for(ip("2001:db8::ffff")));
    }

    #[test]
    fn nothing_is_kept_of_who_has_gone() {
        let mut strangers = Strangers::default();
        for n in 0..MAX_STRANGERS {
            strangers.add(ip(&format!("192.0.2.{n}")));
        }
        assert!(strangers.are_too_many());
        for n in 0..MAX_STRANGERS {
            strangers.remove(ip(&format!("192.0.2.{n}")));
        }
        assert!(!strangers.are_too_many() && strangers.count_by_source.is_empty());
    }
}
