//! Engines that die in the middle of calls, and successors on the same arena: clients must not notice. Must never use what
//! the dead engine knew. Read `support/engine.rs` for how one dies.
#![allow(clippy::unwrap_used)]

#[path = "support/engine_peer.rs"]
mod peer;
#[path = "support/saved_calls.rs"]
mod saved_calls;
mod support;
#[path = "support/engine.rs"]
mod world;

use millrace_core::command::{CloseTransport, Command, Detach, MediaKind, RestartIce, SetWish, Unpublish};
use millrace_core::drop::Drop;
use millrace_core::event::{AdoptionDone, Cause, Event};
use millrace_core::stats::Counter;
use millrace_core::time::Span;
use millrace_core::transport::SRTP_WORDS;
use peer::{Credentials, Source, client_pwd};
use proptest::prelude::*;
use saved_calls::{
    adopted, assert_everything_came, assert_nothing_was_noticed, begin_handshake, box_of, connect, finish, last_done,
    publisher, record, replace, save,
};
use support::CLIENT_UFRAG;
use world::{AUDIO, Fuse, Link, VIDEO, World};

#[test]
fn twenty_deaths_in_a_row_cost_nobody_a_packet() {
    let mut world = box_of(2, 1);
    let calls = [publisher(&mut world, 0), publisher(&mut world, 1)];
    let viewers = [connect(&mut world, 0), connect(&mut world, 1)];
    let mut watched = Vec::new();
    for (publisher, publish) in &calls {
        for viewer in viewers {
            watched.push((*publisher, viewer, world.watch(viewer, publish)));
        }
    }
    world.run_for(700);
    for round in 0..20 {
        let slot = round % 2;
        let answers: Vec<u64> = world.peers.iter().map(|peer| peer.answers).collect();
        replace(&mut world, slot, 10 + 17 * round as u64);
        assert_eq!(last_done(&world, slot), AdoptionDone { adopted: 2, lost: 0 });
        world.run_for(1_100);
        let after = world.peers.iter().map(|peer| peer.answers);
        assert!(answers.into_iter().zip(after).all(|(before, after)| after > before), "checks are answered");
    }
    let (publisher, publish) = &calls[0];
    let seen = adopted(&world, *publisher).unwrap();
    assert_eq!(
        (seen.record.as_ref(), &seen.publications[..]),
        (&record(&world, *publisher)[..], &[publish.publication][..])
    );
    assert_eq!(adopted(&world, viewers[1]).unwrap().subscriptions.len(), 2);
    finish(&mut world);
    for (publisher, viewer, ssrc) in watched {
        assert_everything_came(&world, (publisher, 0), viewer, ssrc);
        assert_eq!(world.peers[viewer].got(ssrc).repairs, 0, "nothing had to be repaired");
    }
    assert_nothing_was_noticed(&world);
    assert_eq!((world.stat(Counter::SessionsAdopted), world.stat(Counter::SessionsLost)), (40, 0));
}

#[test]
fn all_workers_may_die_at_once() {
    let mut world = box_of(2, 2);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = connect(&mut world, 1);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(500);
    for _ in 0..5 {
        world.kill(0);
        world.kill(1);
        world.run_for(150);
        world.succeed(1);
        world.run_for(50);
        world.succeed(0);
        world.run_for(400);
    }
    finish(&mut world);
    assert_everything_came(&world, (publisher, 0), viewer, ssrc);
    assert_nothing_was_noticed(&world);
}

#[test]
fn rollover_counters_go_on_in_both_directions() {
    let mut world = World::new(1, 3);
    let peer = connect(&mut world, 0);
    let publish = world.publish(peer, VIDEO, 0);
    let viewer = connect(&mut world, 0);
    world.peers[viewer].asks = false;
    let ssrc = world.watch(viewer, &publish);
    let mut source = Source::new(11, VIDEO, world.now);
    (source.index, source.payload, source.packets_per_frame) = (65_000, 20, 60);
    source.interval = Span::from_millis(10);
    world.peers[peer].add(source);
    for _ in 0..12 {
        world.run_for(950);
        replace(&mut world, 0, 50);
    }
    finish(&mut world);
    assert!(world.peers[peer].sources[0].index > 65_536 * 2);
    assert_everything_came(&world, (peer, 0), viewer, ssrc);
    assert_nothing_was_noticed(&world);
}

#[test]
fn repairs_go_on_across_a_death() {
    let mut world = box_of(2, 4);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = connect(&mut world, 1);
    let ssrc = world.watch(viewer, &publish);
    let link = Link { loss: 0.05, jitter: Span::from_millis(5), ..Link::GOOD };
    (world.up, world.down) = (link, link);
    for round in 0..10 {
        world.run_for(800);
        replace(&mut world, round % 2, 60);
    }
    (world.up, world.down) = (Link::GOOD, Link::GOOD);
    world.run_for(500);
    finish(&mut world);
    assert_everything_came(&world, (publisher, 0), viewer, ssrc);
    assert!(world.peers[viewer].got(ssrc).repairs > 20);
    assert_eq!(world.peers[viewer].refused, [], "no RTX index was used twice");
}

/// The words of a viewer's first subscription (`forward/subscription/continuity.rs`).
fn words_of(world: &World, slot: u8, record: u32) -> impl Fn(usize) -> (millrace_arena::SessionWords, usize) {
    let words = world.arena.session_words(world.arena.record(slot, record));
    move |word| (words.clone(), SRTP_WORDS + word)
}

#[test]
fn packets_that_may_have_left_before_a_death_between_two_stores_do_not_leave_again() {
    for (seed, back) in [(41, 1), (42, 7), (43, 40)] {
        let mut world = box_of(2, seed);
        let (publisher, publish) = publisher(&mut world, 0);
        let viewer = connect(&mut world, 1);
        let ssrc = world.watch(viewer, &publish);
        world.run_for(1_000);
        world.kill(1);
        // As if it had died before it wrote down that it looked at the last packets.
        let (words, position) = words_of(&world, 1, 0)(3);
        words.put(position, words.get(position) - back);
        world.run_for(50);
        world.succeed(1);
        world.run_for(500);
        finish(&mut world);
        assert_everything_came(&world, (publisher, 0), viewer, ssrc);
        assert_nothing_was_noticed(&world);
    }
}

#[test]
fn a_stream_whose_source_is_not_known_goes_on_after_its_last_index_at_the_next_key_frame() {
    let mut world = box_of(2, 44);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = connect(&mut world, 1);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(1_000);
    world.kill(1);
    // As if it had died while it took a source up.
    let (words, has_source) = words_of(&world, 1, 0)(7);
    assert_eq!(words.get(has_source), 1);
    words.put(has_source, 0);
    world.run_for(50);
    world.succeed(1);
    world.run_for(1_000);
    finish(&mut world);
    assert_eq!(world.peers[publisher].feedback.plis.len(), 1, "only a key frame helps");
    let received = world.peers[viewer].got(ssrc);
    assert!(received.is_whole(), "no number is left out, none comes twice");
    assert_eq!(received.last().unwrap().number + 1, world.peers[publisher].sources[0].made);
    assert_eq!(world.peers[viewer].refused, []);
}

#[test]
fn audio_and_the_best_of_three_encodings_go_on() {
    let mut world = box_of(2, 5);
    let peer = connect(&mut world, 0);
    let video = world.publish_with(peer, VIDEO, "v", &[Some("q"), Some("h"), Some("f")], 0);
    let audio = world.publish(peer, AUDIO, 3);
    world.peers[peer].add(Source::new(31, AUDIO, world.now));
    for (at, rid) in ["q", "h", "f"].into_iter().enumerate() {
        let mut source = Source::new(21 + at as u32, VIDEO, world.now);
        source.rid = Some(rid);
        source.made = 1_000_000 * at as u64;
        world.peers[peer].add(source);
    }
    let viewer = connect(&mut world, 1);
    let (video, audio) = (world.watch(viewer, &video), world.watch(viewer, &audio));
    world.run_for(1_500);
    // Clients stop naming their streams after a while.
    for source in &mut world.peers[peer].sources {
        (source.mid, source.rid) = (None, None);
    }
    for round in 0..6 {
        let plis = world.peers[peer].feedback.plis.len();
        replace(&mut world, round % 2, 80);
        world.run_for(1_500);
        assert_eq!(world.peers[peer].feedback.plis.len(), plis);
        assert_eq!(world.peers[viewer].got(video).last().unwrap().number / 1_000_000, 2);
    }
    finish(&mut world);
    assert_everything_came(&world, (peer, 0), viewer, audio);
    assert!(world.peers[viewer].got(video).is_whole());
    assert_eq!(world.peers[viewer].refused, []);
    let reports = &world.peers[viewer].got(audio).reports;
    assert!(reports.len() > 8, "sender reports go on: {}", reports.len());
}

#[test]
fn the_measured_order_of_encodings_outlives_both_workers() {
    let mut world = box_of(2, 15);
    let peer = connect(&mut world, 0);
    let publish = world.publish_with(peer, VIDEO, "v", &[Some("a"), Some("b")], 0);
    for (at, (rid, payload)) in [("a", 900), ("b", 200)].into_iter().enumerate() {
        let made = 1_000_000 * at as u64;
        let source = Source { rid: Some(rid), payload, made, ..Source::new(21 + at as u32, VIDEO, world.now) };
        world.peers[peer].add(source);
    }
    let viewer = connect(&mut world, 1);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(4_000);
    for round in 0..4 {
        // Equal from now on: a successor that measured anew would find the list in order.
        world.peers[peer].sources.iter_mut().for_each(|source| source.payload = 500);
        let plis = world.peers[peer].feedback.plis.len();
        replace(&mut world, round % 2, 80);
        world.run_for(4_000);
        assert_eq!(world.peers[viewer].got(ssrc).last().unwrap().number / 1_000_000, 0, "round {round}");
        assert_eq!(world.peers[peer].feedback.plis.len(), plis);
    }
    finish(&mut world);
    assert!(world.peers[viewer].got(ssrc).is_whole());
}

#[test]
fn a_wish_moves_the_viewer_down_and_up_and_outlives_both_workers() {
    let mut world = box_of(2, 16);
    let peer = connect(&mut world, 0);
    let publish = world.publish_with(peer, VIDEO, "v", &[Some("q"), Some("h"), Some("f")], 0);
    for (at, (rid, height)) in [("q", 180), ("h", 360), ("f", 720)].into_iter().enumerate() {
        let made = 1_000_000 * at as u64;
        let source = Source { rid: Some(rid), height, made, ..Source::new(21 + at as u32, VIDEO, world.now) };
        world.peers[peer].add(source);
    }
    let viewer = connect(&mut world, 1);
    let subscription = world.subscribe(viewer, MediaKind::Video);
    let ssrc = subscription as u32 + 1_000_000;
    world.attach(viewer, subscription, &publish);
    let shown = |world: &World| world.peers[viewer].got(ssrc).last().unwrap().number / 1_000_000;
    world.run_for(1_500);
    assert_eq!(shown(&world), 2);
    for (height, expected) in [(Some(360), 1), (Some(180), 0), (None, 2), (Some(340), 1)] {
        let plis = world.peers[peer].feedback.plis.len();
        for _ in 0..1_000 {
            world.command(1, Command::SetWish(SetWish { subscription, height }));
        }
        world.run_for(1_500);
        assert_eq!(shown(&world), expected, "{height:?}");
        assert!(world.peers[peer].feedback.plis.len() <= plis + 2, "a wish that is repeated asks for nothing");
    }
    for round in 0..4 {
        let plis = world.peers[peer].feedback.plis.len();
        replace(&mut world, round % 2, 80);
        world.run_for(1_500);
        assert_eq!((shown(&world), world.peers[peer].feedback.plis.len()), (1, plis), "round {round}");
    }
    // The publisher that comes next is shown as large.
    world.command(1, Command::Detach(Detach { subscription }));
    world.attach(viewer, subscription, &publish);
    world.run_for(1_500);
    assert_eq!(shown(&world), 1);
    finish(&mut world);
    let received = world.peers[viewer].got(ssrc);
    assert!(received.is_whole());
    let timestamps: Vec<u32> = received.packets.values().map(|got| got.timestamp).collect();
    assert!(timestamps.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) as i32 >= 0), "time never goes back");
    assert_eq!(world.peers[viewer].refused, []);
}

#[test]
fn what_was_changed_last_is_what_a_successor_finds() {
    let mut world = box_of(2, 6);
    let (first, old) = publisher(&mut world, 0);
    let (second, new) = publisher(&mut world, 1);
    let viewer = connect(&mut world, 0);
    let subscription = world.subscribe(viewer, MediaKind::Video);
    let ssrc = subscription as u32 + 1_000_000;
    world.attach(viewer, subscription, &old);
    world.run_for(500);
    world.command(0, Command::Detach(Detach { subscription }));
    world.attach(viewer, subscription, &new);
    world.command(0, Command::Unpublish(Unpublish { publication: old.publication }));
    // The viewer gets another address and other ICE credentials.
    let credentials = Credentials::new(0, 70_000_000);
    let restart = RestartIce {
        transport: world.peers[viewer].id,
        local_ufrag: credentials.ufrag.clone(),
        local_pwd: credentials.pwd.clone(),
        remote_ufrag: CLIENT_UFRAG.into(),
        remote_pwd: client_pwd(world.peers[viewer].id),
    };
    world.command(0, Command::RestartIce(restart));
    replace(&mut world, 0, 20);
    world.run_for(300);
    world.peers[viewer].credentials = credentials;
    let address = world.rebind(viewer);
    world.peers[viewer].check();
    world.run_for(100);
    replace(&mut world, 0, 20);
    assert_eq!(world.arena.addresses().find(0, &address), Some(0));
    assert_eq!(adopted(&world, first).unwrap().publications, []);
    let before = world.peers[viewer].got(ssrc).packets.len();
    world.run_for(2_000);
    assert!(world.peers[viewer].got(ssrc).packets.len() > before + 200);
    finish(&mut world);
    let received = world.peers[viewer].got(ssrc);
    assert_eq!(received.last().unwrap().number + 1, world.peers[second].sources[0].made);
    assert!(received.is_whole());
    assert_eq!(world.peers[viewer].refused, []);
}

#[test]
fn a_viewer_that_waits_for_its_publisher_goes_on_waiting() {
    let mut world = box_of(2, 7);
    let peer = connect(&mut world, 0);
    let publish = world.publish(peer, VIDEO, 0);
    let viewer = connect(&mut world, 1);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(100);
    replace(&mut world, 1, 20);
    replace(&mut world, 0, 20);
    world.run_for(100);
    let now = world.now;
    world.peers[peer].add(Source::new(11, VIDEO, now));
    world.run_for(500);
    finish(&mut world);
    assert_everything_came(&world, (peer, 0), viewer, ssrc);
    assert_eq!(world.peers[viewer].got(ssrc).numbers()[0], 0);
}

#[test]
fn only_whole_and_wanted_sessions_are_adopted_and_the_rest_is_counted() {
    let mut world = box_of(1, 8);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = connect(&mut world, 0);
    let ssrc = world.watch(viewer, &publish);
    let gone = connect(&mut world, 0);
    let without_record = world.connect(0);
    let shaking_hands = world.open(0, false);
    save(&mut world, shaking_hands);
    begin_handshake(&mut world, shaking_hands);
    let poisonous = connect(&mut world, 0);
    let garbled = connect(&mut world, 0);
    world.command(0, Command::CloseTransport(CloseTransport { transport: world.peers[gone].id }));
    // The record of the client that closed is the one that is taken next.
    let last = connect(&mut world, 0);
    world.run_for(300);
    world.arena.session_words(5).put(1, 3);
    assert!(world.arena.session(6).write(b"no record at all"));
    replace(&mut world, 0, 30);
    assert_eq!(last_done(&world, 0), AdoptionDone { adopted: 3, lost: 4 });
    for lost in [without_record, shaking_hands, poisonous, garbled, gone] {
        assert!(adopted(&world, lost).is_none());
        assert_eq!(world.arena.addresses().find(0, &world.peers[lost].address), None);
    }
    assert!([publisher, viewer, last].iter().all(|peer| adopted(&world, *peer).is_some()));
    let first = world.events[0].iter().position(|event| matches!(event, Event::TransportAdopted(_))).unwrap();
    assert!(matches!(world.events[0][first + 3], Event::AdoptionDone(_)), "said one after the other");
    // Nothing of them is adopted later, and there is room for others.
    replace(&mut world, 0, 30);
    assert_eq!(last_done(&world, 0), AdoptionDone { adopted: 3, lost: 0 });
    let another = connect(&mut world, 0);
    let other = world.publish(another, VIDEO, 1);
    world.watch(viewer, &other);
    world.run_for(300);
    finish(&mut world);
    assert_everything_came(&world, (publisher, 0), viewer, ssrc);
    assert_eq!(world.failures(), Vec::<String>::new());
}

#[test]
fn what_a_later_release_has_more_of_in_records_and_messages_is_skipped() {
    const ARRAY_OF_FOUR: u8 = 0x94;
    let mut world = box_of(2, 12);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = connect(&mut world, 0);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(300);
    assert!(world.arena.messages(1, 0).send(9 << 56 | 1));
    // Its news of packets ring for what lies before them, too.
    let (other, other_publish) = self::publisher(&mut world, 1);
    let other_ssrc = world.watch(viewer, &other_publish);
    world.run_for(300);
    assert_eq!(world.stat(Counter::RingMessagesUnknown), 1);
    for record in [0, 1] {
        let mut packed = world.arena.session(record).read().unwrap();
        assert_eq!(packed[0], ARRAY_OF_FOUR);
        packed[0] += 1;
        packed.extend(rmp_serde::to_vec(&("added", 7)).unwrap());
        assert!(world.arena.session(record).write(&packed));
    }
    replace(&mut world, 0, 30);
    assert_eq!(last_done(&world, 0), AdoptionDone { adopted: 2, lost: 0 });
    finish(&mut world);
    for (publisher, ssrc) in [(publisher, ssrc), (other, other_ssrc)] {
        assert_everything_came(&world, (publisher, 0), viewer, ssrc);
    }
    assert_nothing_was_noticed(&world);
}

#[test]
fn a_publication_that_nobody_can_go_on_with_ends_for_its_viewers() {
    let mut world = box_of(2, 9);
    let peer = world.connect(0);
    let publish = world.publish(peer, VIDEO, 0);
    let now = world.now;
    world.peers[peer].add(Source::new(11, VIDEO, now));
    let viewer = connect(&mut world, 1);
    world.watch(viewer, &publish);
    world.run_for(300);
    replace(&mut world, 0, 30);
    assert_eq!(last_done(&world, 0), AdoptionDone { adopted: 0, lost: 1 });
    assert!(millrace_arena::LogReader::open(&world.arena, 0, publish.publication).is_none());
}

#[test]
fn a_session_that_outlives_its_worker_ends_like_any_other() {
    let mut world = box_of(1, 10);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = connect(&mut world, 0);
    world.watch(viewer, &publish);
    world.run_for(300);
    replace(&mut world, 0, 30);
    world.run_for(300);
    world.command(0, Command::CloseTransport(CloseTransport { transport: world.peers[publisher].id }));
    world.peers[viewer].cut = true;
    world.peers[viewer].check_at = None;
    world.run_for(31_000);
    assert!(world.closed(publisher).is_some() && world.closed(viewer).is_some());
    replace(&mut world, 0, 30);
    assert_eq!(last_done(&world, 0), AdoptionDone { adopted: 0, lost: 0 });
    assert_eq!(world.engines[0].stats().get(Counter::Transports), 0);
    assert!(world.drops(Drop::SrtpReplay) == 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// An engine dies between any two datagrams, in or out, while packets overtake each other. Packets that were lost are asked for
    /// again: video comes as RTX, audio as the same packet once more.
    #[test]
    fn a_death_at_any_moment_loses_no_packet_and_uses_no_index_twice(
        seed: u64,
        jitter_ms in 0u64..8,
        deaths in prop::collection::vec((0usize..2, prop::bool::ANY, 0u64..60, 1u64..250), 1..6),
    ) {
        let mut world = box_of(2, seed);
        let calls = [publisher(&mut world, 0), publisher(&mut world, 1)];
        let viewers = [connect(&mut world, 0), connect(&mut world, 1)];
        let mut watched = Vec::new();
        for (slot, (publisher, video)) in calls.iter().enumerate() {
            let audio = world.publish(*publisher, AUDIO, 8 * slot as u32 + 1);
            let source = Source::new(31, AUDIO, world.now);
            world.peers[*publisher].add(source);
            for viewer in viewers {
                watched.push(((*publisher, 0), (viewer, world.watch(viewer, video))));
                watched.push(((*publisher, 1), (viewer, world.watch(viewer, &audio))));
            }
        }
        let link = Link { jitter: Span::from_millis(jitter_ms), ..Link::GOOD };
        (world.up, world.down) = (link, link);
        world.run_for(400);
        for (slot, incoming, after, gap_ms) in deaths {
            world.fuse = Some((slot, if incoming { Fuse::Received(after) } else { Fuse::Sent(after) }));
            world.run_until(5_000, |world| world.dead != 0);
            world.run_for(gap_ms);
            world.succeed(slot);
            prop_assert_eq!(last_done(&world, slot), AdoptionDone { adopted: 2, lost: 0 });
            world.run_for(300);
        }
        world.run_for(500);
        finish(&mut world);
        for ((publisher, source), (viewer, ssrc)) in watched {
            assert_everything_came(&world, (publisher, source), viewer, ssrc);
        }
        for peer in &world.peers {
            prop_assert!(peer.refused.is_empty(), "{:?}", peer.refused);
        }
    }
}

#[test]
fn lower_limits_cost_no_session_that_is_there() {
    let mut world = box_of(1, 5);
    let (first, publish) = publisher(&mut world, 0);
    let second = connect(&mut world, 0);
    let viewer = connect(&mut world, 0);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(700);
    world.configs[0].max_transports = 1;
    world.configs[0].max_streams = 1;
    replace(&mut world, 0, 30);
    assert_eq!(last_done(&world, 0), AdoptionDone { adopted: 3, lost: 0 });
    assert!(adopted(&world, second).is_some());
    world.run_for(700);
    finish(&mut world);
    assert_everything_came(&world, (first, 0), viewer, ssrc);
    assert_nothing_was_noticed(&world);
}

#[test]
fn a_successor_that_is_not_to_adopt_gives_everything_up_and_serves_who_comes() {
    let mut world = box_of(2, 7);
    let (lost, publish) = publisher(&mut world, 0);
    let viewer = connect(&mut world, 1);
    world.watch(viewer, &publish);
    world.run_for(300);
    world.configs[0].adopts = false;
    replace(&mut world, 0, 30);
    assert_eq!(last_done(&world, 0), AdoptionDone { adopted: 0, lost: 1 });
    assert!(adopted(&world, lost).is_none());
    assert_eq!(world.arena.addresses().find(0, &world.peers[lost].address), None);
    let (came, publish) = publisher(&mut world, 0);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(700);
    world.configs[0].adopts = true;
    replace(&mut world, 0, 30);
    assert_eq!(last_done(&world, 0), AdoptionDone { adopted: 1, lost: 0 }, "who came since is kept");
    finish(&mut world);
    assert_everything_came(&world, (came, 0), viewer, ssrc);
}

/// A worker dies at any moment from a client's POST to its first packet. Then the client connects without another request, or its
/// session is dropped and counted: no engine answers a handshake that it does not know.
#[test]
fn who_is_about_to_connect_is_adopted_until_the_handshake_begins() {
    let mut given_up = 0;
    for death_ms in (0..80).step_by(4) {
        let mut world = box_of(2, 900 + death_ms);
        let (_, publish) = publisher(&mut world, 1);
        let viewer = world.open(0, false);
        let ssrc = world.watch(viewer, &publish);
        save(&mut world, viewer);
        world.run_for(20);
        world.start(viewer);
        world.run_for(death_ms);
        // The client itself may not know of it yet: its worker's last flight is on the way, or lost with the worker.
        let was_connected = world.events[0].iter().any(|event| matches!(event, Event::TransportConnected(_)));
        replace(&mut world, 0, 30);
        let done = last_done(&world, 0);
        assert_eq!(done.adopted + done.lost, 1);
        given_up += done.lost;
        if done.adopted == 1 {
            assert_eq!(adopted(&world, viewer).unwrap().connected, was_connected, "after {death_ms} ms");
            world.run_for(3_000);
            assert!(world.is_connected(viewer), "after {death_ms} ms");
            assert!(world.peers[viewer].got(ssrc).packets.len() > 200, "after {death_ms} ms");
            assert_eq!(world.peers[viewer].refused, []);
        }
    }
    assert!((1..15).contains(&given_up), "{given_up} of 20 died in their handshake");
}

#[test]
fn a_publisher_that_had_not_begun_to_connect_is_seen_when_it_does() {
    let mut world = box_of(1, 11);
    let peer = world.open(0, true);
    let publish = world.publish(peer, VIDEO, 0);
    save(&mut world, peer);
    let viewer = connect(&mut world, 0);
    let ssrc = world.watch(viewer, &publish);
    world.run_for(20);
    for _ in 0..2 {
        replace(&mut world, 0, 30);
        assert_eq!(last_done(&world, 0), AdoptionDone { adopted: 2, lost: 0 });
    }
    assert!(!adopted(&world, peer).unwrap().connected);
    world.start(peer);
    world.run_until(5_000, |world| world.is_connected(peer));
    let now = world.now;
    world.peers[peer].add(Source::new(11, VIDEO, now));
    world.run_for(500);
    finish(&mut world);
    assert_everything_came(&world, (peer, 0), viewer, ssrc);
}

#[test]
fn a_session_that_nobody_connects_to_ends_in_the_successor_too() {
    let mut world = box_of(1, 12);
    let peer = world.open(0, false);
    save(&mut world, peer);
    replace(&mut world, 0, 30);
    assert_eq!(last_done(&world, 0), AdoptionDone { adopted: 1, lost: 0 });
    world.run_for(40_000);
    assert_eq!(world.closed(peer), Some(Cause::NoStun));
}
