//! The arena's protocols in every order. Each scene is a few processes (threads here), and runs in every way that the memory model and a
//! bounded number of interruptions allow; a writer may be killed before any of its stores. Each file names its promises, and the changes
//! to the code that its scenes were seen to notice. No assertion notices a lost wake-up: then every thread waits, and the explorer panics.
//!
//! `cargo test` interrupts each scene twice; `make model` does so more often.

#![expect(clippy::print_stdout, reason = "how many ways there were is worth a look")]

mod addresses;
mod doorbell;
mod litmus;
mod owners;
mod rings;
mod sessions;
mod track_log;

use std::time::Instant;

use millrace_arena::{Parameters, explore};

/// Two workers, and of everything as little as there can be.
const PARAMETERS: Parameters = Parameters {
    slots: 2,
    logs_per_slot: 1,
    log_packets: 4,
    addresses: 16,
    handover_packets: 2,
    messages: 2,
    sessions_per_slot: 1,
    session_bytes: 64,
};

/// Interruptions of a scene. Two find what two threads over a few words can do wrong; three take ten times as long.
fn every_way(scene: impl Fn() + Send + Sync + 'static) {
    let more = std::env::var("MILLRACE_INTERRUPTIONS").map_or(0, |text| text.parse().expect("a number"));
    let begun = Instant::now();
    let paths = explore::explore(2 + more, scene);
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("{name}: {paths} ways, {:.1} s", begun.elapsed().as_secs_f32());
    assert!(paths > 1, "a scene that can come out in one way only shows nothing");
}
