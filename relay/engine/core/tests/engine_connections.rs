//! Clients that come over TCP: a connection may land in any worker, goes where its session is, moves with it, and dies with its
//! worker. Must never know frames, which the shell cuts. Read `support/engine.rs` next, for what it does as a reactor.
#![allow(clippy::unwrap_used)]

#[path = "support/engine_peer.rs"]
mod peer;
#[path = "support/saved_calls.rs"]
mod saved_calls;
mod support;
#[path = "support/engine.rs"]
mod world;

use std::net::SocketAddr;

use millrace_core::command::{Command, MoveTransport, Publish};
use millrace_core::drop::Drop;
use millrace_core::event::Cause;
use millrace_core::outbox::SocketIndex;
use millrace_core::stats::Counter;
use peer::Source;
use saved_calls::{assert_everything_came, assert_nothing_was_noticed, box_of, finish, replace, save};
use support::{CLIENT_UFRAG, Check};
use world::{VIDEO, World};

/// A client of `slot` whose connection `entry` accepts.
fn connect(world: &mut World, slot: usize, entry: usize) -> (usize, SocketAddr) {
    let peer = world.open(slot, false);
    let address = world.dial(peer, entry);
    world.start(peer);
    world.run_until(5_000, |world| world.is_connected(peer));
    save(world, peer);
    (peer, address)
}

fn publisher(world: &mut World, slot: usize, entry: usize) -> (usize, Publish, SocketAddr) {
    let (peer, address) = connect(world, slot, entry);
    let publish = world.publish(peer, VIDEO, 8 * slot as u32);
    let now = world.now;
    world.peers[peer].add(Source::new(11, VIDEO, now));
    (peer, publish, address)
}

#[test]
fn a_connection_goes_to_the_worker_that_has_the_session_and_costs_no_hand_over() {
    let mut world = box_of(2, 1);
    let (publisher, publish, sends_from) = publisher(&mut world, 0, 1);
    let (viewer, watches_from) = connect(&mut world, 1, 0);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(20_000);
    assert_eq!((world.connections[&sends_from], world.connections[&watches_from]), (0, 1));
    assert_eq!(world.arena.addresses().find(SocketIndex::TCP, &sends_from), Some(0));
    assert_eq!(world.stat(Counter::HandoversOut), 0);
    assert!(world.steered.is_empty(), "a flow of UDP may have the same numbers");
    finish(&mut world);
    assert_everything_came(&world, (publisher, 0), viewer, ssrc);
    assert_nothing_was_noticed(&world);
}

#[test]
fn connections_move_with_their_sessions_and_nobody_loses_a_packet() {
    let mut world = box_of(2, 2);
    let (publisher, publish, sends_from) = publisher(&mut world, 0, 0);
    let (viewer, watches_from) = connect(&mut world, 1, 1);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(700);
    for round in 0..6 {
        for (peer, address) in [(publisher, sends_from), (viewer, watches_from)] {
            let (from, to) = (world.peers[peer].slot, 1 - world.peers[peer].slot);
            let transport = world.peers[peer].id;
            world.command(from, Command::MoveTransport(MoveTransport { transport, slot: to as u8 }));
            world.peers[peer].slot = to;
            assert_eq!(world.connections[&address], to);
        }
        world.run_for(1_000 + 13 * round);
    }
    finish(&mut world);
    assert_everything_came(&world, (publisher, 0), viewer, ssrc);
    assert_nothing_was_noticed(&world);
    assert_eq!(world.stat(Counter::MovesFailed), 0);
}

#[test]
fn media_goes_to_a_new_connection_with_its_first_check_even_if_that_nominates_nothing() {
    let mut world = box_of(2, 3);
    let (_, publish, _) = publisher(&mut world, 0, 0);
    let (viewer, _) = connect(&mut world, 0, 0);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(2_000);
    world.peers[viewer].nominates = false;
    let address = world.dial(viewer, 1);
    world.peers[viewer].check();
    let before = world.peers[viewer].got(ssrc).numbers().len();
    // A check, our request, its answer, and then a frame.
    world.run_for(200);
    assert_eq!(world.connections[&address], 0);
    assert!(world.peers[viewer].got(ssrc).numbers().len() > before + 2);
}

#[test]
fn a_check_that_was_replayed_over_a_connection_moves_nothing() {
    let mut world = box_of(1, 4);
    let (publisher, publish, _) = publisher(&mut world, 0, 0);
    let (viewer, _) = connect(&mut world, 0, 0);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(500);
    let check =
        Check::to(&world.peers[viewer].credentials.ufrag, &world.peers[viewer].credentials.pwd).from(CLIENT_UFRAG);
    let thief: SocketAddr = "203.0.113.9:9".parse().unwrap();
    world.connections.insert(thief, 0);
    for _ in 0..20 {
        world.inject_over_tcp(thief, &check.bytes());
        world.run_for(500);
    }
    assert!(world.stat(Counter::ProofsGivenUp) >= 2, "whoever connects is somebody, but not our client");
    finish(&mut world);
    assert_everything_came(&world, (publisher, 0), viewer, ssrc);
}

#[test]
fn a_client_whose_connection_ended_has_until_its_consent_ends_to_come_back() {
    let mut world = box_of(1, 5);
    let (viewer, _) = connect(&mut world, 0, 0);
    world.run_for(1_000);
    world.hang_up(viewer);
    world.peers[viewer].cut = true;
    world.run_for(20_000);
    assert_eq!(world.closed(viewer), None);
    world.run_for(11_000);
    assert_eq!(world.closed(viewer), Some(Cause::ConsentLost));
}

#[test]
fn a_session_outlives_its_worker_and_goes_on_over_another_connection() {
    let mut world = box_of(2, 6);
    let (_, publish, _) = publisher(&mut world, 0, 0);
    let (viewer, address) = connect(&mut world, 1, 1);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(1_000);
    // The kernel closes what the worker held.
    world.connections.remove(&address);
    replace(&mut world, 1, 40);
    world.dial(viewer, 0);
    world.peers[viewer].check();
    let before = world.peers[viewer].got(ssrc).numbers().len();
    world.run_for(300);
    assert!(world.peers[viewer].got(ssrc).numbers().len() > before + 3);
    assert_eq!((world.closed(viewer), world.drops(Drop::SrtpReplay)), (None, 0));
}
