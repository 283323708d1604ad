//! What checks cannot do by themselves, replayed or forged: move media, send anybody more than three times what came from there,
//! keep a session alive, or end a handshake. And what the proof may not cost those who are who they say. Must never know how
//! an address is asked. Read `support/engine.rs` next.

// What fails here fails a test.
#![allow(clippy::unwrap_used)]

#[path = "support/engine_peer.rs"]
mod peer;
#[path = "support/saved_calls.rs"]
mod saved_calls;
mod support;
#[path = "support/engine.rs"]
mod world;

use std::net::SocketAddr;

use millrace_core::command::DtlsRole;
use millrace_core::drop::Drop;
use millrace_core::event::Cause;
use millrace_core::stats::Counter;
use millrace_core::time::Span;
use millrace_core::transport::stun::Message;
use millrace_core::transport::{Habit, Phase, RemoteState};
use peer::{Source, client_pwd};
use saved_calls::{
    assert_everything_came, assert_nothing_was_noticed, box_of, connect, finish, last_done, publisher, replace,
};
use support::{CLIENT_UFRAG, Check, SERVER, answer_to};
use world::{VIDEO, World};

/// Somebody whose address is no client's.
const ELSEWHERE: &str = "203.0.113.9:9";
/// The link's delay is 10 ms each way.
const ROUND_TRIP_MS: u64 = 20;

fn elsewhere() -> SocketAddr {
    ELSEWHERE.parse().unwrap()
}

/// A publisher on slot 0 and a viewer on slot 1, with media between them; the viewer's SSRC.
fn call(world: &mut World) -> (usize, usize, u32) {
    let (publisher, publish) = publisher(world, 0);
    let viewer = connect(world, 1);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(500);
    (publisher, viewer, ssrc)
}

/// A publisher that answers nothing once DTLS is up, and names nothing before.
fn ffmpeg(world: &mut World) -> usize {
    let peer = world.open(0, true);
    (world.peers[peer].names, world.peers[peer].answers_after_dtls) = (false, false);
    saved_calls::save(world, peer);
    world.publish(peer, VIDEO, 0);
    let now = world.now;
    world.peers[peer].add(Source::new(11, VIDEO, now));
    world.start(peer);
    world.run_until(100, |world| world.is_connected(peer));
    peer
}

/// A check of this client's as somebody recorded it.
fn recorded(world: &World, peer: usize) -> Vec<u8> {
    Check::to(&world.peers[peer].credentials.ufrag, &world.peers[peer].credentials.pwd).bytes()
}

#[test]
fn a_replayed_check_moves_nothing_and_brings_its_sender_no_more_than_three_times_its_bytes() {
    let mut world = box_of(2, 1);
    let (publisher, viewer, ssrc) = call(&mut world);
    let check = recorded(&world, viewer);
    let mut injected = 0;
    for _ in 0..60 {
        world.inject(1, elsewhere(), &check);
        injected += check.len();
        world.run_for(500);
        assert!(world.sent_to[&elsewhere()] <= 3 * injected, "{} for {injected}", world.sent_to[&elsewhere()]);
    }
    assert!(world.stat(Counter::AddressMovesRefused) >= 5);
    assert!(world.stat(Counter::ProofsGivenUp) >= 5);
    finish(&mut world);
    assert_everything_came(&world, (publisher, 0), viewer, ssrc);
    assert_nothing_was_noticed(&world);
}

#[test]
fn one_forged_check_brings_its_victim_three_times_its_bytes_at_most_and_then_nothing() {
    let mut world = box_of(2, 2);
    let (_, viewer, _) = call(&mut world);
    let check = recorded(&world, viewer);
    world.inject(1, elsewhere(), &check);
    world.run_for(2_500);
    let sent = world.sent_to[&elsewhere()];
    assert!(sent <= 3 * check.len(), "{sent} for {}", check.len());
    world.run_for(27_500);
    assert_eq!(world.sent_to[&elsewhere()], sent);
    assert_eq!(world.arena.addresses().find(0, &elsewhere()), None, "it is forgotten");
    assert_eq!(world.steered.get(&elsewhere()), None);
}

#[test]
fn replays_do_not_keep_a_dead_session_alive_from_wherever() {
    for from_itself in [true, false] {
        let mut world = box_of(2, 3);
        let (_, viewer, _) = call(&mut world);
        let check = recorded(&world, viewer);
        let address = if from_itself { world.peers[viewer].address } else { elsewhere() };
        world.peers[viewer].cut = true;
        for _ in 0..31 {
            world.inject(1, address, &check);
            world.run_for(1_000);
        }
        assert_eq!(world.closed(viewer), Some(Cause::ConsentLost));
    }
}

#[test]
fn a_client_that_only_answers_keeps_its_session() {
    let mut world = box_of(2, 4);
    let (publisher, viewer, ssrc) = call(&mut world);
    for peer in [publisher, viewer] {
        world.peers[peer].check_at = None;
    }
    world.run_for(120_000);
    finish(&mut world);
    assert_everything_came(&world, (publisher, 0), viewer, ssrc);
    assert_nothing_was_noticed(&world);
}

#[test]
fn a_client_with_a_new_address_is_followed_within_a_round_trip_of_its_check() {
    for (moved, enters_at) in [(0, 0), (0, 1), (1, 1), (1, 0)] {
        let mut world = box_of(2, 5);
        let (publisher, viewer, ssrc) = call(&mut world);
        let peer = [publisher, viewer][moved];
        world.peers[peer].enters_at = enters_at;
        let address = world.rebind(peer);
        world.peers[peer].check();
        let slot = world.peers[peer].slot as u8;
        world.run_for(ROUND_TRIP_MS / 2 + ROUND_TRIP_MS);
        assert_eq!(world.arena.addresses().find(0, &address), Some(slot));
        assert_eq!(world.steered.get(&address), Some(&slot));
        let before = world.sent_to[&address];
        world.run_for(200);
        assert!(moved == 0 || world.sent_to[&address] > before + 10_000, "media goes there");
        world.run_for(1_500);
        finish(&mut world);
        assert_everything_came(&world, (publisher, 0), viewer, ssrc);
        assert_eq!((world.closed(publisher), world.closed(viewer)), (None, None));
    }
}

#[test]
fn a_join_takes_no_longer_for_the_proof() {
    for role in [DtlsRole::Server, DtlsRole::Client] {
        let mut world = World::new(1, 6);
        let fingerprint = world.peer_fingerprint();
        let peer = world.open_with(0, false, role, &fingerprint);
        let began = world.now;
        world.start(peer);
        world.run_until(1_000, |world| world.is_connected(peer));
        // The check and two flights each way. As the DTLS client our ClientHello is too long for a check and waits for the proof,
        // and the last word is the client's.
        let took = world.now.since(began);
        let expected = match role {
            DtlsRole::Server => 3 * ROUND_TRIP_MS,
            DtlsRole::Client => 3 * ROUND_TRIP_MS + ROUND_TRIP_MS / 2,
        };
        assert_eq!(took, Span::from_millis(expected), "as the DTLS {role:?}");
        assert!(world.peers[peer].requests >= 1);
    }
}

#[test]
fn a_client_that_answers_no_request_is_proven_by_its_handshake_within_the_same_bound() {
    for role in [DtlsRole::Server, DtlsRole::Client] {
        let mut world = World::new(1, 7);
        let fingerprint = world.peer_fingerprint();
        let peer = world.open_with(0, false, role, &fingerprint);
        world.peers[peer].answers_requests = false;
        world.recording = true;
        let address = world.peers[peer].address;
        world.start(peer);
        let until = world.now + Span::from_secs(9);
        while world.now < until && !world.is_connected(peer) {
            world.run_for(10);
            let received: usize = world.recorded.iter().map(Vec::len).sum();
            let sent = world.sent_to.get(&address).copied().unwrap_or(0);
            assert!(sent <= 3 * received || world.is_connected(peer), "{sent} for {received}");
        }
        assert!(world.is_connected(peer), "as the DTLS {role:?}");
        assert!(world.drops(Drop::UnprovenAddress) > 0);
    }
}

#[test]
fn a_request_that_is_passed_on_to_the_client_proves_nothing() {
    let mut world = box_of(2, 8);
    let (publisher, viewer, ssrc) = call(&mut world);
    let pwd = client_pwd(world.peers[viewer].id);
    for mapped in [Some(elsewhere()), None] {
        world.inject(1, elsewhere(), &recorded(&world, viewer));
        // The client answers strangers, and says where it got the request from.
        let answer = answer_to(&world.asked[&elsewhere()], &pwd, mapped).unwrap();
        world.inject(1, elsewhere(), &answer);
        world.run_for(3_000);
    }
    assert_eq!(world.drops(Drop::StunRelayedAnswer), 2);
    finish(&mut world);
    assert_everything_came(&world, (publisher, 0), viewer, ssrc);
    assert!(world.sent_to[&elsewhere()] < 1_000);
}

#[test]
fn only_the_answer_from_there_to_the_request_under_way_by_the_client_proves_an_address() {
    let mut world = box_of(2, 9);
    let (publisher, viewer, ssrc) = call(&mut world);
    let pwd = client_pwd(world.peers[viewer].id);
    let server: SocketAddr = SERVER.parse().unwrap();
    world.inject(1, elsewhere(), &recorded(&world, viewer));
    let request = world.asked[&elsewhere()].clone();
    let answer = answer_to(&request, &pwd, Some(server)).unwrap();
    // From the client's proven address, from nobody's, with another transaction, unsigned by the client, and an error.
    world.inject(1, world.peers[viewer].address, &answer);
    world.inject(1, "203.0.113.9:10".parse().unwrap(), &answer);
    let mut other = request.clone();
    other[15] ^= 1;
    assert!(Message::parse(&other).is_err() || answer_to(&other, &pwd, Some(server)).is_none());
    let forged = support::answer_with(&request, "not the client's password", Some(server));
    world.inject(1, elsewhere(), &forged);
    let unknown = support::answer_of(*b"\x01\x00\x00\x01unknown!", &pwd, Some(server));
    world.inject(1, elsewhere(), &unknown);
    let error = support::error_to(&request, &pwd, 487);
    world.inject(1, elsewhere(), &error);
    assert_eq!(world.drops(Drop::StunUnexpectedAnswer), 3);
    assert_eq!(world.drops(Drop::StunErrorAnswer), 1);
    assert_eq!(world.drops(Drop::StunIntegrity), 1);
    let before = world.sent_to[&elsewhere()];
    world.run_for(50);
    assert_eq!(world.sent_to[&elsewhere()], before, "media stays where it was");
    // The right one at the wrong worker, which hands it over.
    world.inject(0, elsewhere(), &answer);
    world.run_for(200);
    assert!(world.sent_to[&elsewhere()] > before + 10_000, "what it answers for is the client's");
    assert!(world.drops(Drop::NotConnected) == 0);
    // So soon that looks like aggressive nomination; the check after that does not.
    world.run_for(4_000);
    finish(&mut world);
    let made = world.peers[publisher].sources[0].made;
    assert!(world.peers[viewer].got(ssrc).numbers().contains(&(made - 1)), "and the client nominates itself back");
}

#[test]
fn a_check_with_a_wrong_remote_half_is_dropped() {
    let mut world = box_of(1, 10);
    let peer = world.open(0, false);
    let good = world.peers[peer].credentials.clone();
    let address = world.peers[peer].address;
    for name in ["", "01zyxwvut", "01zyxwvutss", "01zyxwvuts:01zyxwvuts"] {
        world.inject(0, address, &Check::to(&good.ufrag, &good.pwd).from(name).bytes());
    }
    assert_eq!(world.drops(Drop::StunUnknownUfrag), 4);
    assert_eq!(world.sent_to.get(&address), None);
    world.start(peer);
    world.run_until(1_000, |world| world.is_connected(peer));
}

#[test]
fn what_is_injected_into_a_handshake_does_not_end_it() {
    for from_itself in [true, false] {
        for injected_at_ms in (0..60).step_by(5) {
            let mut world = World::new(1, 1_100 + injected_at_ms);
            let peer = world.open(0, false);
            let address = if from_itself { world.peers[peer].address } else { elsewhere() };
            world.start(peer);
            world.run_for(injected_at_ms);
            let alert = [21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40];
            // ClientHello of somebody else, an alert, and a record of nothing.
            let hello = strangers_hello();
            for _ in 0..3 {
                world.inject(0, address, &recorded(&world, peer));
                world.inject(0, address, &hello);
                world.inject(0, address, &alert);
                world.inject(0, address, &[22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0]);
            }
            let until = world.now + Span::from_secs(9);
            while world.now < until && !world.is_connected(peer) {
                world.run_for(10);
                assert_eq!(world.closed(peer), None);
            }
            let what = format!("injected after {injected_at_ms} ms, from itself: {from_itself}");
            // A client that has sent its last flight never begins anew; what comes from its own address may spoil that one.
            assert!(world.is_connected(peer) || from_itself, "{what}");
            if !from_itself {
                assert!(world.now.since(until) == Span(0) && world.peers[peer].transport.phase() == Phase::Connected);
            }
        }
    }
}

/// A ClientHello of a client that is not the session's.
fn strangers_hello() -> Vec<u8> {
    let mut world = World::new(1, 12);
    world.recording = true;
    let peer = world.open(0, false);
    world.start(peer);
    world.run_for(25);
    world.recorded.iter().find(|bytes| bytes[0] == 22).unwrap().clone()
}

#[test]
fn a_strangers_whole_handshake_from_a_replayed_check_ends_nothing() {
    let mut world = World::new(1, 13);
    let victim = world.open(0, false);
    let fingerprint = world.peer_fingerprint();
    // Another client with another certificate goes through all of its handshake with the victim's credentials.
    let stranger = world.open_with(0, false, DtlsRole::Server, &fingerprint);
    world.peers[stranger].credentials = world.peers[victim].credentials.clone();
    world.peers[stranger].answers_requests = false;
    world.start(stranger);
    world.run_for(3_000);
    assert_eq!(world.closed(victim), None);
    world.start(victim);
    world.run_for(4_000);
    assert_eq!(world.closed(victim), None);
}

#[test]
fn a_worker_that_dies_or_gives_a_session_away_while_an_address_is_asked_costs_nobody_media() {
    for death_ms in [5, 15, 25, 35] {
        let mut world = box_of(2, 14);
        let (publisher, viewer, ssrc) = call(&mut world);
        let address = world.rebind(viewer);
        world.peers[viewer].check();
        world.run_for(death_ms);
        replace(&mut world, 1, 30);
        assert_eq!(last_done(&world, 1).lost, 0);
        world.run_for(1_200);
        assert_eq!(world.arena.addresses().find(0, &address), Some(1), "asked again with its next check");
        world.run_for(60_000);
        finish(&mut world);
        assert_everything_came(&world, (publisher, 0), viewer, ssrc);
        assert_eq!(world.closed(viewer), None);
    }
}

#[test]
fn a_successor_asks_for_consent_by_what_was_saved() {
    let mut world = box_of(1, 15);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = connect(&mut world, 0);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(500);
    let answered = world.peers[viewer].requests;
    replace(&mut world, 0, 30);
    // From now on the session lives by its client's answers alone.
    world.peers[viewer].check_at = None;
    world.run_for(100_000);
    assert!(world.peers[viewer].requests > answered + 10);
    finish(&mut world);
    assert_everything_came(&world, (publisher, 0), viewer, ssrc);
    assert_nothing_was_noticed(&world);
}

/// Neither the client's password nor its habit were saved: it cannot be asked, so its media keeps it alive.
#[test]
fn sessions_of_a_release_that_saved_no_password_go_on() {
    let mut world = box_of(1, 19);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = connect(&mut world, 0);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(3_000);
    for (record, peer) in [(0, publisher), (1, viewer)] {
        let (ufrag, pwd) = (CLIENT_UFRAG.to_owned(), client_pwd(world.peers[peer].id));
        let remote = RemoteState { ufrag, pwd, restart: None, habit: Habit::Answers, unproven: 0 };
        let remote = rmp_serde::to_vec(&remote).unwrap();
        let mut packed = world.arena.session(record).read().unwrap();
        assert!(packed.ends_with(&remote));
        packed.truncate(packed.len() - remote.len());
        packed[0] -= 1;
        assert!(world.arena.session(record).write(&packed));
    }
    let asked = [publisher, viewer].map(|peer| world.peers[peer].requests);
    replace(&mut world, 0, 30);
    assert_eq!(last_done(&world, 0).lost, 0);
    world.run_for(100_000);
    assert_eq!([publisher, viewer].map(|peer| world.peers[peer].requests), asked);
    finish(&mut world);
    assert_everything_came(&world, (publisher, 0), viewer, ssrc);
    assert_nothing_was_noticed(&world);
}

#[test]
fn a_publisher_that_is_asked_in_vain_is_alive_while_it_sends() {
    let mut world = box_of(1, 16);
    let publisher = ffmpeg(&mut world);
    world.run_for(100_000);
    assert_eq!(world.closed(publisher), None);
    world.peers[publisher].stop_media();
    world.run_for(37_000);
    assert_eq!(world.closed(publisher), Some(Cause::ConsentLost));
}

#[test]
fn a_silent_publisher_is_followed_when_its_old_address_is_silent_and_its_newest_media_comes_from_another() {
    let mut world = box_of(1, 17);
    let peer = ffmpeg(&mut world);
    world.run_for(5_000);
    let old = world.peers[peer].address;
    let replayed = recorded(&world, peer);
    world.inject(0, elsewhere(), &replayed);
    let address = world.rebind(peer);
    world.peers[peer].check();
    world.run_for(1_000);
    let before = [world.sent_to[&old], world.sent_to[&address]];
    world.run_for(60_000);
    assert_eq!(world.closed(peer), None);
    assert!(world.sent_to[&old] < before[0] + 1_000, "reports go elsewhere after a second and a half");
    assert!(world.sent_to[&address] > before[1] + 3_000, "they go there");
    assert!(world.sent_to[&elsewhere()] <= 3 * replayed.len());
}

#[test]
fn a_silent_publisher_is_not_followed_by_a_check_alone() {
    let mut world = box_of(1, 18);
    let peer = ffmpeg(&mut world);
    world.run_for(5_000);
    let replayed = recorded(&world, peer);
    for _ in 0..20 {
        world.inject(0, elsewhere(), &replayed);
        world.run_for(500);
    }
    assert!(world.sent_to[&elsewhere()] <= 3 * 20 * replayed.len());
    assert_eq!(world.stat(Counter::AddressMovesRefused), 5);
}
