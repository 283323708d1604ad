//! Counts heap allocations while media is opened and sealed: after warm-up there are none. Must hold one test only,
//! since the count is the whole process's. Read `support/mod.rs` next.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_core::transport::{Profile, SEAL_ROOM};
use support::{Identity, Wire, rtp};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn media_allocates_nothing_after_warm_up() {
    let (server, client) = (Identity::ecdsa(), Identity::ecdsa());
    for profile in Profile::PREFERRED {
        let mut wire = Wire::between(&server, &client, &[profile]);
        wire.check();
        wire.run();
        let plain = rtp(1, 0, 1_000);
        let mut buffer = vec![0; plain.len() + SEAL_ROOM];
        let mut before = 0;
        for index in 0..200u16 {
            if index == 1 {
                before = ALLOCATIONS.load(Ordering::Relaxed);
            }
            buffer[..plain.len()].copy_from_slice(&plain);
            buffer[2..4].copy_from_slice(&index.to_be_bytes());
            let len = wire.client.seal_rtp(index.into(), &mut buffer, plain.len()).unwrap();
            assert_eq!(wire.server.open_rtp(wire.now, wire.client_path, &mut buffer[..len]), Ok(plain.len()));
            buffer[..8].copy_from_slice(&[0x80, 201, 0, 1, 0, 0, 0, 1]);
            let len = wire.client.seal_rtcp(&mut buffer, 8).unwrap();
            assert_eq!(wire.server.open_rtcp(wire.now, wire.client_path, &mut buffer[..len]), Ok(8));
        }
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0, "{profile:?}");
    }
}
