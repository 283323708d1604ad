//! What a client's checks do to a transport: answers, refusals, addresses, nomination, roaming, restarts and consent.
//! Must never wait for a real clock. Read `support/mod.rs` next.

// What fails here fails a test.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::LazyLock;

use millrace_core::command::RestartIce;
use millrace_core::drop::Drop;
use millrace_core::event::Cause;
use millrace_core::outbox::Path;
use millrace_core::time::{Span, Time};
use millrace_core::transport::stun::{BINDING_ERROR, Integrity, Message, attribute};
use millrace_core::transport::{DtlsContexts, Phase, Profile, Transport, TransportEvent};
use proptest::prelude::*;
use support::{
    Check, Identity, LIMITS, SERVER_PWD, SERVER_UFRAG, Wire, drain, events, open_server, outbox, path, take_dtls,
};

const START: Time = Time(1_000_000);

/// One certificate for all, as these tests make no handshake.
static CONTEXTS: LazyLock<DtlsContexts> = LazyLock::new(|| Identity::ecdsa().contexts(&Profile::PREFERRED));

fn transport() -> Transport {
    Transport::new(START, &open_server(&[0; 32]), &CONTEXTS, &LIMITS).unwrap()
}

fn at(seconds: u64) -> Time {
    START + Span::from_secs(seconds)
}

fn host(number: u8) -> Path {
    path(&format!("192.0.2.{number}:4000"))
}

/// Delivers a check and returns the one answer, or the drop.
fn check(transport: &mut Transport, now: Time, path: Path, check: &Check) -> Result<Vec<u8>, Drop> {
    let mut out = outbox();
    let result = transport.handle_stun(now, path, &check.bytes(), &mut out);
    let mut sent = drain(&mut out);
    match result {
        Ok(()) => {
            assert_eq!(sent.len(), 1);
            let (to, answer) = sent.remove(0);
            assert_eq!(to, path.remote);
            Ok(answer)
        }
        Err(drop) => {
            assert!(sent.is_empty(), "an answer to what was refused");
            Err(drop)
        }
    }
}

fn restart_to(ufrag: &str) -> RestartIce {
    RestartIce {
        transport: 1,
        local_ufrag: ufrag.to_owned(),
        local_pwd: format!("password of {ufrag}, long enough"),
        remote_ufrag: "client".to_owned(),
        remote_pwd: "password of the client, too".to_owned(),
    }
}

#[test]
fn a_check_is_answered_with_the_address_it_came_from() {
    for remote in ["192.0.2.1:32853", "[2001:db8::7]:9"] {
        let mut transport = transport();
        let answer = check(&mut transport, START, path(remote), &Check::to_server()).unwrap();
        let message = Message::parse(&answer).unwrap();
        assert!(message.is_binding_success());
        assert_eq!(message.transaction(), b"transaction!");
        assert_eq!(message.mapped_address(), Some(remote.parse().unwrap()));
        assert!(message.is_authentic(&Integrity::new(SERVER_PWD.as_bytes())));
        assert_eq!(transport.phase(), Phase::Checked);
        assert_eq!(transport.path(), Some(path(remote)));
        assert_eq!(events(&mut transport), [TransportEvent::AddressProven(path(remote))]);
    }
}

#[test]
fn strangers_get_silence_and_prove_nothing() {
    let mut transport = transport();
    let wrong_password = Check::to(SERVER_UFRAG, "not the password");
    assert_eq!(check(&mut transport, START, host(1), &wrong_password), Err(Drop::StunIntegrity));
    let wrong_ufrag = Check::to("00other", SERVER_PWD);
    assert_eq!(check(&mut transport, START, host(1), &wrong_ufrag), Err(Drop::StunUnknownUfrag));
    let mut out = outbox();
    let mut unsigned = Check::to_server().bytes();
    unsigned.truncate(unsigned.len() - 32);
    let len = (unsigned.len() - 20) as u16;
    unsigned[2..4].copy_from_slice(&len.to_be_bytes());
    assert_eq!(transport.handle_stun(START, host(1), &unsigned, &mut out), Err(Drop::StunIntegrity));
    assert!(out.is_empty() && !transport.is_proven(host(1)));
    assert_eq!(transport.phase(), Phase::New);
}

#[test]
fn a_client_that_believes_we_control_is_told_so() {
    let mut transport = transport();
    let confused = Check::to_server().with(attribute::ICE_CONTROLLED, &[1; 8]);
    let answer = check(&mut transport, START, host(1), &confused).unwrap();
    let message = Message::parse(&answer).unwrap();
    assert_eq!((message.kind(), message.error_code()), (BINDING_ERROR, Some(487)));
    assert!(message.is_authentic(&Integrity::new(SERVER_PWD.as_bytes())));
    assert!(!transport.is_proven(host(1)));
    assert!(answer.len() <= confused.bytes().len());
}

#[test]
fn unknown_required_attributes_are_named_and_optional_ones_ignored() {
    let mut transport = transport();
    let mut demanding = Check::to_server();
    for kind in 0x7F00..0x7F10 {
        demanding = demanding.with(kind, &[]);
    }
    let answer = check(&mut transport, START, host(1), &demanding).unwrap();
    assert_eq!(Message::parse(&answer).unwrap().error_code(), Some(420));
    assert!(answer.len() <= demanding.bytes().len());
    assert!(!transport.is_proven(host(1)));
    let polite = Check::to_server().with(0xC057, &[0, 1, 0, 2]);
    assert!(Message::parse(&check(&mut transport, START, host(1), &polite).unwrap()).unwrap().is_binding_success());
}

#[test]
fn nothing_is_selected_until_the_client_nominates() {
    let mut transport = transport();
    check(&mut transport, START, host(1), &Check::to_server().without_nomination()).unwrap();
    assert!(transport.is_proven(host(1)));
    assert_eq!(transport.path(), None);
    check(&mut transport, START, host(2), &Check::to_server()).unwrap();
    assert_eq!(transport.path(), Some(host(2)));
    check(&mut transport, START, host(1), &Check::to_server().without_nomination()).unwrap();
    assert_eq!(transport.path(), Some(host(2)));
}

#[test]
fn a_nomination_from_a_new_address_moves_the_path_at_once() {
    let mut transport = transport();
    check(&mut transport, START, host(1), &Check::to_server().with_priority(100)).unwrap();
    check(&mut transport, at(1), path("192.0.2.1:5000"), &Check::to_server().with_priority(1)).unwrap();
    assert_eq!(transport.path(), Some(path("192.0.2.1:5000")));
    assert!(transport.is_proven(host(1)));
}

#[test]
fn aggressive_nomination_settles_on_the_better_path() {
    let mut transport = transport();
    let (better, worse) = (Check::to_server().with_priority(9), Check::to_server().with_priority(5));
    for tick in 0..20 {
        let now = START + Span::from_millis(tick * 50);
        check(&mut transport, now, host(1), &better).unwrap();
        check(&mut transport, now, host(2), &worse).unwrap();
        if tick > 0 {
            assert_eq!(transport.path(), Some(host(1)), "tick {tick}");
        }
    }
}

#[test]
fn a_client_that_goes_back_is_followed() {
    let mut transport = transport();
    check(&mut transport, at(0), host(1), &Check::to_server().with_priority(5)).unwrap();
    check(&mut transport, at(5), host(2), &Check::to_server().with_priority(9)).unwrap();
    check(&mut transport, at(10), host(1), &Check::to_server().with_priority(5)).unwrap();
    assert_eq!(transport.path(), Some(host(1)));
}

#[test]
fn a_silent_selected_path_gives_way_to_one_that_is_checked() {
    let mut transport = transport();
    let plain = Check::to_server().without_nomination();
    check(&mut transport, at(0), host(1), &Check::to_server()).unwrap();
    check(&mut transport, at(5), host(2), &plain).unwrap();
    assert_eq!(transport.path(), Some(host(1)), "5 s of silence is a client's normal pause");
    check(&mut transport, at(10), host(2), &plain).unwrap();
    assert_eq!(transport.path(), Some(host(2)));
}

#[test]
fn consent_moves_to_a_fresh_address_before_it_is_lost() {
    let mut out = outbox();
    let mut wire = connected();
    wire.server.handle_stun(wire.now + Span::from_secs(7), host(9), &plain_check(), &mut out).unwrap();
    let _ = events(&mut wire.server);
    wire.server.handle_deadline(wire.now + Span::from_secs(30), &mut out);
    assert!(wire.server.is_connected());
    assert_eq!(wire.server.path(), Some(host(9)));
    wire.server.handle_deadline(wire.now + Span::from_secs(37), &mut out);
    let ended = events(&mut wire.server);
    assert_eq!(ended.last(), Some(&TransportEvent::Closed(Cause::ConsentLost)));
    assert!(ended.contains(&TransportEvent::AddressForgotten(host(9))));
    assert_eq!(wire.server.path(), None);
}

fn plain_check() -> Vec<u8> {
    Check::to_server().without_nomination().bytes()
}

fn connected() -> Wire {
    let mut wire = Wire::between(&Identity::ecdsa(), &Identity::ecdsa(), &Profile::PREFERRED);
    wire.check();
    wire.run();
    assert!(wire.server.is_connected());
    wire
}

#[test]
fn every_authentic_check_renews_consent() {
    let mut wire = connected();
    let mut out = outbox();
    for _ in 0..10 {
        wire.now = wire.now + Span::from_secs(29);
        wire.server.handle_deadline(wire.now, &mut out);
        wire.server.handle_stun(wire.now, wire.client_path, &plain_check(), &mut out).unwrap();
    }
    assert!(wire.server.is_connected());
    let due = wire.server.next_deadline();
    assert_eq!(due, Some(wire.now + LIMITS.consent_timeout));
    wire.server.handle_deadline(wire.now + LIMITS.consent_timeout, &mut out);
    assert_eq!(events(&mut wire.server).last(), Some(&TransportEvent::Closed(Cause::ConsentLost)));
}

#[test]
fn addresses_are_bounded_and_the_selected_one_stays() {
    let mut transport = transport();
    check(&mut transport, at(0), host(1), &Check::to_server()).unwrap();
    for number in 2..60 {
        let now = START + Span::from_millis(u64::from(number));
        check(&mut transport, now, host(number), &Check::to_server().without_nomination()).unwrap();
        let held = (1..60).filter(|number| transport.is_proven(host(*number))).count();
        assert!(held <= LIMITS.max_addresses);
    }
    assert_eq!(transport.path(), Some(host(1)));
    let told = events(&mut transport);
    let balance = |wanted: fn(&TransportEvent) -> bool| told.iter().filter(|event| wanted(event)).count();
    let proven = balance(|event| matches!(event, TransportEvent::AddressProven(_)));
    let forgotten = balance(|event| matches!(event, TransportEvent::AddressForgotten(_)));
    assert_eq!((proven, forgotten), (59, 59 - LIMITS.max_addresses));
}

#[test]
fn during_a_restart_both_credentials_work_until_the_new_ones_are_used() {
    let mut transport = transport();
    check(&mut transport, at(0), host(1), &Check::to_server()).unwrap();
    let _ = events(&mut transport);
    transport.restart_ice(at(1), &restart_to("00newufrag"));
    assert_eq!(transport.ufrags().collect::<Vec<_>>(), [SERVER_UFRAG, "00newufrag"]);
    check(&mut transport, at(2), host(1), &Check::to_server()).unwrap();
    assert!(events(&mut transport).is_empty());
    let new = Check::to("00newufrag", "password of 00newufrag, long enough");
    check(&mut transport, at(3), host(2), &new).unwrap();
    assert_eq!(transport.path(), Some(host(2)));
    assert_eq!(check(&mut transport, at(4), host(1), &Check::to_server()), Err(Drop::StunUnknownUfrag));
    assert_eq!(
        events(&mut transport),
        [TransportEvent::UfragForgotten(SERVER_UFRAG.to_owned()), TransportEvent::AddressProven(host(2))]
    );
}

#[test]
fn a_restart_that_never_happens_changes_nothing() {
    let mut wire = connected();
    let _ = events(&mut wire.server);
    wire.server.restart_ice(wire.now, &restart_to("00first"));
    wire.server.restart_ice(wire.now, &restart_to("00second"));
    assert_eq!(events(&mut wire.server), [TransportEvent::UfragForgotten("00first".to_owned())]);
    let mixed = Check::to("00second", SERVER_PWD);
    assert_eq!(check(&mut wire.server, wire.now, host(3), &mixed), Err(Drop::StunIntegrity));
    assert!(wire.server.is_connected());
    assert_eq!(wire.server.path(), Some(wire.client_path));
}

#[test]
fn silence_and_bad_integrity_are_told_apart() {
    let mut out = outbox();
    let due = START + LIMITS.ice_timeout;
    let mut silent = transport();
    assert_eq!(silent.next_deadline(), Some(due));
    silent.handle_deadline(Time(due.0 - 1), &mut out);
    assert!(events(&mut silent).is_empty());
    silent.handle_deadline(due, &mut out);
    assert_eq!(events(&mut silent), [TransportEvent::Closed(Cause::NoStun)]);
    let mut wrong = transport();
    let _ = check(&mut wrong, START, host(1), &Check::to(SERVER_UFRAG, "wrong"));
    wrong.handle_deadline(due, &mut out);
    assert_eq!(events(&mut wrong), [TransportEvent::Closed(Cause::BadIntegrity)]);
    assert_eq!(check(&mut wrong, due, host(1), &Check::to_server()), Err(Drop::StunUnknownUfrag));
}

#[test]
fn keepalive_indications_pass_only_from_proven_addresses() {
    let mut transport = transport();
    let mut out = outbox();
    let mut indication = vec![0x00, 0x11, 0, 0, 0x21, 0x12, 0xA4, 0x42];
    indication.extend([5; 12]);
    assert_eq!(transport.handle_stun(START, host(1), &indication, &mut out), Err(Drop::StunMalformed));
    check(&mut transport, START, host(1), &Check::to_server()).unwrap();
    assert_eq!(transport.handle_stun(START, host(1), &indication, &mut out), Ok(()));
    assert!(out.is_empty());
}

#[test]
fn a_full_outbox_loses_the_answer_and_not_the_check() {
    let mut transport = transport();
    let mut full = millrace_core::outbox::Outbox::new(10, 1);
    let refused = transport.handle_stun(START, host(1), &Check::to_server().bytes(), &mut full);
    assert_eq!(refused, Err(Drop::OutboxFull));
    assert!(transport.is_proven(host(1)));
    assert_eq!(transport.phase(), Phase::Checked);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever checks come from wherever and whenever: no panic, the bound holds, the selected path is a proven one,
    /// and events add up to what is proven.
    #[test]
    fn any_run_of_checks_keeps_the_books(steps in proptest::collection::vec((0u8..12, any::<bool>(), 0u32..4, 0u64..9_000), 1..120)) {
        let mut transport = transport();
        let mut out = outbox();
        let mut now = START;
        let mut believed = std::collections::HashSet::new();
        for (number, nominates, priority, pause) in steps {
            now = now + Span::from_millis(pause);
            transport.handle_deadline(now, &mut out);
            let mut check = Check::to_server().with_priority(priority);
            check.nominates = nominates;
            let _ = transport.handle_stun(now, host(number), &check.bytes(), &mut out);
            out.clear();
            for event in events(&mut transport) {
                match event {
                    TransportEvent::AddressProven(path) => prop_assert!(believed.insert(path)),
                    TransportEvent::AddressForgotten(path) => prop_assert!(believed.remove(&path)),
                    _ => {}
                }
            }
            prop_assert!(believed.len() <= LIMITS.max_addresses);
            for number in 0..12 {
                prop_assert_eq!(transport.is_proven(host(number)), believed.contains(&host(number)));
            }
            prop_assert!(transport.path().is_none_or(|path| believed.contains(&path)));
        }
    }

    #[test]
    fn arbitrary_datagrams_after_a_check_never_panic(
        datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
    ) {
        let mut transport = transport();
        let mut out = outbox();
        transport.handle_stun(START, host(1), &Check::to_server().bytes(), &mut out).unwrap();
        for mut bytes in datagrams {
            let _ = transport.handle_stun(START, host(1), &bytes, &mut out);
            let _ = take_dtls(&mut transport, START, host(1), &bytes, &mut out);
            let _ = transport.open_rtp(START, host(1), &mut bytes);
            let _ = transport.open_rtcp(START, host(1), &mut bytes);
            out.clear();
        }
        prop_assert!(!transport.is_connected());
    }
}
