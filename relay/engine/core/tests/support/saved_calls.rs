//! Calls whose sessions are saved, and what must hold when a worker dies or moves them away: clients must not notice. Must never use
//! what a dead engine knew. Read `engine_adoption.rs` and `engine_moves.rs`, which use it.

#![allow(dead_code)]
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use millrace_core::command::{Command, Publish, SaveRecord};
use millrace_core::event::{AdoptionDone, Event, TransportAdopted};
use millrace_core::transport::Phase;

use crate::peer::{Peer, Source};
use crate::world::{VIDEO, World};

pub fn box_of(slots: u8, seed: u64) -> World {
    let mut world = World::new(slots, seed);
    world.sealed = Some(HashMap::new());
    world
}

/// The record that the control plane saves of a client.
pub fn record(world: &World, peer: usize) -> Vec<u8> {
    format!("all about {}", world.peers[peer].id).into_bytes()
}

pub fn save(world: &mut World, peer: usize) {
    let record = serde_bytes::ByteBuf::from(record(world, peer));
    let save = SaveRecord { transport: world.peers[peer].id, record };
    world.command(world.peers[peer].slot, Command::SaveRecord(save));
}

pub fn connect(world: &mut World, slot: usize) -> usize {
    let peer = world.connect(slot);
    save(world, peer);
    peer
}

pub fn publisher(world: &mut World, slot: usize) -> (usize, Publish) {
    let peer = connect(world, slot);
    let publish = world.publish(peer, VIDEO, 8 * slot as u32);
    let now = world.now;
    world.peers[peer].add(Source::new(11 + slot as u32, VIDEO, now));
    (peer, publish)
}

/// Ends a slot's engine, and starts its successor after this many milliseconds.
pub fn replace(world: &mut World, slot: usize, gap_ms: u64) {
    world.kill(slot);
    world.run_for(gap_ms);
    world.succeed(slot);
}

/// Runs until the client's first DTLS record has come, and then lets nothing more of it through.
pub fn begin_handshake(world: &mut World, peer: usize) {
    world.start(peer);
    world.run_until(1_000, |world| world.peers[peer].transport.phase() == Phase::Handshaking);
    world.run_for(5);
    assert!(!world.is_connected(peer));
    world.peers[peer].cut = true;
}

pub fn finish(world: &mut World) {
    world.peers.iter_mut().for_each(Peer::stop_media);
    world.run_for(2_000);
}

pub fn last_done(world: &World, slot: usize) -> AdoptionDone {
    let done = world.events[slot].iter().rev().find_map(|event| match event {
        Event::AdoptionDone(done) => Some(*done),
        _ => None,
    });
    done.expect("every start says it")
}

pub fn adopted(world: &World, peer: usize) -> Option<&TransportAdopted> {
    world.events[world.peers[peer].slot].iter().rev().find_map(|event| match event {
        Event::TransportAdopted(adopted) if adopted.transport == world.peers[peer].id => Some(adopted),
        _ => None,
    })
}

/// Everything that the publisher made from the viewer's first packet on, each once, under numbers without a gap.
#[track_caller]
pub fn assert_everything_came(world: &World, (publisher, source): (usize, usize), viewer: usize, ssrc: u32) {
    let received = world.peers[viewer].got(ssrc);
    let numbers = received.numbers();
    let made = world.peers[publisher].sources[source].made;
    let first = numbers.first().copied().expect("something came");
    assert_eq!(numbers, (first..made).collect::<Vec<_>>(), "of {made}");
    assert!(received.is_whole());
    let timestamps: Vec<u32> = received.packets.values().map(|got| got.timestamp).collect();
    assert!(timestamps.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) as i32 >= 0), "time never goes back");
}

#[track_caller]
pub fn assert_nothing_was_noticed(world: &World) {
    for (at, peer) in world.peers.iter().enumerate() {
        assert_eq!(peer.refused, [], "peer {at} could not open what came");
        assert_eq!(peer.feedback.plis.len(), 0, "peer {at} had to send a key frame");
        assert_eq!(peer.received.iter().map(|received| received.duplicates).sum::<u64>(), 0);
        assert_eq!(world.closed(at), None);
    }
    assert_eq!(world.failures(), Vec::<String>::new());
}
