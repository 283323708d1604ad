//! Publishers that send nothing: when the control plane is told, and what survives a death and a move. Must never wait for a real
//! clock. Read `support/saved_calls.rs` for the calls.
#![allow(clippy::unwrap_used)]

#[path = "support/engine_peer.rs"]
mod peer;
#[path = "support/saved_calls.rs"]
mod saved_calls;
mod support;
#[path = "support/engine.rs"]
mod world;

use millrace_core::command::{CloseTransport, Command, MoveTransport};
use millrace_core::event::Event;
use millrace_core::stats::Counter;
use peer::Source;
use saved_calls::{box_of, connect, publisher, replace};
use world::{AUDIO, Link, World};

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Silent,
    Heard,
}

/// What the worker in `slot` was told of the client's silence.
fn told(world: &World, slot: usize, peer: usize) -> Vec<Told> {
    let id = world.peers[peer].id;
    let told = world.events[slot].iter().filter_map(|event| match event {
        Event::PublisherSilent(silent) if silent.transport == id => Some(Told::Silent),
        Event::PublisherHeard(heard) if heard.transport == id => Some(Told::Heard),
        _ => None,
    });
    told.collect()
}

fn silent(world: &World) -> u64 {
    world.stat(Counter::PublishersSilent)
}

#[test]
fn a_publisher_is_told_silent_within_two_seconds_whether_its_checks_go_on_or_not_and_heard_with_its_next_packet() {
    for vanishes in [false, true] {
        let mut world = box_of(1, 1);
        let (publisher, _) = publisher(&mut world, 0);
        world.run_for(20_000);
        assert_eq!(told(&world, 0, publisher), [Told::Heard], "once, however long it sends");
        world.peers[publisher].cut = vanishes;
        world.peers[publisher].stop_media();
        world.run_for(1_400);
        assert_eq!((told(&world, 0, publisher), silent(&world)), (vec![Told::Heard], 0));
        world.run_for(400);
        assert_eq!((told(&world, 0, publisher), silent(&world)), (vec![Told::Heard, Told::Silent], 1));
        world.run_for(10_000);
        assert_eq!(told(&world, 0, publisher).len(), 2, "told once");
        world.peers[publisher].cut = false;
        let source = Source::new(99, AUDIO, world.now);
        world.publish(publisher, AUDIO, 1);
        world.peers[publisher].add(source);
        world.run_for(60);
        assert_eq!((told(&world, 0, publisher).len(), silent(&world)), (3, 0));
    }
}

#[test]
fn who_connects_and_never_sends_is_silent_and_a_viewer_never_is() {
    let mut world = box_of(1, 2);
    let connected = connect(&mut world, 0);
    let publish = world.publish(connected, AUDIO, 3);
    let viewer = connect(&mut world, 0);
    world.watch(viewer, &publish);
    world.run_for(2_000);
    assert_eq!((told(&world, 0, connected), told(&world, 0, viewer)), (vec![Told::Silent], vec![]));
    world.command(0, Command::CloseTransport(CloseTransport { transport: world.peers[connected].id }));
    assert_eq!(silent(&world), 0, "nobody is left who could be silent");
}

#[test]
fn one_track_that_sends_is_enough_and_so_is_a_packet_in_a_second() {
    let mut world = box_of(1, 3);
    let (publisher, _) = publisher(&mut world, 0);
    world.publish(publisher, AUDIO, 1);
    // Its picture stops, and its sound comes at the pace of a still screen.
    let mut sound = Source::new(31, AUDIO, world.now);
    sound.interval = millrace_core::time::Span::from_secs(1);
    world.peers[publisher].add(sound);
    world.run_for(500);
    world.peers[publisher].sources[0].next_at = None;
    world.run_for(30_000);
    assert_eq!(told(&world, 0, publisher), [Told::Heard]);
    // Loss makes a silence of it only if it takes the repairs, too.
    world.peers[publisher].up = Some(Link { loss: 1.0, ..Link::GOOD });
    world.run_for(2_500);
    assert_eq!(told(&world, 0, publisher), [Told::Heard, Told::Silent]);
}

#[test]
fn a_successor_and_the_target_of_a_move_are_told_anew() {
    let mut world = box_of(2, 4);
    let (sending, _) = publisher(&mut world, 0);
    let (quiet, _) = publisher(&mut world, 1);
    world.run_for(500);
    world.peers[quiet].stop_media();
    world.run_for(2_000);
    replace(&mut world, 1, 40);
    assert_eq!(silent(&world), 0);
    world.run_for(2_000);
    assert_eq!((told(&world, 1, quiet), silent(&world)), (vec![Told::Heard, Told::Silent, Told::Silent], 1));

    for peer in [quiet, sending] {
        let (from, transport) = (world.peers[peer].slot, world.peers[peer].id);
        world.command(from, Command::MoveTransport(MoveTransport { transport, slot: 1 - from as u8 }));
        world.peers[peer].slot = 1 - from;
    }
    assert_eq!(silent(&world), 0);
    world.run_for(2_000);
    assert_eq!((told(&world, 0, quiet), told(&world, 1, sending)), (vec![Told::Silent], vec![Told::Heard]));
    assert_eq!(silent(&world), 1);
}
