//! Whole handshakes between two transports in memory and in virtual time, with loss, wrong certificates and ends of
//! every kind. Must never wait for a real clock. Read `support/mod.rs` next.

// What fails here fails a test.
#![allow(clippy::unwrap_used)]

mod support;

use millrace_core::drop::Drop;
use millrace_core::event::Cause;
use millrace_core::time::{Span, Time};
use millrace_core::transport::{Phase, Profile, SEAL_ROOM, Transport, TransportEvent};
use support::{Check, Identity, LIMITS, Wire, drain, events, open_client, open_server, outbox, path, rtp, take_dtls};

fn closed(transport: &mut Transport) -> Option<Cause> {
    events(transport).into_iter().find_map(|event| match event {
        TransportEvent::Closed(cause) => Some(cause),
        _ => None,
    })
}

/// Media flows both ways, RTP and RTCP.
fn exchange_media(wire: &mut Wire, sequence: u16) {
    let plain = rtp(77, sequence, 900);
    for from_client in [true, false] {
        let mut buffer = plain.clone();
        buffer.resize(plain.len() + SEAL_ROOM, 0);
        let sender = if from_client { &wire.client } else { &wire.server };
        let len = sender.seal_rtp(sequence.into(), &mut buffer, plain.len()).unwrap();
        assert_ne!(&buffer[12..plain.len()], &plain[12..]);
        let (receiver, path) =
            if from_client { (&mut wire.server, wire.client_path) } else { (&mut wire.client, wire.server_path) };
        let len = receiver.open_rtp(wire.now, path, &mut buffer[..len]).unwrap();
        assert_eq!(&buffer[..len], plain);
    }
    let report = [0x80, 201, 0, 1, 0, 0, 0, 77];
    let mut buffer = [0; 8 + SEAL_ROOM];
    buffer[..8].copy_from_slice(&report);
    let len = wire.server.seal_rtcp(&mut buffer, 8).unwrap();
    let len = wire.client.open_rtcp(wire.now, wire.server_path, &mut buffer[..len]).unwrap();
    assert_eq!(buffer[..len], report);
}

#[test]
fn two_transports_connect_in_every_profile_and_exchange_media() {
    let (server, client) = (Identity::ecdsa(), Identity::ecdsa());
    for wanted in Profile::PREFERRED {
        let mut wire = Wire::between(&server, &client, &[wanted]);
        wire.check();
        wire.run();
        for transport in [&mut wire.server, &mut wire.client] {
            assert!(transport.is_connected());
            let connected = events(transport).into_iter().find_map(|event| match event {
                TransportEvent::Connected { profile, dtls_version, .. } => Some((profile, dtls_version)),
                _ => None,
            });
            assert_eq!(connected, Some((wanted, "DTLSv1.2")));
        }
        exchange_media(&mut wire, 1);
    }
}

#[test]
fn the_preferred_profile_wins_over_the_clients_order() {
    let (server, client) = (Identity::ecdsa(), Identity::ecdsa());
    let opened = Time(1_000_000);
    let clients = [Profile::Aes128CmSha1_80, Profile::Aes256Gcm, Profile::Aes128Gcm];
    let mut wire = Wire::new(
        Transport::new(opened, &open_server(&client.fingerprint), &server.contexts(&Profile::PREFERRED), &LIMITS)
            .unwrap(),
        Transport::new(opened, &open_client(&server.fingerprint), &client.contexts(&clients), &LIMITS).unwrap(),
    );
    wire.check();
    wire.run();
    assert_eq!(wire.server.profile(), Some(Profile::Aes128Gcm));
}

#[test]
fn rsa_peers_connect_in_both_roles() {
    let (ours, theirs) = (Identity::ecdsa(), Identity::rsa());
    for (server, client) in [(&ours, &theirs), (&theirs, &ours)] {
        let mut wire = Wire::between(server, client, &Profile::PREFERRED);
        wire.check();
        wire.run();
        assert!(wire.server.is_connected() && wire.client.is_connected());
        exchange_media(&mut wire, 1);
        let largest = wire.sent.iter().map(|(_, len)| *len).max();
        assert!(largest.is_some_and(|len| len <= 1200), "a datagram of {largest:?} bytes");
    }
}

#[test]
fn any_single_loss_delays_the_handshake_and_does_not_break_it() {
    let (server, client) = (Identity::ecdsa(), Identity::ecdsa());
    let mut undisturbed = Wire::between(&server, &client, &Profile::PREFERRED);
    undisturbed.check();
    undisturbed.run();
    for lost in 0..undisturbed.sent.len() {
        let mut wire = Wire::between(&server, &client, &Profile::PREFERRED);
        wire.lost = vec![lost];
        wire.check();
        wire.run();
        assert!(wire.server.is_connected() && wire.client.is_connected(), "datagram {lost} lost");
        assert!(wire.now.since(Time(1_000_000)) < Span::from_secs(2), "datagram {lost} lost: {:?}", wire.now);
        exchange_media(&mut wire, 1);
    }
}

#[test]
fn any_two_losses_delay_the_handshake_and_do_not_break_it() {
    let (server, client) = (Identity::ecdsa(), Identity::ecdsa());
    for first in 0..8 {
        for second in first + 1..10 {
            let mut wire = Wire::between(&server, &client, &Profile::PREFERRED);
            wire.lost = vec![first, second];
            wire.check();
            wire.run();
            assert!(wire.server.is_connected() && wire.client.is_connected(), "{first} and {second} lost");
            assert!(wire.now.since(Time(1_000_000)) < Span::from_secs(5), "{first} and {second} lost: {:?}", wire.now);
        }
    }
}

#[test]
fn a_hello_that_came_before_its_listener_is_soon_repeated() {
    let mut wire = Wire::between(&Identity::ecdsa(), &Identity::ecdsa(), &Profile::PREFERRED);
    wire.lost = vec![0];
    wire.check();
    wire.run();
    assert!(wire.server.is_connected() && wire.client.is_connected());
    assert!(wire.now.since(Time(1_000_000)) <= Span::from_millis(50), "{:?}", wire.now);
}

/// Firefox sends its ClientHello in fragments, which may come in any order.
#[test]
fn a_fragmented_client_hello_is_put_together() {
    for reversed in [false, true] {
        let mut wire = Wire::between(&Identity::ecdsa(), &Identity::ecdsa(), &Profile::PREFERRED);
        wire.check();
        let hello = wire.to_server.pop_front().unwrap();
        let (record, message) = (&hello[..13], &hello[13..]);
        let (header, body) = message.split_at(12);
        let mut fragments: Vec<Vec<u8>> = (0..body.len())
            .step_by(50)
            .enumerate()
            .map(|(number, offset)| {
                let part = &body[offset..body.len().min(offset + 50)];
                let mut bytes = record.to_vec();
                // Out of the way of the record numbers that the client goes on with.
                bytes[10] = 20 + number as u8;
                bytes[11..13].copy_from_slice(&(part.len() as u16 + 12).to_be_bytes());
                bytes.extend(&header[..6]);
                bytes.extend(&(offset as u32).to_be_bytes()[1..]);
                bytes.extend(&(part.len() as u32).to_be_bytes()[1..]);
                bytes.extend(part);
                bytes
            })
            .collect();
        assert!(fragments.len() >= 3);
        if reversed {
            fragments.reverse();
        }
        wire.to_server.extend(fragments);
        wire.run();
        assert!(wire.server.is_connected() && wire.client.is_connected(), "reversed: {reversed}");
        assert_eq!(wire.now, Time(1_000_000), "no retransmission was needed");
    }
}

#[test]
fn a_flood_during_the_handshake_is_cut_off_and_answered_with_almost_nothing() {
    let mut wire = Wire::between(&Identity::ecdsa(), &Identity::ecdsa(), &Profile::PREFERRED);
    wire.check();
    let mut out = outbox();
    let mut refused = 0;
    let mut answered = 0;
    for number in 0..1_000u32 {
        let mut record = vec![22, 0xFE, 0xFD, 0, 0, 0, 0];
        record.extend(number.to_be_bytes());
        record.extend([0, 112, 1, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 100]);
        record.extend([number as u8; 100]);
        let taken = take_dtls(&mut wire.server, wire.now, wire.client_path, &record, &mut out);
        refused += usize::from(taken == Err(Drop::DtlsUnexpected));
        answered += drain(&mut out).len();
    }
    assert!(refused >= 700, "{refused} refused");
    assert!(answered <= 1, "{answered} answers");
}

#[test]
fn a_transport_can_move_to_the_thread_that_runs_it() {
    fn moves<T: Send>() {}
    moves::<Transport>();
}

#[test]
fn the_duration_is_measured_from_the_first_record_to_the_keys() {
    let mut wire = Wire::between(&Identity::ecdsa(), &Identity::ecdsa(), &Profile::PREFERRED);
    wire.check();
    let begun = wire.now;
    wire.lost = vec![1, 2];
    wire.run();
    let measured = events(&mut wire.client).into_iter().find_map(|event| match event {
        TransportEvent::Connected { handshake, .. } => Some(handshake),
        _ => None,
    });
    assert_eq!(measured, Some(wire.now.since(begun)));
    assert!(wire.now > begun);
}

#[test]
fn another_certificate_than_promised_ends_it_at_once_for_who_sees_it_in_both_roles() {
    let (server, client, stranger) = (Identity::ecdsa(), Identity::ecdsa(), Identity::ecdsa());
    let opened = Time(1_000_000);
    for (to_server, to_client) in [(&stranger, &server), (&client, &stranger)] {
        let all = &Profile::PREFERRED;
        let mut wire = Wire::new(
            Transport::new(opened, &open_server(&to_server.fingerprint), &server.contexts(all), &LIMITS).unwrap(),
            Transport::new(opened, &open_client(&to_client.fingerprint), &client.contexts(all), &LIMITS).unwrap(),
        );
        wire.check();
        wire.run();
        wire.deliver();
        let (refuses, refused) = match to_server.fingerprint == stranger.fingerprint {
            true => (&mut wire.server, &mut wire.client),
            false => (&mut wire.client, &mut wire.server),
        };
        assert_eq!(closed(refuses), Some(Cause::FingerprintMismatch));
        // The alert came in the clear, so anybody may have sent it.
        assert_eq!(closed(refused), None);
        refused.handle_deadline(opened + LIMITS.handshake_timeout, &mut outbox());
        assert_eq!(closed(refused), Some(Cause::DtlsAlert));
    }
}

#[test]
fn any_of_several_promised_fingerprints_will_do() {
    let (server, client) = (Identity::ecdsa(), Identity::ecdsa());
    let mut command = open_server(&[0; 32]);
    command.fingerprints.push(serde_bytes::ByteBuf::from(client.fingerprint.clone()));
    let opened = Time(1_000_000);
    let all = &Profile::PREFERRED;
    let mut wire = Wire::new(
        Transport::new(opened, &command, &server.contexts(all), &LIMITS).unwrap(),
        Transport::new(opened, &open_client(&server.fingerprint), &client.contexts(all), &LIMITS).unwrap(),
    );
    wire.check();
    wire.run();
    assert!(wire.server.is_connected());
}

#[test]
fn no_common_profile_is_its_own_cause() {
    let (server, client) = (Identity::ecdsa(), Identity::ecdsa());
    let opened = Time(1_000_000);
    let mut wire = Wire::new(
        Transport::new(opened, &open_server(&client.fingerprint), &server.contexts(&[Profile::Aes256Gcm]), &LIMITS)
            .unwrap(),
        Transport::new(opened, &open_client(&server.fingerprint), &client.contexts(&[Profile::Aes128Gcm]), &LIMITS)
            .unwrap(),
    );
    wire.check();
    wire.run();
    assert_eq!(closed(&mut wire.server), Some(Cause::NoSrtpProfile));
}

#[test]
fn close_reaches_the_peer_as_close_notify() {
    let mut wire = Wire::between(&Identity::ecdsa(), &Identity::ecdsa(), &Profile::PREFERRED);
    wire.check();
    wire.run();
    let mut out = outbox();
    wire.server.close(wire.now, &mut out);
    assert_eq!(closed(&mut wire.server), Some(Cause::Closed));
    for (_, bytes) in drain(&mut out) {
        take_dtls(&mut wire.client, wire.now, wire.server_path, &bytes, &mut out).unwrap();
    }
    assert_eq!(closed(&mut wire.client), Some(Cause::ClosedByPeer));
    assert_eq!(wire.client.phase(), Phase::Closed);
    assert_eq!(wire.client.next_deadline(), None);
    let mut buffer = [0; 64];
    assert_eq!(wire.client.seal_rtp(1, &mut buffer, 20), Err(Drop::NotConnected));
}

#[test]
fn dtls_from_an_unproven_address_is_not_looked_at() {
    let mut wire = Wire::between(&Identity::ecdsa(), &Identity::ecdsa(), &Profile::PREFERRED);
    wire.check();
    let hello = wire.to_server.pop_front().unwrap();
    let mut out = outbox();
    let refused = take_dtls(&mut wire.server, wire.now, path("192.0.2.7:4001"), &hello, &mut out);
    assert_eq!(refused, Err(Drop::DtlsUnexpected));
    assert!(out.is_empty());
    assert_eq!(wire.server.phase(), Phase::Checked);
}

#[test]
fn a_handshake_that_stops_names_how_far_it_came() {
    let (server, client) = (Identity::ecdsa(), Identity::ecdsa());
    let mut silent = Wire::between(&server, &client, &Profile::PREFERRED);
    silent.check();
    let mut halfway = Wire::between(&server, &client, &Profile::PREFERRED);
    halfway.check();
    let mut out = outbox();
    let hello = halfway.to_server.pop_front().unwrap();
    take_dtls(&mut halfway.server, halfway.now, halfway.client_path, &hello, &mut out).unwrap();
    for (wire, cause) in [(&mut silent, Cause::NoClientHello), (&mut halfway, Cause::HandshakeTimeout)] {
        let due = wire.now + LIMITS.handshake_timeout;
        while wire.now < due {
            assert_eq!(closed(&mut wire.server), None);
            wire.now = wire.server.next_deadline().unwrap();
            wire.server.handle_deadline(wire.now, &mut out);
        }
        assert_eq!(closed(&mut wire.server), Some(cause));
        assert_eq!(wire.now, due);
    }
    let repeats = drain(&mut out).len();
    assert!((3..40).contains(&repeats), "{repeats} datagrams for a client that fell silent");
}

#[test]
fn a_publisher_that_sends_nothing_is_reported_once() {
    let mut wire = Wire::between(&Identity::ecdsa(), &Identity::ecdsa(), &Profile::PREFERRED);
    wire.check();
    wire.run();
    let _ = events(&mut wire.server);
    let mut out = outbox();
    wire.now = wire.server.next_deadline().unwrap();
    wire.server.handle_deadline(wire.now, &mut out);
    wire.server.handle_deadline(wire.now + Span::from_secs(5), &mut out);
    assert_eq!(events(&mut wire.server), [TransportEvent::Stalled(Cause::NoSrtp)]);
    assert!(wire.server.is_connected());
}

#[test]
fn forged_replayed_and_stray_media_is_refused_by_name() {
    let mut wire = Wire::between(&Identity::ecdsa(), &Identity::ecdsa(), &Profile::PREFERRED);
    let mut early = rtp(1, 1, 100);
    wire.check();
    assert_eq!(wire.server.open_rtp(wire.now, wire.client_path, &mut early), Err(Drop::SrtpNoKeys));
    wire.run();
    let mut sealed = rtp(1, 1, 100);
    sealed.resize(112 + SEAL_ROOM, 0);
    let len = wire.client.seal_rtp(1, &mut sealed, 112).unwrap();
    sealed.truncate(len);
    let mut stray = sealed.clone();
    assert_eq!(wire.server.open_rtp(wire.now, path("192.0.2.9:1"), &mut stray), Err(Drop::UnknownSource));
    let mut forged = sealed.clone();
    forged[20] ^= 1;
    assert_eq!(wire.server.open_rtp(wire.now, wire.client_path, &mut forged), Err(Drop::SrtpAuthentication));
    let mut again = sealed.clone();
    assert_eq!(wire.server.open_rtp(wire.now, wire.client_path, &mut sealed), Ok(112));
    assert_eq!(wire.server.open_rtp(wire.now, wire.client_path, &mut again), Err(Drop::SrtpReplay));
}

#[test]
fn a_successor_goes_on_where_the_exported_one_stopped() {
    let mut wire = Wire::between(&Identity::ecdsa(), &Identity::ecdsa(), &Profile::PREFERRED);
    wire.check();
    wire.run();
    exchange_media(&mut wire, 1);
    let state = wire.server.export().unwrap();
    wire.server = Transport::import(wire.now, &state, &LIMITS).unwrap();
    assert!(wire.server.is_connected());
    assert_eq!(wire.server.path(), Some(wire.client_path));
    exchange_media(&mut wire, 2);
    let mut out = outbox();
    wire.server.handle_stun(wire.now, wire.client_path, &Check::to_server().bytes(), &mut out).unwrap();
    assert_eq!(drain(&mut out).len(), 1);
}
