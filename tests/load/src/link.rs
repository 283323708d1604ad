//! The client's end of one path: checks and consent as a controlling full agent sends them, then DTLS and SRTP by the
//! engine's own transport. Owns the socket; must never know what is published or watched. Read `publisher.rs` and
//! `viewer.rs` next.
//!
//! The engine's ICE is the lite half, which answers. So the checks that go out are made here. When the server has answered one, the
//! transport gets a check as the server would have sent it: that proves the path to the transport, and in the client role begins
//! DTLS.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result, anyhow};
use millrace_core::command::OpenTransport;
use millrace_core::outbox::{Outbox, Path, SocketIndex};
use millrace_core::time::{Span, Time};
use millrace_core::transport::demux::{self, Kind};
use millrace_core::transport::stun::{self, Integrity, Message, attribute};
use millrace_core::transport::stun_writer::Writer;
use millrace_core::transport::{Limits, Transport, TransportEvent};

use crate::answer::Answer;
use crate::identity::{Identity, random_text, random_u32};
use crate::net;

/// The time between two checks before the server has answered one: the first, and the longest after doubling.
const FIRST_CHECK: Span = Span::from_millis(50);
const SLOWEST_CHECK: Span = Span::from_millis(800);
/// RFC 7675 section 5.1: every 5 s, 20 % earlier or later.
const CONSENT: Span = Span::from_secs(4);
const CONSENT_SPREAD: u64 = 2_000_000;
/// After this long without an answer the link has failed.
const CONSENT_LOST: Span = Span::from_secs(30);
/// This link checks consent itself, so the transport's own timeouts never end it.
const NEVER: Span = Span::from_secs(1_000_000);
const LIMITS: Limits = Limits {
    max_addresses: 2,
    max_streams: 64,
    ice_timeout: NEVER,
    handshake_timeout: NEVER,
    consent_timeout: NEVER,
    media_timeout: NEVER,
};
/// The priority of a peer-reflexive candidate (RFC 8445 section 5.1.2.1).
const PRIORITY: u32 = 110 << 24 | 65_535 << 8 | 255;
const ROLE_CONFLICT: u16 = 487;

/// What all links of a run share.
pub struct Tools {
    pub identity: Identity,
    pub outbox: Outbox,
    /// A buffer for outgoing packets.
    pub buffer: Box<[u8]>,
}

impl Tools {
    pub fn new(identity: Identity) -> Tools {
        Tools { identity, outbox: Outbox::new(64 * 1024, 64), buffer: vec![0; 2048].into_boxed_slice() }
    }
}

/// A datagram that is not the link's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Mine,
    /// SRTP, still sealed.
    Rtp,
    Rtcp,
    /// A datagram of the raw measurement.
    Raw,
}

pub struct Link {
    socket: UdpSocket,
    ufrag: String,
    pwd: String,
    local_key: Integrity,
    remote: Option<Remote>,
    pub connected_at: Option<Time>,
    /// Why the link has failed, if it has.
    pub broken: Option<String>,
}

/// What the server's answer tells.
struct Remote {
    username: String,
    key: Integrity,
    candidates: Vec<SocketAddr>,
    server: Option<SocketAddr>,
    transport: Transport,
    transaction: [u8; 12],
    check_at: Time,
    pause: Span,
    answered_at: Time,
}

impl Link {
    pub fn new(socket: UdpSocket) -> Result<Link> {
        let (ufrag, pwd) = (random_text(4)?, random_text(12)?);
        let local_key = Integrity::new(pwd.as_bytes());
        Ok(Link { socket, ufrag, pwd, local_key, remote: None, connected_at: None, broken: None })
    }

    pub fn credentials(&self) -> (&str, &str) {
        (&self.ufrag, &self.pwd)
    }

    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Takes the server's answer. The first check goes out with the next `upkeep`.
    pub fn accept(&mut self, now: Time, answer: &Answer, tools: &Tools) -> Result<()> {
        let command = OpenTransport {
            transport: 1,
            local_ufrag: self.ufrag.clone(),
            local_pwd: self.pwd.clone(),
            remote_ufrag: answer.ufrag.clone(),
            remote_pwd: answer.pwd.clone(),
            dtls_role: answer.role,
            fingerprint_hash: answer.hash,
            fingerprints: vec![serde_bytes::ByteBuf::from(answer.fingerprint.clone())],
            expects_media: false,
        };
        let transport = Transport::new(now, &command, &tools.identity.contexts, &LIMITS).map_err(|why| anyhow!(why))?;
        let is_ipv4 = self.local()?.is_ipv4();
        let candidates: Vec<_> = answer.candidates.iter().copied().filter(|found| found.is_ipv4() == is_ipv4).collect();
        candidates.first().context("the answer has no candidate of our address family")?;
        let mut transaction = [0; 12];
        openssl::rand::rand_bytes(&mut transaction)?;
        self.remote = Some(Remote {
            username: format!("{}:{}", answer.ufrag, self.ufrag),
            key: Integrity::new(answer.pwd.as_bytes()),
            candidates,
            server: None,
            transport,
            transaction,
            check_at: now,
            pause: FIRST_CHECK,
            answered_at: now,
        });
        Ok(())
    }

    pub fn is_connected(&self) -> bool {
        self.connected_at.is_some() && self.broken.is_none()
    }

    /// Handles STUN and DTLS, and returns any other datagram.
    pub fn handle(&mut self, now: Time, datagram: &[u8], tools: &mut Tools) -> Taken {
        match demux::classify(datagram) {
            Kind::Rtp => Taken::Rtp,
            Kind::Rtcp => Taken::Rtcp,
            Kind::Stun => {
                self.handle_stun(now, datagram, tools);
                Taken::Mine
            }
            Kind::Dtls => {
                if let Some((path, remote)) = self.path_and_remote() {
                    // A datagram that DTLS refuses is the server's mistake, and shows as a handshake that does not end.
                    let _ = remote.transport.handle_dtls(now, path, datagram, &mut tools.outbox);
                }
                self.flush(now, tools);
                Taken::Mine
            }
            Kind::Unknown if datagram.first() == Some(&net::RAW) => Taken::Raw,
            Kind::Unknown => Taken::Mine,
        }
    }

    /// Sends what is due, and returns when to call again.
    pub fn upkeep(&mut self, now: Time, tools: &mut Tools) -> Time {
        if self.broken.is_some() {
            return now + NEVER;
        }
        let Some(remote) = &mut self.remote else { return now + FIRST_CHECK };
        if remote.server.is_some() && now.since(remote.answered_at) > CONSENT_LOST {
            self.broken = Some("the server answers no checks any more".to_owned());
            return now + NEVER;
        }
        if remote.check_at <= now {
            remote.send_checks(&self.socket, now);
        }
        if remote.transport.next_deadline().is_some_and(|due| due <= now) {
            remote.transport.handle_deadline(now, &mut tools.outbox);
        }
        let due = remote.transport.next_deadline().unwrap_or(remote.check_at).min(remote.check_at);
        self.flush(now, tools);
        due
    }

    /// Opens a datagram in place, and returns the plain length; `None` when it does not authenticate.
    pub fn open_rtp(&mut self, now: Time, packet: &mut [u8]) -> Option<usize> {
        let (path, remote) = self.path_and_remote()?;
        remote.transport.open_rtp(now, path, packet).ok()
    }

    pub fn open_rtcp(&mut self, now: Time, packet: &mut [u8]) -> Option<usize> {
        let (path, remote) = self.path_and_remote()?;
        remote.transport.open_rtcp(now, path, packet).ok()
    }

    /// Seals a packet in place and returns its length. The caller sends it to `server`.
    pub fn seal_rtp(&self, index: u64, buffer: &mut [u8], len: usize) -> Option<usize> {
        self.remote.as_ref()?.transport.seal_rtp(index, buffer, len).ok()
    }

    /// Seals the RTCP in `buffer[..len]` and sends it.
    pub fn send_rtcp(&mut self, buffer: &mut [u8], len: usize) {
        let Some(remote) = &mut self.remote else { return };
        if let (Ok(len), Some(server)) = (remote.transport.seal_rtcp(buffer, len), remote.server) {
            // A full send queue loses it, as a network would.
            let _ = self.socket.send_to(&buffer[..len], server);
        }
    }

    pub fn server(&self) -> Option<SocketAddr> {
        self.remote.as_ref()?.server
    }

    /// Sends close_notify.
    pub fn close(&mut self, now: Time, tools: &mut Tools) {
        if let Some(remote) = &mut self.remote {
            remote.transport.close(now, &mut tools.outbox);
        }
        self.flush(now, tools);
    }

    fn path_and_remote(&mut self) -> Option<(Path, &mut Remote)> {
        let remote = self.remote.as_mut()?;
        Some((path(remote.server?), remote))
    }

    fn handle_stun(&mut self, now: Time, datagram: &[u8], tools: &mut Tools) {
        let (Some(remote), Ok(message)) = (&mut self.remote, Message::parse(datagram)) else { return };
        if message.is_binding_success() && message.is_authentic(&remote.key) {
            if message.transaction()[..11] != remote.transaction[..11] {
                return;
            }
            let place = usize::from(message.transaction()[11]);
            let Some(server) = remote.candidates.get(place).copied() else { return };
            remote.answered_at = now;
            if remote.server.is_none() {
                remote.server = Some(server);
                remote.check_at = now + CONSENT;
                remote.prove(now, &self.ufrag, &self.local_key);
            }
        } else if message.is_binding_request() && message.is_authentic(&self.local_key) {
            // A full agent's check is answered once its address is known; it repeats the check until then.
            let Some(server) = remote.server else { return };
            let mut answer = [0; 128];
            // We control, with the highest tie-breaker (RFC 8445 section 7.3.1.1).
            let writer = if message.claims_controlling() {
                Writer::new(&mut answer, stun::BINDING_ERROR, message.transaction()).error_code(ROLE_CONFLICT)
            } else {
                Writer::new(&mut answer, stun::BINDING_SUCCESS, message.transaction()).xor_mapped_address(server)
            };
            if let Some(len) = writer.finish(&self.local_key) {
                let _ = self.socket.send_to(&answer[..len], server);
            }
        }
        self.flush(now, tools);
    }

    /// Runs the handshake's steps, sends what the transport wrote and handles its events.
    fn flush(&mut self, now: Time, tools: &mut Tools) {
        if let Some(remote) = &mut self.remote
            && let Some(step) = remote.transport.take_step()
        {
            remote.transport.finish_step(now, step.run(), &mut tools.outbox);
        }
        let (datagrams, bytes) = tools.outbox.queued();
        for datagram in datagrams {
            let bytes = &bytes[datagram.start..datagram.start + datagram.len];
            let _ = self.socket.send_to(bytes, datagram.path.remote);
        }
        tools.outbox.clear();
        let Some(remote) = &mut self.remote else { return };
        while let Some(event) = remote.transport.next_event() {
            match event {
                TransportEvent::Connected { .. } => self.connected_at = Some(now),
                TransportEvent::Closed(cause) => self.broken = Some(cause.label().to_owned()),
                _ => {}
            }
        }
    }
}

impl Remote {
    /// Sends a check to each candidate until one has answered, then to that one. The check nominates it.
    fn send_checks(&mut self, socket: &UdpSocket, now: Time) {
        for place in 0..self.candidates.len() {
            let to = self.candidates[place];
            if self.server.is_some_and(|server| server != to) {
                continue;
            }
            self.transaction[11] = place as u8;
            let mut check = [0; 256];
            let writer = Writer::new(&mut check, stun::BINDING_REQUEST, &self.transaction)
                .attribute(attribute::USERNAME, self.username.as_bytes())
                .attribute(attribute::PRIORITY, &PRIORITY.to_be_bytes())
                .attribute(attribute::ICE_CONTROLLING, &[0xff; 8])
                .attribute(attribute::USE_CANDIDATE, &[]);
            if let Some(len) = writer.finish(&self.key) {
                let _ = socket.send_to(&check[..len], to);
            }
        }
        let spread = random_u32().map_or(0, |random| u64::from(random) % CONSENT_SPREAD);
        self.check_at = match self.server {
            Some(_) => now + CONSENT + Span(spread),
            None => now + self.pause,
        };
        self.pause = Span(self.pause.0 * 2).min(SLOWEST_CHECK);
    }

    /// Gives the transport a check as the server would have sent it.
    fn prove(&mut self, now: Time, ufrag: &str, key: &Integrity) {
        let Some(server) = self.server else { return };
        let mut check = [0; 256];
        let theirs = self.username.split(':').next().unwrap_or_default();
        let username = format!("{ufrag}:{theirs}");
        let writer = Writer::new(&mut check, stun::BINDING_REQUEST, &self.transaction)
            .attribute(attribute::USERNAME, username.as_bytes())
            .attribute(attribute::PRIORITY, &PRIORITY.to_be_bytes())
            .attribute(attribute::USE_CANDIDATE, &[]);
        let Some(len) = writer.finish(key) else { return };
        // The answer to it must not leave. The server was told to be there, so nobody has to ask it back.
        let mut nowhere = Outbox::new(1_024, 4);
        let _ = self.transport.handle_stun(now, path(server), &check[..len], &mut nowhere);
        self.transport.vouch_for(now, path(server), &mut nowhere);
    }
}

fn path(remote: SocketAddr) -> Path {
    Path { socket: SocketIndex(0), remote }
}
