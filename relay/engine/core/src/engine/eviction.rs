//! Room for a handshake when as many are under way as may be: the oldest without progress gives way, of the source that has most of
//! them. Owns no handshake; must never end a session. Read `transport/handshaking.rs` next, which says what progress is.

use std::net::IpAddr;

use super::{ClientKey, Counter, Engine};
use crate::outbox::Path;
use crate::time::{Span, Time};

/// Between two searches, each of which looks at every client: a flood of ClientHellos must not cost more than this.
const SEARCH_INTERVAL: Span = Span::from_millis(20);

/// A handshake under way.
pub(super) struct Candidate {
    source: u64,
    began_at: Time,
    key: ClientKey,
    is_stuck: bool,
}

impl Engine {
    /// True when one more handshake may begin on this path, perhaps because another was evicted. Otherwise the client's
    /// retransmission tries again.
    pub(super) fn has_room_for_handshake(&mut self, now: Time, path: Path) -> bool {
        if self.handshakes < self.max_handshakes {
            return true;
        }
        if now < self.next_eviction_at {
            return false;
        }
        self.next_eviction_at = now + SEARCH_INTERVAL;
        let Some(key) = self.find_stuck(now, source_of(path)) else { return false };
        self.clients[key].transport.give_up_handshake();
        self.count_handshakes(key);
        self.stats.add(Counter::HandshakesEvicted, 1);
        self.handshakes < self.max_handshakes
    }

    /// The oldest handshake that is stuck, of the source that has most under way among those with stuck ones. Sources with fewer
    /// than the newcomer's own are spared.
    fn find_stuck(&mut self, now: Time, newcomer: u64) -> Option<ClientKey> {
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.extend(self.clients.keys().filter(|key| self.clients[*key].is_handshaking).filter_map(|key| {
            let transport = &self.clients[key].transport;
            let (began_at, path) = transport.handshake()?;
            Some(Candidate { source: source_of(path), began_at, key, is_stuck: transport.is_handshake_stuck(now) })
        }));
        candidates.sort_unstable_by_key(|candidate| (candidate.source, candidate.began_at));
        let own = candidates.iter().filter(|candidate| candidate.source == newcomer).count();
        let of_sources = candidates.chunk_by(|one, next| one.source == next.source).filter(|all| all.len() >= own);
        let oldest = of_sources.filter_map(|all| Some((all.len(), all.iter().find(|candidate| candidate.is_stuck)?)));
        let found = oldest.max_by_key(|(held, candidate)| (*held, std::cmp::Reverse(candidate.began_at)));
        let key = found.map(|(_, candidate)| candidate.key);
        candidates.clear();
        self.candidates = candidates;
        key
    }
}

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 address, which one client has for itself.
fn source_of(path: Path) -> u64 {
    match path.remote.ip().to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        // No prefix in use is as low as an IPv4 address.
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}
