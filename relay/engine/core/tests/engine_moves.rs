//! Sessions that move from one living engine to another in the middle of calls: clients must not notice, whichever engine dies
//! meanwhile. Read `support/saved_calls.rs` for what must hold, `engine_adoption.rs` for deaths alone.
#![allow(clippy::unwrap_used)]

#[path = "support/engine_peer.rs"]
mod peer;
#[path = "support/saved_calls.rs"]
mod saved_calls;
mod support;
#[path = "support/engine.rs"]
mod world;

use millrace_arena::Owner;
use millrace_core::command::{CloseTransport, Command, MoveTransport, Publish, RestartIce};
use millrace_core::drop::Drop;
use millrace_core::event::{AdoptionDone, Event, Outcome};
use millrace_core::stats::Counter;
use millrace_core::time::Span;
use peer::{Credentials, Source, client_pwd};
use proptest::prelude::*;
use saved_calls::{
    adopted, assert_everything_came, assert_nothing_was_noticed, begin_handshake, box_of, connect, finish, last_done,
    publisher, save,
};
use support::CLIENT_UFRAG;
use world::{AUDIO, Fuse, Link, VIDEO, World};

/// The outcome of the client's last move.
fn outcome(world: &World, from: usize, peer: usize) -> Option<Outcome> {
    world.events[from].iter().rev().find_map(|event| match event {
        Event::MoveDone(done) if done.transport == world.peers[peer].id => Some(done.outcome),
        _ => None,
    })
}

fn ask_to_move(world: &mut World, peer: usize, to: usize) {
    let (from, transport) = (world.peers[peer].slot, world.peers[peer].id);
    world.events[from].retain(|event| !matches!(event, Event::MoveDone(done) if done.transport == transport));
    world.command(from, Command::MoveTransport(MoveTransport { transport, slot: to as u8 }));
}

/// Moves a client, whose datagrams still arrive at the old slot.
#[track_caller]
fn move_to(world: &mut World, peer: usize, to: usize) {
    let from = world.peers[peer].slot;
    ask_to_move(world, peer, to);
    assert_eq!(outcome(world, from, peer), Some(Outcome::Moved));
    world.peers[peer].slot = to;
    assert!(adopted(world, peer).is_some());
}

/// How many checks of each client were answered so far.
fn answers(world: &World) -> Vec<u64> {
    world.peers.iter().map(|peer| peer.answers).collect()
}

#[test]
fn publishers_and_viewers_move_back_and_forth_and_nobody_loses_a_packet() {
    let mut world = box_of(3, 1);
    let (publisher, publish) = publisher(&mut world, 0);
    let audio = world.publish(publisher, AUDIO, 1);
    let source = Source::new(31, AUDIO, world.now);
    world.peers[publisher].add(source);
    let viewers = [connect(&mut world, 0), connect(&mut world, 1)];
    let watched = viewers.map(|viewer| (viewer, world.watch(viewer, &publish), world.watch(viewer, &audio)));
    world.run_for(700);
    for round in 0..20 {
        let before = answers(&world);
        // The publisher alone, a viewer alone, both at once.
        let movers = [vec![publisher], vec![viewers[0]], vec![publisher, viewers[1]]];
        for peer in &movers[round % 3] {
            let to = (world.peers[*peer].slot + 1 + round % 2) % 3;
            move_to(&mut world, *peer, to);
        }
        world.run_for(13 * round as u64);
        world.run_for(1_100);
        assert!(before.iter().zip(answers(&world)).all(|(before, after)| after > *before), "checks are answered");
    }
    finish(&mut world);
    for (viewer, video, audio) in watched {
        assert_everything_came(&world, (publisher, 0), viewer, video);
        assert_everything_came(&world, (publisher, 1), viewer, audio);
        assert_eq!(world.peers[viewer].got(video).repairs, 0, "nothing had to be repaired");
    }
    assert_nothing_was_noticed(&world);
    assert_eq!(world.stat(Counter::MovesIn), world.stat(Counter::MovesOut));
    assert_eq!((world.stat(Counter::MovesFailed), world.stat(Counter::SessionsLost)), (0, 0));
    assert_eq!((world.stat(Counter::Transports), world.stat(Counter::Publications)), (3, 2));
    assert_eq!((world.drops(Drop::SrtpReplay), world.drops(Drop::SrtpAuthentication)), (0, 0));
    assert_eq!((world.drops(Drop::UnknownSource), world.drops(Drop::StunUnknownUfrag)), (0, 0));
}

#[test]
fn the_kernel_is_told_whose_the_flow_is_now() {
    let mut world = box_of(2, 2);
    let (publisher, _) = publisher(&mut world, 0);
    let address = world.peers[publisher].address;
    assert_eq!(world.steered.get(&address), Some(&0));
    move_to(&mut world, publisher, 1);
    assert_eq!((world.steered.get(&address), world.arena.addresses().find(0, &address)), (Some(&1), Some(1)));
    // As the kernel does from then on.
    world.peers[publisher].enters_at = 1;
    let handed_over = world.stat(Counter::HandoversOut);
    world.run_for(3_000);
    assert_eq!(world.stat(Counter::HandoversOut), handed_over);
    move_to(&mut world, publisher, 0);
    assert_eq!((world.steered.get(&address), world.arena.addresses().find(0, &address)), (Some(&0), Some(0)));
}

#[test]
fn a_check_finds_a_moved_session_from_any_socket_and_any_address() {
    let mut world = box_of(3, 3);
    let viewer = connect(&mut world, 0);
    let ufrag = world.peers[viewer].credentials.ufrag.clone();
    for (to, enters_at) in [(1, 0), (2, 1), (2, 0), (0, 2)] {
        if world.peers[viewer].slot != to {
            move_to(&mut world, viewer, to);
        }
        assert_eq!(world.arena.addresses().find_ufrag(&ufrag), (to != 0).then_some(to as u8));
        world.peers[viewer].enters_at = enters_at;
        let address = world.rebind(viewer);
        let before = world.peers[viewer].answers;
        world.peers[viewer].check();
        world.run_until_idle();
        world.run_for(100);
        assert_eq!(world.peers[viewer].answers, before + 1);
        assert_eq!(world.arena.addresses().find(0, &address), Some(to as u8));
    }
}

#[test]
fn a_restart_names_the_new_slot_and_the_old_name_is_forgotten() {
    let mut world = box_of(2, 4);
    let viewer = connect(&mut world, 0);
    let old = world.peers[viewer].credentials.ufrag.clone();
    move_to(&mut world, viewer, 1);
    let credentials = Credentials::new(1, 70_000_000);
    let restart = RestartIce {
        transport: world.peers[viewer].id,
        local_ufrag: credentials.ufrag.clone(),
        local_pwd: credentials.pwd.clone(),
        remote_ufrag: CLIENT_UFRAG.into(),
        remote_pwd: client_pwd(world.peers[viewer].id),
    };
    world.command(1, Command::RestartIce(restart));
    assert_eq!(world.arena.addresses().find_ufrag(&old), Some(1));
    world.peers[viewer].credentials = credentials.clone();
    world.peers[viewer].check();
    world.run_until_idle();
    world.run_for(100);
    assert_eq!(world.arena.addresses().find_ufrag(&old), None);
    // The new name's home is the slot that it is moved away from now.
    move_to(&mut world, viewer, 0);
    assert_eq!(world.arena.addresses().find_ufrag(&credentials.ufrag), Some(0));
    world.command(0, Command::CloseTransport(CloseTransport { transport: world.peers[viewer].id }));
    assert_eq!(world.arena.addresses().find_ufrag(&credentials.ufrag), None);
}

#[test]
fn losses_are_repaired_and_key_frames_are_asked_for_wherever_the_publisher_is() {
    let mut world = box_of(3, 5);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = connect(&mut world, 1);
    let ssrc = world.watch(viewer, &publish);
    let link = Link { loss: 0.05, jitter: Span::from_millis(5), ..Link::GOOD };
    (world.up, world.down) = (link, link);
    for round in 0..10 {
        world.run_for(800);
        let (peer, to) = [(publisher, 2), (viewer, 2), (publisher, 1), (viewer, 0), (publisher, 0)][round % 5];
        move_to(&mut world, peer, to);
    }
    (world.up, world.down) = (Link::GOOD, Link::GOOD);
    world.run_for(500);
    assert!(world.peers[viewer].got(ssrc).repairs > 20);
    assert_eq!(world.peers[viewer].refused, [], "no RTX index was used twice");
    // Somebody who comes now needs a key frame of a publisher that has moved away from the slot of its log.
    move_to(&mut world, publisher, 1);
    world.run_for(1_000);
    let asked = world.peers[publisher].feedback.plis.len();
    let late = connect(&mut world, 2);
    let seen = world.watch(late, &publish);
    world.run_for(500);
    assert_eq!(world.peers[publisher].feedback.plis.len(), asked + 1);
    assert!(world.peers[late].got(seen).packets.len() > 20);
    finish(&mut world);
    assert_everything_came(&world, (publisher, 0), viewer, ssrc);
}

#[test]
fn what_cannot_move_says_why_and_goes_on() {
    let mut world = box_of(2, 6);
    let (publisher, publish) = publisher(&mut world, 1);
    let without_record = world.connect(0);
    let shaking_hands = world.open(0, false);
    save(&mut world, shaking_hands);
    begin_handshake(&mut world, shaking_hands);
    let viewer = connect(&mut world, 0);
    let ssrc = world.watch(viewer, &publish);
    for (peer, expected) in [(without_record, Outcome::NoRecord), (shaking_hands, Outcome::Handshaking)] {
        ask_to_move(&mut world, peer, 1);
        assert_eq!(outcome(&world, 0, peer), Some(expected));
    }
    ask_to_move(&mut world, viewer, 0);
    assert_eq!((outcome(&world, 0, viewer), world.failures().len()), (None, 1), "that is where it is");
    ask_to_move(&mut world, viewer, 2);
    assert_eq!(world.failures().len(), 2, "there is no such slot");
    // A slot without room, and one that nobody reads the messages of.
    world.configs[1].max_transports = 1;
    world.kill(1);
    world.succeed(1);
    ask_to_move(&mut world, viewer, 1);
    assert_eq!(outcome(&world, 0, viewer), Some(Outcome::Refused));
    world.run_for(300);
    while world.arena.messages(0, 1).send(0) {}
    ask_to_move(&mut world, viewer, 1);
    assert_eq!(outcome(&world, 0, viewer), Some(Outcome::Busy));
    assert_eq!(world.arena.addresses().find_ufrag(&world.peers[viewer].credentials.ufrag), None);
    world.run_for(1_000);
    finish(&mut world);
    assert_everything_came(&world, (publisher, 0), viewer, ssrc);
    assert_eq!(world.stat(Counter::MovesFailed), 4);
}

#[test]
fn a_session_that_no_target_adopts_comes_back() {
    let mut world = box_of(2, 7);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = connect(&mut world, 0);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(500);
    world.kill(1);
    for peer in [publisher, viewer] {
        ask_to_move(&mut world, peer, 1);
    }
    world.run_for(100);
    assert_eq!((outcome(&world, 0, publisher), world.stat(Counter::Transports)), (None, 0));
    world.run_for(100);
    for peer in [publisher, viewer] {
        assert_eq!(outcome(&world, 0, peer), Some(Outcome::Unanswered));
    }
    world.run_for(500);
    world.succeed(1);
    assert_eq!(last_done(&world, 1), AdoptionDone { adopted: 0, lost: 0 });
    world.run_for(500);
    finish(&mut world);
    // What came in the meantime waits for the other slot, and is repaired.
    let received = world.peers[viewer].got(ssrc);
    assert!(received.is_whole());
    assert_eq!(received.last().unwrap().number + 1, world.peers[publisher].sources[0].made);
    assert_eq!((world.peers[viewer].refused.len(), world.closed(viewer), world.failures().len()), (0, None, 0));
}

/// The source dies before or after its word, the target before or after it looks; either comes back first, or alone.
#[test]
fn a_move_that_a_death_interrupts_leaves_one_owner() {
    for (seed, target_is_first, both) in [(1, true, true), (2, false, true), (3, true, false), (4, false, false)] {
        let mut world = box_of(2, 80 + seed);
        let (publisher, publish) = publisher(&mut world, 1);
        let viewer = connect(&mut world, 0);
        let ssrc = world.watch(viewer, &publish);
        world.run_for(500);
        world.kill(1);
        ask_to_move(&mut world, viewer, 1);
        assert_eq!(world.arena.owners().of(0), Owner::Moving { source: 0, target: 1 });
        world.run_for(20);
        if both || !target_is_first {
            world.kill(0);
        }
        for slot in if target_is_first { [1, 0] } else { [0, 1] } {
            if slot == 1 || both || !target_is_first {
                world.succeed(slot);
            }
            world.run_for(30);
        }
        let owner = usize::from(target_is_first);
        world.peers[viewer].slot = owner;
        assert_eq!(world.arena.owners().of(0), Owner::Slot(owner as u8));
        assert_eq!((world.stat(Counter::Transports), adopted(&world, viewer).is_some()), (2, true));
        world.run_for(1_000);
        finish(&mut world);
        assert_everything_came(&world, (publisher, 0), viewer, ssrc);
        assert_nothing_was_noticed(&world);
    }
}

#[test]
fn a_moved_session_outlives_its_new_worker_and_the_old_ones_record_is_free_when_it_ends() {
    let mut world = box_of(2, 9);
    let (first, publish) = publisher(&mut world, 0);
    let viewer = connect(&mut world, 1);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(300);
    move_to(&mut world, first, 1);
    world.run_for(300);
    for slot in [0, 1] {
        world.kill(slot);
        world.run_for(30);
        world.succeed(slot);
        assert_eq!(last_done(&world, slot), AdoptionDone { adopted: 2 * slot as u32, lost: 0 });
        world.run_for(300);
    }
    // Neither its record nor its log is given to another while it lives.
    let (second, _) = publisher_in(&mut world, 0, 1);
    assert_eq!(world.arena.owners().of(0), Owner::Slot(1));
    world.publish(second, VIDEO, 0);
    assert_eq!(world.failures().len(), 1, "the log is another slot's");
    world.run_for(300);
    finish(&mut world);
    assert_everything_came(&world, (first, 0), viewer, ssrc);
    world.command(1, Command::CloseTransport(CloseTransport { transport: world.peers[first].id }));
    assert_eq!(world.arena.owners().of(0), Owner::Nobody);
    connect(&mut world, 0);
    assert_eq!(world.arena.owners().of(0), Owner::Slot(0), "it is used again");
    world.publish(second, VIDEO, 0);
    assert_eq!(world.failures().len(), 1, "so is the log");
}

fn publisher_in(world: &mut World, slot: usize, log: u32) -> (usize, Publish) {
    let peer = connect(world, slot);
    let publish = world.publish(peer, VIDEO, log);
    (peer, publish)
}

#[test]
fn who_has_not_begun_to_connect_connects_to_the_new_slot() {
    let mut world = box_of(2, 10);
    let (_, publish) = publisher(&mut world, 1);
    let viewer = world.open(0, false);
    let ssrc = world.watch(viewer, &publish);
    save(&mut world, viewer);
    world.run_for(20);
    move_to(&mut world, viewer, 1);
    world.start(viewer);
    world.run_until(5_000, |world| world.is_connected(viewer));
    world.run_for(1_000);
    assert!(world.peers[viewer].got(ssrc).packets.len() > 80);
}

#[test]
fn a_session_that_kills_its_taker_does_not_take_the_slot_with_it() {
    let mut world = box_of(2, 11);
    let viewer = connect(&mut world, 0);
    // As if successors had died of it three times.
    world.arena.session_words(0).put(1, 3);
    ask_to_move(&mut world, viewer, 1);
    assert_eq!(outcome(&world, 0, viewer), Some(Outcome::Moved));
    assert_eq!((world.stat(Counter::Transports), world.stat(Counter::SessionsLost)), (0, 1));
    assert_eq!(world.arena.owners().of(0), Owner::Nobody);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Sessions move at any moment, and sources and targets die at any: no packet is lost, no index used twice.
    #[test]
    fn moves_and_deaths_at_any_moment_lose_no_packet_and_use_no_index_twice(
        seed: u64,
        jitter_ms in 0u64..8,
        steps in prop::collection::vec((0usize..4, 0usize..3, prop::option::of((0usize..3, prop::bool::ANY, 0u64..40)), 1u64..120), 1..8),
    ) {
        let mut world = box_of(3, seed);
        let calls = [publisher(&mut world, 0), publisher(&mut world, 1)];
        let viewers = [connect(&mut world, 0), connect(&mut world, 2)];
        let mut watched = Vec::new();
        for (publisher, video) in &calls {
            for viewer in viewers {
                watched.push((*publisher, viewer, world.watch(viewer, video)));
            }
        }
        let everybody = [calls[0].0, calls[1].0, viewers[0], viewers[1]];
        let link = Link { jitter: Span::from_millis(jitter_ms), ..Link::GOOD };
        (world.up, world.down) = (link, link);
        world.run_for(400);
        for (who, to, death, gap_ms) in steps {
            let who = everybody[who];
            if let Some((slot, incoming, after)) = death {
                world.fuse = Some((slot, if incoming { Fuse::Received(after) } else { Fuse::Sent(after) }));
            }
            world.run_for(gap_ms / 4);
            let from = world.peers[who].slot;
            if from != to && world.dead >> from & 1 == 0 {
                ask_to_move(&mut world, who, to);
            }
            world.run_for(gap_ms);
            world.fuse = None;
            for slot in 0..3 {
                if world.dead >> slot & 1 == 1 {
                    world.succeed(slot);
                }
            }
            world.run_for(400);
            for peer in everybody {
                let owner = (0..3).find(|slot| {
                    let id = world.peers[peer].id;
                    let last = world.events[*slot].iter().rev().find_map(|event| match event {
                        Event::TransportAdopted(adopted) if adopted.transport == id => Some(true),
                        Event::TransportConnected(connected) if connected.transport == id => Some(true),
                        Event::MoveDone(done) if done.transport == id => Some(done.outcome != Outcome::Moved),
                        _ => None,
                    });
                    last == Some(true)
                });
                world.peers[peer].slot = owner.unwrap();
            }
            prop_assert_eq!(world.stat(Counter::Transports), 4);
        }
        world.run_for(500);
        finish(&mut world);
        for (publisher, viewer, ssrc) in watched {
            assert_everything_came(&world, (publisher, 0), viewer, ssrc);
        }
        for peer in &world.peers {
            prop_assert!(peer.refused.is_empty(), "{:?}", peer.refused);
        }
    }
}
