//! Strangers, floods and a faulty control plane, at an engine with live calls: the calls must not notice, and all is counted.
//! Must never wait for a real clock. Read `support/engine.rs` for the box.
#![allow(clippy::unwrap_used)]

#[path = "support/engine_peer.rs"]
mod peer;
mod support;
#[path = "support/engine.rs"]
mod world;

use std::net::SocketAddr;

use millrace_core::command::{
    Attach, CloseTransport, Codec, CodecName, Command, Detach, DtlsRole, Encoding, FingerprintHash, MediaKind,
    OpenTransport, Publish, ReportTransport, RestartIce, Subscribe, TrackCodec, Unpublish, Unsubscribe,
};
use millrace_core::drop::Drop;
use millrace_core::event::Event;
use millrace_core::outbox::{Path, SocketIndex};
use millrace_core::stats::Counter;
use millrace_core::time::Span;
use peer::Source;
use proptest::prelude::*;
use support::Check;
use world::{Limits, Link, VIDEO, VIEWED_VIDEO, World, extensions};

const STRANGER: &str = "203.0.113.9:9";

fn publisher(world: &mut World, slot: usize) -> (usize, Publish) {
    let peer = world.connect(slot);
    let publish = world.publish(peer, VIDEO, 8 * slot as u32);
    (peer, publish)
}

fn send_video(world: &mut World, peer: usize) {
    let now = world.now;
    world.peers[peer].add(Source::new(11, VIDEO, now));
}

fn finish(world: &mut World, publisher: usize) {
    world.peers[publisher].stop_media();
    world.run_for(1_000);
}

/// A call from slot 0 to slot 1 that goes on.
struct Call {
    publisher: usize,
    viewer: usize,
    ssrc: u32,
}

impl Call {
    fn begin(world: &mut World) -> Call {
        let (publisher, publish) = publisher(world, 0);
        let viewer = world.connect(1);
        let ssrc = world.watch(viewer, &publish);
        send_video(world, publisher);
        world.run_for(100);
        Call { publisher, viewer, ssrc }
    }

    /// Ends it, after checking that nothing of it was lost.
    fn check(&self, world: &mut World) {
        world.run_for(300);
        finish(world, self.publisher);
        let received = world.peers[self.viewer].got(self.ssrc);
        let made = world.peers[self.publisher].sources[0].made;
        assert!(made > 40);
        assert_eq!(received.numbers(), (0..made).collect::<Vec<_>>());
        assert!(received.is_whole());
    }
}

#[test]
fn strangers_get_silence() {
    let mut world = World::new(2, 1);
    let call = Call::begin(&mut world);
    let stranger: SocketAddr = STRANGER.parse().unwrap();
    let before = world.sent_nowhere;
    let good = world.peers[call.publisher].credentials.clone();
    let checks = [
        Check::to("00unknown1", &good.pwd),
        Check::to("01unknown1", &good.pwd),
        Check::to("02unknown1", &good.pwd),
        Check::to("zzunknown1", &good.pwd),
        Check::to("", &good.pwd),
        Check::to(&good.ufrag, "some other password of 24"),
    ];
    for check in &checks {
        for slot in [0, 1] {
            world.inject(slot, stranger, &check.bytes());
        }
    }
    for first in 0..=255u8 {
        for len in [0, 1, 2, 3, 11, 12, 13, 19, 20, 21, 40, 100, 1_200, 1_472, 1_504, 9_000] {
            let mut bytes = vec![first; len];
            world.inject(usize::from(first & 1), stranger, &bytes);
            // And from the address of somebody who is known.
            let known = world.peers[call.viewer].address;
            bytes.iter_mut().skip(1).for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(7));
            world.inject(usize::from(first & 1), known, &bytes);
        }
    }
    assert_eq!(world.sent_nowhere, before);
    assert_eq!(world.drops(Drop::StunUnknownUfrag), 10);
    assert!(world.drops(Drop::StunIntegrity) >= 2);
    call.check(&mut world);
}

#[test]
fn strangers_who_name_another_worker_leave_room_for_its_clients() {
    let mut world = World::new(2, 1);
    let call = Call::begin(&mut world);
    // The kernel gives the viewer's and the publisher's datagrams to the worker that they are not at.
    for peer in [call.publisher, call.viewer] {
        world.peers[peer].enters_at = 1 - world.peers[peer].enters_at;
    }
    let forged = Check::to("00unknown1", &world.peers[call.publisher].credentials.pwd).bytes();
    for _ in 0..100 {
        for n in 0..64u16 {
            let path = Path { socket: SocketIndex(0), remote: SocketAddr::from(([198, 51, 100, 1], 1_000 + n)) };
            world.engines[1].handle_datagram(world.now, path, &mut forged.clone());
        }
        world.run_for(20);
    }
    assert_eq!(world.drops(Drop::HandoverFull), 100 * 32);
    call.check(&mut world);
}

#[test]
fn transports_are_bounded_and_the_refused_command_comes_back() {
    let mut world = World::with_limits(1, 2, &Limits { max_transports: 3, ..Limits::default() });
    (0..5).for_each(|_| {
        world.open(0, false);
    });
    assert_eq!(world.engines[0].stats().get(Counter::Transports), 3);
    assert_eq!(world.failures().len(), 2);
    assert!(world.failures()[0].starts_with("OpenTransport "), "{:?}", world.failures());
    world.command(0, Command::CloseTransport(CloseTransport { transport: world.peers[0].id }));
    world.open(0, false);
    assert_eq!(world.failures().len(), 2);
}

#[test]
fn handshakes_under_way_are_bounded_in_both_roles() {
    for role in [DtlsRole::Server, DtlsRole::Client] {
        let mut world = World::with_limits(1, 3, &Limits { max_handshakes: 2, ..Limits::default() });
        let fingerprint = world.peer_fingerprint();
        let peers: Vec<usize> = (0..6).map(|_| world.open_with(0, false, role, &fingerprint)).collect();
        for peer in &peers {
            world.start(*peer);
        }
        // In the server role the ClientHello comes a round trip after the check.
        world.run_for(31);
        assert!(world.drops(Drop::TooManyHandshakes) >= 4, "{role:?}");
        world.run_until(9_000, |world| peers.iter().all(|peer| world.is_connected(*peer)));
    }
}

/// A client that begins a handshake from this address and then falls silent.
fn begin_and_fall_silent(world: &mut World, address: &str) -> usize {
    let peer = world.open(0, false);
    world.peers[peer].address = address.parse().unwrap();
    world.peers[peer].down = Some(Link { loss: 1.0, ..Link::GOOD });
    let check = Check::to(&world.peers[peer].credentials.ufrag, &world.peers[peer].credentials.pwd).bytes();
    let remote = world.peers[peer].address;
    world.inject(0, remote, &check);
    world.inject(0, remote, CLIENT_HELLO_CUT);
    peer
}

/// The first fragment of a ClientHello whose rest never comes: one byte of 100.
const CLIENT_HELLO_CUT: &[u8] =
    &[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13, 1, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 1, 0xfe];

#[test]
fn stuck_handshakes_make_room_for_newcomers_once_they_are_old() {
    for same_address in [false, true] {
        let mut world = World::with_limits(1, 7, &Limits { max_handshakes: 4, ..Limits::default() });
        for n in 0..4 {
            begin_and_fall_silent(&mut world, &format!("203.0.113.9:{}", 1_000 + n));
        }
        assert_eq!(world.stat(Counter::Handshakes), 4);
        let honest = world.open(0, false);
        if same_address {
            world.peers[honest].address = "203.0.113.9:5000".parse().unwrap();
        }
        world.start(honest);
        world.run_for(1_900);
        assert!(!world.is_connected(honest), "no handshake is evicted that is younger than two seconds");
        assert_eq!(world.stat(Counter::HandshakesEvicted), 0);
        world.run_until(4_000, |world| world.is_connected(honest));
        assert_eq!(world.stat(Counter::HandshakesEvicted), 1);
        world.run_for(1_000);
        assert!((0..4).all(|stuck| world.closed(stuck).is_none()), "an eviction ends no session");
        assert_eq!(world.stat(Counter::Handshakes), 3);
    }
}

#[test]
fn the_handshake_that_makes_room_is_of_the_source_that_has_most() {
    let mut world = World::with_limits(1, 8, &Limits { max_handshakes: 4, ..Limits::default() });
    let alone = begin_and_fall_silent(&mut world, "198.51.100.1:1000");
    world.run_for(10);
    let many: Vec<usize> =
        (0..3).map(|n| begin_and_fall_silent(&mut world, &format!("[2001:db8::{n}]:1000"))).collect();
    world.run_for(2_100);
    let honest = world.open(0, false);
    world.start(honest);
    world.run_until(2_000, |world| world.is_connected(honest));
    let phase = |world: &mut World, peer: usize| {
        let transport = world.peers[peer].id;
        world.command(0, Command::ReportTransport(ReportTransport { request: 1, transport }));
        world.events[0].iter().rev().find_map(|event| match event {
            Event::TransportReport(report) if report.transport == transport => Some(report.state.clone()),
            _ => None,
        })
    };
    assert_eq!(phase(&mut world, alone).as_deref(), Some("handshaking"));
    let evicted = many.iter().filter(|peer| phase(&mut world, **peer).as_deref() == Some("checked")).count();
    assert_eq!(evicted, 1);
}

#[test]
fn addresses_of_one_client_are_bounded() {
    let mut world = World::with_limits(1, 4, &Limits { max_addresses: 3, ..Limits::default() });
    let call = world.connect(0);
    let check = Check::to(&world.peers[call].credentials.ufrag, &world.peers[call].credentials.pwd);
    let check = check.without_nomination().bytes();
    let address = |n: u16| SocketAddr::from(([198, 51, 100, 7], 1_000 + n));
    for n in 0..500 {
        world.inject(0, address(n), &check);
    }
    let known = (0..500).filter(|n| world.arena.addresses().find(0, &address(*n)).is_some()).count();
    assert_eq!(known, 2, "beside the selected one");
    assert_eq!(world.drops(Drop::TooManyAddresses), 498);
    let selected = world.peers[call].address;
    assert_eq!(world.arena.addresses().find(0, &selected), Some(0));
}

#[test]
fn an_address_that_finds_no_place_on_the_box_is_counted() {
    let mut world = World::with_limits(1, 4, &Limits::default());
    for n in 0..4_000u32 {
        world.arena.addresses().insert(0, SocketAddr::from(((n + (1 << 24)).to_be_bytes(), 5)), 1);
    }
    let call = world.connect(0);
    assert!(world.is_connected(call), "its own worker's socket is where its datagrams come in");
    assert!(world.drops(Drop::AddressTableFull) > 0);
}

#[test]
fn streams_of_one_client_are_bounded() {
    let mut world = World::with_limits(2, 5, &Limits { max_streams: 4, ..Limits::default() });
    let call = Call::begin(&mut world);
    for ssrc in 0..100 {
        let mut source = Source::new(70_000 + ssrc, VIDEO, world.now);
        // Belongs to no publication.
        (source.mid, source.codec.payload_type) = (Some("x"), 33);
        let at = world.peers[call.publisher].add(source);
        let now = world.now;
        world.peers[call.publisher].sources[at].next_at = None;
        world.peers[call.publisher].sources[at].report_at = None;
        world.peers[call.publisher].send_frame(now, at);
    }
    world.run_until_idle();
    world.run_for(50);
    assert!(world.drops(Drop::TooManyStreams) > 300);
    call.check(&mut world);
}

#[test]
fn a_full_outbox_is_sent_and_filled_again_until_two_thousand_viewers_have_all() {
    let mut world = World::new(1, 6);
    let (publisher, publish) = publisher(&mut world, 0);
    let viewers: Vec<usize> = (0..5).map(|_| world.connect(0)).collect();
    for viewer in &viewers {
        world.peers[*viewer].asks = false;
        for _ in 0..400 {
            world.watch(*viewer, &publish);
        }
    }
    let mut source = Source::new(11, VIDEO, world.now);
    (source.packets_per_frame, source.payload) = (6, 30);
    world.peers[publisher].add(source);
    world.run_until(200, |world| world.peers[publisher].sources[0].made == 6);
    world.peers[publisher].stop_media();
    let before = world.full;
    world.run_for(15);
    assert!(world.full - before >= 2, "12,000 datagrams do not fit one outbox");
    world.run_for(100);
    for received in viewers.iter().flat_map(|viewer| &world.peers[*viewer].received) {
        assert_eq!(received.numbers(), (0..6).collect::<Vec<_>>());
        assert!(received.packets.values().is_sorted_by_key(|got| got.at));
    }
    assert_eq!(world.drops(Drop::OutboxFull), 0);
}

#[test]
fn what_is_forwarded_and_dropped_is_what_was_received_times_the_subscriptions() {
    let mut world = World::new(2, 7);
    let publisher = world.connect(0);
    let publish = world.publish_with(publisher, VIDEO, "v", &[Some("q"), Some("f")], 0);
    world.peers[publisher].answers_plis = false;
    let viewers = [world.connect(0), world.connect(1), world.connect(1)];
    for viewer in viewers {
        world.watch(viewer, &publish);
    }
    // Never connects.
    let absent = world.open(0, false);
    world.watch(absent, &publish);
    for (at, rid) in ["q", "f"].into_iter().enumerate() {
        let mut source = Source::new(21 + at as u32, VIDEO, world.now);
        source.rid = Some(rid);
        world.peers[publisher].add(source);
    }
    world.run_for(2_000);
    for source in &mut world.peers[publisher].sources {
        source.next_at = None;
    }
    world.run_for(600);
    let early: u64 = world.peers[publisher].sources.iter().map(|source| source.made).sum();
    // Too late for the key frame, and no other comes.
    world.watch(viewers[2], &publish);
    for source in &mut world.peers[publisher].sources {
        source.next_at = Some(world.now);
    }
    world.run_for(1_000);
    finish(&mut world, publisher);
    let made: u64 = world.peers[publisher].sources.iter().map(|source| source.made).sum();
    assert_eq!(world.stat(Counter::PacketsReceived), made);
    assert_eq!(world.stat(Counter::PacketsRetransmitted), 0);
    let reasons = [Drop::AwaitsKeyFrame, Drop::LayerNotSelected, Drop::NotConnected, Drop::LogOvertaken];
    let dropped: u64 = reasons.map(|reason| world.drops(reason)).iter().sum();
    assert!(reasons[..3].iter().all(|reason| world.drops(*reason) > 0));
    let forwarded = world.stat(Counter::PacketsForwarded);
    assert_eq!(forwarded + dropped, made * 4 + (made - early), "{forwarded} forwarded");
}

#[test]
fn an_idle_call_wakes_nobody() {
    let mut world = World::new(2, 8);
    let call = Call::begin(&mut world);
    finish(&mut world, call.publisher);
    world.run_for(5_000);
    for peer in &mut world.peers {
        (peer.check_at, peer.asks) = (None, false);
    }
    world.run_for(2_000);
    let before = world.wakeups;
    world.run_for(10_000);
    // A report each second, both ways, and a request for consent every five.
    assert!(world.wakeups - before <= 66, "{} in ten seconds", world.wakeups - before);
}

#[test]
fn an_address_that_two_clients_had_is_the_later_ones_whatever_their_slots() {
    for (slot, entry) in [(0, 0), (1, 0), (1, 1)] {
        let mut world = World::new(2, 9);
        let old = world.connect(0);
        let address = world.peers[old].address;
        // Gone without a word, and the NAT gives its port to somebody else.
        world.peers[old].cut = true;
        world.peers[old].address = "10.9.9.9:9".parse().unwrap();
        let new = world.open(slot, true);
        world.peers[new].address = address;
        world.peers[new].enters_at = entry;
        world.start(new);
        world.run_until(5_000, |world| world.is_connected(new));
        let publish = world.publish(new, VIDEO, 8 * slot as u32);
        let viewer = world.connect(0);
        let ssrc = world.watch(viewer, &publish);
        send_video(&mut world, new);
        world.run_for(2_000);
        // The old one's consent runs out; the address stays the new one's.
        world.run_for(32_000);
        assert!(world.closed(old).is_some());
        assert_eq!(world.arena.addresses().find(0, &address), Some(slot as u8));
        assert_eq!(world.steered.get(&address), Some(&(slot as u8)));
        finish(&mut world, new);
        let received = world.peers[viewer].got(ssrc);
        assert_eq!(received.numbers(), (0..world.peers[new].sources[0].made).collect::<Vec<_>>());
    }
}

#[test]
fn a_clients_keepalives_count_as_nothing_wherever_they_arrive() {
    let mut world = World::new(2, 14);
    let call = Call::begin(&mut world);
    let mut indication = vec![0x00, 0x11, 0, 0, 0x21, 0x12, 0xA4, 0x42];
    indication.extend([5; 12]);
    let address = world.peers[call.publisher].address;
    for slot in 0..2 {
        world.inject(slot, address, &indication);
    }
    world.run_for(100);
    assert_eq!(world.failures(), Vec::<String>::new());
    assert_eq!(world.drops(Drop::StunMalformed) + world.drops(Drop::UnknownSource), 0);
    assert_eq!(world.stat(Counter::HandoversOut), 1);
    world.inject(0, STRANGER.parse().unwrap(), &indication);
    assert_eq!(world.drops(Drop::UnknownSource), 1);
}

#[test]
fn a_check_from_an_address_that_is_anothers_claims_it_only_with_proof() {
    for thief_slot in 0..2 {
        let mut world = World::new(2, 12);
        let call = Call::begin(&mut world);
        let thief = world.connect(thief_slot);
        let address = world.peers[call.publisher].address;
        let mut forged =
            Check::to(&world.peers[thief].credentials.ufrag.clone(), &world.peers[thief].credentials.pwd.clone());
        forged.nominates = false;
        world.inject(thief_slot, address, &forged.bytes());
        world.run_for(3_000);
        assert_eq!(world.arena.addresses().find(0, &address), Some(0));
        assert_eq!(world.steered.get(&address), Some(&0));
        finish(&mut world, call.publisher);
        let made = world.peers[call.publisher].sources[0].made;
        assert_eq!(world.peers[call.viewer].got(call.ssrc).numbers(), (0..made).collect::<Vec<_>>());
    }
}

#[test]
fn a_log_that_lives_again_for_another_publication_leaves_no_reader_behind() {
    let mut world = World::new(2, 10);
    let publisher = world.connect(0);
    let simulcast = world.publish_with(publisher, VIDEO, "v", &[Some("q"), Some("h"), Some("f")], 0);
    let viewer = world.connect(1);
    let subscription = world.subscribe(viewer, MediaKind::Video);
    world.attach(viewer, subscription, &simulcast);
    world.command(0, Command::Unpublish(Unpublish { publication: simulcast.publication }));
    // The caller says nothing of the end, and uses two of the three logs again.
    let single = world.publish(publisher, VIDEO, 0);
    let ssrc = world.watch(viewer, &single);
    world.command(1, Command::Unsubscribe(Unsubscribe { subscription }));
    let again = world.publish_with(publisher, VIDEO, "w", &[Some("h")], 1);
    let other = world.watch(viewer, &again);
    send_video(&mut world, publisher);
    let mut source = Source::new(12, VIDEO, world.now);
    (source.mid, source.rid) = (Some("w"), Some("h"));
    world.peers[publisher].add(source);
    world.run_for(500);
    finish(&mut world, publisher);
    for (at, ssrc) in [ssrc, other].into_iter().enumerate() {
        let made = world.peers[publisher].sources[at].made;
        assert_eq!(world.peers[viewer].got(ssrc).numbers(), (0..made).collect::<Vec<_>>());
    }
}

#[test]
fn commands_that_make_no_sense_are_refused_and_change_nothing() {
    let mut world = World::new(2, 11);
    let call = Call::begin(&mut world);
    let (transport, other) = (world.peers[call.publisher].id, world.peers[call.viewer].id);
    let logs = |logs: &[u32]| {
        logs.iter().map(|log| Encoding { rid: None, ssrc: None, rtx_ssrc: None, log: *log }).collect::<Vec<_>>()
    };
    let publish = |encodings| {
        Command::Publish(Publish {
            publication: 9_000,
            transport,
            kind: MediaKind::Video,
            mid: "n".into(),
            codec: VIDEO,
            encodings,
            extensions: extensions(),
            nack: true,
            pli: true,
            fir: true,
            codecs: vec![],
            parameter_sets: Default::default(),
        })
    };
    for refused in [&[2, 2][..], &[0], &[1, 2, 3, 4], &[16], &[]] {
        world.command(0, publish(logs(refused)));
    }
    assert_eq!(world.failures().len(), 5, "{:?}", world.failures());
    let subscribe = |cname: String| {
        Command::Subscribe(Subscribe {
            subscription: 9_001,
            transport: other,
            kind: MediaKind::Video,
            mid: "n".into(),
            ssrc: 9,
            rtx_ssrc: None,
            cname,
            extensions: vec![],
        })
    };
    world.command(1, subscribe("x".repeat(256)));
    assert_eq!(world.failures().len(), 6, "{:?}", world.failures());
    world.command(1, subscribe("x".into()));
    for refused in [&[0, 0][..], &[0, 1, 2, 3], &[16]] {
        world.command(1, attach(9_001, 1, refused));
    }
    assert_eq!(world.failures().len(), 9, "{:?}", world.failures());
    call.check(&mut world);
}

fn attach(subscription: u64, publication: u64, logs: &[u32]) -> Command {
    Command::Attach(Attach {
        subscription,
        publication,
        logs: logs.to_vec(),
        codec: VIEWED_VIDEO,
        source_extensions: extensions(),
        formats: vec![],
    })
}

/// The publication of the live call: the second id that a world assigns.
const LIVE: u64 = 3;

/// A hostile input of an engine.
#[derive(Clone, Debug)]
enum Hostile {
    Datagram(Vec<u8>),
    /// A datagram that was sent before, with some bits changed and cut.
    Mutated {
        which: usize,
        flips: Vec<(usize, u8)>,
        keep: usize,
    },
    Again(usize),
    Command(Box<Command>),
    Time(u16),
}

/// Ids that no live call has, so few that commands repeat them.
fn ids() -> std::ops::Range<u64> {
    50_000..50_004
}

fn codecs() -> impl Strategy<Value = Codec> {
    let names = [CodecName::Opus, CodecName::Vp8, CodecName::Vp9, CodecName::H264, CodecName::Av1];
    (prop::sample::select(names.to_vec()), any::<u8>(), any::<Option<u8>>(), prop_oneof![Just(90_000), any::<u32>()])
        .prop_map(|(name, payload_type, rtx_payload_type, clock_rate)| Codec {
            name,
            payload_type,
            rtx_payload_type,
            clock_rate,
        })
}

fn commands() -> impl Strategy<Value = Command> {
    let kinds = prop_oneof![Just(MediaKind::Audio), Just(MediaKind::Video)];
    // Logs of slot 1 that no live call writes; they may exist or not.
    let logs = prop::collection::vec(9u32..18, 0..5);
    let ufrags = (0u8..4).prop_map(|n| format!("00hostile{n}"));
    prop_oneof![
        3 => (ids(), ufrags.clone(), any::<bool>()).prop_map(|(transport, local_ufrag, server)| {
            Command::OpenTransport(OpenTransport {
                transport,
                local_ufrag,
                local_pwd: "a password of enough characters".into(),
                remote_ufrag: "r".into(),
                remote_pwd: "p".into(),
                dtls_role: if server { DtlsRole::Server } else { DtlsRole::Client },
                fingerprint_hash: FingerprintHash::Sha256,
                fingerprints: vec![serde_bytes::ByteBuf::from([0; 32])],
                expects_media: true,
            })
        }),
        1 => ids().prop_map(|transport| Command::CloseTransport(CloseTransport { transport })),
        1 => (ids(), ufrags).prop_map(|(transport, local_ufrag)| Command::RestartIce(RestartIce {
            transport, local_ufrag, local_pwd: "another".into(), remote_ufrag: "r".into(), remote_pwd: "p".into(),
        })),
        4 => (ids(), ids(), kinds.clone(), prop::collection::vec(codecs(), 1..4), logs.clone()).prop_map(|(publication, transport, kind, codecs, logs)| {
            let codec = codecs[0];
            let codecs = codecs.into_iter().map(|codec| TrackCodec { codec, nack: true, pli: true, fir: false });
            let encodings = logs.into_iter().map(|log| Encoding { rid: None, ssrc: None, rtx_ssrc: Some(3), log });
            Command::Publish(Publish {
                publication, transport, kind, mid: "h".into(), codec, encodings: encodings.collect(),
                extensions: extensions(), nack: true, pli: false, fir: true, codecs: codecs.collect(),
                parameter_sets: Default::default(),
            })
        }),
        2 => ids().prop_map(|publication| Command::Unpublish(Unpublish { publication })),
        4 => (ids(), ids(), kinds, any::<u32>()).prop_map(|(subscription, transport, kind, ssrc)| {
            Command::Subscribe(Subscribe {
                subscription, transport, kind, mid: "h".into(), ssrc, rtx_ssrc: None, cname: "h".into(),
                extensions: extensions(),
            })
        }),
        6 => (ids(), prop_oneof![(ids(), logs), Just((LIVE, vec![0]))])
            .prop_map(|(subscription, (publication, logs))| attach(subscription, publication, &logs)),
        2 => ids().prop_map(|subscription| Command::Detach(Detach { subscription })),
        2 => ids().prop_map(|subscription| Command::Unsubscribe(Unsubscribe { subscription })),
        1 => (ids(), any::<u64>()).prop_map(|(transport, request)| {
            Command::ReportTransport(ReportTransport { transport, request })
        }),
    ]
}

fn hostiles() -> impl Strategy<Value = Hostile> {
    prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Hostile::Datagram),
        5 => (any::<prop::sample::Index>(), prop::collection::vec((0usize..200, any::<u8>()), 1..4), 0usize..1_600)
            .prop_map(|(which, flips, keep)| Hostile::Mutated { which: which.index(1 << 20), flips, keep }),
        2 => any::<prop::sample::Index>().prop_map(|which| Hostile::Again(which.index(1 << 20))),
        5 => commands().prop_map(|command| Hostile::Command(Box::new(command))),
        2 => (0u16..20).prop_map(Hostile::Time),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_arrives_ends_an_engine_or_costs_a_live_call_a_packet(
        hostiles in prop::collection::vec((hostiles(), 0usize..2, 0usize..4), 1..120),
        seed: u64,
    ) {
        let mut world = World::new(2, seed);
        world.recording = true;
        let call = Call::begin(&mut world);
        prop_assert_eq!(world.peers[call.viewer].id, LIVE + 1);
        for (hostile, slot, from) in hostiles {
            let remotes = [world.peers[call.publisher].address, world.peers[call.viewer].address];
            let stranger: SocketAddr = STRANGER.parse().unwrap();
            let remote = remotes.get(from).copied().unwrap_or(stranger);
            match hostile {
                Hostile::Datagram(bytes) => world.inject(slot, remote, &bytes),
                Hostile::Mutated { which, flips, keep } => {
                    let whole = world.recorded[which % world.recorded.len()].clone();
                    let mut bytes = whole.clone();
                    bytes.truncate(keep.max(1));
                    for (at, with) in flips {
                        let at = at % bytes.len();
                        bytes[at] ^= with;
                    }
                    // Whoever has a whole check is on the path; what follows its integrity counts for nothing.
                    let signed = whole.len() - if whole[0] < 4 { 8 } else { 0 };
                    if bytes.get(..signed) != Some(&whole[..signed]) {
                        world.inject(slot, remote, &bytes);
                    }
                }
                Hostile::Again(which) => {
                    let bytes = world.recorded[which % world.recorded.len()].clone();
                    // A check that is sent again from elsewhere is a check.
                    if bytes[0] >= 4 {
                        world.inject(slot, remote, &bytes);
                    }
                }
                Hostile::Command(command) => world.command(1, *command),
                Hostile::Time(ms) => world.run_for(ms.into()),
            }
        }
        call.check(&mut world);
        let published = world.events.iter().flatten().filter(|event| matches!(event, Event::PublicationStarted(_)));
        prop_assert_eq!(published.count(), 1);
    }
}

#[test]
fn a_random_network_and_random_comings_and_goings_never_break_a_stream() {
    for seed in 0..8 {
        let mut world = World::new(2, seed);
        let (publisher, publish) = publisher(&mut world, 0);
        let link = Link { loss: 0.03, duplicate: 0.02, jitter: Span::from_millis(8), ..Link::GOOD };
        (world.up, world.down) = (link, link);
        send_video(&mut world, publisher);
        let mut viewers = Vec::new();
        for _ in 0..30 {
            let at = world.random.below(2) as usize;
            match world.random.below(4) {
                0 => {
                    let viewer = world.open(at, false);
                    world.peers[viewer].enters_at = world.random.below(2) as usize;
                    world.start(viewer);
                    world.watch(viewer, &publish);
                    viewers.push(viewer);
                }
                1 if !viewers.is_empty() => {
                    let viewer = viewers.swap_remove(world.random.below(viewers.len() as u64) as usize);
                    let close = CloseTransport { transport: world.peers[viewer].id };
                    world.command(world.peers[viewer].slot, Command::CloseTransport(close));
                    (world.peers[viewer].cut, world.peers[viewer].check_at) = (true, None);
                    world.peers[viewer].asks = false;
                }
                2 if !viewers.is_empty() => {
                    let viewer = viewers[world.random.below(viewers.len() as u64) as usize];
                    world.rebind(viewer);
                    world.peers[viewer].check();
                }
                _ => {}
            }
            let span = world.random.below(200);
            world.run_for(span);
        }
        world.run_for(1_500);
        (world.up, world.down) = (Link::GOOD, Link::GOOD);
        // A handshake that lost its flights takes seconds.
        let has_some = |world: &World, viewer: &usize| !world.peers[*viewer].received[0].packets.is_empty();
        world.run_until(10_000, |world| viewers.iter().all(|viewer| has_some(world, viewer)));
        world.run_for(500);
        finish(&mut world, publisher);
        world.run_for(1_000);
        let made = world.peers[publisher].sources[0].made;
        for viewer in viewers {
            let received = &world.peers[viewer].received[0];
            // What came before the first that it could open, nobody misses.
            let first = received.packets.values().min_by_key(|got| got.at);
            let first = first.unwrap_or_else(|| panic!("seed {seed}: nothing for {viewer}")).number;
            let numbers: Vec<u64> = received.numbers().into_iter().filter(|number| *number >= first).collect();
            // What was on its way to an address that is gone may have been asked for too often to come.
            let missing = made - first - numbers.len() as u64;
            assert!(missing <= 4, "seed {seed}: viewer {viewer} misses {missing} from {first} of {made}");
            assert!(numbers.is_sorted() && numbers.last() == Some(&(made - 1)));
        }
    }
}
