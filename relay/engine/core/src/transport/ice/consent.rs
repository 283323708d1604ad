//! Consent of addresses (RFC 7675): who keeps it by what, and when the session has none left. Must never ask an address. Read
//! `asking.rs` next, which does.

use std::collections::VecDeque;

use super::Ice;
use super::address::Address;
use crate::outbox::Path;
use crate::time::{Span, Time};
use crate::transport::TransportEvent;
use crate::transport::lasting::Habit;

/// How long nothing may have come from a silent client's address before another one counts as its new one.
const OLD_SILENT: Span = Span::from_millis(1_500);

impl Ice {
    /// Forgets addresses without consent (RFC 7675 section 5.1) and moves on if the selected one is among them;
    /// false when none is left that media could go to.
    pub fn check_consent(&mut self, now: Time, timeout: Span, events: &mut VecDeque<TransportEvent>) -> bool {
        self.take_heard(now);
        self.addresses.retain(|address| {
            let is_fresh = match address.consent_at {
                Some(_) => address.has_consent(now, timeout),
                None => now < address.checked_at + timeout,
            };
            if !is_fresh {
                events.push_back(TransportEvent::AddressForgotten(address.path));
            }
            is_fresh
        });
        if self.selected.is_some_and(|path| self.find(path).is_none()) {
            self.selected = None;
            let proven = self.addresses.iter().filter(|address| address.is_proven());
            if let Some(next) = proven.max_by_key(|address| address.consent_at).map(|found| found.path) {
                self.select(now, next);
                self.ask_at = Some(now);
            }
        }
        // Until the first proof there is nothing to send, and replays could keep that up for ever.
        let may_come = self.connected_at.is_none_or(|at| now < at + timeout);
        self.selected.is_some() || (may_come && !self.addresses.is_empty())
    }

    /// Who answers no requests is alive while SRTP comes from there that authenticates and was not seen before. A check could
    /// be a replay.
    pub(super) fn take_heard(&mut self, now: Time) {
        if std::mem::take(&mut self.heard)
            && self.habit != Habit::Answers
            && let Some(selected) = self.selected
            && let Some(address) = self.find_mut(selected)
        {
            address.consent_at = Some(now);
        }
    }

    /// When `handle_deadline` or `check_consent` has something to do next; `None` before the first check.
    pub fn next_deadline(&self, timeout: Span) -> Option<Time> {
        let expiry = |address: &Address| address.consent_at.unwrap_or(address.checked_at) + timeout;
        let consent = self.addresses.iter().map(expiry).min();
        let proof = self.addresses.iter().filter_map(|address| Some(address.proof.as_ref()?.next_at())).min();
        [consent, proof, self.ask_at].into_iter().flatten().min()
    }

    /// An RTP packet newer than all before has authenticated, from another known address than the selected one. A client that
    /// answers no requests only sends (ffmpeg), so that RTCP alone is at stake: it is followed once its old address has been silent for a
    /// while. Back at the old address it is followed at once.
    pub(in crate::transport) fn note_media_from(
        &mut self,
        now: Time,
        path: Path,
        events: &mut VecDeque<TransportEvent>,
    ) {
        let is_candidate = self.find(path).is_some_and(|address| address.has_fresh_check || address.is_proven());
        if self.habit != Habit::Silent || !is_candidate {
            return;
        }
        let came_back = self.find(path).is_some_and(|address| address.left_at.is_some());
        match self.follows {
            Some((from, since)) if from == path && !self.heard => {
                if now.since(since) < OLD_SILENT && !came_back {
                    return;
                }
            }
            _ if came_back => {}
            _ => {
                self.take_heard(now);
                self.follows = Some((path, now));
                return;
            }
        }
        self.follows = None;
        self.vouch_for(now, path, events);
        self.select(now, path);
    }
}
