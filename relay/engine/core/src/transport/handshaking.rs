//! The course of a transport's handshake: whose DTLS is looked at, when an attempt begins anew, what its end means. Owns no
//! record and no key; must never end a session for what anybody may send. Read `dtls/mod.rs` next.

use super::dtls::{Dtls, Progress, Step, Stepped};
use super::exit::Exit;
use super::srtp::Srtp;
use super::{Phase, Transport, TransportEvent};
use crate::command::DtlsRole;
use crate::drop::Drop;
use crate::event::Cause;
use crate::outbox::{Outbox, Path};
use crate::time::{Span, Time};

/// Between a failed attempt at a handshake and the next: an attempt costs a millisecond, and whoever spoils one may spoil many.
const RESTART_PAUSE: Span = Span::from_millis(50);
/// A younger handshake makes no room for others: a lost flight is sent again after a second.
const MIN_AGE: Span = Span::from_secs(2);
/// Nor does one that went on within this time.
const MAX_STANDSTILL: Span = Span::from_secs(1);
/// More steps forward than a handshake has: OpenSSL answers repetitions too, and who sends them must not look busy for ever.
const MAX_FLIGHTS: u8 = 4;

impl Transport {
    /// What waited for this address goes on. A handshake with an address that is not proven gives way.
    pub(super) fn follow_proof(&mut self, now: Time, path: Path, outbox: &mut Outbox) {
        if self.is_shaking_hands() && self.dtls_path.is_some_and(|other| other != path && !self.ice.is_proven(other)) {
            self.restart_handshake(now, path);
        }
        self.through(path, outbox, |dtls, exit| dtls.release(now, exit));
    }

    /// True when the next check that succeeds begins the handshake.
    pub fn would_start_handshake(&self) -> bool {
        matches!(self.phase, Phase::New | Phase::Checked) && self.dtls_role == DtlsRole::Client
    }

    /// When the handshake began and the path that it runs on; `None` when none is under way.
    pub fn handshake(&self) -> Option<(Time, Path)> {
        self.handshake_began_at.zip(self.dtls_path).filter(|_| self.is_shaking_hands())
    }

    /// True when the handshake under way is old enough, and makes no progress.
    pub fn is_handshake_stuck(&self, now: Time) -> bool {
        let is_old = self.handshake().is_some_and(|(began_at, _)| now.since(began_at) >= MIN_AGE);
        is_old && !self.is_busy() && now.since(self.progressed_at) >= MAX_STANDSTILL
    }

    /// Frees what the handshake holds. Another may begin until `handshake_timeout` after the first check.
    pub fn give_up_handshake(&mut self) {
        if !self.is_shaking_hands() {
            return;
        }
        self.failed = Some(self.why_no_handshake());
        if let Some(dtls) = &mut self.dtls {
            dtls.give_up();
        }
        self.phase = Phase::Checked;
        self.flights = 0;
        (self.dtls_path, self.handshake_began_at, self.restart_at) = (None, None, None);
    }

    /// Whether DTLS from there has to wait: the address is not proven, and a handshake with another one, or a proven address
    /// that one will come from, would suffer.
    pub fn must_wait(&self, path: Path) -> bool {
        if self.phase == Phase::Connected || self.ice.is_proven(path) || !self.ice.is_known(path) {
            return false;
        }
        self.ice.has_proven() || self.dtls_path.is_some_and(|other| other != path)
    }

    /// Takes DTLS from known addresses only (design: nothing looks at DTLS before an authenticated check), and not while
    /// `is_busy` or `must_wait`.
    pub fn handle_dtls(&mut self, now: Time, path: Path, datagram: &[u8], outbox: &mut Outbox) -> Result<(), Drop> {
        let is_early = self.restart_at.is_some_and(|at| now < at) && self.is_shaking_hands();
        // In the client role a check begins the handshake.
        let is_unasked = self.phase == Phase::Checked && self.dtls_role == DtlsRole::Client;
        if is_unasked || !self.ice.is_known(path) || is_early || self.must_wait(path) {
            return Err(Drop::DtlsUnexpected);
        }
        self.ice.note_received(path, datagram.len());
        let progress = self.through(path, outbox, |dtls, exit| dtls.handle_datagram(now, datagram, exit));
        let progress = progress.ok_or(Drop::DtlsUnexpected)??;
        self.dtls_path = Some(path);
        if self.phase == Phase::Checked {
            self.begin_handshake();
        }
        self.handshake_began_at.get_or_insert(now);
        self.note_progress(now, (path, false), progress, outbox);
        Ok(())
    }

    /// Whether a step of the handshake is due or under way. What the client sends meanwhile had better wait for it.
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
        let path = stepped.path;
        if stepped.has_flight() && self.flights < MAX_FLIGHTS {
            (self.flights, self.progressed_at) = (self.flights + 1, now);
        }
        // What answers our last flight comes from somebody who got it there.
        let is_echo = self.dtls.as_ref().and_then(Dtls::flight_to) == Some(path);
        if let Some(progress) = self.through(path, outbox, |dtls, exit| dtls.finish(now, stepped, exit)) {
            self.note_progress(now, (path, is_echo), progress, outbox);
        }
    }

    /// Has DTLS do something, with the way out to this address.
    pub(super) fn through<R>(
        &mut self,
        path: Path,
        outbox: &mut Outbox,
        act: impl FnOnce(&mut Dtls, &mut Exit<'_>) -> R,
    ) -> Option<R> {
        let dtls = self.dtls.as_mut()?;
        let mut exit = self.ice.exit(path, outbox);
        let result = act(dtls, &mut exit);
        let (sent, held_back) = (exit.sent(), exit.held_back);
        self.ice.note_sent(path, sent);
        if held_back {
            self.events.push_back(TransportEvent::HeldBack);
        }
        Some(result)
    }

    pub(super) fn start_handshake(&mut self, now: Time, path: Path) {
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

    fn is_shaking_hands(&self) -> bool {
        self.phase == Phase::Handshaking
    }

    /// Forgets how far the handshake is. Whoever goes on with it comes from this address.
    fn restart_handshake(&mut self, now: Time, path: Path) {
        if let Some(dtls) = &mut self.dtls {
            dtls.restart();
        }
        self.dtls_path = Some(path);
        self.restart_at = (self.dtls_role == DtlsRole::Client).then_some(now);
    }

    /// In the client role a new attempt is ours to begin.
    pub(super) fn start_again(&mut self, now: Time) {
        if self.restart_at.is_none_or(|at| now < at) {
            return;
        }
        self.restart_at = None;
        if let (DtlsRole::Client, Some(path), Some(dtls)) =
            (self.dtls_role, self.path().or(self.dtls_path), &mut self.dtls)
            && self.phase == Phase::Handshaking
        {
            dtls.start(path);
            self.dtls_path = Some(path);
        }
    }

    pub(super) fn why_no_handshake(&self) -> Cause {
        let received = self.dtls.as_ref().is_some_and(Dtls::has_received);
        let alerted = self.dtls.as_ref().is_some_and(Dtls::was_alerted);
        self.failed.unwrap_or(match (alerted, received) {
            (true, _) => Cause::DtlsAlert,
            (false, true) => Cause::HandshakeTimeout,
            (false, false) => Cause::NoClientHello,
        })
    }

    fn note_progress(&mut self, now: Time, (path, is_echo): (Path, bool), progress: Progress, outbox: &mut Outbox) {
        match progress {
            Progress::Pending => {}
            Progress::Ended(cause) if self.is_shaking_hands() && !self.is_final(path, cause) => {
                self.failed = Some(cause);
                self.restart_handshake(now, path);
                self.restart_at = Some(now + RESTART_PAUSE);
            }
            Progress::Ended(cause) => self.shut(cause),
            Progress::Established(established) => {
                let profile = established.keying.profile;
                self.srtp = Srtp::new(established.keying, self.limits.max_streams);
                if let (Some(srtp), Some(words)) = (&mut self.srtp, &self.words) {
                    srtp.save_in(words);
                }
                self.restart_at = None;
                self.enter(Phase::Connected, self.expects_media.then(|| now + self.limits.media_timeout));
                self.ice.handle_connected(now, (path, is_echo), outbox, &mut self.events);
                let handshake = self.handshake_began_at.map_or(Span::default(), |began_at| now.since(began_at));
                let dtls_version = established.version;
                self.events.push_back(TransportEvent::Connected { profile, dtls_version, handshake });
            }
        }
    }

    /// Whether the client itself, and nobody who sends in its name, brought the handshake to this end.
    fn is_final(&self, path: Path, cause: Cause) -> bool {
        match cause {
            // Its certificate was the promised one.
            Cause::NoSrtpProfile => true,
            Cause::FingerprintMismatch => self.ice.is_proven(path),
            _ => false,
        }
    }
}
