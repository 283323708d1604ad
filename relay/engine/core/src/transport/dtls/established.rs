//! DTLS after the handshake: our last flight, for a peer that did not get it, and the keys of alerts. Both are small enough for
//! thousands of clients and plain enough for another process. Must never hold a library's object. Read `alerts.rs` next.
//!
//! What a peer may still send, and our answer:
//!
//! | record | answer |
//! |---|---|
//! | of the handshake that is over | our last flight again, at most every 50 ms |
//! | an alert that authenticates | none; the transport closes if it is fatal or close_notify |
//! | any other, renegotiation and application data too | none: a drop, told by its header |

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::alerts::{Alert, AlertKeys};
use super::plan::Progress;
use super::record_limits::{ALERT, CHANGE_CIPHER_SPEC, HANDSHAKE, records};
use crate::drop::Drop;
use crate::event::Cause;
use crate::time::{Span, Time};
use crate::transport::exit::Exit;

/// The least time between two repetitions of the last flight.
pub(super) const LAST_FLIGHT_PAUSE: Span = Span::from_millis(50);

/// A finished association. Its form is part of a session's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EstablishedDtls {
    /// The last flight as it was sent; empty when the peer's was the last. RFC 6347 section 4.2.4 wants it kept for four minutes.
    /// A server's has 75 bytes, so it is never freed.
    flight: Vec<ByteBuf>,
    keys: Option<AlertKeys>,
    #[serde(skip)]
    last_flight_at: Time,
}

impl EstablishedDtls {
    /// Without keys, alerts are neither opened nor sent.
    pub(super) fn new(flight: &[Vec<u8>], keys: Option<AlertKeys>, last_flight_at: Time) -> EstablishedDtls {
        let flight = flight.iter().map(|datagram| ByteBuf::from(datagram.as_slice())).collect();
        EstablishedDtls { flight, keys, last_flight_at }
    }

    pub(super) fn handle_datagram(
        &mut self,
        now: Time,
        datagram: &[u8],
        exit: &mut Exit<'_>,
    ) -> Result<Progress, Drop> {
        let mut handled = Err(Drop::DtlsUnexpected);
        let mut repeats = false;
        for record in records(datagram) {
            let record = record?;
            match (record.kind, record.epoch) {
                (CHANGE_CIPHER_SPEC | HANDSHAKE, 0) => repeats = true,
                (ALERT, 1) => {
                    let Some(alert) = self.keys.as_ref().and_then(|keys| keys.open(&record)) else { continue };
                    match alert {
                        Alert::CLOSE_NOTIFY => return Ok(Progress::Ended(Cause::ClosedByPeer)),
                        alert if alert.is_fatal() => return Ok(Progress::Ended(Cause::DtlsAlert)),
                        _ => handled = Ok(Progress::Pending),
                    }
                }
                _ => {}
            }
        }
        if repeats && !self.flight.is_empty() {
            self.repeat_flight(now, exit);
            handled = Ok(Progress::Pending);
        }
        handled
    }

    pub(super) fn close(&mut self, exit: &mut Exit<'_>) {
        if let Some(record) = self.keys.as_mut().and_then(|keys| keys.seal(Alert::CLOSE_NOTIFY)) {
            exit.send(&[record]);
        }
    }

    fn repeat_flight(&mut self, now: Time, exit: &mut Exit<'_>) {
        if now.since(self.last_flight_at) < LAST_FLIGHT_PAUSE {
            return;
        }
        self.last_flight_at = now;
        exit.send(&self.flight);
    }
}
