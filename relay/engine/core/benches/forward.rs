//! What forwarding costs in the engine alone, without a system call: a publisher's frames to many viewers, and many small
//! rooms. Prints nanoseconds a packet, once with warm caches and once with caches that something else has used since the
//! frame before; with `--callgrind` instructions, which do not drift with the machine. Must never assert anything about time.
//! Read `tests/support/engine.rs` for the box it runs in.
#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code)]

#[path = "../tests/support/engine_peer.rs"]
mod peer;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/support/engine.rs"]
mod world;

use std::hint::black_box;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use millrace_core::command::Codec;
use millrace_core::engine::Engine;
use millrace_core::outbox::{Path, SocketIndex};
use millrace_core::time::{Span, Time};
use millrace_core::transport::Profile;
use peer::Source;
use world::{AUDIO, Limits, VIDEO, World};

/// One case: what each publisher sends, to how many viewers.
struct Case {
    name: &'static str,
    profiles: &'static [Profile],
    codec: Codec,
    packets_per_frame: usize,
    payload: usize,
    rooms: usize,
    viewers_per_room: usize,
}

const GCM: &[Profile] = &[Profile::Aes128Gcm];
const CM: &[Profile] = &[Profile::Aes128CmSha1_80];
const VIDEO_CASE: Case = Case {
    name: "video-gcm",
    profiles: GCM,
    codec: VIDEO,
    packets_per_frame: 8,
    payload: 1_100,
    rooms: 1,
    viewers_per_room: 100,
};
const AUDIO_CASE: Case = Case { name: "audio-gcm", codec: AUDIO, packets_per_frame: 1, payload: 160, ..VIDEO_CASE };
const CASES: [Case; 5] = [
    VIDEO_CASE,
    Case { name: "video-cm", profiles: CM, ..VIDEO_CASE },
    AUDIO_CASE,
    Case { name: "audio-cm", profiles: CM, ..AUDIO_CASE },
    Case { name: "rooms-gcm", rooms: 100, viewers_per_room: 1, ..AUDIO_CASE },
];

/// Bytes that something else touches between two frames: more than a second-level cache.
const OTHERS: usize = (8 << 20) / size_of::<u64>();
/// Frames that are not counted, in which buffers and tables get their size.
const WARM_UP: usize = 20;
const FRAMES: usize = 100;

fn main() {
    // Cargo passes `--bench`; names pick cases.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (flags, names): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).partition(|argument| argument.starts_with("--"));
    if flags.contains(&"--callgrind") {
        return count_instructions(&names);
    }
    let is_counted = flags.contains(&"--counted");
    for case in CASES.iter().filter(|case| names.is_empty() || names.iter().any(|name| case.name.contains(name))) {
        let mut call = Call::open(case);
        call.run(WARM_UP, &mut []);
        if is_counted {
            call.run(FRAMES, &mut []);
            return println!("{} packets of {}", FRAMES * call.packets_a_frame(), case.name);
        }
        let mut others = vec![0; OTHERS];
        let warm = call.run(10 * FRAMES, &mut []);
        let cold = call.run(2 * FRAMES, &mut others);
        println!("{:<10} {warm:>6.0} ns a packet, {cold:>6.0} with cold caches", case.name);
    }
}

/// Runs one case after the other under callgrind (Debian's `valgrind`), which counts what `forward` does and nothing else. Its
/// CPU has no instructions beyond AVX2, so its counts of ciphers are not this machine's.
fn count_instructions(names: &[&str]) {
    for case in CASES.iter().filter(|case| names.is_empty() || names.iter().any(|name| case.name.contains(name))) {
        let out = std::env::temp_dir().join(format!("callgrind.{}", case.name));
        let status = Command::new("valgrind")
            .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=forward::forward*"])
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(std::env::current_exe().unwrap())
            .args(["--counted", case.name])
            .output()
            .expect("valgrind is installed");
        let told = String::from_utf8_lossy(&status.stderr);
        let count = told.lines().find_map(|line| line.split_once("Collected :")).map(|(_, count)| count.trim());
        let count: f64 = count.and_then(|count| count.parse().ok()).expect("callgrind counts");
        let frames = (WARM_UP + FRAMES) * case.rooms * case.viewers_per_room * case.packets_per_frame;
        println!("{:<10} {:>6.0} instructions a packet ({})", case.name, count / frames as f64, out.display());
    }
}

struct Call {
    world: World,
    publishers: Vec<usize>,
    viewers: usize,
    packets_per_frame: usize,
}

impl Call {
    fn open(case: &Case) -> Call {
        let limits = Limits {
            max_transports: 10_000,
            sessions_per_slot: 1_024,
            logs_per_slot: 128,
            profiles: case.profiles,
            // The portable one is for tests; the shell's need features that only a whole build may ask for.
            kernel: None,
            ..Limits::default()
        };
        let mut world = World::with_limits(1, 1, &limits);
        let mut publishers = Vec::new();
        for room in 0..case.rooms {
            let publisher = world.connect(0);
            let publish = world.publish(publisher, case.codec, room as u32);
            let mut source = Source::new(11, case.codec, world.now);
            (source.packets_per_frame, source.payload) = (case.packets_per_frame, case.payload);
            (source.next_at, source.report_at) = (None, None);
            world.peers[publisher].add(source);
            for _ in 0..case.viewers_per_room {
                let viewer = world.connect(0);
                world.watch(viewer, &publish);
            }
            publishers.push(publisher);
        }
        let viewers = case.rooms * case.viewers_per_room;
        Call { world, publishers, viewers, packets_per_frame: case.packets_per_frame }
    }

    fn packets_a_frame(&self) -> usize {
        self.viewers * self.packets_per_frame
    }

    /// Nanoseconds a forwarded packet, of the best frame: the others were disturbed. Each publisher's packets come in, are fanned
    /// out and taken away by themselves, as when each wakes the engine.
    fn run(&mut self, frames: usize, others: &mut [u64]) -> f64 {
        let mut best = u128::MAX;
        for _ in 0..frames {
            let (mut spent, mut sent) = (0, 0);
            self.world.now = self.world.now + Span(20_000);
            others.iter_mut().for_each(|word| *word = black_box(*word + 1));
            for publisher in &self.publishers {
                let (now, peer) = (self.world.now, &mut self.world.peers[*publisher]);
                peer.send_frame(now, 0);
                let (remote, mut datagrams) = (peer.address, peer.take_sent());
                let began = Instant::now();
                sent += forward(&mut self.world.engines[0], now, remote, &mut datagrams);
                spent += began.elapsed().as_nanos();
            }
            assert_eq!(sent, self.packets_a_frame(), "everything is forwarded");
            best = best.min(spent);
        }
        best as f64 / self.packets_a_frame() as f64
    }
}

/// One wake-up: what callgrind collects (`--toggle-collect`), so never part of another function.
#[inline(never)]
fn forward(engine: &mut Engine, now: Time, remote: SocketAddr, datagrams: &mut [Vec<u8>]) -> usize {
    let path = Path { socket: SocketIndex(0), remote };
    let mut sent = 0;
    for datagram in datagrams {
        engine.handle_datagram(now, path, datagram);
    }
    loop {
        let more = engine.flush(now);
        let (queued, bytes) = engine.outbox().queued();
        black_box(bytes);
        sent += queued.len();
        engine.outbox().clear();
        if !more {
            return sent;
        }
    }
}
