//! One transport: the ICE, DTLS and SRTP path to a client. Owns its phase, its addresses and its keys; must never know a
//! publication, a subscription or what a packet carries. Read `ice/mod.rs`, `dtls/mod.rs` and `srtp/mod.rs` next, in this order.
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
mod ice;
mod lasting;
pub mod srtp;
pub mod stun;
pub mod stun_writer;
#[cfg(test)]
mod vectors;

use std::collections::VecDeque;

use millrace_arena::{SessionWords, prefetch};

use self::dtls::{Dtls, Fingerprints, Progress};
use self::ice::Ice;
use self::srtp::Srtp;
use crate::command::{DtlsRole, OpenTransport, RestartIce};
use crate::drop::Drop;
use crate::event::Cause;
use crate::outbox::{Outbox, Path};
use crate::time::{Span, Time};

pub use self::dtls::{DtlsContexts, EstablishedDtls, Step, Stepped};
pub use self::lasting::{Carried, TransportState, Waiting};
pub use self::srtp::{Keying, MasterKey, Profile, SEAL_ROOM, SRTP_WORDS, SrtpState, StreamState, Tags};

/// What bounds a transport, from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Proven addresses held at once; one more evicts the address that was checked longest ago.
    pub max_addresses: usize,
    /// SSRCs that a client may send, for RTP and for RTCP each; packets of further ones are dropped.
    pub max_streams: usize,
    /// From the opening to the first authenticated check.
    pub ice_timeout: Span,
    /// From the first check to the keys.
    pub handshake_timeout: Span,
    /// From the last check on.
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
    AddressProven(Path),
    AddressForgotten(Path),
    /// There was one address too many: the next event names the one that is forgotten.
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
    /// When the present phase times out.
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
        Ok(Transport {
            id: command.transport,
            limits: *limits,
            dtls_role: command.dtls_role,
            expects_media: command.expects_media,
            opened: Some(Box::new(command.clone())),
            phase: Phase::New,
            ice: Ice::new(command, limits.max_addresses),
            dtls: Some(dtls),
            srtp: None,
            dtls_path: None,
            handshake_began_at: None,
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

    pub fn id(&self) -> u64 {
        self.id
    }

    /// Adds new ICE credentials. The old ones and the path stay valid until a check with the new ones succeeds; DTLS and SRTP
    /// are not touched (RFC 8445 section 2.4, RFC 8842 section 5.5).
    pub fn restart_ice(&mut self, _now: Time, command: &RestartIce) {
        self.ice.restart(command, &mut self.events);
    }

    /// Answers an authentic check; any other gets no answer. In the DTLS client role the first check that succeeds begins the
    /// handshake.
    pub fn handle_stun(&mut self, now: Time, path: Path, datagram: &[u8], outbox: &mut Outbox) -> Result<(), Drop> {
        if self.phase == Phase::Closed {
            return Err(Drop::StunUnknownUfrag);
        }
        let handled = self.ice.handle(now, path, datagram, outbox, &mut self.events);
        if self.phase == Phase::New && self.ice.is_proven(path) {
            self.enter(Phase::Checked, Some(now + self.limits.handshake_timeout));
            if self.dtls_role == DtlsRole::Client {
                self.start_handshake(now, path);
            }
        }
        handled.map(|_| ())
    }

    /// True when the next check that succeeds begins the handshake.
    pub fn would_start_handshake(&self) -> bool {
        self.phase == Phase::New && self.dtls_role == DtlsRole::Client
    }

    /// Takes a DTLS datagram, from proven addresses only: nothing looks at DTLS before an authenticated check. Not to be called
    /// while `is_busy`.
    pub fn handle_dtls(&mut self, now: Time, path: Path, datagram: &[u8], outbox: &mut Outbox) -> Result<(), Drop> {
        if !self.ice.is_proven(path) {
            return Err(Drop::DtlsUnexpected);
        }
        let dtls = self.dtls.as_mut().ok_or(Drop::DtlsUnexpected)?;
        let progress = dtls.handle_datagram(now, path, datagram, outbox)?;
        self.dtls_path = Some(path);
        if self.phase == Phase::Checked {
            self.begin_handshake();
        }
        self.handshake_began_at.get_or_insert(now);
        self.note_progress(now, path, progress);
        Ok(())
    }

    /// True while a step of the handshake is due or under way. What the client sends meanwhile has to wait.
    pub fn is_busy(&self) -> bool {
        // The phase first: every packet asks, and it lies with what a packet needs anyway.
        self.phase == Phase::Handshaking && self.dtls.as_ref().is_some_and(Dtls::is_busy)
    }

    /// The step of the handshake that is due; its outcome goes to `finish_step`.
    pub fn take_step(&mut self) -> Option<Step> {
        self.dtls.as_mut()?.take_step(self.id)
    }

    /// Takes a step's outcome. A transport that was closed meanwhile ignores it.
    pub fn finish_step(&mut self, now: Time, stepped: Stepped, outbox: &mut Outbox) {
        let Some(dtls) = &mut self.dtls else { return };
        let path = stepped.path;
        let progress = dtls.finish(now, stepped, outbox);
        self.note_progress(now, path, progress);
    }

    /// Opens SRTP in place, from proven addresses only; returns the length of the RTP packet.
    pub fn open_rtp(&mut self, _now: Time, path: Path, packet: &mut [u8]) -> Result<usize, Drop> {
        let len = self.opener(path)?.open_rtp(packet)?;
        self.note_media();
        Ok(len)
    }

    /// Opens SRTCP in place, from proven addresses only; returns the length of the RTCP packet.
    pub fn open_rtcp(&mut self, _now: Time, path: Path, packet: &mut [u8]) -> Result<usize, Drop> {
        let len = self.opener(path)?.open_rtcp(packet)?;
        self.note_media();
        Ok(len)
    }

    /// Fetches what sealing a packet reads first.
    pub fn prefetch(&self) {
        prefetch(&self.phase);
        self.ice.prefetch();
        prefetch(&self.srtp);
    }

    /// Fetches the keys. To be called when what `prefetch` fetched has come.
    pub fn prefetch_keys(&self) {
        if let Some(srtp) = &self.srtp {
            srtp.prefetch_keys();
        }
    }

    /// Seals the RTP packet in `buffer[..len]` in place and returns the sealed length; `SEAL_ROOM` bytes must follow.
    /// See `Srtp::seal_rtp` for what `index` must be.
    pub fn seal_rtp(&self, index: u64, buffer: &mut [u8], len: usize) -> Result<usize, Drop> {
        self.srtp.as_ref().ok_or(Drop::NotConnected)?.seal_rtp(index, buffer, len)
    }

    /// As `seal_rtp`, but the packet is whole only once `tags` has finished the bytes among which it begins at `start`.
    pub fn seal_rtp_later(
        &self,
        index: u64,
        buffer: &mut [u8],
        len: usize,
        tags: (&mut Tags, usize),
    ) -> Result<usize, Drop> {
        self.srtp.as_ref().ok_or(Drop::NotConnected)?.seal_rtp_later(index, buffer, len, tags)
    }

    /// Seals the RTCP packet in `buffer[..len]` in place and returns the sealed length; `SEAL_ROOM` bytes must follow.
    pub fn seal_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, Drop> {
        self.srtp.as_mut().ok_or(Drop::NotConnected)?.seal_rtcp(buffer, len)
    }

    /// The selected pair: the only place that media goes to.
    pub fn path(&self) -> Option<Path> {
        self.ice.selected()
    }

    pub fn is_proven(&self, path: Path) -> bool {
        self.ice.is_proven(path)
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
                Phase::Checked | Phase::Handshaking => {
                    let received = self.dtls.as_ref().is_some_and(Dtls::has_received);
                    self.shut(if received { Cause::HandshakeTimeout } else { Cause::NoClientHello });
                }
                Phase::Connected => self.events.push_back(TransportEvent::Stalled(Cause::NoSrtp)),
                Phase::Closed => {}
            }
        }
        self.check_consent(now);
        let path = self.path().or(self.dtls_path);
        if let (Some(dtls), Some(path)) = (&mut self.dtls, path) {
            dtls.handle_deadline(now, path, outbox);
        }
    }

    /// When to call `handle_deadline`. Calling it earlier does no harm.
    pub fn next_deadline(&self) -> Option<Time> {
        let retransmission = self.dtls.as_ref().and_then(Dtls::next_deadline);
        let consent = self.ice.consent_deadline(self.limits.consent_timeout);
        [self.phase_due, retransmission, consent].into_iter().flatten().min()
    }

    pub fn next_event(&mut self) -> Option<TransportEvent> {
        self.events.pop_front()
    }

    /// Sends the client close_notify, and closes.
    pub fn close(&mut self, _now: Time, outbox: &mut Outbox) {
        if let (Some(dtls), Some(path)) = (&mut self.dtls, self.ice.selected()) {
            dtls.close(path, outbox);
        }
        self.shut(Cause::Closed);
    }

    fn start_handshake(&mut self, now: Time, path: Path) {
        let Some(dtls) = &mut self.dtls else { return };
        dtls.start(path);
        self.dtls_path = Some(path);
        self.handshake_began_at = Some(now);
        self.begin_handshake();
    }

    /// Enters the handshake, which only this process can finish.
    fn begin_handshake(&mut self) {
        self.phase = Phase::Handshaking;
        self.opened = None;
    }

    fn note_progress(&mut self, now: Time, path: Path, progress: Progress) {
        match progress {
            Progress::Pending => {}
            Progress::Ended(cause) => self.shut(cause),
            Progress::Established(established) => {
                let profile = established.keying.profile;
                self.srtp = Srtp::new(established.keying, self.limits.max_streams);
                if let (Some(srtp), Some(words)) = (&mut self.srtp, &self.words) {
                    srtp.save_in(words);
                }
                self.ice.select_unless_nominated(now, path);
                self.enter(Phase::Connected, self.expects_media.then(|| now + self.limits.media_timeout));
                let handshake = self.handshake_began_at.map_or(Span::default(), |began_at| now.since(began_at));
                let dtls_version = established.version;
                self.events.push_back(TransportEvent::Connected { profile, dtls_version, handshake });
            }
        }
    }

    fn opener(&mut self, path: Path) -> Result<&mut Srtp, Drop> {
        if !self.ice.is_proven(path) {
            return Err(Drop::UnknownSource);
        }
        self.srtp.as_mut().ok_or(Drop::SrtpNoKeys)
    }

    /// Notes that an authentic packet has come, so that the transport is not stalled.
    fn note_media(&mut self) {
        self.phase_due = None;
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
        self.dtls = None;
        self.srtp = None;
        self.ice.forget_all(&mut self.events);
        self.events.push_back(TransportEvent::Closed(cause));
    }
}
