//! One DTLS handshake as its transport sees it: whether a step is due or under way, what was sent last, and when to send it
//! again. Must never know ICE or read a clock. Read `step.rs` next for the computing, then `record_limits.rs` for what OpenSSL
//! may see.
//!
//! Retransmission follows the time that we are told: a flight without an answer is sent again as it was. If the first copy had
//! arrived, the peer's replay check absorbs the second; if the answer was lost, the peer has a timer of its own. OpenSSL's timer
//! runs on its own clock, and counts only when a datagram comes.
//!
//! Nothing that comes in the clear can end a handshake, for anybody can send it: an alert is noted and kept from OpenSSL, and
//! after what it cannot bear a new attempt begins.

use super::alerts::AlertKeys;
use super::established::EstablishedDtls;
use super::plan::{Plan, Progress};
use super::record_limits::{RecordLimits, has_plain_alert};
use super::step::{Stage, Step, Stepped};
use crate::command::DtlsRole;
use crate::drop::Drop;
use crate::outbox::Path;
use crate::time::{Span, Time};
use crate::transport::exit::Exit;

/// Above most round trips, far below a person's patience; doubles with each silence.
const FIRST_RETRANSMISSION: Span = Span::from_millis(400);
/// After a ClientHello of ours, which is small: ffmpeg answers a check some milliseconds before it listens for DTLS.
const FIRST_HELLO: Span = Span::from_millis(50);
const SLOWEST_RETRANSMISSION: Span = Span::from_millis(3_200);

pub(super) struct Handshake {
    plan: Plan,
    /// How often it began anew: what a step of an earlier attempt comes to is nothing any more.
    attempt: u32,
    /// `None` while a step is under way.
    stage: Option<Box<Stage>>,
    /// What the next step takes in: a datagram and its path, or nothing for a ClientHello of ours.
    due: Option<(Path, Option<Vec<u8>>)>,
    limits: RecordLimits,
    received: bool,
    alerted: bool,
    /// What we sent last and may have to send again.
    flight: Vec<Vec<u8>>,
    /// Where that went; `None` while it waits for its address to be proven.
    flight_to: Option<Path>,
    retransmit_at: Option<Time>,
    pause: Span,
    last_flight_at: Time,
}

impl Handshake {
    pub fn new(plan: Plan) -> Handshake {
        Handshake {
            stage: Some(Box::new(Stage::Planned(plan.clone()))),
            plan,
            attempt: 0,
            due: None,
            limits: RecordLimits::default(),
            received: false,
            alerted: false,
            flight: Vec::new(),
            flight_to: None,
            retransmit_at: None,
            pause: FIRST_RETRANSMISSION,
            last_flight_at: Time::default(),
        }
    }

    /// Forgets all that came and went, but for whether anything came.
    pub fn restart(&mut self) {
        let (attempt, received, alerted) = (self.attempt + 1, self.received, self.alerted);
        *self = Handshake { attempt, received, alerted, ..Handshake::new(self.plan.clone()) };
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Has the ClientHello sent; for the client role, once an attempt.
    pub fn start(&mut self, path: Path) {
        self.due = Some((path, None));
    }

    /// Passes this datagram to the next step. A drop while another step is due or under way.
    pub fn handle_datagram(&mut self, path: Path, datagram: &[u8]) -> Result<(), Drop> {
        if self.is_busy() {
            return Err(Drop::DtlsUnexpected);
        }
        if has_plain_alert(datagram) {
            (self.received, self.alerted) = (true, true);
            return Err(Drop::DtlsPlainAlert);
        }
        self.limits.admit(datagram)?;
        self.received = true;
        self.due = Some((path, Some(datagram.to_vec())));
        Ok(())
    }

    /// True while a step is due or under way.
    pub fn is_busy(&self) -> bool {
        self.stage.is_none() || self.due.is_some()
    }

    /// The step that is due; its outcome goes to `finish`.
    pub fn take_step(&mut self, transport: u64) -> Option<Step> {
        let stage = self.stage.take_if(|_| self.due.is_some())?;
        let (path, datagram) = self.due.take()?;
        Some(Step { transport, attempt: self.attempt, path, stage, datagram })
    }

    /// Takes a step's outcome and sends what it made: a whole flight, kept to be sent again. The last one of a server stays,
    /// since nothing tells whether it arrived.
    pub fn finish(&mut self, now: Time, stepped: Stepped, exit: &mut Exit<'_>) -> Progress {
        if stepped.attempt != self.attempt {
            return Progress::Pending;
        }
        self.stage = stepped.stage;
        if !stepped.datagrams.is_empty() {
            self.flight = stepped.datagrams;
            self.send_flight(now, exit);
            self.pause = if self.received { FIRST_RETRANSMISSION } else { FIRST_HELLO };
            self.retransmit_at = Some(now + self.pause);
        }
        if let Progress::Established(_) = stepped.progress {
            self.retransmit_at = None;
            if self.plan.role == DtlsRole::Client {
                self.flight.clear();
            }
        }
        stepped.progress
    }

    pub fn handle_deadline(&mut self, now: Time, exit: &mut Exit<'_>) {
        if self.retransmit_at.is_none_or(|at| now < at) {
            return;
        }
        self.send_flight(now, exit);
        self.pause = Span((self.pause.0 * 2).min(SLOWEST_RETRANSMISSION.0));
        self.retransmit_at = Some(now + self.pause);
    }

    /// The address is proven: what was held back for it leaves.
    pub fn release(&mut self, now: Time, exit: &mut Exit<'_>) {
        if !self.flight.is_empty() && self.flight_to.is_none() {
            self.send_flight(now, exit);
            self.retransmit_at = self.retransmit_at.map(|_| now + self.pause);
        }
    }

    fn send_flight(&mut self, now: Time, exit: &mut Exit<'_>) {
        self.flight_to = exit.send(&self.flight).then_some(exit.path);
        self.last_flight_at = now;
    }

    /// Where what we sent last went to, which what comes next answers.
    pub fn flight_to(&self) -> Option<Path> {
        self.flight_to
    }

    pub fn next_deadline(&self) -> Option<Time> {
        self.retransmit_at
    }

    /// True once a record of the peer has come.
    pub fn has_received(&self) -> bool {
        self.received
    }

    /// Whether an alert in the clear has come: the peer's own, most likely, when the handshake does not end.
    pub fn was_alerted(&self) -> bool {
        self.alerted
    }

    /// What is left to keep once the keys are there.
    pub fn established(&self, alerts: Option<AlertKeys>) -> EstablishedDtls {
        EstablishedDtls::new(&self.flight, alerts, self.last_flight_at)
    }
}
