//! The ICE-lite agent of one transport: answers checks, holds the addresses that checks have proven, selects the one that
//! media goes to, and notices when consent has run out. Must never know DTLS or SRTP. Read `../mod.rs` next.
//!
//! The selected path moves when
//! - a check with USE-CANDIDATE comes in on another path: the client nominates, or has a new address (NAT rebinding);
//! - the selected path has had no check for a while and a check comes in on another one;
//! - consent for the selected path has run out and another path's has not.
//!
//! A client that nominates several paths at once (aggressive nomination) would make the selection swing. So a path that was just
//! left is selected again only when its priority is higher, and the swing ends on the best path (RFC 8445 section 8.1.1).

use std::collections::VecDeque;

use millrace_arena::prefetch;

use super::TransportEvent;
use super::stun::{self, Integrity, Message};
use super::stun_writer::Writer;
use crate::command::{OpenTransport, RestartIce};
use crate::drop::Drop;
use crate::outbox::{Outbox, Path};
use crate::time::{Span, Time};

/// Longer than a client waits between two consent checks on a path that it uses (RFC 7675 section 5.1: 4 to 6 s). A client that
/// checks another path after this long has moved there.
const SELECTED_SILENT: Span = Span::from_secs(8);
/// A path that is nominated again this soon after it was left is aggressive nomination, not a change of address: browsers repeat
/// a nomination at most every 2.5 s.
const SWING: Span = Span::from_secs(2);
/// Success with an IPv6 address: 20 + 24 + 24 + 8 bytes; 420 with four attributes is smaller.
const LARGEST_ANSWER: usize = 96;
/// RFC 8445 section 7.3.1.1: the error code of a role conflict.
const ROLE_CONFLICT: u16 = 487;
/// RFC 8489 section 6.3.1.
const UNKNOWN_ATTRIBUTE: u16 = 420;

/// The local side's short-term credentials; the remote side's are never needed, since a lite agent sends no checks.
pub(super) struct Credentials {
    pub ufrag: String,
    pub pwd: String,
    key: Integrity,
}

impl Credentials {
    pub fn new(ufrag: &str, pwd: &str) -> Credentials {
        Credentials { ufrag: ufrag.to_owned(), pwd: pwd.to_owned(), key: Integrity::new(pwd.as_bytes()) }
    }
}

/// A remote address that an authenticated check has proven.
struct Address {
    path: Path,
    priority: u32,
    checked_at: Time,
    /// When it was deselected; `None` while selected, or if it never was.
    left_at: Option<Time>,
}

pub(super) struct Ice {
    current: Credentials,
    /// The credentials of a restart, until a check with them succeeds.
    next: Option<Credentials>,
    addresses: Vec<Address>,
    selected: Option<Path>,
    max_addresses: usize,
    saw_bad_integrity: bool,
}

impl Ice {
    pub fn new(command: &OpenTransport, max_addresses: usize) -> Ice {
        Ice::with_credentials(Credentials::new(&command.local_ufrag, &command.local_pwd), None, max_addresses)
    }

    /// An agent without addresses. It holds at least two, so that a client can change its address.
    pub fn with_credentials(current: Credentials, next: Option<Credentials>, max_addresses: usize) -> Ice {
        let max_addresses = max_addresses.max(2);
        Ice { current, next, addresses: Vec::new(), selected: None, max_addresses, saw_bad_integrity: false }
    }

    /// Adds new credentials. Those in use stay valid until a check with the new ones succeeds; a second restart replaces a first that
    /// no check has used.
    pub fn restart(&mut self, command: &RestartIce, events: &mut VecDeque<TransportEvent>) {
        let next = Credentials::new(&command.local_ufrag, &command.local_pwd);
        if let Some(unused) = self.next.replace(next) {
            events.push_back(TransportEvent::UfragForgotten(unused.ufrag));
        }
    }

    pub fn credentials(&self) -> (&Credentials, Option<&Credentials>) {
        (&self.current, self.next.as_ref())
    }

    /// Answers one STUN message; `Ok(true)` when it was a check that succeeded.
    pub fn handle(
        &mut self,
        now: Time,
        path: Path,
        bytes: &[u8],
        outbox: &mut Outbox,
        events: &mut VecDeque<TransportEvent>,
    ) -> Result<bool, Drop> {
        let message = Message::parse(bytes)?;
        if message.is_binding_indication() && self.is_proven(path) {
            // RFC 8445 section 11: a keepalive, which proves nothing.
            return Ok(false);
        }
        if !message.is_binding_request() {
            return Err(Drop::StunMalformed);
        }
        let restarts = self.authenticate(&message)?;
        let credentials = if restarts { self.next.as_ref().unwrap_or(&self.current) } else { &self.current };
        let refusal = if !message.unknown_attributes().is_empty() {
            Some(UNKNOWN_ATTRIBUTE)
        } else if message.claims_controlled() {
            // A full agent controls a lite one, always (RFC 8445 section 6.1.1).
            Some(ROLE_CONFLICT)
        } else {
            None
        };
        let answered = answer(&message, &credentials.key, path, refusal, outbox);
        if refusal.is_none() {
            if restarts {
                self.apply_restart(events);
            }
            self.note_check(now, path, &message, events);
        }
        if answered { Ok(refusal.is_none()) } else { Err(Drop::OutboxFull) }
    }

    /// True when the message was made with the credentials of a restart, false when with those in use.
    fn authenticate(&mut self, message: &Message<'_>) -> Result<bool, Drop> {
        let ufrag = message.server_ufrag().ok_or(Drop::StunUnknownUfrag)?;
        let next = self.next.as_ref().filter(|next| next.ufrag == ufrag);
        if next.is_none() && self.current.ufrag != ufrag {
            return Err(Drop::StunUnknownUfrag);
        }
        if message.is_authentic(&next.unwrap_or(&self.current).key) {
            return Ok(next.is_some());
        }
        self.saw_bad_integrity = true;
        Err(Drop::StunIntegrity)
    }

    fn apply_restart(&mut self, events: &mut VecDeque<TransportEvent>) {
        if let Some(next) = self.next.take() {
            let old = std::mem::replace(&mut self.current, next);
            events.push_back(TransportEvent::UfragForgotten(old.ufrag));
        }
    }

    fn note_check(&mut self, now: Time, path: Path, message: &Message<'_>, events: &mut VecDeque<TransportEvent>) {
        let priority = message.priority().unwrap_or(0);
        match self.addresses.iter_mut().find(|address| address.path == path) {
            Some(address) => {
                address.checked_at = now;
                address.priority = priority;
            }
            None => {
                self.make_room(events);
                self.addresses.push(Address { path, priority, checked_at: now, left_at: None });
                events.push_back(TransportEvent::AddressProven(path));
            }
        }
        if self.selected != Some(path) && self.ought_to_move(now, path, message.use_candidate()) {
            self.select(now, path);
        }
    }

    fn ought_to_move(&self, now: Time, path: Path, nominated: bool) -> bool {
        let Some(selected) = self.selected.and_then(|path| self.find(path)) else { return nominated };
        if now.since(selected.checked_at) >= SELECTED_SILENT {
            return true;
        }
        let Some(candidate) = self.find(path) else { return false };
        let swings = candidate.left_at.is_some_and(|left_at| now.since(left_at) < SWING);
        nominated && (!swings || candidate.priority > selected.priority)
    }

    fn select(&mut self, now: Time, path: Path) {
        if let Some(old) = self.addresses.iter_mut().find(|address| Some(address.path) == self.selected) {
            old.left_at = Some(now);
        }
        self.selected = Some(path);
    }

    /// Evicts the address whose last check is the oldest, never the selected one.
    fn make_room(&mut self, events: &mut VecDeque<TransportEvent>) {
        if self.addresses.len() < self.max_addresses {
            return;
        }
        let others = self.addresses.iter().enumerate().filter(|(_, address)| Some(address.path) != self.selected);
        if let Some((oldest, _)) = others.min_by_key(|(_, address)| address.checked_at) {
            events.push_back(TransportEvent::TooManyAddresses);
            events.push_back(TransportEvent::AddressForgotten(self.addresses.swap_remove(oldest).path));
        }
    }

    /// Selects the path of the handshake for a client that has nominated none.
    pub fn select_unless_nominated(&mut self, now: Time, path: Path) {
        if self.selected.is_none() && self.is_proven(path) {
            self.select(now, path);
        }
    }

    /// Forgets addresses without consent (RFC 7675 section 5.1) and moves on if the selected one is among them;
    /// false when none is left.
    pub fn check_consent(&mut self, now: Time, timeout: Span, events: &mut VecDeque<TransportEvent>) -> bool {
        self.addresses.retain(|address| {
            let fresh = now < address.checked_at + timeout;
            if !fresh {
                events.push_back(TransportEvent::AddressForgotten(address.path));
            }
            fresh
        });
        if self.selected.is_some_and(|path| self.find(path).is_none()) {
            self.selected = None;
            if let Some(next) = self.addresses.iter().max_by_key(|address| address.checked_at).map(|found| found.path) {
                self.select(now, next);
            }
        }
        !self.addresses.is_empty()
    }

    /// When `check_consent` has something to do next; `None` before the first check.
    pub fn consent_deadline(&self, timeout: Span) -> Option<Time> {
        self.addresses.iter().map(|address| address.checked_at + timeout).min()
    }

    pub fn forget_all(&mut self, events: &mut VecDeque<TransportEvent>) {
        self.selected = None;
        events.extend(self.addresses.drain(..).map(|address| TransportEvent::AddressForgotten(address.path)));
    }

    /// Adds an address that a predecessor had proven, with its consent as of now.
    pub fn adopt(&mut self, now: Time, path: Path, selected: bool, events: &mut VecDeque<TransportEvent>) {
        if self.is_proven(path) || self.addresses.len() >= self.max_addresses {
            return;
        }
        self.addresses.push(Address { path, priority: 0, checked_at: now, left_at: None });
        events.push_back(TransportEvent::AddressProven(path));
        if selected {
            self.select(now, path);
        }
    }

    pub fn is_proven(&self, path: Path) -> bool {
        self.selected == Some(path) || self.find(path).is_some()
    }

    /// Fetches the selected pair.
    pub fn prefetch(&self) {
        prefetch(&self.selected);
    }

    pub fn selected(&self) -> Option<Path> {
        self.selected
    }

    pub fn paths(&self) -> impl Iterator<Item = Path> {
        self.addresses.iter().map(|address| address.path)
    }

    pub fn saw_bad_integrity(&self) -> bool {
        self.saw_bad_integrity
    }

    fn find(&self, path: Path) -> Option<&Address> {
        self.addresses.iter().find(|address| address.path == path)
    }
}

/// Writes the answer to an authenticated request; false when the outbox is full.
fn answer(message: &Message<'_>, key: &Integrity, path: Path, refusal: Option<u16>, outbox: &mut Outbox) -> bool {
    let Some(buffer) = outbox.reserve(LARGEST_ANSWER) else { return false };
    let writer = match refusal {
        None => Writer::new(buffer, stun::BINDING_SUCCESS, message.transaction()).xor_mapped_address(path.remote),
        Some(code) => Writer::new(buffer, stun::BINDING_ERROR, message.transaction()).error_code(code),
    };
    let writer = if refusal == Some(UNKNOWN_ATTRIBUTE) {
        let mut listed = [0; 16];
        let unknown = message.unknown_attributes();
        for (slot, kind) in listed.chunks_exact_mut(2).zip(unknown) {
            slot.copy_from_slice(&kind.to_be_bytes());
        }
        writer.attribute(stun::attribute::UNKNOWN_ATTRIBUTES, &listed[..unknown.len() * 2])
    } else {
        writer
    };
    let Some(len) = writer.finish(key) else { return false };
    outbox.commit(path, len);
    true
}
