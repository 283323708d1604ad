//! Media from an address that nobody knows: of a client that sends no checks once it is connected (GStreamer, webrtc-rs), whose NAT has
//! given it another address. Its packet's SSRC leads to it, and a packet that authenticates has the address asked back. Owns which
//! clients are found so, and how often a packet is tried; must never take such a packet for a proof of its source. Read
//! `transport/ice/asking.rs` next, for what an answer changes.
//!
//! ```text
//! no check for NO_CHECKS ─► its SSRCs are listed, here and in the address table
//! packet, address unknown ─► SSRC listed ─► this slot's: within the bounds, authentic, new ─► asked back ─► answered: media moves
//!                                   └─────► another's: handed over, once
//! ```

use std::collections::HashMap;

use super::{ClientKey, Counter, Engine};
use crate::drop::Drop;
use crate::outbox::Path;
use crate::time::{Span, Time};
use crate::transport::demux::Kind;

/// Longer than between two checks of a client that sends any: 5 s of Firefox, aiortc, libdatachannel and ffmpeg.
const NO_CHECKS: Span = Span::from_secs(6);
/// SSRCs of a client that are listed: of sound, picture, their repairs and reports. One of them is enough.
const MAX_LISTED: usize = 4;
/// A client's packets from unknown addresses are tried this often. To try one costs as much as to open a packet, and who has seen a
/// listed SSRC on the wire can have us try what is forged.
const CLIENT_PAUSE: Span = Span::from_millis(20);
/// Packets of all clients that are tried in a second: a thousandth of a core's time.
const TRIALS_A_SECOND: u32 = 500;
const SECOND: Span = Span::from_secs(1);

/// The clients of this worker that send no checks.
#[derive(Default)]
pub struct Rebinding {
    client_by_ssrc: HashMap<u32, ClientKey>,
    trials: u32,
    trials_since: Time,
}

impl Rebinding {
    /// Counts a trial; false when there were enough in this second.
    fn may_try(&mut self, now: Time) -> bool {
        if now.since(self.trials_since) >= SECOND {
            (self.trials, self.trials_since) = (0, now);
        }
        self.trials += 1;
        self.trials <= TRIALS_A_SECOND
    }
}

impl Engine {
    /// Lists a client that sends no checks, by the SSRCs that came from it. To be called when it has been asked for its consent.
    pub(super) fn list_if_unchecked(&mut self, now: Time, key: ClientKey) {
        let ssrcs = self.clients[key].transport.ssrcs_without_checks(now, NO_CHECKS);
        for ssrc in ssrcs.into_iter().take(MAX_LISTED) {
            // Who comes later with the SSRC of another client's does not get that one's packets.
            let is_ours = *self.rebinding.client_by_ssrc.entry(ssrc).or_insert(key) == key;
            if is_ours && !self.clients[key].listed_ssrcs.contains(&ssrc) {
                self.clients[key].listed_ssrcs.push(ssrc);
            }
            let addresses = self.arena.addresses();
            if is_ours && addresses.find_ufrag(&name_of(ssrc)).is_none() {
                // Without room in the table, only packets that come in here lead to it.
                addresses.insert_ufrag(&name_of(ssrc), self.slot);
            }
        }
    }

    /// The client is no longer here.
    pub(super) fn unlist(&mut self, key: ClientKey) {
        for ssrc in std::mem::take(&mut self.clients[key].listed_ssrcs) {
            self.rebinding.client_by_ssrc.remove(&ssrc);
            let addresses = self.arena.addresses();
            if addresses.find_ufrag(&name_of(ssrc)) == Some(self.slot) {
                addresses.remove_ufrag(&name_of(ssrc));
            }
        }
    }

    /// Takes SRTP or SRTCP from an address that is nobody's. `handed_over` when another worker has looked for its client already.
    pub(super) fn handle_unknown_source(
        &mut self,
        now: Time,
        path: Path,
        datagram: &mut [u8],
        (kind, handed_over): (Kind, bool),
    ) -> Result<(), (Option<ClientKey>, Drop)> {
        let unknown = Err((None, Drop::UnknownSource));
        let Some(ssrc) = ssrc_of(datagram, kind) else { return unknown };
        let Some(&key) = self.rebinding.client_by_ssrc.get(&ssrc) else {
            return match self.arena.addresses().find_ufrag(&name_of(ssrc)) {
                Some(slot) if !handed_over && slot != self.slot && slot < self.slots => {
                    self.hand_over_named(slot, path, datagram)
                }
                _ => unknown,
            };
        };
        if now < self.clients[key].next_trial_at || !self.rebinding.may_try(now) {
            return unknown;
        }
        self.clients[key].next_trial_at = now + CLIENT_PAUSE;
        self.stats.add(Counter::UnknownSourcesTried, 1);
        let is_rtp = kind == Kind::Rtp;
        let opened = self.clients[key].transport.open_from_unknown(now, path, datagram, is_rtp, &mut self.outbox);
        self.handle_transport_events(now, key);
        let handled = opened.and_then(|len| {
            if is_rtp {
                return self.handle_rtp(now, key, &datagram[..len]);
            }
            self.handle_rtcp(now, key, &datagram[..len]);
            Ok(())
        });
        self.schedule(now, key);
        handled.map_err(|drop| (Some(key), drop))
    }
}

/// Of the sender: in the clear in both (RFC 3711 sections 3.1 and 3.4).
fn ssrc_of(datagram: &[u8], kind: Kind) -> Option<u32> {
    let at = match kind {
        Kind::Rtp => 8,
        Kind::Rtcp => 4,
        _ => return None,
    };
    datagram.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Under which the address table has an SSRC, among the ufrags; none of ours has a colon (RFC 8839 section 5.4).
fn name_of(ssrc: u32) -> String {
    format!("ssrc:{ssrc:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_packets_are_tried_in_a_second() {
        let mut rebinding = Rebinding::default();
        let tried = |rebinding: &mut Rebinding, ms: u64| {
            (0..10_000).filter(|_| rebinding.may_try(Time(5_000_000 + ms * 1_000))).count()
        };
        assert_eq!(tried(&mut rebinding, 0), TRIALS_A_SECOND as usize);
        assert_eq!(tried(&mut rebinding, 999), 0);
        assert_eq!(tried(&mut rebinding, 1_000), TRIALS_A_SECOND as usize);
    }

    #[test]
    fn the_sender_is_read_from_media_and_reports_alone() {
        let datagram = [0x80, 96, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(ssrc_of(&datagram, Kind::Rtp), Some(0x0506_0708));
        assert_eq!(ssrc_of(&datagram, Kind::Rtcp), Some(0x0102_0304));
        assert_eq!((ssrc_of(&datagram[..11], Kind::Rtp), ssrc_of(&datagram, Kind::Dtls)), (None, None));
    }
}
