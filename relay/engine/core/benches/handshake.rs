//! What a DTLS handshake costs a server, each step by itself: what the engine's thread does for it, and what OpenSSL computes
//! beside it. Prints microseconds. Must never assert anything about time. Read `tests/support/mod.rs` for the two ends.
#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use millrace_core::time::Time;
use millrace_core::transport::{Profile, Transport};
use support::{Identity, LIMITS, Wire, drain, open_client, open_server, outbox, take_dtls};

const HANDSHAKES: usize = 500;

/// Microseconds of every handshake, for one step.
#[derive(Default)]
struct Took {
    on_the_engines_thread: Vec<f64>,
    beside_it: Vec<f64>,
}

fn main() {
    let (server, client) = (Identity::ecdsa(), Identity::ecdsa());
    let [ours, theirs] = [&server, &client].map(|end| end.contexts(&Profile::PREFERRED));
    let mut steps: Vec<Took> = Vec::new();
    for _ in 0..HANDSHAKES {
        let now = Time(1_000_000);
        let mut wire = Wire::new(
            Transport::new(now, &open_server(&client.fingerprint), &ours, &LIMITS).unwrap(),
            Transport::new(now, &open_client(&server.fingerprint), &theirs, &LIMITS).unwrap(),
        );
        wire.check();
        let mut out = outbox();
        for place in 0.. {
            let Some(datagram) = wire.to_server.pop_front() else { break };
            if steps.len() == place {
                steps.push(Took::default());
            }
            let began = Instant::now();
            wire.server.handle_dtls(wire.now, wire.client_path, &datagram, &mut out).unwrap();
            let step = wire.server.take_step().unwrap();
            let handed_out = Instant::now();
            let stepped = step.run();
            let done = Instant::now();
            wire.server.finish_step(wire.now, stepped, &mut out);
            steps[place].on_the_engines_thread.push(micros(handed_out - began) + micros(done.elapsed()));
            steps[place].beside_it.push(micros(done - handed_out));
            for (_, answer) in drain(&mut out) {
                take_dtls(&mut wire.client, wire.now, wire.server_path, &answer, &mut out).unwrap();
                wire.to_server.extend(drain(&mut out).into_iter().map(|(_, bytes)| bytes));
            }
        }
        assert!(wire.server.is_connected());
    }
    for (place, took) in steps.into_iter().enumerate() {
        let [engine, beside] = [took.on_the_engines_thread, took.beside_it].map(median);
        println!("step {}: {engine:.0} us on the engine's thread, {beside:.0} us beside it", place + 1);
    }
}

fn micros(span: std::time::Duration) -> f64 {
    span.as_secs_f64() * 1e6
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
