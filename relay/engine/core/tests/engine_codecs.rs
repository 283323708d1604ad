//! Publishers with a choice of codecs, in whole calls over two workers: a change in mid-stream over loss, over deaths, and what control
//! is told of it. Must never use what a dead engine knew. Read `forwarding/codecs.rs` for a change packet by packet.
#![allow(clippy::unwrap_used)]

#[path = "support/engine_peer.rs"]
mod peer;
#[path = "support/saved_calls.rs"]
mod saved_calls;
mod support;
#[path = "support/engine.rs"]
mod world;

use millrace_core::command::{Codec, CodecName, Command, Encoding, MediaKind, Publish, TrackCodec};
use millrace_core::event::{CodecInUse, Event};
use millrace_core::time::Span;
use peer::Source;
use saved_calls::{assert_everything_came, assert_nothing_was_noticed, box_of, connect, finish, replace};
use world::{Link, VIDEO, World, extensions};

const VP9: Codec = Codec { name: CodecName::Vp9, payload_type: 98, rtx_payload_type: Some(99), ..VIDEO };

/// A publisher that may send VP8 and VP9 and sends the latter.
fn publisher(world: &mut World, slot: usize) -> (usize, Publish) {
    let peer = connect(world, slot);
    let publication = world.id();
    let publish = Publish {
        publication,
        transport: world.peers[peer].id,
        kind: MediaKind::Video,
        mid: "v".into(),
        codec: VIDEO,
        encodings: vec![Encoding { rid: None, ssrc: None, rtx_ssrc: None, log: 8 * slot as u32 }],
        extensions: extensions(),
        nack: true,
        pli: true,
        fir: false,
        codecs: [VIDEO, VP9].map(|codec| TrackCodec { codec, nack: true, pli: true, fir: false }).to_vec(),
        parameter_sets: Default::default(),
    };
    world.command(slot, Command::Publish(publish.clone()));
    let now = world.now;
    world.peers[peer].add(Source::new(11, VP9, now));
    (peer, publish)
}

/// Has the publisher go on with another codec under the same SSRC and numbers, from a key frame on.
fn change(world: &mut World, peer: usize, codec: Codec) {
    let source = &mut world.peers[peer].sources[0];
    (source.codec, source.key_next) = (codec, true);
}

fn told(world: &World, slot: usize, publish: &Publish) -> Vec<u8> {
    let of_ours = |event: &Event| match event {
        Event::CodecInUse(CodecInUse { publication, payload_type }) if *publication == publish.publication => {
            Some(*payload_type)
        }
        _ => None,
    };
    world.events[slot].iter().filter_map(of_ours).collect()
}

/// The payload types that came, each once for a run of its own.
fn runs(world: &World, viewer: usize, ssrc: u32) -> Vec<u8> {
    let mut runs: Vec<u8> = world.peers[viewer].got(ssrc).packets.values().map(|got| got.payload_type).collect();
    runs.dedup();
    runs
}

#[test]
fn a_change_in_mid_stream_is_followed_on_another_worker_and_told_once() {
    let mut world = box_of(2, 1);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = connect(&mut world, 1);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(1_000);
    assert_eq!(told(&world, 0, &publish), [98]);
    change(&mut world, publisher, VIDEO);
    world.run_for(1_000);
    change(&mut world, publisher, VP9);
    world.run_for(1_000);
    finish(&mut world);
    assert_eq!(told(&world, 0, &publish), [98, 96, 98]);
    assert_eq!(runs(&world, viewer, ssrc), [122, 120, 122]);
    assert_everything_came(&world, (publisher, 0), viewer, ssrc);
    assert_nothing_was_noticed(&world);
}

#[test]
fn what_is_lost_around_a_change_is_repaired_both_ways() {
    for seed in [11, 12, 13] {
        let mut world = box_of(2, seed);
        let (publisher, publish) = publisher(&mut world, 0);
        let viewer = connect(&mut world, 1);
        let ssrc = world.watch(viewer, &publish);
        let link = Link { loss: 0.05, jitter: Span::from_millis(5), ..Link::GOOD };
        (world.up, world.down) = (link, link);
        for codec in [VIDEO, VP9, VIDEO, VP9] {
            world.run_for(1_500);
            change(&mut world, publisher, codec);
        }
        world.run_for(1_500);
        finish(&mut world);
        let received = world.peers[viewer].got(ssrc);
        assert!(received.is_whole() && received.repairs > 10, "{} repairs", received.repairs);
        assert_eq!(world.peers[viewer].refused, [], "seed {seed}");
        assert!(runs(&world, viewer, ssrc).len() >= 5, "seed {seed}");
        assert!(world.peers[publisher].feedback.nacks > 10);
    }
}

#[test]
fn a_change_while_either_worker_is_dead_costs_nobody_a_packet() {
    let mut world = box_of(2, 21);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = connect(&mut world, 1);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(800);
    for (round, codec) in [VIDEO, VP9, VIDEO, VP9].into_iter().enumerate() {
        world.kill(round % 2);
        world.run_for(20);
        change(&mut world, publisher, codec);
        world.run_for(60);
        world.succeed(round % 2);
        world.run_for(900);
    }
    replace(&mut world, 0, 30);
    world.run_for(600);
    finish(&mut world);
    assert_eq!(runs(&world, viewer, ssrc), [122, 120, 122, 120, 122]);
    assert_everything_came(&world, (publisher, 0), viewer, ssrc);
    assert_nothing_was_noticed(&world);
    // Each successor tells it anew, as its control plane may not have saved it.
    assert_eq!(told(&world, 0, &publish).last(), Some(&98));
    assert!(told(&world, 0, &publish).len() >= 5);
}
