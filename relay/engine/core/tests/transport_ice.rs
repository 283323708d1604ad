//! What a client's checks do to a transport: answers, refusals, addresses, nomination, roaming, restarts and consent.
//! Must never wait for a real clock. Read `support/mod.rs` next.

// What fails here fails a test.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{HashMap, HashSet};
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
    CLIENT_PWD, CLIENT_UFRAG, Check, Identity, LIMITS, SERVER, SERVER_PWD, SERVER_UFRAG, Wire, answer_to, drain,
    events, open_server, outbox, path, prover, take_dtls,
};

const START: Time = Time(1_000_000);
const NUMBER: u32 = 0x0200_0007;

/// One certificate for all, as these tests make no handshake.
static CONTEXTS: LazyLock<DtlsContexts> = LazyLock::new(|| Identity::ecdsa().contexts(&Profile::PREFERRED));

fn transport() -> Transport {
    let mut transport = Transport::new(START, &open_server(&[0; 32]), &CONTEXTS, &LIMITS).unwrap();
    transport.ask_with(&prover(), NUMBER);
    transport
}

fn at(seconds: u64) -> Time {
    START + Span::from_secs(seconds)
}

fn host(number: u8) -> Path {
    path(&format!("192.0.2.{number}:4000"))
}

/// Delivers a check and returns the one answer, or the drop. The client answers our request, if there is one.
fn check(transport: &mut Transport, now: Time, path: Path, check: &Check) -> Result<Vec<u8>, Drop> {
    let (answer, request) = check_alone(transport, now, path, check)?;
    if let Some(request) = request {
        prove(transport, now, path, &request);
    }
    Ok(answer)
}

/// Delivers a check and returns the answer and our request, which nobody answers.
fn check_alone(
    transport: &mut Transport,
    now: Time,
    path: Path,
    check: &Check,
) -> Result<(Vec<u8>, Option<Vec<u8>>), Drop> {
    let mut out = outbox();
    let result = transport.handle_stun(now, path, &check.bytes(), &mut out);
    let sent = drain(&mut out);
    assert!(sent.iter().all(|(to, _)| *to == path.remote));
    let is_request = |bytes: &[u8]| Message::parse(bytes).unwrap().is_binding_request();
    let (mut requests, mut answers): (Vec<_>, Vec<_>) =
        sent.into_iter().map(|(_, bytes)| bytes).partition(|bytes| is_request(bytes));
    assert!(answers.len() == usize::from(result.is_ok()) && requests.len() <= answers.len());
    result.map(|()| (answers.remove(0), requests.pop()))
}

fn prove(transport: &mut Transport, now: Time, path: Path, request: &[u8]) {
    let answer = answer_to(request, CLIENT_PWD, Some(SERVER.parse().unwrap())).unwrap();
    transport.handle_stun(now, path, &answer, &mut outbox()).unwrap();
}

fn restart_to(ufrag: &str) -> RestartIce {
    RestartIce {
        transport: 1,
        local_ufrag: ufrag.to_owned(),
        local_pwd: format!("password of {ufrag}, long enough"),
        remote_ufrag: CLIENT_UFRAG.to_owned(),
        remote_pwd: CLIENT_PWD.to_owned(),
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
        let told = events(&mut transport);
        assert_eq!(told.first(), Some(&TransportEvent::AddressChecked(path(remote))));
        assert_eq!(told.last(), Some(&TransportEvent::AddressProven(path(remote))));
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

/// Lets time go by; the client answers every request, or none.
fn live(wire: &mut Wire, until: Time, answers: bool) {
    let mut out = outbox();
    while let Some(due) = wire.server.next_deadline().filter(|due| *due <= until) {
        wire.now = wire.now.max(due);
        wire.server.handle_deadline(wire.now, &mut out);
        for (remote, bytes) in drain(&mut out) {
            let path = Path { socket: wire.client_path.socket, remote };
            if answers && answer_to(&bytes, CLIENT_PWD, None).is_some() {
                prove(&mut wire.server, wire.now, path, &bytes);
            }
        }
    }
    wire.now = until;
}

#[test]
fn consent_moves_to_another_proven_address_before_it_is_lost() {
    let mut wire = connected();
    let began = wire.now;
    live(&mut wire, began + Span::from_secs(7), false);
    let now = wire.now;
    check(&mut wire.server, now, host(9), &Check::to_server().without_nomination()).unwrap();
    live(&mut wire, began + Span::from_secs(31), false);
    assert!(wire.server.is_connected());
    assert_eq!(wire.server.path(), Some(host(9)));
    let _ = events(&mut wire.server);
    live(&mut wire, began + Span::from_secs(37), false);
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
    wire.server.ask_with(&prover(), NUMBER);
    wire
}

#[test]
fn consent_is_renewed_by_answers_and_never_by_checks_which_may_be_replays() {
    let mut wire = connected();
    let mut out = outbox();
    let until = wire.now + Span::from_secs(300);
    live(&mut wire, until, true);
    assert!(wire.server.is_connected(), "a client that sends no checks at all");
    for second in 0..31 {
        // The last answer was up to six seconds before.
        assert!(wire.server.is_connected() || second > 23);
        let next = wire.now + Span::from_secs(1);
        live(&mut wire, next, false);
        let _refused_when_closed = wire.server.handle_stun(wire.now, wire.client_path, &plain_check(), &mut out);
        out.clear();
    }
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
    assert!(!events(&mut transport).iter().any(|event| matches!(event, TransportEvent::UfragForgotten(_))));
    let new = Check::to("00newufrag", "password of 00newufrag, long enough");
    check(&mut transport, at(3), host(2), &new).unwrap();
    assert_eq!(transport.path(), Some(host(2)));
    assert_eq!(check(&mut transport, at(4), host(1), &Check::to_server()), Err(Drop::StunUnknownUfrag));
    let told = events(&mut transport);
    assert_eq!(told.first(), Some(&TransportEvent::UfragForgotten(SERVER_UFRAG.to_owned())));
    assert_eq!(told.last(), Some(&TransportEvent::AddressProven(host(2))));
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
    assert!(transport.is_known(host(1)));
    assert_eq!(transport.phase(), Phase::Checked);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever checks come from wherever and whenever, and whoever answers: no panic, the bound holds, the selected path is a proven
    /// one, events add up to what is known and proven, and an address that is not gets three times what it sent at most.
    #[test]
    fn any_run_of_checks_keeps_the_books(
        steps in proptest::collection::vec((0u8..12, any::<bool>(), any::<bool>(), 0u32..4, 0u64..9_000), 1..120),
    ) {
        let mut transport = transport();
        let mut out = outbox();
        let mut now = START;
        let (mut known, mut proven, mut ever_proven) = (HashSet::new(), HashSet::new(), HashSet::new());
        let mut exchanged: HashMap<_, (usize, usize)> = HashMap::new();
        for (number, nominates, answers, priority, pause) in steps {
            let until = now + Span::from_millis(pause);
            let mut sent = Vec::new();
            while let Some(due) = transport.next_deadline().filter(|due| *due <= until) {
                now = now.max(due);
                transport.handle_deadline(now, &mut out);
                sent.extend(drain(&mut out));
                if transport.phase() == Phase::Closed {
                    break;
                }
            }
            now = until;
            let mut check = Check::to_server().with_priority(priority);
            check.nominates = nominates;
            let bytes = check.bytes();
            exchanged.entry(host(number).remote).or_default().0 += bytes.len();
            let _ = transport.handle_stun(now, host(number), &bytes, &mut out);
            sent.extend(drain(&mut out));
            for (remote, bytes) in &sent {
                let (received, answered) = exchanged.entry(*remote).or_default();
                *answered += bytes.len();
                let path = Path { socket: host(1).socket, remote: *remote };
                prop_assert!(proven.contains(&path) || ever_proven.contains(remote) || *answered <= *received * 3);
            }
            let request = sent.iter().rev().find(|(remote, bytes)| *remote == host(number).remote && bytes[0] == 0 && bytes[1] == 1);
            if let Some((_, request)) = request.filter(|_| answers) {
                let answer = answer_to(request, CLIENT_PWD, Some(SERVER.parse().unwrap())).unwrap();
                let _ = transport.handle_stun(now, host(number), &answer, &mut out);
            }
            for event in events(&mut transport) {
                match event {
                    TransportEvent::AddressChecked(path) => prop_assert!(known.insert(path)),
                    TransportEvent::AddressProven(path) => prop_assert!(known.contains(&path) && proven.insert(path)),
                    TransportEvent::AddressForgotten(path) => {
                        prop_assert!(known.remove(&path));
                        if proven.remove(&path) {
                            ever_proven.insert(path.remote);
                        }
                                            }
                    _ => {}
                }
            }
            prop_assert!(known.len() <= LIMITS.max_addresses);
            for number in 0..12 {
                prop_assert_eq!(transport.is_known(host(number)), known.contains(&host(number)));
                prop_assert_eq!(transport.is_proven(host(number)), proven.contains(&host(number)));
            }
            prop_assert!(transport.path().is_none_or(|path| proven.contains(&path)));
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
