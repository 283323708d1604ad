//! One DTLS handshake as its transport sees it: whether a step is due or under way, what was sent last, and when to send it
//! again. Must never know ICE or read a clock. Read `step.rs` next for the computing, then `record_limits.rs` for what OpenSSL
//! may see.
//!
//! Retransmission follows the time that we are told: a flight without an answer is sent again as it was. If the first copy had
//! arrived, the peer's replay check absorbs the second; if the answer was lost, the peer has a timer of its own. OpenSSL's timer
//! runs on its own clock, and counts only when a datagram comes.

use super::alerts::AlertKeys;
use super::established::EstablishedDtls;
use super::plan::{Plan, Progress};
use super::record_limits::RecordLimits;
use super::step::{Stage, Step, Stepped};
use crate::command::DtlsRole;
use crate::drop::Drop;
use crate::outbox::{Outbox, Path};
use crate::time::{Span, Time};

/// Above most round trips, far below a person's patience; doubles with each silence.
const FIRST_RETRANSMISSION: Span = Span::from_millis(400);
/// After a ClientHello of ours, which is small: ffmpeg answers a check some milliseconds before it listens for DTLS.
const FIRST_HELLO: Span = Span::from_millis(50);
const SLOWEST_RETRANSMISSION: Span = Span::from_millis(3_200);

pub(super) struct Handshake {
    role: DtlsRole,
    /// `None` while a step is under way.
    stage: Option<Box<Stage>>,
    /// What the next step takes in: a datagram and its path, or nothing for a ClientHello of ours.
    due: Option<(Path, Option<Vec<u8>>)>,
    limits: RecordLimits,
    received: bool,
    /// What we sent last and may have to send again.
    flight: Vec<Vec<u8>>,
    retransmit_at: Option<Time>,
    pause: Span,
    last_flight_at: Time,
}

impl Handshake {
    pub fn new(plan: Plan) -> Handshake {
        Handshake {
            role: plan.role,
            stage: Some(Box::new(Stage::Planned(plan))),
            due: None,
            limits: RecordLimits::default(),
            received: false,
            flight: Vec::new(),
            retransmit_at: None,
            pause: FIRST_RETRANSMISSION,
            last_flight_at: Time::default(),
        }
    }

    /// Begins a handshake in the client role, with a ClientHello. To be called once.
    pub fn start(&mut self, path: Path) {
        self.due = Some((path, None));
    }

    /// Passes this datagram to the next step. A drop while another step is due or under way.
    pub fn handle_datagram(&mut self, path: Path, datagram: &[u8]) -> Result<(), Drop> {
        if self.is_busy() {
            return Err(Drop::DtlsUnexpected);
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
        Some(Step { transport, path, stage, datagram })
    }

    /// Takes a step's outcome and sends its flight, which is saved for retransmission. A server's last flight stays saved, since
    /// nothing tells whether it arrived.
    pub fn finish(&mut self, now: Time, stepped: Stepped, outbox: &mut Outbox) -> Progress {
        self.stage = stepped.stage;
        for datagram in &stepped.datagrams {
            // A datagram that does not fit the outbox counts as lost on the way.
            outbox.push(stepped.path, datagram);
        }
        if !stepped.datagrams.is_empty() {
            self.flight = stepped.datagrams;
            self.last_flight_at = now;
            self.pause = if self.received { FIRST_RETRANSMISSION } else { FIRST_HELLO };
            self.retransmit_at = Some(now + self.pause);
        }
        if let Progress::Established(_) = stepped.progress {
            self.retransmit_at = None;
            if self.role == DtlsRole::Client {
                self.flight.clear();
            }
        }
        stepped.progress
    }

    pub fn handle_deadline(&mut self, now: Time, path: Path, outbox: &mut Outbox) {
        if self.retransmit_at.is_none_or(|at| now < at) {
            return;
        }
        for datagram in &self.flight {
            outbox.push(path, datagram);
        }
        self.last_flight_at = now;
        self.pause = Span((self.pause.0 * 2).min(SLOWEST_RETRANSMISSION.0));
        self.retransmit_at = Some(now + self.pause);
    }

    pub fn next_deadline(&self) -> Option<Time> {
        self.retransmit_at
    }

    /// True once a record of the peer has come.
    pub fn has_received(&self) -> bool {
        self.received
    }

    /// What remains of the handshake once there are keys.
    pub fn established(&self, alerts: Option<AlertKeys>) -> EstablishedDtls {
        EstablishedDtls::new(&self.flight, alerts, self.last_flight_at)
    }
}
