//! Whole calls through the engine: clients that check, shake hands, send and watch, over networks that lose, delay, double
//! and reorder, on one worker and on two. Must never wait for a real clock. Read `support/engine.rs` for the box.
#![allow(clippy::unwrap_used)]

#[path = "support/engine_peer.rs"]
mod peer;
mod support;
#[path = "support/engine.rs"]
mod world;

use millrace_core::command::{
    Codec, CodecName, Command, Detach, DtlsRole, MediaKind, Publish, ReportTransport, RestartIce, Unpublish,
    Unsubscribe,
};
use millrace_core::drop::Drop;
use millrace_core::event::{Cause, Event};
use millrace_core::stats::{Counter, Histogram};
use millrace_core::time::{Span, Time};
use millrace_core::transport::Profile;
use peer::{Credentials, Peer, Received, Source, client_pwd};
use support::CLIENT_UFRAG;
use world::{AUDIO, Limits, Link, TRANSPORT_CC, VIDEO, VIEWED_VIDEO, World};

/// A connected publisher of one video on `slot`, in log `8 * slot`, not sending yet.
fn publisher(world: &mut World, slot: usize) -> (usize, Publish) {
    let peer = world.connect(slot);
    let publish = world.publish(peer, VIDEO, 8 * slot as u32);
    (peer, publish)
}

fn send_video(world: &mut World, peer: usize) {
    let now = world.now;
    world.peers[peer].add(Source::new(11, VIDEO, now));
}

/// What was sent, from the first number that this viewer got to the last that was made.
fn assert_everything_came(world: &World, publisher: usize, received: &Received) {
    let numbers = received.numbers();
    let made = world.peers[publisher].sources[0].made;
    let first = numbers.first().copied().expect("something came");
    assert_eq!(numbers, (first..made).collect::<Vec<_>>(), "of {made}");
    assert!(received.is_whole());
}

/// Lets what is under way and what has to be repaired arrive.
fn finish(world: &mut World, publishers: &[usize]) {
    for peer in publishers {
        world.peers[*peer].stop_media();
    }
    world.run_for(1_500);
}

#[test]
fn viewers_of_a_profile_whose_tags_are_made_side_by_side_get_authentic_packets() {
    let limits = Limits { profiles: &[Profile::Aes128CmSha1_80], ..Limits::default() };
    let mut world = World::with_limits(1, 1, &limits);
    let (publisher, publish) = publisher(&mut world, 0);
    // More than there are lanes, and of two kinds of repair: one of them loses packets.
    let viewers: Vec<usize> = (0..21).map(|_| world.connect(0)).collect();
    let ssrcs: Vec<u32> = viewers.iter().map(|viewer| world.watch(*viewer, &publish)).collect();
    world.peers[viewers[3]].down = Some(Link { loss: 0.1, ..Link::GOOD });
    send_video(&mut world, publisher);
    world.run_for(2_000);
    finish(&mut world, &[publisher]);
    for (viewer, ssrc) in viewers.into_iter().zip(ssrcs) {
        assert_everything_came(&world, publisher, world.peers[viewer].got(ssrc));
        assert_eq!(world.peers[viewer].refused, []);
    }
}

#[test]
fn the_way_of_every_packet_is_timed_by_the_worker_that_sends_it() {
    let mut world = World::new(2, 1);
    let (publisher, publish) = publisher(&mut world, 0);
    for slot in [0, 1, 1] {
        let viewer = world.connect(slot);
        world.watch(viewer, &publish);
    }
    send_video(&mut world, publisher);
    world.run_for(3_000);
    let made = world.peers[publisher].sources[0].made;
    for (slot, viewers) in [(0, 1), (1, 2)] {
        let (timed, sum) = world.engines[slot].stats().observed(Histogram::Forwarding);
        assert!(timed > 0 && timed <= made * viewers, "{timed} of {made}");
        assert_eq!(sum, Span(0), "virtual time stands still while an engine works");
        let connected = world.engines[slot].stats().observed(Histogram::Handshake).0;
        assert_eq!(connected, [2, 2][slot]);
    }
}

#[test]
fn a_viewer_on_the_same_worker_gets_what_is_published() {
    let mut world = World::new(1, 1);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = world.connect(0);
    let ssrc = world.watch(viewer, &publish);
    send_video(&mut world, publisher);
    world.run_for(3_000);
    finish(&mut world, &[publisher]);
    let received = world.peers[viewer].got(ssrc);
    assert_everything_came(&world, publisher, received);
    assert_eq!((received.numbers()[0], received.duplicates, received.repairs), (0, 0, 0));
    assert!(received.packets.values().all(|got| got.payload_type == VIEWED_VIDEO.payload_type));
    assert_eq!(received.cname.as_deref(), Some(b"room".as_slice()));
    assert!(received.reports.len() >= 3 && world.peers[publisher].feedback.receiver_reports >= 3);
    assert!(world.peers[publisher].answers >= 3 && world.peers[viewer].answers >= 3);
    let started = |event: &&Event| matches!(event, Event::PublicationStarted(_));
    assert_eq!(world.events[0].iter().filter(started).count(), 1);
    assert_eq!((world.failures(), world.sent_nowhere), (vec![], 0));
    assert_eq!(world.peers[publisher].feedback.plis.len(), 0, "it starts with a key frame by itself");
}

#[test]
fn a_viewer_on_another_worker_gets_what_is_published() {
    let mut world = World::new(2, 2);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = world.connect(1);
    let ssrc = world.watch(viewer, &publish);
    send_video(&mut world, publisher);
    world.run_for(3_000);
    finish(&mut world, &[publisher]);
    assert_everything_came(&world, publisher, world.peers[viewer].got(ssrc));
    assert_eq!(world.stat(Counter::HandoversOut), 0);
    assert!(world.sent[1] > 300 && world.failures().is_empty());
}

#[test]
fn datagrams_that_reach_the_wrong_worker_are_handed_over_and_everything_works() {
    let mut world = World::new(3, 3);
    let publisher = world.open(0, true);
    let viewer = world.open(1, false);
    world.peers[publisher].enters_at = 2;
    world.peers[viewer].enters_at = 0;
    for peer in [publisher, viewer] {
        world.start(peer);
    }
    world.run_until(1_000, |world| world.is_connected(publisher) && world.is_connected(viewer));
    let refused = world.drops(Drop::UnknownSource);
    let publish = world.publish(publisher, VIDEO, 0);
    let ssrc = world.watch(viewer, &publish);
    send_video(&mut world, publisher);
    world.run_for(2_000);
    // The kernel changes its mind in the middle of the call.
    world.peers[publisher].enters_at = 0;
    world.peers[viewer].enters_at = 2;
    world.run_for(2_000);
    finish(&mut world, &[publisher]);
    assert_everything_came(&world, publisher, world.peers[viewer].got(ssrc));
    assert!(world.stat(Counter::HandoversOut) > 200);
    assert_eq!(world.stat(Counter::HandoversOut), world.stat(Counter::HandoversIn));
    assert_eq!(world.drops(Drop::UnknownSource), refused, "once the address is proven, nothing is lost");
}

fn call_over(mut world: World, link: Link) -> (World, usize, usize, u32) {
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = world.connect(1);
    let ssrc = world.watch(viewer, &publish);
    (world.up, world.down) = (link, link);
    send_video(&mut world, publisher);
    world.run_for(8_000);
    finish(&mut world, &[publisher]);
    world.run_for(1_500);
    (world, publisher, viewer, ssrc)
}

#[test]
fn five_percent_loss_both_ways_is_repaired_upstream_and_downstream() {
    for seed in [11, 12, 13] {
        let link = Link { loss: 0.05, jitter: Span::from_millis(5), ..Link::GOOD };
        let (world, publisher, viewer, ssrc) = call_over(World::new(2, seed), link);
        let received = world.peers[viewer].got(ssrc);
        // The last packets of all may be lost without anybody noticing: there is nothing after them.
        let numbers = received.numbers();
        let (first, last) = (numbers[0], *numbers.last().unwrap());
        assert_eq!(numbers, (first..=last).collect::<Vec<_>>(), "seed {seed}");
        assert!(first <= 4 && last + 8 > world.peers[publisher].sources[0].made, "{first}..{last}");
        assert!(received.is_whole() && received.repairs > 20, "{} repairs", received.repairs);
        assert!(world.peers[publisher].feedback.nacks > 20);
        assert!(world.stat(Counter::PacketsRecovered) > 20);
    }
}

#[test]
fn what_a_publisher_without_rtx_repeats_is_taken_however_many_packets_came_since() {
    let mut world = World::new(1, 1);
    let codec = Codec { rtx_payload_type: None, ..VIDEO };
    let publisher = world.connect(0);
    let publish = world.publish(publisher, codec, 0);
    let viewer = world.connect(0);
    let ssrc = world.watch(viewer, &publish);
    world.peers[publisher].up = Some(Link { loss: 0.02, ..Link::GOOD });
    let (now, packets_per_frame) = (world.now, 900);
    let source = Source { repeats: true, packets_per_frame, ..Source::new(11, codec, now) };
    world.peers[publisher].add(source);
    world.run_for(5);
    world.peers[publisher].sources[0].packets_per_frame = 1;
    world.run_for(2_000);
    finish(&mut world, &[publisher]);
    assert!(world.peers[publisher].feedback.nacks > 10);
    assert_everything_came(&world, publisher, world.peers[viewer].got(ssrc));
    assert_eq!(world.drops(Drop::SrtpReplay), 0);
}

#[test]
fn packets_that_overtake_each_other_arrive_under_their_own_numbers() {
    let link = Link { jitter: Span::from_millis(12), ..Link::GOOD };
    let (world, publisher, viewer, ssrc) = call_over(World::new(2, 21), link);
    let received = world.peers[viewer].got(ssrc);
    assert_everything_came(&world, publisher, received);
    let mut sorted = received.numbers();
    sorted.sort_unstable();
    assert_eq!(received.numbers(), sorted);
    let late = received.packets.values().collect::<Vec<_>>();
    assert!(late.windows(2).any(|pair| pair[1].at < pair[0].at), "nothing was reordered");
}

#[test]
fn duplicates_on_the_wire_are_forwarded_once() {
    let link = Link { duplicate: 0.3, jitter: Span::from_millis(3), ..Link::GOOD };
    let mut world = World::new(2, 31);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = world.connect(1);
    let ssrc = world.watch(viewer, &publish);
    (world.up, world.peers[viewer].down) = (link, Some(Link::GOOD));
    send_video(&mut world, publisher);
    world.run_for(4_000);
    finish(&mut world, &[publisher]);
    let received = world.peers[viewer].got(ssrc);
    assert_everything_came(&world, publisher, received);
    assert_eq!(received.duplicates, 0);
    assert!(world.drops(Drop::SrtpReplay) > 50);
}

#[test]
fn sequence_numbers_and_rollover_counters_wrap_on_both_sides() {
    let mut world = World::new(1, 41);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = world.connect(0);
    world.peers[viewer].asks = false;
    let ssrc = world.watch(viewer, &publish);
    let mut source = Source::new(11, VIDEO, world.now);
    (source.index, source.payload, source.packets_per_frame) = (65_500, 20, 60);
    source.interval = Span::from_millis(10);
    world.peers[publisher].add(source);
    world.run_for(11_300);
    finish(&mut world, &[publisher]);
    let source = &world.peers[publisher].sources[0];
    assert!(source.index > 65_536 * 2, "{}: two wraps upstream", source.index);
    let received = world.peers[viewer].got(ssrc);
    assert_everything_came(&world, publisher, received);
    assert_eq!(received.packets.len(), source.made as usize, "one and a bit of cycles downstream");
}

#[test]
fn a_publisher_behind_a_nat_that_rebinds_goes_on_at_its_new_address() {
    let mut world = World::new(2, 51);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = world.connect(1);
    let ssrc = world.watch(viewer, &publish);
    send_video(&mut world, publisher);
    world.run_for(1_000);
    let old = world.peers[publisher].address;
    let new = world.rebind(publisher);
    let before = world.peers[viewer].got(ssrc).packets.len();
    world.run_for(100);
    world.peers[publisher].check();
    world.run_for(2_000);
    assert!(world.peers[viewer].got(ssrc).packets.len() > before + 200);
    assert_eq!(world.arena.addresses().find(0, &new), Some(0));
    assert!(world.drops(Drop::UnknownSource) > 0, "media before the check is nobody's");
    world.run_for(32_000);
    assert_eq!(world.arena.addresses().find(0, &old), None, "forgotten when its consent ran out");
    finish(&mut world, &[publisher]);
    let received = world.peers[viewer].got(ssrc);
    assert_eq!(received.last().unwrap().number + 1, world.peers[publisher].sources[0].made);
    assert_eq!(world.closed(publisher), None);
}

#[test]
fn a_viewer_behind_a_nat_that_rebinds_gets_its_media_at_the_new_address() {
    let mut world = World::new(2, 52);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = world.connect(1);
    world.peers[viewer].enters_at = 0;
    let ssrc = world.watch(viewer, &publish);
    send_video(&mut world, publisher);
    world.run_for(1_000);
    world.rebind(viewer);
    world.run_for(200);
    let before = world.peers[viewer].got(ssrc).packets.len();
    world.peers[viewer].check();
    world.run_for(1_500);
    finish(&mut world, &[publisher]);
    assert!(world.peers[viewer].got(ssrc).packets.len() > before + 100);
    assert_everything_came(&world, publisher, world.peers[viewer].got(ssrc));
}

#[test]
fn late_joiner_starts_at_a_young_key_frame_without_asking() {
    let mut world = World::new(2, 61);
    let (publisher, publish) = publisher(&mut world, 0);
    send_video(&mut world, publisher);
    world.run_for(1_000);
    world.peers[publisher].sources[0].key_next = true;
    let key = world.peers[publisher].sources[0].made;
    world.run_for(60);
    for slot in [0, 1] {
        let viewer = world.open(slot, false);
        let ssrc = world.watch(viewer, &publish);
        world.start(viewer);
        world.run_until(400, |world| !world.peers[viewer].got(ssrc).packets.is_empty());
        let received = world.peers[viewer].got(ssrc);
        assert_eq!(received.numbers()[0], key, "slot {slot}");
    }
    world.run_for(300);
    assert_eq!(world.peers[publisher].feedback.plis.len(), 0);
    finish(&mut world, &[publisher]);
    for (viewer, received) in [1, 2].map(|viewer| (viewer, &world.peers[viewer].received[0])) {
        assert_everything_came(&world, publisher, received);
        assert_eq!(received.duplicates, 0, "viewer {viewer}");
    }
}

#[test]
fn fifty_late_joiners_on_both_workers_make_one_request_for_a_key_frame() {
    let mut world = World::new(2, 62);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewers: Vec<usize> = (0..5).map(|n| world.connect(n % 2)).collect();
    send_video(&mut world, publisher);
    world.run_for(2_000);
    for viewer in &viewers {
        for _ in 0..10 {
            world.watch(*viewer, &publish);
        }
    }
    world.run_for(1_000);
    assert_eq!(world.peers[publisher].feedback.plis.len(), 1);
    assert_eq!(world.peers[publisher].sources[0].key_frames, 2);
    finish(&mut world, &[publisher]);
    for received in viewers.iter().flat_map(|viewer| &world.peers[*viewer].received) {
        assert_everything_came(&world, publisher, received);
    }
}

#[test]
fn key_frame_requests_stay_bounded_when_the_publisher_does_not_answer() {
    let mut world = World::new(2, 63);
    let (publisher, publish) = publisher(&mut world, 0);
    world.peers[publisher].answers_plis = false;
    send_video(&mut world, publisher);
    world.run_for(2_000);
    let viewers: Vec<usize> = (0..4).map(|n| world.connect(n % 2)).collect();
    let ssrcs: Vec<u32> = viewers.iter().map(|viewer| world.watch(*viewer, &publish)).collect();
    for _ in 0..50 {
        for (viewer, ssrc) in viewers.iter().zip(&ssrcs) {
            world.peers[*viewer].send_pli(*ssrc);
        }
        world.run_for(40);
    }
    let asked = world.peers[publisher].feedback.plis.len();
    assert!((6..=9).contains(&asked), "{asked} in two seconds");
    assert_eq!(world.stat(Counter::KeyFrameRequestsReceived), 200);
}

#[test]
fn a_viewer_that_goes_on_asking_costs_everybody_three_key_frames_in_ten_seconds() {
    for slot in [0, 1] {
        let mut world = World::new(2, 1);
        let (publisher, publish) = publisher(&mut world, 0);
        let viewer = world.connect(slot);
        let ssrc = world.watch(viewer, &publish);
        send_video(&mut world, publisher);
        world.run_for(1_000);
        let (began, mut last) = (world.now, 0);
        for _ in 0..200 {
            world.peers[viewer].send_pli(ssrc);
            world.run_for(100);
            last = world.peers[publisher].sources[0].key_frames;
        }
        let plis = world.peers[publisher].feedback.plis.iter().filter(|(at, _)| *at >= began).count();
        assert!((4..=7).contains(&plis), "{plis} requests in 20 s of a viewer on worker {slot}");
        assert!((5..=8).contains(&last), "{last} key frames");
        // Who comes meanwhile, and finds no young key frame, is not refused for it.
        let newcomer = world.connect(1);
        world.run_until(2_000, |world| {
            let asked = world.peers[publisher].feedback.plis.last().map_or(began, |(at, _)| *at);
            world.now.since(asked) > Span::from_millis(800)
        });
        let (joined, ssrc) = (world.now, world.watch(newcomer, &publish));
        world.run_until(150, |world| !world.peers[newcomer].got(ssrc).packets.is_empty());
        assert!(world.peers[publisher].feedback.plis.iter().any(|(at, _)| *at >= joined));
    }
}

#[test]
fn many_viewers_that_go_on_asking_pay_from_one_budget() {
    let mut world = World::new(2, 1);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewers: Vec<(usize, u32)> = (0..20)
        .map(|at| {
            let viewer = world.connect(at % 2);
            (viewer, world.watch(viewer, &publish))
        })
        .collect();
    // Key frames of 60 packets among frames of four: one in two seconds is what they may cost.
    send_video(&mut world, publisher);
    world.peers[publisher].sources[0].key_packets = 60;
    world.run_for(1_000);
    let began = world.now;
    for round in 0..200 {
        let (viewer, ssrc) = viewers[round % viewers.len()];
        world.peers[viewer].send_pli(ssrc);
        world.run_for(100);
    }
    let plis = world.peers[publisher].feedback.plis.iter().filter(|(at, _)| *at >= began).count();
    assert!((6..=13).contains(&plis), "{plis} requests in 20 s");
    assert!(viewers.iter().all(|(viewer, ssrc)| world.peers[*viewer].got(*ssrc).is_whole()));
}

#[test]
fn a_viewer_that_goes_on_asking_for_what_it_was_sent_gets_a_quarter_of_the_media_again() {
    let mut world = World::new(1, 1);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = world.connect(0);
    let ssrc = world.watch(viewer, &publish);
    send_video(&mut world, publisher);
    world.run_for(1_000);
    let before = world.stat(Counter::PacketsRetransmitted);
    let newest = *world.peers[viewer].got(ssrc).packets.keys().next_back().unwrap() as u16;
    for _ in 0..100 {
        // As pion does: whatever came by RTX, until 512 packets later.
        let sequences: Vec<u16> = (0..20).map(|at| newest.wrapping_sub(at)).collect();
        world.peers[viewer].send_rtcp(|writer| {
            assert!(writer.receiver_report(77, &[]) && writer.nack(77, ssrc, &sequences) == 20);
        });
        world.run_for(100);
    }
    assert_eq!(world.stat(Counter::PacketsRetransmitted) - before, 20 * 4);
}

#[test]
fn a_viewer_that_comes_before_its_publisher_gets_the_first_picture() {
    let mut world = World::new(2, 71);
    let viewers = [world.connect(1), world.connect(0)];
    let publisher = world.connect(0);
    // Control has told the viewers' workers of the publication before the publisher's worker has opened it.
    let publish = {
        let mut other = World::new(1, 0);
        let peer = other.connect(0);
        let publish = other.publish(peer, VIDEO, 0);
        Publish { publication: 4_242, transport: world.peers[publisher].id, ..publish }
    };
    let ssrcs = viewers.map(|viewer| world.watch(viewer, &publish));
    world.run_for(35);
    world.command(0, Command::Publish(publish));
    send_video(&mut world, publisher);
    world.run_for(1_000);
    finish(&mut world, &[publisher]);
    for (viewer, ssrc) in viewers.into_iter().zip(ssrcs) {
        let received = world.peers[viewer].got(ssrc);
        assert_everything_came(&world, publisher, received);
        assert_eq!(received.numbers()[0], 0);
    }
    assert_eq!(world.peers[publisher].feedback.plis.len(), 0);
}

#[test]
fn a_publisher_that_returns_with_another_codec_goes_on_in_the_same_stream() {
    let mut world = World::new(2, 81);
    let (first, publish) = publisher(&mut world, 0);
    let viewer = world.connect(1);
    let subscription = world.subscribe(viewer, MediaKind::Video);
    let ssrc = subscription as u32 + 1_000_000;
    world.attach(viewer, subscription, &publish);
    send_video(&mut world, first);
    world.run_for(2_000);
    finish(&mut world, &[first]);
    let gone_at = world.peers[viewer].got(ssrc).last().unwrap();
    world.command(
        0,
        Command::CloseTransport(millrace_core::command::CloseTransport { transport: world.peers[first].id }),
    );
    world.command(1, Command::Detach(Detach { subscription }));
    world.run_for(3_000);

    let codec = Codec { name: CodecName::Vp9, payload_type: 98, rtx_payload_type: Some(99), ..VIDEO };
    let second = world.connect(0);
    // The same track log lives again.
    let publish = world.publish(second, codec, 0);
    world.attach(viewer, subscription, &publish);
    let mut source = Source::new(0x9999_9999, codec, world.now);
    (source.index, source.timestamp) = (60_000, 77);
    world.peers[second].add(source);
    let began_at = world.now;
    world.run_for(1_000);
    finish(&mut world, &[second]);

    let received = world.peers[viewer].got(ssrc);
    assert!(received.is_whole(), "the sequence numbers go on");
    let all: Vec<_> = received.packets.values().collect();
    let at = all.iter().position(|got| got.payload_type == 122).unwrap();
    let (before, after) = (all[at - 1], all[at]);
    assert_eq!((after.number, before.number), (0, gone_at.number));
    assert!(after.at.since(began_at) < Span::from_millis(100), "the picture starts at once");
    let step = after.timestamp.wrapping_sub(before.timestamp);
    let passed = (after.at.since(before.at).0 * 90 / 1_000) as u32;
    assert!(step.abs_diff(passed) < 900, "{step} ticks for {passed}");
    let numbers: Vec<u64> = all[at..].iter().map(|got| got.number).collect();
    assert_eq!(numbers, (0..world.peers[second].sources[0].made).collect::<Vec<_>>());
}

#[test]
fn an_encoder_that_starts_over_under_another_ssrc_is_followed() {
    let mut world = World::new(2, 82);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = world.connect(1);
    let ssrc = world.watch(viewer, &publish);
    send_video(&mut world, publisher);
    world.run_for(1_000);
    world.peers[publisher].stop_media();
    let mut source = Source::new(12, VIDEO, world.now);
    source.index = 50;
    world.peers[publisher].add(source);
    world.run_for(1_000);
    finish(&mut world, &[publisher]);
    let sent: u64 = world.peers[publisher].sources.iter().map(|source| source.made).sum();
    let received = world.peers[viewer].got(ssrc);
    assert_eq!(received.packets.len() as u64, sent);
    assert!(received.is_whole());
}

#[test]
fn of_three_encodings_the_best_that_lives_is_forwarded() {
    let mut world = World::new(2, 91);
    let publisher = world.connect(0);
    let publish = world.publish_with(publisher, VIDEO, "v", &[Some("q"), Some("h"), Some("f")], 0);
    let viewer = world.connect(1);
    let ssrc = world.watch(viewer, &publish);
    for (at, rid) in ["q", "h", "f"].into_iter().enumerate() {
        let mut source = Source::new(21 + at as u32, VIDEO, world.now);
        source.rid = Some(rid);
        // Which encoding a packet is of can be told from its number.
        source.made = 1_000_000 * at as u64;
        world.peers[publisher].add(source);
    }
    let rank = |world: &World| world.peers[viewer].got(ssrc).last().map(|got| got.number / 1_000_000);
    world.run_for(2_000);
    assert_eq!(rank(&world), Some(2));
    world.peers[publisher].sources[2].next_at = None;
    world.run_for(2_000);
    assert_eq!(rank(&world), Some(1), "falls back when the best one stops");
    world.peers[publisher].sources[2].next_at = Some(world.now);
    world.run_for(2_000);
    assert_eq!(rank(&world), Some(2), "and returns");
    finish(&mut world, &[publisher]);
    let received = world.peers[viewer].got(ssrc);
    assert!(received.is_whole());
    let timestamps: Vec<u32> = received.packets.values().map(|got| got.timestamp).collect();
    assert!(timestamps.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) as i32 >= 0), "time never goes back");
}

#[test]
fn encodings_that_were_listed_the_wrong_way_round_are_put_in_order_once() {
    for (payloads, best, next) in [([900, 300, 100], 0, 1), ([100, 900, 300], 1, 2)] {
        let mut world = World::new(2, 92);
        let publisher = world.connect(0);
        let publish = world.publish_with(publisher, VIDEO, "v", &[Some("a"), Some("b"), Some("c")], 0);
        let viewer = world.connect(1);
        let ssrc = world.watch(viewer, &publish);
        for (at, (rid, payload)) in ["a", "b", "c"].into_iter().zip(payloads).enumerate() {
            let made = 1_000_000 * at as u64;
            let source = Source { rid: Some(rid), payload, made, ..Source::new(21 + at as u32, VIDEO, world.now) };
            world.peers[publisher].add(source);
        }
        let shown =
            |world: &World, viewer: usize, ssrc| world.peers[viewer].got(ssrc).last().map(|got| got.number / 1_000_000);
        world.run_for(2_000);
        assert_eq!(shown(&world, viewer, ssrc), Some(2), "the guess, until it is measured");
        world.run_for(2_000);
        assert_eq!(shown(&world, viewer, ssrc), Some(best));
        let late = world.connect(1);
        let late_ssrc = world.watch(late, &publish);
        world.run_for(600);
        assert_eq!(shown(&world, late, late_ssrc), Some(best), "who comes later begins there");

        world.peers[publisher].sources[best as usize].next_at = None;
        world.run_for(2_000);
        assert_eq!(shown(&world, viewer, ssrc), Some(next), "the next best, not the next of the list");
        world.peers[publisher].sources[best as usize].next_at = Some(world.now);
        world.run_for(2_000);
        assert_eq!(shown(&world, viewer, ssrc), Some(best));

        // A publisher whose encodings change their sizes afterwards moves nobody.
        world.peers[publisher]
            .sources
            .iter_mut()
            .zip([100, 300, 900])
            .for_each(|(source, payload)| source.payload = payload);
        let plis = world.peers[publisher].feedback.plis.len();
        world.run_for(6_000);
        assert_eq!((shown(&world, viewer, ssrc), world.peers[publisher].feedback.plis.len()), (Some(best), plis));
        finish(&mut world, &[publisher]);
        assert!(world.peers[viewer].got(ssrc).is_whole());
    }
}

/// Where the viewer's clock puts a timestamp, in microseconds of the publisher's clock.
fn shown_at(received: &Received, clock_rate: u32, timestamp: u32) -> f64 {
    let (_, info) = received.reports.last().unwrap();
    let ticks = timestamp.wrapping_sub(info.rtp_timestamp) as i32;
    info.ntp as f64 / 4_294.967_296 + f64::from(ticks) * 1e6 / f64::from(clock_rate)
}

#[test]
fn audio_and_video_stay_in_sync_at_the_viewer() {
    let mut world = World::new(2, 101);
    let publisher = world.connect(0);
    let video = world.publish(publisher, VIDEO, 0);
    let audio = world.publish(publisher, AUDIO, 1);
    let viewer = world.connect(1);
    send_video(&mut world, publisher);
    world.peers[publisher].add(Source::new(31, AUDIO, world.now));
    world.run_for(700);
    let ssrcs = [world.watch(viewer, &video), world.watch(viewer, &audio)];
    world.run_for(12_000);
    finish(&mut world, &[publisher]);
    for (at, ssrc) in ssrcs.into_iter().enumerate() {
        let source = &world.peers[publisher].sources[at];
        let received = world.peers[viewer].got(ssrc);
        assert!(received.reports.len() > 8);
        for got in received.packets.values().rev().take(50) {
            let first = received.packets.values().next().unwrap();
            assert!(got.number >= first.number);
            let sent = source.sent[got.number as usize].1;
            let made_us = source.began_at.0 as f64
                + f64::from(sent.wrapping_sub(source.timestamp)) * 1e6 / f64::from(source.codec.clock_rate);
            let truth = made_us + (Peer::ntp(Time(0)) >> 32) as f64 * 1e6;
            let shown = shown_at(received, source.codec.clock_rate, got.timestamp);
            assert!((shown - truth).abs() < 1_000.0, "{:?}: {} us off", source.codec.name, shown - truth);
        }
    }
}

#[test]
fn a_publishers_late_report_moves_no_viewers_clock_and_sound_and_picture_share_one() {
    // Seconds until the publisher's first report about picture and sound.
    for (video_after, audio_after) in [(5, 1), (1, 14), (14, 14)] {
        let mut world = World::new(2, 101);
        let publisher = world.connect(0);
        let published = [(VIDEO, 0), (AUDIO, 1)].map(|(codec, log)| world.publish(publisher, codec, log));
        let viewer = world.connect(1);
        let ssrcs = published.map(|publish| world.watch(viewer, &publish));
        for (ssrc, codec, after) in [(11, VIDEO, video_after), (31, AUDIO, audio_after)] {
            let report_at = Some(world.now + Span::from_secs(after));
            world.peers[publisher].add(Source { report_at, ..Source::new(ssrc, codec, world.now) });
        }
        world.run_for(20_000);
        let mut shown = Vec::new();
        for (at, ssrc) in ssrcs.into_iter().enumerate() {
            let source = &world.peers[publisher].sources[at];
            let received = world.peers[viewer].got(ssrc);
            let first = received.packets.values().next().unwrap();
            let rate = f64::from(source.codec.clock_rate);
            assert!(received.reports.len() > 4);
            for (_, info) in &received.reports {
                let ticks = first.timestamp.wrapping_sub(info.rtp_timestamp) as i32;
                shown.push(info.ntp as f64 / 4_294.967_296 + f64::from(ticks) * 1e6 / rate);
            }
        }
        let (least, most) = shown.iter().fold((f64::MAX, f64::MIN), |(a, b), at| (a.min(*at), b.max(*at)));
        assert!(most - least < 50_000.0, "{} us apart with {video_after} and {audio_after}", most - least);
    }
}

#[test]
fn transport_wide_feedback_tells_the_publisher_of_every_packet() {
    let mut world = World::new(1, 111);
    let (publisher, _) = publisher(&mut world, 0);
    world.peers[publisher].has_transport_cc = true;
    world.up = Link { loss: 0.04, ..Link::GOOD };
    send_video(&mut world, publisher);
    world.run_for(5_000);
    world.up = Link::GOOD;
    finish(&mut world, &[publisher]);
    let Peer { feedback, wide, .. } = &world.peers[publisher];
    let sent = usize::from(wide.wrapping_sub(65_000));
    let mut arrived = feedback.arrived.clone();
    arrived.sort_unstable();
    arrived.dedup();
    assert!(arrived.len() * 100 > sent * 92 && arrived.len() < sent, "{} of {sent}", arrived.len());
    assert!(feedback.wide_lost > 5, "{} of {sent}, {}", arrived.len(), feedback.wide_lost);
}

#[test]
fn who_probes_before_the_first_frame_is_told_what_arrived() {
    let mut world = World::new(1, 112);
    let publisher = world.connect(0);
    world.publish(publisher, VIDEO, 0);
    let other = world.connect(0);
    world.run_for(500);
    // Twenty packets of padding on SSRC 0, as libwebrtc sends them, and nothing else.
    for number in 0..20_u16 {
        let mut packet = vec![0xb0, 127];
        packet.extend(number.to_be_bytes());
        packet.extend([0; 8]);
        packet.extend([0xbe, 0xde, 0, 1, TRANSPORT_CC << 4 | 1]);
        packet.extend(number.to_be_bytes());
        packet.push(0);
        packet.extend([0, 0, 0, 4]);
        world.peers[publisher].send_rtp(u64::from(number), &packet);
    }
    // Another client's check, so that nothing but the packets has the engine look at this one.
    world.start(other);
    world.run_for(150);
    assert_eq!(world.peers[publisher].feedback.arrived.len(), 20);
}

#[test]
fn an_ice_restart_keeps_media_flowing() {
    let mut world = World::new(2, 121);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = world.connect(1);
    let ssrc = world.watch(viewer, &publish);
    send_video(&mut world, publisher);
    world.run_for(1_000);
    for peer in [publisher, viewer] {
        let slot = world.peers[peer].slot;
        let credentials = Credentials::new(slot, 70_000_000 + peer as u64);
        let restart = RestartIce {
            transport: world.peers[peer].id,
            local_ufrag: credentials.ufrag.clone(),
            local_pwd: credentials.pwd.clone(),
            remote_ufrag: CLIENT_UFRAG.into(),
            remote_pwd: client_pwd(world.peers[peer].id),
        };
        world.command(slot, Command::RestartIce(restart));
        // The old credentials work until a check with the new ones has succeeded.
        world.run_for(1_500);
        world.peers[peer].credentials = credentials;
        world.rebind(peer);
        world.peers[peer].check();
        world.run_for(1_500);
    }
    finish(&mut world, &[publisher]);
    assert_everything_came(&world, publisher, world.peers[viewer].got(ssrc));
    assert_eq!(world.failures(), Vec::<String>::new());
    assert_eq!((world.closed(publisher), world.closed(viewer)), (None, None));
}

#[test]
fn a_client_that_stops_answering_loses_consent_and_nobody_else_does() {
    let mut world = World::new(2, 131);
    let (publisher, publish) = publisher(&mut world, 0);
    let (gone, stays) = (world.connect(1), world.connect(1));
    world.watch(gone, &publish);
    let ssrc = world.watch(stays, &publish);
    send_video(&mut world, publisher);
    world.run_for(1_000);
    world.peers[gone].cut = true;
    // Its last answer was up to six seconds before.
    world.run_for(23_500);
    assert_eq!(world.closed(gone), None);
    world.run_for(7_000);
    assert_eq!(world.closed(gone), Some(Cause::ConsentLost));
    assert_eq!(world.engines[1].stats().get(Counter::Transports), 1);
    assert_eq!(world.engines[1].stats().get(Counter::Subscriptions), 1);
    let address = world.peers[gone].address;
    assert_eq!(world.arena.addresses().find(0, &address), None);
    finish(&mut world, &[publisher]);
    assert_everything_came(&world, publisher, world.peers[stays].got(ssrc));
}

#[test]
fn each_way_to_fail_has_its_own_cause() {
    let mut world = World::new(1, 141);
    let silent = world.open(0, true);
    let mistaken = world.open(0, true);
    world.peers[mistaken].credentials.pwd = "not-the-password-of-the-box".into();
    let dumb = world.open(0, true);
    let slow = world.open(0, true);
    let impostor = world.open_with(0, true, DtlsRole::Server, &[7; 32]);
    let quiet = world.open(0, true);
    let watcher = world.open(0, false);
    for peer in [mistaken, impostor, quiet, watcher] {
        world.start(peer);
    }
    for peer in [dumb, slow] {
        world.peers[peer].begins_handshake = false;
        world.peers[peer].check();
    }
    world.run_for(2_000);
    // The first twenty bytes of a ClientHello, and never the rest.
    let hello = [&[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 20][..], &[9; 20]];
    let hello = hello.concat();
    let address = world.peers[slow].address;
    world.inject(0, address, &hello);
    world.run_for(40_000);
    let causes = [silent, mistaken, dumb, slow, impostor].map(|peer| world.closed(peer));
    let expected =
        [Cause::NoStun, Cause::BadIntegrity, Cause::NoClientHello, Cause::HandshakeTimeout, Cause::FingerprintMismatch];
    assert_eq!(causes, expected.map(Some));
    assert_eq!((world.stalled(quiet), world.closed(quiet)), (Some(Cause::NoSrtp), None));
    assert_eq!((world.stalled(watcher), world.closed(watcher)), (None, None));
}

#[test]
fn a_passive_client_is_shaken_hands_with() {
    let mut world = World::new(1, 151);
    let fingerprint = world.peer_fingerprint();
    let publisher = world.open_with(0, true, DtlsRole::Client, &fingerprint);
    world.start(publisher);
    world.run_until(1_000, |world| world.is_connected(publisher));
    let publish = world.publish(publisher, VIDEO, 0);
    let viewer = world.connect(0);
    let ssrc = world.watch(viewer, &publish);
    send_video(&mut world, publisher);
    world.run_for(500);
    finish(&mut world, &[publisher]);
    assert_everything_came(&world, publisher, world.peers[viewer].got(ssrc));
}

#[test]
fn whoever_leaves_says_goodbye_and_leaves_nothing_behind() {
    let mut world = World::new(2, 161);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewers = [world.connect(0), world.connect(1)];
    let subscriptions = viewers.map(|viewer| world.subscribe(viewer, MediaKind::Video));
    for (viewer, subscription) in viewers.into_iter().zip(subscriptions) {
        world.attach(viewer, subscription, &publish);
    }
    send_video(&mut world, publisher);
    world.run_for(500);
    world.command(0, Command::Unsubscribe(Unsubscribe { subscription: subscriptions[0] }));
    world.run_for(100);
    assert!(world.peers[viewers[0]].received[0].said_bye);
    let ssrc = world.peers[publisher].sources[0].ssrc;
    world.peers[publisher].send_rtcp(|writer| assert!(writer.receiver_report(ssrc, &[]) && writer.bye(&[ssrc])));
    world.peers[publisher].stop_media();
    world.run_for(700);
    let ended =
        |event: &Event| matches!(event, Event::PublicationEnded(ended) if ended.publication == publish.publication);
    assert!(world.events[0].iter().any(ended));
    world.command(0, Command::Unpublish(Unpublish { publication: publish.publication }));
    for slot in [0, 1] {
        let now = world.now;
        world.engines[slot].close(now);
        world.run_until_idle();
        for gauge in [Counter::Transports, Counter::Publications, Counter::Subscriptions] {
            assert_eq!(world.engines[slot].stats().get(gauge), 0);
        }
        assert_eq!(world.engines[slot].next_deadline(), None);
    }
    world.run_for(100);
    assert!(world.peers[viewers[1]].received[0].said_bye);
    assert_eq!([publisher, viewers[0], viewers[1]].map(|peer| world.closed(peer)), [Some(Cause::Closed); 3]);
    for peer in [publisher, viewers[0], viewers[1]] {
        let address = world.peers[peer].address;
        assert_eq!(world.arena.addresses().find(0, &address), None);
    }
}

#[test]
fn a_report_shows_what_a_call_did() {
    let mut world = World::new(1, 171);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewer = world.connect(0);
    world.watch(viewer, &publish);
    send_video(&mut world, publisher);
    world.up = Link { loss: 0.03, ..Link::GOOD };
    world.run_for(5_000);
    for peer in [publisher, viewer] {
        world.command(0, Command::ReportTransport(ReportTransport { transport: world.peers[peer].id, request: 5 }));
    }
    let reports: Vec<_> = world.events[0]
        .iter()
        .filter_map(|event| match event {
            Event::TransportReport(report) => Some(report),
            _ => None,
        })
        .collect();
    assert!(reports.iter().all(|report| report.state == "connected" && report.request == 5));
    let (sent, seen) = (&reports[0].publications[0], &reports[1].subscriptions[0]);
    assert!(sent.packets > 500 && sent.nacks_sent > 0 && sent.packets_recovered > 0 && sent.key_frames == 1);
    assert_eq!((seen.publication, seen.packets > 500), (Some(publish.publication), true));
    let round_trip = reports[1].round_trip_ms.expect("the viewer's reports echo ours");
    assert!((15.0..30.0).contains(&round_trip), "{round_trip} ms over a path of twenty");
}
