//! One transport: the ICE, DTLS and SRTP path to a client. Owns its phase, its addresses and its keys; must never know a
//! publication, a subscription or what a packet carries. `handshaking.rs` has the course of its handshake and `media.rs` its
//! packets; read `ice/mod.rs`, `dtls/mod.rs` and `srtp/mod.rs` next, in this order.
//!
//! ```text
//!            first check          first DTLS record       keys
//!  New ────────────────► Checked ─────────────────► Handshaking ──────► Connected
//!   │ ice_timeout           │ handshake_timeout         │ handshake_timeout    │ consent_timeout, close_notify, alert
//!   ▼                       ▼                           ▼                      ▼
//!  Closed: NoStun,        NoClientHello               HandshakeTimeout,      ConsentLost, ClosedByPeer, DtlsAlert
//!          BadIntegrity                               FingerprintMismatch,
//!                                                     NoSrtpProfile, DtlsAlert
//! ```

pub mod demux;
mod dtls;
mod exit;
pub mod framing;
mod handshaking;
mod ice;
mod lasting;
mod media;
pub mod srtp;
pub mod stun;
pub mod stun_writer;
#[cfg(test)]
mod vectors;

use std::collections::VecDeque;
use std::sync::Arc;

use millrace_arena::SessionWords;

use self::dtls::{Dtls, Fingerprints};
use self::ice::Ice;
use self::ice::credentials::Credentials;
use self::ice::proof::{Asker, Prover};
use self::srtp::Srtp;
use crate::command::{DtlsRole, OpenTransport, RestartIce};
use crate::drop::Drop;
use crate::event::Cause;
use crate::outbox::{Outbox, Path};
use crate::time::{Span, Time};

pub use self::dtls::{DtlsContexts, EstablishedDtls, Step, Stepped};
pub use self::ice::proof;
pub use self::lasting::{Carried, Habit, RemoteState, TransportState, Waiting};
pub use self::srtp::{Keying, MasterKey, Profile, SEAL_ROOM, SRTP_WORDS, SrtpState, StreamState, Tags};

/// What bounds a transport, from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Addresses held at once; the oldest goes first.
    pub max_addresses: usize,
    /// SSRCs that a client may send, for RTP and for RTCP each; packets of further ones are dropped.
    pub max_streams: usize,
    /// From the opening to the first authenticated check.
    pub ice_timeout: Span,
    /// From the first check to the keys.
    pub handshake_timeout: Span,
    /// From the last answer to a request of ours on.
    pub consent_timeout: Span,
    /// From the keys to the first packet that authenticates.
    pub media_timeout: Span,
}

/// What happened to a transport, for the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportEvent {
    Connected {
        profile: Profile,
        dtls_version: &'static str,
        /// From the first DTLS record, either way, to the keys.
        handshake: Span,
    },
    /// The transport has ended. Its addresses were reported as forgotten before.
    Closed(Cause),
    /// Something is wrong and may yet mend. Reported once.
    Stalled(Cause),
    /// An authentic check came from there: what comes next may be the client's.
    AddressChecked(Path),
    /// It is the client's.
    AddressProven(Path),
    AddressForgotten(Path),
    /// A request of ours went to an address; it was answered; it was not.
    ProofAsked,
    ProofAnswered,
    ProofGivenUp,
    /// A nominated address was not proven, and media stays where it was.
    MoveRefused,
    /// An unproven address would have got more than three times what it sent.
    HeldBack,
    /// Whether the client answers requests is something else than was saved.
    HabitLearnt,
    /// A further address came, so that the one forgotten next had to go.
    TooManyAddresses,
    /// A local ufrag that is no longer valid, after an ICE restart.
    UfragForgotten(String),
}

/// How far a transport has come; the labels are those of `TransportReport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    New,
    Checked,
    Handshaking,
    Connected,
    Closed,
}

impl Phase {
    pub fn label(self) -> &'static str {
        match self {
            Phase::New => "new",
            Phase::Checked => "checked",
            Phase::Handshaking => "handshaking",
            Phase::Connected => "connected",
            Phase::Closed => "closed",
        }
    }
}

pub struct Transport {
    id: u64,
    limits: Limits,
    dtls_role: DtlsRole,
    expects_media: bool,
    /// The command that opened it, until the handshake begins: with that a successor opens the transport anew.
    opened: Option<Box<OpenTransport>>,
    phase: Phase,
    ice: Ice,
    /// `None` when closed.
    dtls: Option<Dtls>,
    srtp: Option<Srtp>,
    /// The path of the last DTLS datagram, either way. Retransmissions go there until a path is selected.
    dtls_path: Option<Path>,
    handshake_began_at: Option<Time>,
    /// When the handshake went on last, and how often it did.
    progressed_at: Time,
    flights: u8,
    /// Why an attempt at the handshake failed: the cause, if none succeeds.
    failed: Option<Cause>,
    /// Until then no new attempt begins.
    restart_at: Option<Time>,
    /// When the present phase ends badly.
    phase_due: Option<Time>,
    events: VecDeque<TransportEvent>,
    /// Where the values are saved that change with every packet.
    words: Option<SessionWords>,
}

impl Transport {
    pub fn new(
        now: Time,
        command: &OpenTransport,
        contexts: &DtlsContexts,
        limits: &Limits,
    ) -> Result<Transport, String> {
        if command.local_ufrag.is_empty() || command.local_pwd.is_empty() {
            return Err("expected an ICE ufrag and password".to_owned());
        }
        let fingerprints = Fingerprints::new(command)?;
        let dtls = Dtls::new(contexts, command.dtls_role, fingerprints);
        let credentials = Credentials::new(&command.local_ufrag, &command.local_pwd)
            .with_remote(&command.remote_ufrag, &command.remote_pwd);
        Ok(Transport {
            id: command.transport,
            limits: *limits,
            dtls_role: command.dtls_role,
            expects_media: command.expects_media,
            opened: Some(Box::new(command.clone())),
            phase: Phase::New,
            ice: Ice::new(credentials, None, limits.max_addresses),
            dtls: Some(dtls),
            srtp: None,
            dtls_path: None,
            handshake_began_at: None,
            progressed_at: now,
            flights: 0,
            failed: None,
            restart_at: None,
            phase_due: Some(now + limits.ice_timeout),
            events: VecDeque::new(),
            words: None,
        })
    }

    /// Saves what changes with every packet in the first `SRTP_WORDS` of these words, as soon as there are keys.
    pub fn save_in(&mut self, words: SessionWords) {
        if let Some(srtp) = &mut self.srtp {
            srtp.save_in(&words);
        }
        self.words = Some(words);
    }

    /// Asks each new address back before media goes there. `number` begins its transaction ids, by which answers come back here.
    pub fn ask_with(&mut self, prover: &Arc<Prover>, number: u32) {
        self.ice.ask_with(Asker::new(prover.clone(), number, self.id));
    }

    /// Asks the addresses back that a predecessor had not proven.
    pub fn ask_unproven(&mut self, now: Time, outbox: &mut Outbox) {
        self.ice.ask_unproven(now, outbox, &mut self.events);
    }

    /// The caller knows that the address is the peer's: a client does, of its server.
    pub fn vouch_for(&mut self, now: Time, path: Path, outbox: &mut Outbox) {
        self.ice.vouch_for(now, path, &mut self.events);
        self.follow_proof(now, path, outbox);
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    /// Adds new ICE credentials. The old ones and the path stay valid until a check with the new ones succeeds; DTLS and SRTP
    /// are not touched (RFC 8445 section 2.4, RFC 8842 section 5.5).
    pub fn restart_ice(&mut self, _now: Time, command: &RestartIce) {
        let next = Credentials::new(&command.local_ufrag, &command.local_pwd)
            .with_remote(&command.remote_ufrag, &command.remote_pwd);
        self.ice.restart(next, &mut self.events);
    }

    /// Answers a check when it is authentic and is silent otherwise; takes an answer to a request of ours. In the client role
    /// the first check that succeeds sets the handshake off.
    pub fn handle_stun(&mut self, now: Time, path: Path, datagram: &[u8], outbox: &mut Outbox) -> Result<(), Drop> {
        if self.phase == Phase::Closed {
            return Err(Drop::StunUnknownUfrag);
        }
        let was_proven = self.ice.is_proven(path);
        let handled = self.ice.handle(now, path, datagram, outbox, &mut self.events);
        if self.phase == Phase::New && self.ice.is_known(path) {
            self.enter(Phase::Checked, Some(now + self.limits.handshake_timeout));
        }
        if self.phase == Phase::Checked && self.dtls_role == DtlsRole::Client && self.ice.is_known(path) {
            self.start_handshake(now, path);
        }
        if !was_proven && self.ice.is_proven(path) {
            self.follow_proof(now, path, outbox);
        }
        handled
    }

    /// Asks an address back that another client may have meanwhile.
    pub fn ask(&mut self, now: Time, path: Path, outbox: &mut Outbox) {
        self.ice.ask(now, path, false, outbox, &mut self.events);
    }

    /// A TCP connection has ended: what went there is lost, and a check from elsewhere now moves media.
    pub fn handle_connection_closed(&mut self, path: Path) {
        self.ice.handle_connection_closed(path, &mut self.events);
    }

    /// The selected pair: the only place that media goes to.
    pub fn path(&self) -> Option<Path> {
        self.ice.selected()
    }

    pub fn is_proven(&self, path: Path) -> bool {
        self.ice.is_proven(path)
    }

    /// An authentic check came from there.
    pub fn is_known(&self, path: Path) -> bool {
        self.ice.is_known(path)
    }

    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn profile(&self) -> Option<Profile> {
        self.srtp.as_ref().map(Srtp::profile)
    }

    /// The local ufrags of this transport: the one in use, and that of a restart that no check has used yet.
    pub fn ufrags(&self) -> impl Iterator<Item = &str> {
        let (current, next) = self.ice.credentials();
        std::iter::once(current).chain(next).map(|credentials| credentials.ufrag.as_str())
    }

    pub fn handle_deadline(&mut self, now: Time, outbox: &mut Outbox) {
        if self.phase_due.is_some_and(|due| due <= now) {
            self.phase_due = None;
            match self.phase {
                Phase::New if self.ice.saw_bad_integrity() => self.shut(Cause::BadIntegrity),
                Phase::New => self.shut(Cause::NoStun),
                Phase::Checked | Phase::Handshaking => self.shut(self.why_no_handshake()),
                Phase::Connected => self.events.push_back(TransportEvent::Stalled(Cause::NoSrtp)),
                Phase::Closed => {}
            }
        }
        self.check_consent(now);
        self.ice.handle_deadline(now, outbox, &mut self.events);
        self.start_again(now);
        if let Some(path) = self.path().or(self.dtls_path) {
            self.through(path, outbox, |dtls, exit| dtls.handle_deadline(now, exit));
        }
    }

    /// When to call `handle_deadline`. Calling it earlier does no harm.
    pub fn next_deadline(&self) -> Option<Time> {
        let retransmission = self.dtls.as_ref().and_then(Dtls::next_deadline);
        let ice = self.ice.next_deadline(self.limits.consent_timeout);
        [self.phase_due, self.restart_at, retransmission, ice].into_iter().flatten().min()
    }

    pub fn next_event(&mut self) -> Option<TransportEvent> {
        self.events.pop_front()
    }

    /// Sends the client close_notify, and closes.
    pub fn close(&mut self, _now: Time, outbox: &mut Outbox) {
        if let Some(path) = self.ice.selected() {
            self.through(path, outbox, |dtls, exit| dtls.close(exit));
        }
        self.shut(Cause::Closed);
    }

    fn check_consent(&mut self, now: Time) {
        let was_checked = self.phase != Phase::New && self.phase != Phase::Closed;
        if was_checked && !self.ice.check_consent(now, self.limits.consent_timeout, &mut self.events) {
            self.shut(Cause::ConsentLost);
        }
    }

    fn enter(&mut self, phase: Phase, due: Option<Time>) {
        self.phase = phase;
        self.phase_due = due;
    }

    fn shut(&mut self, cause: Cause) {
        if self.phase == Phase::Closed {
            return;
        }
        self.enter(Phase::Closed, None);
        self.restart_at = None;
        self.dtls = None;
        self.srtp = None;
        self.ice.forget_all(&mut self.events);
        self.events.push_back(TransportEvent::Closed(cause));
    }
}
