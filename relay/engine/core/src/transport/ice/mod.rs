//! The ICE-lite agent of one transport: answers checks, holds the addresses they came from, asks these back, selects the one
//! that media goes to and says when consent has run out. Must never know DTLS or SRTP. Read `asking.rs` next, then `consent.rs`.
//!
//! A check proves nothing about where it came from: whoever recorded it can send it again from anywhere, and whoever knows the
//! credentials can forge its source. So each new address is asked back, and media goes only to one that has answered.
//!
//! ```text
//!              authentic check        our request answered         nominated            silent for `consent_timeout`
//!  (unknown) ──────────────────► known ──────────────────► proven ───────────► selected ─────────────► forgotten
//!                 3 bytes for 1 ┘  └ 2 s ─► forgotten, unless there is nothing to lose
//! ```
//!
//! The selected path moves, once the other one has answered a request that is younger than the check, when
//! - a check with USE-CANDIDATE comes in on another path: the client nominates, or has a new address (NAT rebinding);
//! - the selected path has not answered for a while, or its TCP connection has ended, and a check comes in on another one;
//! - consent for the selected path has run out and another path's has not.
//!
//! A client that nominates several paths at once (aggressive nomination) would make the selection swing. So a path that was just
//! left is selected again only when its priority is higher, and the swing ends on the best path (RFC 8445 section 8.1.1).

mod address;
mod asking;
mod consent;
pub(super) mod credentials;
pub mod proof;

use std::collections::VecDeque;

use millrace_arena::prefetch;

use self::address::Address;
use self::credentials::Credentials;
use self::proof::Asker;
use super::TransportEvent;
use super::exit::Exit;
use super::lasting::Habit;
use super::stun::{self, Integrity, Message};
use super::stun_writer::Writer;
use crate::drop::Drop;
use crate::outbox::{Outbox, Path};
use crate::time::{Span, Time};

/// Longer than between two answers on a path that works (`Proof::pause` and its repeats), so a client that still checks another
/// path after this has moved there.
const SELECTED_SILENT: Span = Span::from_secs(8);
/// A path that is nominated again this soon after it was left is aggressive nomination, not a change of address: browsers repeat
/// a nomination at most every 2.5 s.
const SWING: Span = Span::from_secs(2);
/// An answer that is no older than this speaks for a nomination that comes now.
const FRESH: Span = Span::from_secs(1);
/// With the shortest ufrags and passwords (RFC 8445 section 5.3), without PRIORITY: 20 + 16 + 24 + 8 bytes.
const SHORTEST_CHECK: usize = 68;
/// Success with an IPv6 address: 20 + 24 + 24 + 8 bytes; 420 with four attributes is smaller.
const LARGEST_ANSWER: usize = 96;
/// Checks whose transactions are remembered, so that a silent client is not followed by a replay of one of them.
const REMEMBERED: usize = 8;
/// RFC 8445 section 7.3.1.1: the error code of a role conflict.
const ROLE_CONFLICT: u16 = 487;
/// RFC 8489 section 6.3.1.
const UNKNOWN_ATTRIBUTE: u16 = 420;

pub(super) struct Ice {
    current: Credentials,
    /// The credentials of a restart, until a check with them succeeds.
    next: Option<Credentials>,
    /// `None` for a client, which asks nobody.
    asker: Option<Asker>,
    addresses: Vec<Address>,
    selected: Option<Path>,
    max_addresses: usize,
    saw_bad_integrity: bool,
    /// Since the keys are there: from then on the selected path is asked for its consent.
    connected_at: Option<Time>,
    /// When a check came last, from wherever.
    checked_at: Option<Time>,
    /// When the selected path is asked next.
    ask_at: Option<Time>,
    habit: Habit,
    /// Something authentic came from the selected path since consent was looked at last.
    heard: bool,
    /// Where the newest media of a silent client comes from, since when, and that nothing came from the selected path since then.
    follows: Option<(Path, Time)>,
    /// The transactions of the last checks, of each its last eight bytes.
    transactions: [u64; REMEMBERED],
    next_transaction: usize,
}

impl Ice {
    /// At least two addresses, so that a client can move.
    pub fn new(current: Credentials, next: Option<Credentials>, max_addresses: usize) -> Ice {
        Ice {
            current,
            next,
            asker: None,
            addresses: Vec::new(),
            selected: None,
            max_addresses: max_addresses.max(2),
            saw_bad_integrity: false,
            connected_at: None,
            checked_at: None,
            ask_at: None,
            habit: Habit::Unknown,
            heard: false,
            follows: None,
            transactions: [0; REMEMBERED],
            next_transaction: 0,
        }
    }

    pub fn ask_with(&mut self, asker: Asker) {
        self.asker = Some(asker);
    }

    /// The credentials in use go on working until a check with the new ones succeeds; a second restart replaces one
    /// that was never taken up.
    pub fn restart(&mut self, next: Credentials, events: &mut VecDeque<TransportEvent>) {
        if let Some(unused) = self.next.replace(next) {
            events.push_back(TransportEvent::UfragForgotten(unused.ufrag));
        }
    }

    pub fn credentials(&self) -> (&Credentials, Option<&Credentials>) {
        (&self.current, self.next.as_ref())
    }

    pub fn credentials_mut(&mut self) -> (&mut Credentials, Option<&mut Credentials>) {
        (&mut self.current, self.next.as_mut())
    }

    pub fn habit(&self) -> Habit {
        self.habit
    }

    pub fn set_habit(&mut self, habit: Habit) {
        self.habit = habit;
    }

    /// Takes one STUN message: answers a check, or takes note of an answer.
    pub fn handle(
        &mut self,
        now: Time,
        path: Path,
        bytes: &[u8],
        outbox: &mut Outbox,
        events: &mut VecDeque<TransportEvent>,
    ) -> Result<(), Drop> {
        let message = Message::parse(bytes)?;
        if message.is_binding_request() {
            return self.handle_check(now, path, &message, outbox, events);
        }
        if message.is_answer() {
            return self.handle_answer(now, path, &message, events);
        }
        // RFC 8445 section 11: a keepalive, which proves nothing.
        if message.is_binding_indication() && self.is_known(path) { Ok(()) } else { Err(Drop::StunMalformed) }
    }

    fn handle_check(
        &mut self,
        now: Time,
        path: Path,
        message: &Message<'_>,
        outbox: &mut Outbox,
        events: &mut VecDeque<TransportEvent>,
    ) -> Result<(), Drop> {
        let restarts = self.authenticate(message)?;
        let refusal = if !message.unknown_attributes().is_empty() {
            Some(UNKNOWN_ATTRIBUTE)
        } else if message.claims_controlled() {
            // A full agent controls a lite one, always (RFC 8445 section 6.1.1).
            Some(ROLE_CONFLICT)
        } else {
            None
        };
        if refusal.is_none() {
            if restarts {
                self.apply_restart(events);
            }
            self.note_check(now, path, message, events);
        }
        let credentials = if refusal.is_some() && restarts { self.next.as_ref() } else { None };
        let key = &credentials.unwrap_or(&self.current).key;
        let answered = answer(message, key, path, refusal, outbox);
        if let Some(len) = answered.filter(|_| refusal.is_none()) {
            self.note_sent(path, len);
        }
        if refusal.is_none() {
            self.follow_check(now, path, message.use_candidate(), outbox, events);
        }
        // An authentic check is longer than a third of any answer to it.
        if answered.is_some() { Ok(()) } else { Err(Drop::OutboxFull) }
    }

    /// True when the message was made with the credentials of a restart, false when with those in use.
    fn authenticate(&mut self, message: &Message<'_>) -> Result<bool, Drop> {
        let username = message.username().ok_or(Drop::StunUnknownUfrag)?;
        let next = self.next.as_ref().filter(|next| next.are_named(username));
        if next.is_none() && !self.current.are_named(username) {
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
            // What was asked under the old password is not answered any more.
            self.addresses.iter_mut().for_each(|address| address.proof = None);
        }
    }

    fn note_address(&mut self, now: Time, path: Path, events: &mut VecDeque<TransportEvent>) {
        if self.find(path).is_none() {
            self.make_room(events);
            self.addresses.push(Address::new(path, now));
            events.push_back(TransportEvent::AddressChecked(path));
        }
    }

    /// True when the client is connected, and has been for this long without a check.
    pub fn sends_no_checks(&self, now: Time, span: Span) -> bool {
        self.connected_at.is_some_and(|at| now >= at.max(self.checked_at.unwrap_or(at)) + span)
    }

    fn note_check(&mut self, now: Time, path: Path, message: &Message<'_>, events: &mut VecDeque<TransportEvent>) {
        self.note_address(now, path, events);
        self.checked_at = Some(now);
        if let Some(address) = self.find_mut(path) {
            address.checked_at = now;
            address.is_closed = false;
            address.priority = message.priority().unwrap_or(0);
            address.note_received(message.len());
        }
        let [.., a, b, c, d, e, f, g, h] = *message.transaction();
        let transaction = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        if !self.transactions.contains(&transaction) {
            self.transactions[self.next_transaction] = transaction;
            self.next_transaction = (self.next_transaction + 1) % REMEMBERED;
            if let Some(address) = self.find_mut(path) {
                address.has_fresh_check = true;
            }
        }
    }

    /// Selects the path or asks it back, as far as this check is a reason to.
    fn follow_check(
        &mut self,
        now: Time,
        path: Path,
        nominated: bool,
        outbox: &mut Outbox,
        events: &mut VecDeque<TransportEvent>,
    ) {
        let Some(address) = self.find(path).filter(|_| self.selected != Some(path)) else { return };
        let ought_to = self.ought_to_move(now, path, nominated);
        if !address.is_proven() {
            return self.ask(now, path, ought_to && nominated, outbox, events);
        }
        if ought_to && (self.selected.is_none() || address.has_consent(now, FRESH)) {
            self.select(now, path);
        } else if ought_to {
            self.ask(now, path, nominated, outbox, events);
        }
    }

    fn ought_to_move(&self, now: Time, path: Path, nominated: bool) -> bool {
        let Some(selected) = self.selected.and_then(|path| self.find(path)) else {
            // Of a client that never nominates, the path that its handshake came by is as good as any.
            return nominated || self.connected_at.is_some();
        };
        if selected.is_closed || !selected.has_consent(now, SELECTED_SILENT) {
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
        self.heard = false;
    }

    /// Evicts the address whose last check is the oldest, an unproven one first, never the selected one.
    fn make_room(&mut self, events: &mut VecDeque<TransportEvent>) {
        if self.addresses.len() < self.max_addresses {
            return;
        }
        let others = self.addresses.iter().enumerate().filter(|(_, address)| Some(address.path) != self.selected);
        if let Some((oldest, _)) = others.min_by_key(|(_, address)| (address.is_proven(), address.checked_at)) {
            events.push_back(TransportEvent::TooManyAddresses);
            events.push_back(TransportEvent::AddressForgotten(self.addresses.swap_remove(oldest).path));
        }
    }

    /// The selected one keeps its consent, so that the client has time to connect again.
    pub fn handle_connection_closed(&mut self, path: Path, events: &mut VecDeque<TransportEvent>) {
        let Some(at) = self.addresses.iter().position(|address| address.path == path) else { return };
        if self.selected == Some(path) {
            self.addresses[at].is_closed = true;
        } else {
            self.addresses.swap_remove(at);
            events.push_back(TransportEvent::AddressForgotten(path));
        }
    }

    pub fn forget_all(&mut self, events: &mut VecDeque<TransportEvent>) {
        self.selected = None;
        self.ask_at = None;
        events.extend(self.addresses.drain(..).map(|address| TransportEvent::AddressForgotten(address.path)));
    }

    /// Adds an address that a predecessor had proven, with its consent as of now.
    pub fn adopt(&mut self, now: Time, path: Path, selected: bool, events: &mut VecDeque<TransportEvent>) {
        if self.is_known(path) || self.addresses.len() >= self.max_addresses {
            return;
        }
        let mut address = Address::new(path, now);
        address.consent_at = Some(now);
        self.addresses.push(address);
        events.push_back(TransportEvent::AddressChecked(path));
        events.push_back(TransportEvent::AddressProven(path));
        if selected {
            self.select(now, path);
        }
    }

    pub fn exit<'a>(&self, path: Path, outbox: &'a mut Outbox) -> Exit<'a> {
        Exit::new(outbox, path, self.find(path).map_or(0, Address::allowance))
    }

    pub fn note_sent(&mut self, path: Path, bytes: usize) {
        if let Some(address) = self.find_mut(path) {
            address.note_sent(bytes);
        }
    }

    pub fn note_received(&mut self, path: Path, bytes: usize) {
        if let Some(address) = self.find_mut(path) {
            address.note_received(bytes);
        }
    }

    /// Something that authenticates and is new came from the selected path.
    #[inline]
    pub fn note_heard(&mut self) {
        self.heard = true;
    }

    /// An authentic check came from there, or it was proven.
    pub fn is_known(&self, path: Path) -> bool {
        self.selected == Some(path) || self.find(path).is_some()
    }

    pub fn is_proven(&self, path: Path) -> bool {
        self.selected == Some(path) || self.find(path).is_some_and(Address::is_proven)
    }

    pub fn has_proven(&self) -> bool {
        self.addresses.iter().any(Address::is_proven)
    }

    /// The selected pair will be asked for soon.
    pub fn prefetch(&self) {
        prefetch(&self.selected);
    }

    pub fn selected(&self) -> Option<Path> {
        self.selected
    }

    /// The selected one, the others that are proven, and then the rest.
    pub fn paths(&self) -> impl Iterator<Item = Path> {
        let others = |proven: bool| {
            let others = self.addresses.iter().filter(move |address| address.is_proven() == proven);
            others.map(|address| address.path).filter(|path| Some(*path) != self.selected)
        };
        self.selected.into_iter().chain(others(true)).chain(others(false))
    }

    pub fn count_unproven(&self) -> usize {
        self.addresses.iter().filter(|address| !address.is_proven()).count()
    }

    pub fn saw_bad_integrity(&self) -> bool {
        self.saw_bad_integrity
    }

    fn find(&self, path: Path) -> Option<&Address> {
        self.addresses.iter().find(|address| address.path == path)
    }

    fn find_mut(&mut self, path: Path) -> Option<&mut Address> {
        self.addresses.iter_mut().find(|address| address.path == path)
    }
}

/// Writes the answer to an authenticated request and gives its length; `None` when the outbox is full.
fn answer(
    message: &Message<'_>,
    key: &Integrity,
    path: Path,
    refusal: Option<u16>,
    outbox: &mut Outbox,
) -> Option<usize> {
    let buffer = outbox.reserve(LARGEST_ANSWER)?;
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
    let len = writer.finish(key)?;
    outbox.commit(path, len);
    Some(len)
}
