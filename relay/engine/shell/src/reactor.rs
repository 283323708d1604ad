//! The engine's thread: waits for datagrams, commands, doorbells and deadlines, and carries bytes between the kernel and the engine.
//! Owns the order of a round; must never decide anything about a packet, and never takes the GIL.
//! Read the core's `engine/mod.rs` next.
//!
//! ```text
//! a round:  beat -> commands -> datagrams -> connections -> inbox -> deadlines -> outcomes of handshakes -> flush and send until dry
//!           -> doorbells, steering, events, steps of handshakes that are due
//! then:     mark as sleeping -> look into the inbox once more -> wait for a descriptor or the next deadline
//! ```

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use millrace_arena::{Arena, Beat};
use millrace_core::drop::Drop;
use millrace_core::engine::Engine;
use millrace_core::outbox::{Datagram, Path, SocketIndex};
use millrace_core::stats::{Counter, Histogram};
use millrace_core::time::{Span, Time};

use crate::bell::Bell;
use crate::handshakes::Handshakes;
use crate::mailbox::Back;
use crate::poll::{Poll, now};
use crate::steering::FlowMap;
use crate::tcp::{self, Tcp};
use crate::udp::{Receiver, Sender, Sent, Socket};

/// The longest wait. The master reads the engine's beat and expects four a second.
const BEAT: Span = Span::from_millis(150);
/// How long a stopping engine waits for handshakes to end: a few round trips. A handshake whose client is gone takes longer, and is lost.
const HANDSHAKES: Span = Span::from_millis(500);
/// Lists of commands that one round takes, before media has its share.
const COMMAND_LISTS_A_ROUND: usize = 64;
/// Receiving system calls on one socket in one round, 64 datagrams each, before commands and deadlines have their share.
const RECEIVES_A_ROUND: usize = 4;
/// Replies in the outbox above which it is sent before more datagrams are taken.
const REPLIES: usize = 256;

/// Tokens of the descriptors besides the sockets, whose tokens count from 0.
const DOORBELL: u64 = 1 << 32;
const MAILBOX: u64 = DOORBELL + 1;
const HANDSHAKES_DONE: u64 = DOORBELL + 2;

/// Everything that the engine's thread works with.
pub struct Parts {
    pub engine: Engine,
    pub arena: Arena,
    pub slot: u8,
    pub sockets: Vec<Socket>,
    /// One per slot, our own included.
    pub doorbells: Vec<Bell>,
    pub flow_map: Option<FlowMap>,
    /// `None` without ICE-TCP.
    pub tcp: Option<tcp::Sockets>,
    pub mailbox: Back,
    pub stop: Arc<AtomicBool>,
    /// Whether clients get BYE and close_notify when the thread stops.
    pub goodbye: Arc<AtomicBool>,
}

pub struct Reactor {
    parts: Parts,
    poll: Poll,
    handshakes: Handshakes,
    receiver: Receiver,
    sender: Sender,
    tcp: Tcp,
    /// Sockets that may hold datagrams, one bit each.
    readable: u64,
    /// The deadline that ended the last wait, if one did.
    due: Option<Time>,
}

impl Parts {
    /// Listens to every descriptor that can wake the thread. To be called before the thread starts, as an error can be returned there.
    pub fn listen(&self, handshakes: &Handshakes) -> io::Result<Poll> {
        let poll = Poll::new()?;
        for (i, socket) in self.sockets.iter().enumerate() {
            poll.add(socket.as_raw_fd(), i as u64)?;
        }
        poll.add(self.doorbells[usize::from(self.slot)].as_raw_fd(), DOORBELL)?;
        poll.add(self.mailbox.fd(), MAILBOX)?;
        poll.add(handshakes.fd(), HANDSHAKES_DONE)?;
        if let Some(tcp) = &self.tcp {
            tcp.listen(&poll)?;
        }
        Ok(poll)
    }
}

impl Reactor {
    /// To be called on the thread that will run it: the buffers hold pointers to each other.
    pub fn new(mut parts: Parts, poll: Poll, handshakes: Handshakes) -> Reactor {
        let sender = Sender::new(&parts.sockets);
        let tcp = Tcp::new(parts.tcp.take());
        Reactor { parts, poll, handshakes, receiver: Receiver::default(), sender, tcp, readable: 0, due: None }
    }

    /// Runs until `stop` is set. Then every client has got BYE and close_notify, or its session is saved for a successor.
    pub fn run(&mut self) {
        self.parts.engine.adopt(now());
        let mut last_round_at = None;
        while !self.is_over(&mut last_round_at) {
            let (busy, ended) = self.round();
            self.wait(busy, ended);
        }
        self.take_commands(now());
        if self.parts.goodbye.load(Relaxed) {
            self.parts.engine.close(now());
        }
        self.flush();
        if !self.parts.goodbye.load(Relaxed) {
            self.tcp.leave_all(self.parts.slot, &self.poll, &mut self.parts.engine);
        }
        self.publish_outputs();
    }

    /// True when the thread has to end. Without goodbye it first waits for handshakes, which no successor could finish.
    fn is_over(&self, last_round_at: &mut Option<Time>) -> bool {
        if !self.parts.stop.load(Relaxed) {
            return false;
        }
        let until = *last_round_at.get_or_insert_with(|| now() + HANDSHAKES);
        self.parts.goodbye.load(Relaxed) || !self.parts.engine.is_shaking_hands() || now() >= until
    }

    /// Handles what is ready, within bounds. Returns whether there is more, and the time.
    fn round(&mut self) -> (bool, Time) {
        let started = now();
        // While handshakes hang no client can connect. A successor is needed as much as when this thread hangs: so no beat.
        if !self.handshakes.is_stuck(started) {
            self.parts.arena.slot(self.parts.slot).beat(Beat::Engine, started.0);
        }
        self.parts.engine.stats().add(Counter::Wakeups, 1);
        let more_commands = self.take_commands(started);
        let more_datagrams = self.take_datagrams();
        self.take_tcp();
        self.parts.engine.handle_inbox(now());
        self.parts.engine.handle_deadlines(now());
        self.take_handshakes();
        self.flush();
        self.publish_outputs();
        self.hand_out_steps();
        let ended = now();
        let late = ended.since(self.due.take().unwrap_or(started).min(started));
        self.parts.engine.stats().observe(Histogram::EngineLate, late, 1);
        (more_commands || more_datagrams, ended)
    }

    fn take_commands(&mut self, now: Time) -> bool {
        for _ in 0..COMMAND_LISTS_A_ROUND {
            let Some(commands) = self.parts.mailbox.next_commands() else { return false };
            for command in commands {
                self.parts.engine.handle_command(now, command);
            }
            self.tcp.pass_moved(now, &self.poll, &mut self.parts.engine);
        }
        true
    }

    fn take_datagrams(&mut self) -> bool {
        for i in 0..self.parts.sockets.len().min(64) {
            let bit = 1 << i;
            if self.readable & bit != 0 && !self.drain_socket(i) {
                self.readable &= !bit;
            }
        }
        self.readable != 0
    }

    /// Takes a bounded number of datagrams from one socket. True when there may be more.
    fn drain_socket(&mut self, i: usize) -> bool {
        let index = SocketIndex(i as u8);
        for _ in 0..RECEIVES_A_ROUND {
            // An error here is the machine's (ENOMEM, say): the socket stays readable, and the next round tries again.
            let Ok(received) = self.receiver.receive(&mut self.parts.sockets[i]) else { return false };
            let arrived = now();
            for position in 0..received.count {
                match self.receiver.datagram(position) {
                    Some((remote, bytes)) => {
                        self.parts.engine.handle_datagram(arrived, Path { socket: index, remote }, bytes);
                    }
                    None => self.parts.engine.stats().count_drop(Drop::NotDemuxed),
                }
            }
            if received.kernel_drops > 0 {
                self.parts.engine.stats().count_kernel_drops(index, received.kernel_drops.into());
            }
            if self.parts.engine.outbox().len() > REPLIES {
                // A handshake's last flight may be among the replies: its client has to be saved as connected before.
                self.parts.engine.save_records();
                self.send();
            }
            if !received.full {
                return false;
            }
        }
        true
    }

    fn take_tcp(&mut self) {
        self.tcp.take_connections(now(), &self.poll, &mut self.parts.engine);
        while let Some(number) = self.tcp.next_readable() {
            self.tcp.read(number, now(), &self.poll, &mut self.parts.engine);
            if self.parts.engine.outbox().len() > REPLIES {
                self.parts.engine.save_records();
                self.send();
            }
        }
    }

    fn take_handshakes(&mut self) {
        while let Some(stepped) = self.handshakes.next_done(now()) {
            self.parts.engine.handle_step(now(), stepped);
        }
    }

    fn hand_out_steps(&mut self) {
        while let Some(step) = self.parts.engine.take_step() {
            self.handshakes.begin(now(), step);
        }
    }

    /// Fans out and sends until the engine has nothing left.
    fn flush(&mut self) {
        loop {
            let more = self.parts.engine.flush(now());
            // Before our own sending, so that the other workers do theirs at the same time.
            self.ring_doorbells();
            self.send();
            if !more {
                return;
            }
        }
    }

    fn send(&mut self) {
        let Parts { engine, sockets, .. } = &mut self.parts;
        let outbox = engine.outbox();
        if outbox.is_empty() {
            return;
        }
        let (datagrams, bytes) = outbox.queued();
        let (tcp, poll) = (&mut self.tcp, &self.poll);
        let others = |datagrams: &[Datagram], sent: &mut Sent| tcp.send(datagrams, bytes, now(), poll, sent);
        let sent = self.sender.send(sockets, datagrams, bytes, others);
        outbox.clear();
        let stats = engine.stats();
        stats.add(Counter::DatagramsSent, sent.datagrams);
        stats.add(Counter::BytesSent, sent.bytes);
        stats.add(Counter::SendCalls, sent.calls);
        for _ in 0..sent.failed {
            stats.count_drop(Drop::SendFailed);
        }
        stats.count_drops(Drop::TcpBacklog, sent.backlog);
        engine.handle_sent(now());
    }

    fn ring_doorbells(&mut self) {
        let mut slots = self.parts.engine.take_doorbells();
        while slots != 0 {
            let slot = slots.trailing_zeros() as u8;
            slots &= slots - 1;
            if self.parts.arena.slot(slot).take_sleeping() {
                self.parts.doorbells[usize::from(slot)].ring();
            }
        }
    }

    /// Hands the engine's outputs on: flows to the kernel, events to Python.
    fn publish_outputs(&mut self) {
        while let Some(steer) = self.parts.engine.take_steering() {
            if let Some(flow_map) = &self.parts.flow_map {
                // A full map or a missing entry costs a hand-over, which is counted there.
                let _ = flow_map.steer(&steer.path.remote, steer.owner);
            }
        }
        while self.parts.mailbox.has_room() {
            let Some(event) = self.parts.engine.take_event() else { break };
            self.parts.mailbox.push(event);
        }
        self.parts.mailbox.announce();
    }

    /// Waits for a descriptor or a deadline; with `busy`, only looks which descriptors are ready.
    fn wait(&mut self, busy: bool, ended: Time) {
        let page = self.parts.arena.slot(self.parts.slot);
        let mut span = Span(0);
        if !busy {
            page.set_sleeping(true);
            if !self.parts.engine.has_inbox() {
                let deadline = self.parts.engine.next_deadline();
                span = deadline.map_or(BEAT, |deadline| deadline.since(ended).min(BEAT));
            }
        }
        let ready = self.poll.wait(span);
        page.set_sleeping(false);
        self.due = Some(ended + span);
        for token in ready {
            self.due = None;
            match token {
                DOORBELL => self.parts.doorbells[usize::from(self.parts.slot)].silence(),
                MAILBOX => self.parts.mailbox.silence(),
                HANDSHAKES_DONE => self.handshakes.silence(),
                token if token >= tcp::CONNECTION => self.tcp.note_ready(token),
                socket => self.readable |= 1 << socket,
            }
        }
    }
}
