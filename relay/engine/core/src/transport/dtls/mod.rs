//! DTLS of one transport, before, during and after its handshake. Owns which of these three stages it is in; must never know
//! ICE or read a clock. Read `handshake.rs` next, then `established.rs`.
//!
//! ```text
//!  Waiting ── first datagram, or start ──► Handshake (OpenSSL, 60 KiB) ── keys ──► EstablishedDtls (some 300 bytes)
//! ```

mod alerts;
mod contexts;
mod established;
mod handshake;
mod plan;
mod record_limits;
mod step;

use self::handshake::Handshake;
use self::plan::Plan;
use crate::command::DtlsRole;
use crate::drop::Drop;
use crate::outbox::Path;
use crate::time::Time;
use crate::transport::exit::Exit;

pub use self::contexts::DtlsContexts;
pub use self::established::EstablishedDtls;
pub(super) use self::plan::{Fingerprints, Progress};
pub use self::step::{Step, Stepped};

pub(super) struct Dtls {
    age: Age,
}

enum Age {
    /// A client that never comes costs no more than this.
    Waiting(Plan),
    Handshake(Box<Handshake>),
    Established(Box<EstablishedDtls>),
}

impl Dtls {
    pub fn new(contexts: &DtlsContexts, role: DtlsRole, fingerprints: Fingerprints) -> Dtls {
        let context = match role {
            DtlsRole::Server => contexts.server.clone(),
            DtlsRole::Client => contexts.client.clone(),
        };
        Dtls { age: Age::Waiting(Plan { context, role, fingerprints }) }
    }

    /// Resumes the association that a predecessor's handshake established.
    pub fn resume(established: EstablishedDtls) -> Dtls {
        Dtls { age: Age::Established(Box::new(established)) }
    }

    /// What a successor needs; `None` before the handshake is over.
    pub fn established(&self) -> Option<&EstablishedDtls> {
        match &self.age {
            Age::Established(established) => Some(established),
            _ => None,
        }
    }

    /// Begins a handshake in the client role, with a ClientHello. To be called once.
    pub fn start(&mut self, path: Path) {
        if let Some(handshake) = self.handshake() {
            handshake.start(path);
        }
    }

    /// Takes a datagram. During the handshake its outcome comes with `finish`.
    pub fn handle_datagram(&mut self, now: Time, datagram: &[u8], exit: &mut Exit<'_>) -> Result<Progress, Drop> {
        if let Age::Established(established) = &mut self.age {
            return established.handle_datagram(now, datagram, exit);
        }
        if let Some(handshake) = self.handshake() {
            handshake.handle_datagram(exit.path, datagram)?;
        }
        Ok(Progress::Pending)
    }

    /// True while a step is due or under way. The next DTLS datagram has to wait.
    pub fn is_busy(&self) -> bool {
        matches!(&self.age, Age::Handshake(handshake) if handshake.is_busy())
    }

    /// The step that is to be computed now, on any thread.
    pub fn take_step(&mut self, transport: u64) -> Option<Step> {
        match &mut self.age {
            Age::Handshake(handshake) => handshake.take_step(transport),
            _ => None,
        }
    }

    /// Goes on with what was computed.
    pub fn finish(&mut self, now: Time, stepped: Stepped, exit: &mut Exit<'_>) -> Progress {
        let Age::Handshake(handshake) = &mut self.age else { return Progress::Pending };
        let mut progress = handshake.finish(now, stepped, exit);
        if let Progress::Established(established) = &mut progress {
            self.age = Age::Established(Box::new(handshake.established(established.alerts.take())));
        }
        progress
    }

    pub fn handle_deadline(&mut self, now: Time, exit: &mut Exit<'_>) {
        if let Age::Handshake(handshake) = &mut self.age {
            handshake.handle_deadline(now, exit);
        }
    }

    /// Sends what was held back for an address that is proven now.
    pub fn release(&mut self, now: Time, exit: &mut Exit<'_>) {
        if let Age::Handshake(handshake) = &mut self.age {
            handshake.release(now, exit);
        }
    }

    /// Begins the handshake anew; in the client role `start` has to follow. One that is over stays so.
    pub fn restart(&mut self) {
        if let Age::Handshake(handshake) = &mut self.age {
            handshake.restart();
        }
    }

    /// Frees what an unfinished handshake holds; the next datagram, or `start`, begins another.
    pub fn give_up(&mut self) {
        if let Age::Handshake(handshake) = &self.age {
            self.age = Age::Waiting(handshake.plan().clone());
        }
    }

    /// Where our last flight went to, while a handshake is under way.
    pub fn flight_to(&self) -> Option<Path> {
        match &self.age {
            Age::Handshake(handshake) => handshake.flight_to(),
            _ => None,
        }
    }

    pub fn next_deadline(&self) -> Option<Time> {
        match &self.age {
            Age::Handshake(handshake) => handshake.next_deadline(),
            _ => None,
        }
    }

    /// True once a record of the peer has come.
    pub fn has_received(&self) -> bool {
        match &self.age {
            Age::Waiting(_) => false,
            Age::Handshake(handshake) => handshake.has_received(),
            Age::Established(_) => true,
        }
    }

    /// Whether an alert came in the clear while the handshake was under way.
    pub fn was_alerted(&self) -> bool {
        matches!(&self.age, Age::Handshake(handshake) if handshake.was_alerted())
    }

    /// Sends close_notify. The peer's own is not waited for.
    pub fn close(&mut self, exit: &mut Exit<'_>) {
        if let Age::Established(established) = &mut self.age {
            established.close(exit);
        }
    }

    /// The handshake that is under way, begun if need be; `None` when it is over.
    fn handshake(&mut self) -> Option<&mut Handshake> {
        if let Age::Waiting(plan) = &self.age {
            self.age = Age::Handshake(Box::new(Handshake::new(plan.clone())));
        }
        match &mut self.age {
            Age::Handshake(handshake) => Some(handshake),
            _ => None,
        }
    }
}
