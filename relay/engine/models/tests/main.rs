//! The arena's protocols in every order: each scene is a few processes (threads here), and comes out in every way that the
//! memory model and a bounded number of interruptions allow; a writer may be killed before any of its stores. Each file says
//! what is promised, and which changes to the code its scenes were seen to notice. A wake-up that is lost is no assertion's
//! matter: then every thread waits, and the explorer says so.
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

/// Two interruptions catch what there is to catch with two threads over a few words; one more takes ten times as long.
fn every_way(scene: impl Fn() + Send + Sync + 'static) {
    let more = std::env::var("MILLRACE_INTERRUPTIONS").map_or(0, |text| text.parse().expect("a number"));
    let begun = Instant::now();
    let paths = explore::explore(2 + more, scene);
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("{name}: {paths} ways, {:.1} s", begun.elapsed().as_secs_f32());
    assert!(paths > 1, "a scene that can come out in one way only shows nothing");
}
