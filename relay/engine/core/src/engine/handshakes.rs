//! The steps of DTLS handshakes on their way to another thread and back. A step takes as long as a hundred packets or more, and
//! media must not wait for it; what its client sends meanwhile is queued. Must never run a step, nor know what does. Read
//! `transport/dtls/step.rs` next, the step itself.
//!
//! ```text
//! datagram, check ─► transport ─► steps ─► take_step ─► (any thread) ─► handle_step ─► transport, then what came meanwhile
//! ```

use super::{ClientKey, Engine};
use crate::drop::Drop;
use crate::outbox::Path;
use crate::time::Time;
use crate::transport::demux::{Kind, classify};
use crate::transport::{Step, Stepped};

impl Engine {
    /// A step that is to be run; its outcome goes to `handle_step`. Each client has one at a time, so there are no more steps than
    /// handshakes.
    pub fn take_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// Goes on with the handshake of a step that was run.
    pub fn handle_step(&mut self, now: Time, stepped: Stepped) {
        // The client may be gone by now.
        let Some(&key) = self.client_by_id.get(&stepped.transport()) else { return };
        self.clients[key].transport.finish_step(now, stepped, &mut self.outbox);
        self.handle_transport_events(now, key);
        self.handle_early(now, key);
        if self.clients.contains(key) {
            self.schedule(now, key);
        }
    }

    /// Goes on with what had to wait and need not any more.
    pub(super) fn handle_early(&mut self, now: Time, key: ClientKey) {
        while self.clients.contains(key)
            && let Some((path, mut datagram)) = self.clients[key].take_early()
        {
            let kind = classify(&datagram);
            if let Err((key, drop)) = self.handle_in_turn(now, key, path, &mut datagram, kind) {
                self.count_drop(key, drop);
            }
        }
    }

    /// Queues what a client sent during a step of its handshake. A drop when the queue is full.
    pub(super) fn queue_early(
        &mut self,
        key: ClientKey,
        path: Path,
        datagram: &[u8],
        kind: Kind,
    ) -> Result<(), (Option<ClientKey>, Drop)> {
        let drop = if kind == Kind::Dtls { Drop::DtlsUnexpected } else { Drop::SrtpNoKeys };
        if self.clients[key].queue_early(path, datagram) { Ok(()) } else { Err((Some(key), drop)) }
    }
}
