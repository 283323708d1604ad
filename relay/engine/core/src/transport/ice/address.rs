//! A remote address of one transport: what came from there, whether it was proven, and the proof under way. Owns the bound
//! on what it may get before; must never choose among addresses. Read `mod.rs` next, which does.

use super::proof::Proof;
use crate::outbox::Path;
use crate::time::{Span, Time};

/// RFC 9000 section 8.1.
const AMPLIFICATION: usize = 3;

pub(super) struct Address {
    pub path: Path,
    pub priority: u32,
    /// When the last authentic check came, which may have been a replay.
    pub checked_at: Time,
    /// When it last answered a request of ours, or did what proves as much; `None` before.
    pub consent_at: Option<Time>,
    /// A check came from there whose transaction was not seen shortly before.
    pub has_fresh_check: bool,
    /// It was a TCP connection, which has ended.
    pub is_closed: bool,
    /// When it was selected last and no longer is.
    pub left_at: Option<Time>,
    pub proof: Option<Proof>,
    /// Bytes, until it is proven.
    received: usize,
    sent: usize,
}

impl Address {
    pub fn new(path: Path, now: Time) -> Address {
        Address {
            path,
            priority: 0,
            checked_at: now,
            consent_at: None,
            has_fresh_check: false,
            is_closed: false,
            left_at: None,
            proof: None,
            received: 0,
            sent: 0,
        }
    }

    pub fn is_proven(&self) -> bool {
        self.consent_at.is_some()
    }

    /// Proven within this span.
    pub fn has_consent(&self, now: Time, span: Span) -> bool {
        self.consent_at.is_some_and(|at| now < at + span)
    }

    /// Bytes that it may still get.
    pub fn allowance(&self) -> usize {
        if self.is_proven() { usize::MAX } else { (self.received * AMPLIFICATION).saturating_sub(self.sent) }
    }

    pub fn note_received(&mut self, bytes: usize) {
        self.received = self.received.saturating_add(bytes).min(usize::MAX / AMPLIFICATION);
    }

    pub fn note_sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes);
    }
}
