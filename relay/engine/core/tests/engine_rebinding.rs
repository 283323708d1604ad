//! Clients that send no check once they are connected, as GStreamer and webrtc-rs, and get another address from their NAT: their media
//! has them asked there, and nobody else is followed. Must never wait for a real clock. Read `support/engine.rs` for the box.
#![allow(clippy::unwrap_used)]

#[path = "support/engine_peer.rs"]
mod peer;
#[path = "support/saved_calls.rs"]
mod saved_calls;
mod support;
#[path = "support/engine.rs"]
mod world;

use std::net::SocketAddr;

use millrace_core::command::{Command, MoveTransport};
use millrace_core::drop::Drop;
use millrace_core::stats::Counter;
use millrace_core::time::Time;
use saved_calls::{box_of, connect, publisher, replace};
use world::World;

/// Until a client that sends no checks has been asked for its consent once more: 6 s, and the pause after the last answer.
const UNTIL_LISTED_MS: u64 = 13_000;

fn elsewhere() -> SocketAddr {
    "203.0.113.9:9".parse().unwrap()
}

/// A publisher on slot 0 and a viewer on slot 1, neither of which sends checks any more; the viewer's SSRC.
fn quiet_call(world: &mut World) -> (usize, usize, u32) {
    let (publisher, publish) = publisher(world, 0);
    let viewer = connect(world, 1);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(500);
    for peer in [publisher, viewer] {
        world.peers[peer].check_at = None;
    }
    world.run_for(UNTIL_LISTED_MS);
    (publisher, viewer, ssrc)
}

/// The client's datagrams from its new address come in here. Nothing reaches its old one.
fn rebind(world: &mut World, peer: usize, enters_at: usize) {
    world.rebind(peer);
    world.peers[peer].enters_at = enters_at;
}

/// When the viewer got its last packet.
fn last(world: &World, viewer: usize, ssrc: u32) -> Time {
    world.peers[viewer].received.iter().find(|received| received.ssrc == ssrc).unwrap().last().unwrap().at
}

#[test]
fn a_publisher_is_followed_to_its_new_address_by_its_media_wherever_that_comes_in() {
    for enters_at in [0, 1] {
        let mut world = box_of(2, 1);
        let (publisher, viewer, ssrc) = quiet_call(&mut world);
        let reports = world.peers[publisher].feedback.receiver_reports;
        rebind(&mut world, publisher, enters_at);
        world.run_for(1_000);
        assert!(world.now.since(last(&world, viewer, ssrc)).0 < 100_000, "its media is taken");
        world.run_for(3_000);
        assert!(world.peers[publisher].feedback.receiver_reports > reports, "and reports go there");
        // For longer than consent lasts.
        world.run_for(60_000);
        assert_eq!((world.closed(publisher), world.closed(viewer)), (None, None));
        assert!(world.now.since(last(&world, viewer, ssrc)).0 < 100_000);
    }
}

#[test]
fn a_viewer_is_followed_to_its_new_address_by_its_reports_wherever_they_come_in() {
    for enters_at in [0, 1] {
        let mut world = box_of(2, 2);
        let (_, viewer, ssrc) = quiet_call(&mut world);
        for _ in 0..3 {
            rebind(&mut world, viewer, enters_at);
            world.run_for(5_000);
            assert!(world.now.since(last(&world, viewer, ssrc)).0 < 100_000, "within a report and a round trip");
            world.run_for(UNTIL_LISTED_MS);
        }
        assert_eq!(world.closed(viewer), None);
    }
}

#[test]
fn who_rebinds_before_it_is_known_to_send_no_checks_is_followed_once_its_consent_is_not_renewed() {
    let mut world = box_of(2, 3);
    let (_, publish) = publisher(&mut world, 0);
    let viewer = connect(&mut world, 1);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(2_500);
    world.peers[viewer].check_at = None;
    rebind(&mut world, viewer, 0);
    world.run_for(20_000);
    assert!(world.now.since(last(&world, viewer, ssrc)).0 < 100_000);
    assert_eq!(world.closed(viewer), None);
}

#[test]
fn a_packet_that_somebody_else_sends_on_moves_nothing_and_brings_him_no_more_than_three_times_its_bytes() {
    let mut world = box_of(2, 4);
    let (publisher, viewer, ssrc) = quiet_call(&mut world);
    // He holds each packet back, so that it is new when it comes from him.
    for peer in [publisher, viewer] {
        world.recording = true;
        world.peers[peer].up = Some(world::Link { loss: 1.0, ..world::Link::GOOD });
        world.recorded.clear();
        world.run_for(1_100);
        world.peers[peer].up = None;
        world.recording = false;
        let held: Vec<_> = std::mem::take(&mut world.recorded);
        let held: Vec<_> = held.into_iter().filter(|bytes| bytes[0] >= 128).collect();
        assert!(!held.is_empty());
        let injected: usize = held.iter().map(Vec::len).sum();
        let before = world.sent_to.get(&elsewhere()).copied().unwrap_or(0);
        for bytes in held {
            world.inject(1, elsewhere(), &bytes);
        }
        world.run_for(3_000);
        let sent = world.sent_to[&elsewhere()] - before;
        assert!(sent > 0 && sent <= 3 * injected, "{sent} for {injected}");
        assert_eq!(world.arena.addresses().find(0, &elsewhere()), None, "it is forgotten");
        assert!(world.now.since(last(&world, viewer, ssrc)).0 < 100_000);
    }
}

#[test]
fn forged_packets_and_replays_are_tried_within_bounds_and_ask_nobody() {
    let mut world = box_of(2, 5);
    let (_, viewer, ssrc) = quiet_call(&mut world);
    world.recording = true;
    world.run_for(1_100);
    world.recording = false;
    let replayed: Vec<_> = world.recorded.iter().filter(|bytes| bytes[0] >= 128).cloned().collect();
    let mut forged = replayed.clone();
    forged.iter_mut().for_each(|bytes| *bytes.last_mut().unwrap() ^= 1);
    let began = world.now;
    for _ in 0..50 {
        for bytes in replayed.iter().chain(&forged) {
            world.inject(1, elsewhere(), bytes);
        }
        world.run_for(20);
    }
    // Each of both clients in 20 ms, by one of both workers.
    let most = 2 * (world.now.since(began).0 / 20_000 + 1);
    assert!((2..=most).contains(&world.stat(Counter::UnknownSourcesTried)), "of {most}");
    assert!(world.drops(Drop::UnknownSource) > 0);
    assert_eq!(world.sent_to.get(&elsewhere()), None);
    assert!(world.now.since(last(&world, viewer, ssrc)).0 < 100_000);
}

#[test]
fn a_client_that_checks_is_found_by_its_checks_alone() {
    let mut world = box_of(2, 6);
    let (publisher, _) = publisher(&mut world, 0);
    world.run_for(UNTIL_LISTED_MS);
    world.recording = true;
    world.run_for(50);
    let media = world.recorded.iter().find(|bytes| bytes[0] >= 128).cloned().unwrap();
    world.inject(0, elsewhere(), &media);
    assert_eq!(world.stat(Counter::UnknownSourcesTried), 0);
    assert_eq!(world.closed(publisher), None);
}

#[test]
fn a_client_is_found_in_the_slot_to_which_it_moved_and_by_its_successor() {
    let mut world = box_of(3, 7);
    let (publisher, viewer, ssrc) = quiet_call(&mut world);
    let transport = world.peers[viewer].id;
    world.command(1, Command::MoveTransport(MoveTransport { transport, slot: 2 }));
    world.peers[viewer].slot = 2;
    replace(&mut world, 0, 40);
    world.run_for(UNTIL_LISTED_MS);
    for peer in [publisher, viewer] {
        rebind(&mut world, peer, 1);
    }
    world.run_for(5_000);
    assert!(world.now.since(last(&world, viewer, ssrc)).0 < 100_000);
    world.run_for(40_000);
    assert_eq!((world.closed(publisher), world.closed(viewer)), (None, None));
}
