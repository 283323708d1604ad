//! A transport against OpenSSL's own DTLS, for what follows a handshake: alerts either way, repetitions, and what a peer
//! must not send. Must never use our own code for the peer's side. Read `support/mod.rs` next.

// What fails here fails a test.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use millrace_core::command::DtlsRole;
use millrace_core::drop::Drop;
use millrace_core::event::Cause;
use millrace_core::time::{Span, Time};
use millrace_core::transport::{Profile, Transport, TransportEvent};
use openssl::pkey::PKey;
use openssl::ssl::{ErrorCode, Ssl, SslContext, SslMethod, SslStream, SslVerifyMode};
use openssl::x509::X509;
use support::{Check, Identity, LIMITS, drain, events, open_client, open_server, outbox, path, run_step, take_dtls};

const SUITES: [&str; 3] =
    ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"];

#[derive(Default)]
struct Pipe {
    incoming: VecDeque<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.incoming.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        buffer[..datagram.len()].copy_from_slice(&datagram);
        Ok(datagram.len())
    }
}

impl Write for Pipe {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.outgoing.push(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Our transport in one role, OpenSSL in the other.
struct Call {
    now: Time,
    ours: Transport,
    theirs: SslStream<Pipe>,
    /// What OpenSSL sent so far, and what we did.
    from_them: Vec<Vec<u8>>,
    from_us: Vec<Vec<u8>>,
}

impl Call {
    fn connected(role: DtlsRole, suite: &str) -> Call {
        let (us, them) = (Identity::ecdsa(), Identity::ecdsa());
        let now = Time(1_000_000);
        let (command, method) = match role {
            DtlsRole::Server => (open_server(&them.fingerprint), SslMethod::dtls_client()),
            DtlsRole::Client => (open_client(&them.fingerprint), SslMethod::dtls_server()),
        };
        let ours = Transport::new(now, &command, &us.contexts(&Profile::PREFERRED), &LIMITS).unwrap();
        let mut context = SslContext::builder(method).unwrap();
        context.set_cipher_list(suite).unwrap();
        context.set_certificate(&X509::from_pem(them.certificate_pem.as_bytes()).unwrap()).unwrap();
        context.set_private_key(&PKey::private_key_from_pem(them.private_key_pem.as_bytes()).unwrap()).unwrap();
        context.set_tlsext_use_srtp("SRTP_AEAD_AES_128_GCM").unwrap();
        context.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
        let mut ssl = Ssl::new(&context.build()).unwrap();
        match role {
            DtlsRole::Server => ssl.set_connect_state(),
            DtlsRole::Client => ssl.set_accept_state(),
        }
        let theirs = SslStream::new(ssl, Pipe::default()).unwrap();
        let mut call = Call { now, ours, theirs, from_them: Vec::new(), from_us: Vec::new() };
        let mut out = outbox();
        let check = Check::to(&command.local_ufrag, &command.local_pwd).from(&command.remote_ufrag);
        call.ours.handle_stun(call.now, path("192.0.2.7:4000"), &check.bytes(), &mut out).unwrap();
        call.ours.vouch_for(call.now, path("192.0.2.7:4000"), &mut out);
        run_step(&mut call.ours, call.now, &mut out);
        call.deliver_ours(drain(&mut out).into_iter().map(|(_, bytes)| bytes).filter(|bytes| bytes[0] >= 20).collect());
        for _ in 0..10 {
            let _ = call.theirs.do_handshake();
            call.deliver_theirs();
        }
        assert!(call.ours.is_connected(), "{role:?} {suite}");
        assert_eq!(call.theirs.ssl().current_cipher().unwrap().name(), suite);
        let _ = events(&mut call.ours);
        call
    }

    fn deliver_ours(&mut self, sent: Vec<Vec<u8>>) {
        self.from_us.extend(sent.iter().cloned());
        self.theirs.get_mut().incoming.extend(sent);
    }

    /// Delivers what OpenSSL wrote since; false when we refused any of it.
    fn deliver_theirs(&mut self) -> bool {
        let sent = std::mem::take(&mut self.theirs.get_mut().outgoing);
        self.from_them.extend(sent.iter().cloned());
        sent.iter().all(|datagram| self.take(datagram).is_ok())
    }

    /// Delivers this datagram to us, and our answer to OpenSSL.
    fn take(&mut self, datagram: &[u8]) -> Result<usize, Drop> {
        let mut out = outbox();
        let handled = take_dtls(&mut self.ours, self.now, path("192.0.2.7:4000"), datagram, &mut out);
        let sent: Vec<Vec<u8>> = drain(&mut out).into_iter().map(|(_, bytes)| bytes).collect();
        let count = sent.len();
        self.deliver_ours(sent);
        handled.map(|()| count)
    }

    fn close_ours(&mut self) {
        let mut out = outbox();
        self.ours.close(self.now, &mut out);
        self.deliver_ours(drain(&mut out).into_iter().map(|(_, bytes)| bytes).collect());
    }

    fn they_read(&mut self) -> ErrorCode {
        self.theirs.ssl_read(&mut [0; 100]).unwrap_err().code()
    }

    fn cause(&mut self) -> Option<Cause> {
        events(&mut self.ours).into_iter().find_map(|event| match event {
            TransportEvent::Closed(cause) => Some(cause),
            _ => None,
        })
    }

    /// A successor resumes our side.
    fn succeed(&mut self) {
        self.ours = Transport::import(self.now, &self.ours.export().unwrap(), &LIMITS).unwrap();
        let _ = events(&mut self.ours);
    }
}

fn each_suite_and_role() -> impl Iterator<Item = (DtlsRole, &'static str)> {
    SUITES.into_iter().flat_map(|suite| [(DtlsRole::Server, suite), (DtlsRole::Client, suite)])
}

#[test]
fn the_peers_close_notify_ends_it_in_every_suite_and_role() {
    for (role, suite) in each_suite_and_role() {
        for adopted in [false, true] {
            let mut call = Call::connected(role, suite);
            if adopted {
                call.succeed();
            }
            call.theirs.shutdown().unwrap();
            assert!(call.deliver_theirs());
            assert_eq!(call.cause(), Some(Cause::ClosedByPeer), "{role:?} {suite}, adopted: {adopted}");
        }
    }
}

#[test]
fn our_close_notify_is_understood_in_every_suite_and_role() {
    for (role, suite) in each_suite_and_role() {
        for adopted in [false, true] {
            let mut call = Call::connected(role, suite);
            if adopted {
                call.succeed();
            }
            assert_eq!(call.they_read(), ErrorCode::WANT_READ);
            call.close_ours();
            assert_eq!(call.they_read(), ErrorCode::ZERO_RETURN, "{role:?} {suite}, adopted: {adopted}");
        }
    }
}

#[test]
fn no_nonce_is_used_twice_under_a_key() {
    for suite in SUITES {
        let mut call = Call::connected(DtlsRole::Server, suite);
        call.close_ours();
        let close = call.from_us.last().unwrap();
        assert_eq!((close[0], close[4]), (21, 1), "an alert of epoch 1");
        let flight = call.from_us.iter().rev().nth(1).unwrap();
        // The flight ends with Finished, an encrypted record of the same epoch.
        let finished = flight.windows(5).rposition(|head| head == [22, 0xFE, 0xFD, 0, 1]).unwrap();
        assert_ne!(flight[finished + 3..finished + 11], close[3..11], "sequence numbers");
        assert_ne!(flight[finished + 13..finished + 21], close[13..21], "explicit nonces");
    }
}

#[test]
fn a_forged_or_plain_alert_ends_nothing() {
    for suite in SUITES {
        let mut call = Call::connected(DtlsRole::Server, suite);
        call.theirs.shutdown().unwrap();
        let close = call.theirs.get_mut().outgoing.remove(0);
        for at in 0..close.len() {
            let mut forged = close.clone();
            forged[at] ^= 1;
            assert_eq!(call.take(&forged), Err(Drop::DtlsUnexpected), "byte {at}");
        }
        let plain = [21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40];
        assert_eq!(call.take(&plain), Err(Drop::DtlsUnexpected));
        assert_eq!(call.cause(), None);
        assert_eq!(call.take(&close), Ok(0));
        assert_eq!(call.cause(), Some(Cause::ClosedByPeer));
    }
}

#[test]
fn a_peer_that_repeats_its_last_flight_gets_ours_again_byte_for_byte() {
    for adopted in [false, true] {
        let mut call = Call::connected(DtlsRole::Server, SUITES[0]);
        if adopted {
            call.succeed();
        }
        let last_flight = call.from_us.last().unwrap().clone();
        let repeated = call.from_them.last().unwrap().clone();
        call.now = call.now + Span::from_secs(60);
        assert_eq!(call.take(&repeated), Ok(1));
        assert_eq!(call.from_us.last(), Some(&last_flight));
        let answers = (0..1_000).map(|_| {
            call.now = call.now + Span::from_millis(1);
            call.take(&repeated).unwrap()
        });
        assert_eq!(answers.sum::<usize>(), 20, "one in 50 ms");
        assert!(call.ours.is_connected());
    }
}

#[test]
fn what_a_peer_has_no_business_to_send_is_dropped_without_an_answer() {
    let mut call = Call::connected(DtlsRole::Server, SUITES[0]);
    call.theirs.ssl_write(b"application data").unwrap();
    let application_data = call.theirs.get_mut().outgoing.remove(0);
    let encrypted = |kind: u8, len: u8| {
        let mut record = vec![kind, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 77, 0, len];
        record.extend(vec![kind; len.into()]);
        record
    };
    let stray = [
        application_data,
        // A ClientHello that renegotiates, an alert that does not authenticate, one that is none.
        encrypted(22, 120),
        encrypted(21, 26),
        encrypted(21, 90),
        encrypted(20, 25),
        vec![22; 300],
        vec![63, 1],
    ];
    for datagram in stray {
        for _ in 0..100 {
            assert_eq!(call.take(&datagram), Err(Drop::DtlsUnexpected), "{datagram:?}");
            call.now = call.now + Span::from_millis(100);
        }
    }
    assert!(call.ours.is_connected());
    assert_eq!(call.theirs.get_ref().incoming.len(), 0);
}
