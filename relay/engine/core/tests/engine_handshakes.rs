//! Handshakes whose steps take time, as they do on another thread. Datagrams that come during a step must neither be lost nor pile up,
//! and a client that is closed during one stays closed. Read `engine/handshakes.rs` next.
#![allow(clippy::unwrap_used)]

#[path = "support/engine_peer.rs"]
mod peer;
#[path = "support/saved_calls.rs"]
mod saved_calls;
mod support;
#[path = "support/engine.rs"]
mod world;

use millrace_core::command::{CloseTransport, Command, DtlsRole};
use millrace_core::drop::Drop;
use millrace_core::event::Cause;
use millrace_core::stats::Counter;
use millrace_core::time::Span;
use millrace_core::transport::Phase;
use peer::Source;
use saved_calls::{assert_everything_came, finish};
use world::{VIDEO, World};

/// A world in which a step takes this many milliseconds.
fn slow_world(computing_ms: u64, seed: u64) -> World {
    let mut world = World::new(1, seed);
    world.computing = Span::from_millis(computing_ms);
    world
}

/// A client that waits for our ClientHello.
fn passive_client(world: &mut World) -> usize {
    let fingerprint = world.peer_fingerprint();
    world.open_with(0, true, DtlsRole::Client, &fingerprint)
}

/// Until our last step is under way: the client has its keys, and we do not.
fn until_only_the_client_has_keys(world: &mut World, peer: usize) {
    world.run_until(5_000, |world| world.peers[peer].transport.is_connected());
    world.run_for(15);
    assert!(!world.is_connected(peer));
}

#[test]
fn what_a_client_sends_as_soon_as_it_has_keys_is_not_lost() {
    let mut world = slow_world(120, 1);
    let viewer = world.connect(0);
    let publisher = passive_client(&mut world);
    let publish = world.publish(publisher, VIDEO, 0);
    let ssrc = world.watch(viewer, &publish);
    world.start(publisher);
    world.run_until(5_000, |world| world.peers[publisher].transport.is_connected());
    let now = world.now;
    world.peers[publisher].add(Source::new(11, VIDEO, now));
    until_only_the_client_has_keys(&mut world, publisher);
    assert_eq!(world.stat(Counter::PacketsReceived), 0);
    world.run_until(1_000, |world| world.is_connected(publisher));
    assert!(world.stat(Counter::PacketsReceived) > 8, "several frames");
    world.run_for(500);
    finish(&mut world);
    assert_everything_came(&world, (publisher, 0), viewer, ssrc);
    assert_eq!(world.peers[viewer].got(ssrc).repairs, 0, "nothing had to be asked for again");
    assert_eq!((world.drops(Drop::SrtpNoKeys), world.drops(Drop::DtlsUnexpected)), (0, 0));
}

#[test]
fn no_more_than_a_frame_waits_for_a_step() {
    let mut world = slow_world(300, 2);
    let client = passive_client(&mut world);
    world.start(client);
    until_only_the_client_has_keys(&mut world, client);
    let address = world.peers[client].address;
    for number in 0..1_000u32 {
        let mut media = vec![0x80, 96];
        media.extend(number.to_be_bytes());
        media.resize(1_200, 7);
        let mut hello = vec![22, 0xFE, 0xFD, 0, 0, 0, 0];
        hello.extend(number.to_be_bytes());
        hello.extend([0, 0]);
        for datagram in [media, hello] {
            world.inject(0, address, &datagram);
        }
    }
    let queued = 64;
    assert!(world.drops(Drop::SrtpNoKeys) >= 1_000 - queued && world.drops(Drop::DtlsUnexpected) >= 1_000 - queued);
    world.run_until(3_000, |world| world.is_connected(client));
    assert_eq!(world.closed(client), None);
}

#[test]
fn a_client_that_repeats_itself_meanwhile_connects_all_the_same() {
    // Longer than its patience. What it repeats is computed with, too.
    for role in [DtlsRole::Server, DtlsRole::Client] {
        let mut world = slow_world(700, 3);
        let fingerprint = world.peer_fingerprint();
        let client = world.open_with(0, false, role, &fingerprint);
        world.start(client);
        let began = world.recorded.len();
        world.recording = true;
        world.run_until(9_000, |world| world.is_connected(client));
        let sent: Vec<_> = world.recorded[began..].iter().filter(|sent| (20..64).contains(&sent[0])).collect();
        assert!(
            sent.iter().enumerate().any(|(position, one)| sent[..position].contains(one)),
            "{role:?}: nothing repeated"
        );
        assert_eq!(world.stat(Counter::HandshakesDone), 1);
        world.computing = Span(0);
        world.run_for(5_000);
        assert_eq!((world.closed(client), world.stat(Counter::Handshakes)), (None, 0));
    }
}

#[test]
fn who_is_closed_during_a_step_stays_closed() {
    let mut world = slow_world(200, 4);
    for closed_after_ms in [100, 300, 500] {
        let client = world.open(0, false);
        world.start(client);
        world.run_for(closed_after_ms);
        assert_eq!(world.peers[client].transport.phase(), Phase::Handshaking);
        world.command(0, Command::CloseTransport(CloseTransport { transport: world.peers[client].id }));
        world.peers[client].cut = true;
        world.run_for(1_000);
        assert_eq!(world.closed(client), Some(Cause::Closed));
        assert_eq!((world.stat(Counter::Handshakes), world.stat(Counter::Transports)), (0, 0));
    }
}

#[test]
fn a_handshake_that_takes_too_long_is_over_even_during_a_step() {
    let mut world = slow_world(60_000, 5);
    let client = world.open(0, false);
    world.start(client);
    world.run_for(20_000);
    assert_eq!(world.closed(client), Some(Cause::HandshakeTimeout));
    world.run_for(60_000);
    assert_eq!(world.stat(Counter::Transports), 0);
}

#[test]
fn many_shake_hands_at_once_and_no_more_than_may() {
    let limits = world::Limits { max_handshakes: 10, ..world::Limits::default() };
    let mut world = World::with_limits(1, 6, &limits);
    world.computing = Span::from_millis(50);
    let clients: Vec<usize> = (0..40).map(|_| world.open(0, false)).collect();
    for client in &clients {
        world.start(*client);
    }
    let mut most = 0;
    for _ in 0..200 {
        world.run_for(50);
        most = most.max(world.stat(Counter::Handshakes));
    }
    assert_eq!(most, 10);
    assert!(clients.iter().all(|client| world.is_connected(*client)));
}
