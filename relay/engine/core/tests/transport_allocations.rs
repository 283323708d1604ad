//! Counts heap allocations while media is opened and sealed: after warm-up there are none. Read `support/mod.rs` next.

mod support;

use allocation_counter::measure;
use millrace_core::transport::{Profile, SEAL_ROOM};
use support::{Identity, Wire, rtp};

#[test]
fn media_allocates_nothing_after_warm_up() {
    let (server, client) = (Identity::ecdsa(), Identity::ecdsa());
    for profile in Profile::PREFERRED {
        let mut wire = Wire::between(&server, &client, &[profile]);
        wire.check();
        wire.run();
        let plain = rtp(1, 0, 1_000);
        let mut buffer = vec![0; plain.len() + SEAL_ROOM];
        let mut packet = |index: u16| {
            buffer[..plain.len()].copy_from_slice(&plain);
            buffer[2..4].copy_from_slice(&index.to_be_bytes());
            let len = wire.client.seal_rtp(index.into(), &mut buffer, plain.len()).unwrap();
            assert_eq!(wire.server.open_rtp(wire.now, wire.client_path, &mut buffer[..len]), Ok(plain.len()));
            buffer[..8].copy_from_slice(&[0x80, 201, 0, 1, 0, 0, 0, 1]);
            let len = wire.client.seal_rtcp(&mut buffer, 8).unwrap();
            assert_eq!(wire.server.open_rtcp(wire.now, wire.client_path, &mut buffer[..len]), Ok(8));
        };
        assert!(measure(|| packet(0)).count_total > 0, "the first of an SSRC takes up room, and is counted");
        assert_eq!(measure(|| (1..200).for_each(&mut packet)).count_total, 0, "{profile:?}");
    }
}
