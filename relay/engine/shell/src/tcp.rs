//! Clients that reach us over TCP (RFC 6544, passive side): their connections, and the listeners that all workers share. Owns every
//! bound on them; must never look into a packet: whose a connection is says the engine. Read `tcp/connection.rs` next, then
//! `tcp/passing.rs`.
//!
//! ```text
//! accept ─► stranger ─► a valid check of a client here ─► known ─► its session ends ─► stranger
//!              │ 5 s, or too many of them                   │ the session is in another worker
//!              ▼                                            ▼
//!            closed                                       passed
//! ```

mod connection;
mod passing;
mod strangers;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use millrace_core::drop::Drop;
use millrace_core::engine::Engine;
use millrace_core::outbox::{Datagram, Path, SocketIndex};
use millrace_core::stats::Counter;
use millrace_core::time::{Span, Time};
use millrace_core::transport::framing::{self, HEADER, MAX_PACKET};

use self::connection::{BATCH, Connection};
use self::passing::Passed;
use self::strangers::Strangers;
use crate::poll::Poll;
use crate::udp::{Sent, duplicate};

/// Tokens: of connections and listeners, each plus its number, and of the inbox.
pub const CONNECTION: u64 = 1 << 33;
pub const LISTENER: u64 = 1 << 34;
pub const INBOX: u64 = 1 << 35;

/// Bytes that are read of one connection in one round; of a stranger, those of some checks.
const READ: usize = 64 * 1024;
const STRANGERS_READ: usize = 4 * 1024;
/// Connections that one round accepts on one listener, and takes of those that were passed here.
const ACCEPTS_A_ROUND: usize = 32;
const PASSED_A_ROUND: usize = 64;
/// Until the first valid check. A client's first one is in its first packet.
const STRANGER_TIMEOUT: Span = Span::from_secs(5);
/// Between two looks at all connections.
const SWEEP: Span = Span::from_secs(1);
/// A connection that something is to be sent to may still be on its way from another worker. After this it is none.
const MISSING_TIMEOUT: Span = Span::from_millis(200);
/// A connection goes through two workers at the most, unless sessions move meanwhile.
const MAX_HOPS: u8 = 8;

/// What the master has made for it.
pub struct Sockets {
    listeners: Vec<OwnedFd>,
    /// Where others pass us connections, and where each slot is passed some.
    inbox: OwnedFd,
    doors: Vec<OwnedFd>,
    max_connections: usize,
}

impl Sockets {
    /// Takes descriptors of its own. The listeners are in the order of their socket numbers.
    pub fn share(listeners: &[RawFd], inbox: RawFd, doors: &[RawFd], max_connections: usize) -> io::Result<Sockets> {
        let share = |fds: &[RawFd]| fds.iter().map(|fd| duplicate(*fd)).collect::<io::Result<Vec<OwnedFd>>>();
        Ok(Sockets { listeners: share(listeners)?, inbox: duplicate(inbox)?, doors: share(doors)?, max_connections })
    }

    pub fn listen(&self, poll: &Poll) -> io::Result<()> {
        poll.add(self.inbox.as_raw_fd(), INBOX)?;
        self.listeners.iter().enumerate().try_for_each(|(i, fd)| poll.add_shared(fd.as_raw_fd(), LISTENER + i as u64))
    }
}

pub struct Tcp {
    /// `None` without TCP.
    sockets: Option<Sockets>,
    /// By number; a vacant number is in `vacant`.
    connections: Vec<Option<Connection>>,
    vacant: Vec<usize>,
    number_by_path: HashMap<Path, usize>,
    strangers: Strangers,
    /// Connections that something has come of, and listeners, one bit each.
    readable: Vec<usize>,
    acceptable: u64,
    has_passed: bool,
    /// Listeners are left alone until the next sweep, as there was no descriptor.
    is_out_of_descriptors: bool,
    /// To where something was to be sent, without a connection; since when.
    missing: Vec<(Path, Time)>,
    sweep_at: Time,
    buffer: Box<[u8]>,
    message: Box<[u8; passing::LONGEST]>,
}

impl Tcp {
    pub fn new(sockets: Option<Sockets>) -> Tcp {
        let room = if sockets.is_some() { READ + HEADER + MAX_PACKET + 2 * STRANGERS_READ } else { 0 };
        Tcp {
            sockets,
            connections: Vec::new(),
            vacant: Vec::new(),
            number_by_path: HashMap::new(),
            strangers: Strangers::default(),
            readable: Vec::new(),
            acceptable: 0,
            has_passed: true,
            is_out_of_descriptors: false,
            missing: Vec::new(),
            sweep_at: Time(0),
            buffer: vec![0; room].into_boxed_slice(),
            message: Box::new([0; passing::LONGEST]),
        }
    }

    /// Notes what a token of ours stands for.
    pub fn note_ready(&mut self, token: u64) {
        match token {
            INBOX => self.has_passed = true,
            _ if token & LISTENER != 0 => self.acceptable |= 1 << (token - LISTENER).min(63),
            _ => self.readable.push((token - CONNECTION) as usize),
        }
    }

    /// Takes new connections, those that were passed here, and closes those whose time is over.
    pub fn take_connections(&mut self, now: Time, poll: &Poll, engine: &mut Engine) {
        if self.has_passed {
            self.receive_passed(now, poll, engine);
        }
        if self.acceptable != 0 {
            self.accept(now, poll, engine);
        }
        if !self.missing.is_empty() {
            self.give_up_missing(now, engine);
        }
        if now >= self.sweep_at && self.sockets.is_some() {
            self.sweep_at = now + SWEEP;
            self.sweep(now, poll, engine);
        }
    }

    /// The next connection that something has come of, to be read with `read`.
    pub fn next_readable(&mut self) -> Option<usize> {
        self.readable.pop()
    }

    /// Reads what has come of a connection, bounded, and gives each packet to the engine.
    pub fn read(&mut self, number: usize, now: Time, poll: &Poll, engine: &mut Engine) {
        let Some(connection) = self.connections.get_mut(number).and_then(Option::as_mut) else { return };
        if !connection.unsent.is_empty() && connection.finish_frame() {
            let _ = poll.watch(connection.as_raw_fd(), CONNECTION + number as u64, false);
        }
        let unread = connection.unread.len();
        self.buffer[..unread].copy_from_slice(&connection.unread);
        let room = if connection.stranger_since.is_some() { STRANGERS_READ } else { READ };
        match connection.read(&mut self.buffer[unread..unread + room]) {
            Ok(0) => self.close(number, poll, engine, Some(now)),
            Ok(count) => self.handle_bytes(number, unread + count, now, poll, engine),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
            Err(_) => self.close(number, poll, engine, Some(now)),
        }
    }

    /// Gives the engine each whole packet of the buffer's first `len` bytes, and keeps the rest.
    fn handle_bytes(&mut self, number: usize, len: usize, now: Time, poll: &Poll, engine: &mut Engine) {
        let Some(connection) = self.connections[number].as_mut() else { return };
        let path = connection.path;
        connection.unread.clear();
        let mut at = 0;
        loop {
            match framing::first_packet(&self.buffer[at..len]) {
                Ok(Some(packet)) => {
                    let next = at + packet.end;
                    engine.handle_datagram(now, path, &mut self.buffer[at + packet.start..next]);
                    while let Some(pass) = engine.take_pass() {
                        if pass.path == path {
                            // With the packet at hand, a check, which is not spoilt.
                            return self.pass_on(number, pass.slot, at..len, poll, engine);
                        }
                    }
                    at = next;
                }
                Ok(None) => break,
                Err(framing::TooLong) => {
                    engine.stats().count_drop(Drop::TcpFrameTooLong);
                    return self.close(number, poll, engine, Some(now));
                }
            }
        }
        let Some(connection) = self.connections[number].as_mut() else { return };
        connection.unread.extend_from_slice(&self.buffer[at..len]);
        if connection.stranger_since.is_some() && engine.is_clients(path) {
            connection.stranger_since = None;
            connection.hops = 0;
            self.strangers.remove(path.remote.ip());
        }
    }

    /// Sends packets to connections, whole or not at all.
    pub fn send(&mut self, datagrams: &[Datagram], bytes: &[u8], now: Time, poll: &Poll, sent: &mut Sent) {
        let mut rest = datagrams;
        while let Some(first) = rest.first() {
            let same = rest.iter().take(BATCH).take_while(|datagram| datagram.path == first.path).count();
            let (batch, others) = rest.split_at(same);
            rest = others;
            let number = self.number_by_path.get(&first.path).copied();
            let Some(connection) = number.and_then(|number| self.connections[number].as_mut()) else {
                sent.failed += same as u64;
                if !self.missing.iter().any(|(path, _)| *path == first.path) {
                    self.missing.push((first.path, now));
                }
                continue;
            };
            let was_whole = connection.unsent.is_empty();
            let written = connection.write(batch, bytes);
            sent.datagrams += written.packets as u64;
            sent.bytes += written.bytes as u64;
            sent.calls += written.calls as u64;
            sent.backlog += (same - written.packets) as u64;
            let is_whole = connection.unsent.is_empty();
            if is_whole != was_whole {
                let token = CONNECTION + number.unwrap_or_default() as u64;
                let _ = poll.watch(connection.as_raw_fd(), token, !is_whole);
            }
        }
    }

    /// Passes connections to the workers that have their sessions now.
    pub fn pass_moved(&mut self, now: Time, poll: &Poll, engine: &mut Engine) {
        while let Some(pass) = engine.take_pass() {
            if let Some(&number) = self.number_by_path.get(&pass.path)
                && let Some(connection) = self.connections[number].as_ref()
            {
                let unread = connection.unread.len();
                self.buffer[..unread].copy_from_slice(&connection.unread);
                self.pass_on(number, pass.slot, 0..unread, poll, engine);
            } else {
                engine.handle_connection_closed(now, pass.path);
            }
        }
    }

    /// Leaves all connections to a successor.
    pub fn leave_all(&mut self, slot: u8, poll: &Poll, engine: &mut Engine) {
        for number in 0..self.connections.len() {
            if let Some(connection) = self.connections[number].as_ref() {
                let unread = connection.unread.len();
                self.buffer[..unread].copy_from_slice(&connection.unread);
                self.pass_on(number, slot, 0..unread, poll, engine);
            }
        }
    }

    /// Passes a connection to another slot, with that part of the buffer. Without room there it is closed, and its client comes back.
    fn pass_on(&mut self, number: usize, slot: u8, unread: std::ops::Range<usize>, poll: &Poll, engine: &mut Engine) {
        let Some(connection) = self.connections[number].as_mut() else { return };
        connection.hops = connection.hops.saturating_add(1);
        let door = self.sockets.as_ref().and_then(|sockets| sockets.doors.get(usize::from(slot)));
        let passed = connection.hops <= MAX_HOPS
            && door.is_some_and(|door| passing::pass(door.as_raw_fd(), connection, &self.buffer[unread]).is_ok());
        engine.stats().add(if passed { Counter::TcpPassed } else { Counter::TcpRefused }, 1);
        self.close(number, poll, engine, None);
    }

    fn receive_passed(&mut self, now: Time, poll: &Poll, engine: &mut Engine) {
        for _ in 0..PASSED_A_ROUND {
            let Some(sockets) = &self.sockets else { break };
            let Some(passed) = passing::receive(sockets.inbox.as_raw_fd(), &mut self.message) else {
                self.has_passed = false;
                return;
            };
            self.admit_passed(passed, now, poll, engine);
        }
        self.has_passed &= self.sockets.is_some();
    }

    fn admit_passed(&mut self, passed: Passed, now: Time, poll: &Poll, engine: &mut Engine) {
        let Some(remote) = passing::remote_of(passed.fd.as_raw_fd()) else { return };
        let path = Path { socket: passed.listener, remote };
        let mut connection = Connection::new(passed.fd, path, now);
        connection.hops = passed.hops;
        connection.unsent = passed.unsent;
        let has_unsent = !connection.unsent.is_empty();
        // What its worker knew for a client's is none of a stranger's, though its session may not be here yet.
        if !passed.was_clients && !self.make_room(path, poll, engine) {
            return;
        }
        if !connection.is_sound() || passed.unread.len() > self.buffer.len() {
            return;
        }
        let Some(number) = self.add(connection, now, poll, engine) else { return };
        if has_unsent && let Some(connection) = self.connections[number].as_ref() {
            let _ = poll.watch(connection.as_raw_fd(), CONNECTION + number as u64, true);
        }
        let len = passed.unread.len();
        self.buffer[..len].copy_from_slice(&passed.unread);
        self.handle_bytes(number, len, now, poll, engine);
    }

    fn accept(&mut self, now: Time, poll: &Poll, engine: &mut Engine) {
        let count = self.sockets.as_ref().map_or(0, |sockets| sockets.listeners.len());
        for i in 0..count {
            if self.acceptable & 1 << i == 0 {
                continue;
            }
            for _ in 0..ACCEPTS_A_ROUND {
                match self.accept_one(i) {
                    Ok((fd, path)) => self.admit(fd, path, now, poll, engine),
                    Err(error) => match error.raw_os_error() {
                        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                            return self.leave_listeners_alone(poll);
                        }
                        Some(libc::EAGAIN) => break,
                        // The client has gone meanwhile, say.
                        _ => {}
                    },
                }
            }
        }
        // What is left wakes us again.
        self.acceptable = 0;
    }

    fn accept_one(&self, listener: usize) -> io::Result<(OwnedFd, Path)> {
        let sockets = self.sockets.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let fd = sockets.listeners[listener].as_raw_fd();
        // SAFETY: plain system call; the address is not asked for.
        let fd =
            unsafe { libc::accept4(fd, ptr::null_mut(), ptr::null_mut(), libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let remote = passing::remote_of(fd.as_raw_fd()).ok_or(io::ErrorKind::ConnectionAborted)?;
        Ok((fd, Path { socket: SocketIndex(SocketIndex::TCP + listener as u8), remote }))
    }

    fn admit(&mut self, fd: OwnedFd, path: Path, now: Time, poll: &Poll, engine: &mut Engine) {
        engine.stats().add(Counter::TcpAccepted, 1);
        if self.make_room(path, poll, engine) {
            self.add(Connection::new(fd, path, now), now, poll, engine);
        }
    }

    /// True when one more stranger may come from there.
    fn make_room(&mut self, path: Path, poll: &Poll, engine: &mut Engine) -> bool {
        if !self.strangers.has_room_for(path.remote.ip()) {
            engine.stats().add(Counter::TcpRefused, 1);
            return false;
        }
        if self.strangers.are_too_many()
            && let Some(number) = self.dispensable()
        {
            engine.stats().add(Counter::TcpRefused, 1);
            self.close(number, poll, engine, None);
        }
        true
    }

    /// The stranger that makes room: the oldest of the source that has most of them.
    fn dispensable(&self) -> Option<usize> {
        let strangers = self.connections.iter().enumerate().filter_map(|(number, connection)| {
            let connection = connection.as_ref()?;
            let source: IpAddr = connection.path.remote.ip();
            Some((number, self.strangers.count(source), connection.stranger_since?))
        });
        strangers.max_by_key(|(_, count, since)| (*count, std::cmp::Reverse(*since))).map(|(number, ..)| number)
    }

    /// Adds a connection, as a stranger unless it is known here; `None` when there are too many.
    fn add(&mut self, mut connection: Connection, now: Time, poll: &Poll, engine: &mut Engine) -> Option<usize> {
        let path = connection.path;
        // The client has used its port again, so that the old connection is over.
        if let Some(&old) = self.number_by_path.get(&path) {
            self.close(old, poll, engine, None);
        }
        let max = self.sockets.as_ref().map_or(0, |sockets| sockets.max_connections);
        let number = self.vacant.last().copied().unwrap_or(self.connections.len());
        let is_added =
            self.number_by_path.len() < max && poll.add(connection.as_raw_fd(), CONNECTION + number as u64).is_ok();
        if !is_added {
            engine.stats().add(Counter::TcpRefused, 1);
            return None;
        }
        connection.stranger_since = (!engine.is_clients(path)).then_some(now);
        if connection.stranger_since.is_some() {
            self.strangers.add(path.remote.ip());
        }
        self.number_by_path.insert(path, number);
        self.missing.retain(|(missing, _)| *missing != path);
        match self.vacant.pop() {
            Some(_) => self.connections[number] = Some(connection),
            None => self.connections.push(Some(connection)),
        }
        engine.stats().set(Counter::TcpConnections, self.number_by_path.len() as u64);
        Some(number)
    }

    /// Closes a connection. With a time the engine is told, as nobody else has it.
    fn close(&mut self, number: usize, poll: &Poll, engine: &mut Engine, told_at: Option<Time>) {
        let Some(connection) = self.connections[number].take() else { return };
        // It may be open elsewhere, and would then go on to be reported.
        poll.remove(connection.as_raw_fd());
        if connection.stranger_since.is_some() {
            self.strangers.remove(connection.path.remote.ip());
        }
        self.number_by_path.remove(&connection.path);
        self.vacant.push(number);
        engine.stats().set(Counter::TcpConnections, self.number_by_path.len() as u64);
        if let Some(now) = told_at {
            engine.handle_connection_closed(now, connection.path);
        }
    }

    fn leave_listeners_alone(&mut self, poll: &Poll) {
        self.acceptable = 0;
        self.is_out_of_descriptors = true;
        for listener in self.sockets.iter().flat_map(|sockets| &sockets.listeners) {
            poll.remove(listener.as_raw_fd());
        }
    }

    fn give_up_missing(&mut self, now: Time, engine: &mut Engine) {
        let mut i = 0;
        while let Some(&(path, since)) = self.missing.get(i) {
            if now.since(since) < MISSING_TIMEOUT {
                i += 1;
                continue;
            }
            self.missing.swap_remove(i);
            engine.handle_connection_closed(now, path);
        }
    }

    fn sweep(&mut self, now: Time, poll: &Poll, engine: &mut Engine) {
        if std::mem::take(&mut self.is_out_of_descriptors)
            && let Some(sockets) = &self.sockets
        {
            for (i, listener) in sockets.listeners.iter().enumerate() {
                let _ = poll.add_shared(listener.as_raw_fd(), LISTENER + i as u64);
            }
        }
        for number in 0..self.connections.len() {
            let Some(connection) = self.connections[number].as_mut() else { continue };
            let is_clients = engine.is_clients(connection.path);
            match connection.stranger_since {
                None if !is_clients => {
                    // Its session is over, or elsewhere.
                    connection.stranger_since = Some(now);
                    self.strangers.add(connection.path.remote.ip());
                }
                Some(_) if is_clients => {
                    connection.stranger_since = None;
                    connection.hops = 0;
                    self.strangers.remove(connection.path.remote.ip());
                }
                Some(since) if now.since(since) >= STRANGER_TIMEOUT => {
                    engine.stats().add(Counter::TcpUnchecked, 1);
                    self.close(number, poll, engine, None);
                }
                _ => {}
            }
        }
    }
}
