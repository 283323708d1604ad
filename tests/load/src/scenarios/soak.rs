//! The joins scenario in many parts, for an hour or so: memory, descriptors and latency have to stay where they were after
//! the first quarter. Must never look at anything but the end of a part, when all newcomers have left. Read `joins.rs`
//! next.

use std::fmt::Write;

use anyhow::{Context, Result, bail};

use super::joins;
use super::media::{Call, Plan};
use super::{PATIENCE, Run};
use crate::progress::Progress;
use crate::report::Row;
use crate::target::Target;

/// Parts of a run: a quarter is warm-up, and the medians of the other quarters are of six parts each.
const PARTS: usize = 24;
const QUARTER: usize = PARTS / 4;
/// The growth of memory that passes, as allocators and tables take a while to find their size. A leak of 100 bytes a join shows after
/// 80,000 joins.
const MORE_MEMORY: f64 = 0.03;
const MORE_MEMORY_KIB: f64 = 4_096.0;
/// Descriptors that may differ, as idle connections come and go.
const MORE_DESCRIPTORS: f64 = 8.0;
/// The growth of latency that passes. A machine's speed drifts by a factor of two within an hour; a queue that grows does more.
const MORE_LATENCY: f64 = 2.0;
const MORE_LATENCY_MS: f64 = 5.0;
/// The share of packets that has to reach the viewers that stay.
const DELIVERED: f64 = 0.999;

/// The end of a part.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sample {
    memory_kib: f64,
    descriptors: f64,
    p99_ms: f64,
    delivered: f64,
    joins: f64,
    failed: f64,
}

pub fn run(run: &Run, target: &Target, progress: &mut Progress) -> Result<Row> {
    let processes = target.processes.context("memory needs to know the server's process (--pid)")?;
    let part = Run { seconds: (run.seconds / PARTS as f64).max(1.0), ..*run };
    let plan = Plan::video(run.viewers, 1);
    let mut call = Call::open(run, target, &plan, progress)?;
    let mut samples = Vec::new();
    let mut row = Row::default();
    for place in 0..PARTS {
        row = joins::with_joins(&part, target, &mut call, progress)?;
        call.world.run_until("leaving", PATIENCE, |world| world.requests_left() == 0)?;
        let figure =
            |name: &str| row.more.iter().find(|(found, ..)| *found == name).map_or(0.0, |(_, value, _)| *value);
        let sample = Sample {
            memory_kib: processes.memory().proportional as f64 / 1024.0,
            descriptors: processes.descriptors() as f64,
            p99_ms: row.latency.map_or(0.0, |latency| latency.p99),
            delivered: row.delivered(),
            joins: figure("joins") * part.seconds,
            failed: figure("joins that failed"),
        };
        progress.clear();
        println!("{}", shown(place, &sample));
        samples.push(sample);
    }
    call.world.remove_all()?;
    row.setting = run.setting(target);
    row.more = vec![
        ("joins in all", samples.iter().map(|sample| sample.joins).sum(), ""),
        ("memory after a quarter", median(&samples[QUARTER..2 * QUARTER], |sample| sample.memory_kib), "KiB"),
        ("memory in the end", median(&samples[PARTS - QUARTER..], |sample| sample.memory_kib), "KiB"),
    ];
    let complaints = complaints(&samples);
    if !complaints.is_empty() {
        bail!("{}", complaints.join("; "));
    }
    Ok(row)
}

fn shown(place: usize, sample: &Sample) -> String {
    let mut line = format!("part {:>2} of {PARTS}", place + 1);
    let _ = write!(line, "  {:>6.0} joins, {:.0} failed", sample.joins, sample.failed);
    let _ = write!(line, "  {:>8.0} KiB  {:>4.0} descriptors", sample.memory_kib, sample.descriptors);
    let _ = write!(line, "  p99 {:>7.3} ms  delivered {:.4} %", sample.p99_ms, 100.0 * sample.delivered);
    line
}

/// The figures that grow.
fn complaints(samples: &[Sample]) -> Vec<String> {
    let (early, late) = (&samples[QUARTER..2 * QUARTER], &samples[PARTS - QUARTER..]);
    let mut found = Vec::new();
    let mut hold = |what: &str, of: fn(&Sample) -> f64, bound: fn(f64) -> f64| {
        let (before, after) = (median(early, of), median(late, of));
        if after > bound(before) {
            found.push(format!("{what} rose from {before:.1} to {after:.1}"));
        }
    };
    hold("memory (KiB)", |sample| sample.memory_kib, |kib| kib + (kib * MORE_MEMORY).max(MORE_MEMORY_KIB));
    hold("descriptors", |sample| sample.descriptors, |count| count + MORE_DESCRIPTORS);
    hold("p99 latency (ms)", |sample| sample.p99_ms, |ms| ms * MORE_LATENCY + MORE_LATENCY_MS);
    let failed: f64 = samples.iter().map(|sample| sample.failed).sum();
    if failed > 0.0 {
        found.push(format!("{failed:.0} joins failed"));
    }
    let least = samples.iter().map(|sample| sample.delivered).fold(1.0, f64::min);
    if least < DELIVERED {
        found.push(format!("only {:.3} % was delivered in some part", 100.0 * least));
    }
    found
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat() -> Vec<Sample> {
        let good = Sample {
            memory_kib: 90_000.0,
            descriptors: 60.0,
            p99_ms: 2.0,
            delivered: 1.0,
            joins: 7_500.0,
            failed: 0.0,
        };
        vec![good; PARTS]
    }

    #[test]
    fn figures_that_stay_or_stop_growing_early_are_no_complaint() {
        let mut samples = flat();
        samples[0].memory_kib = 50_000.0;
        samples[PARTS - 1].p99_ms = 100.0;
        assert_eq!(complaints(&samples), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_rises_is_named() {
        type Change = fn(&mut Sample, f64);
        let rises: [(Change, &str); 3] = [
            (|sample, place| sample.memory_kib += 700.0 * place, "memory"),
            (|sample, place| sample.descriptors += place, "descriptors"),
            (|sample, place| sample.p99_ms += 10.0 * place, "latency"),
        ];
        for (change, name) in rises {
            let mut samples = flat();
            samples.iter_mut().enumerate().for_each(|(place, sample)| change(sample, place as f64));
            let found = complaints(&samples);
            assert!(found.len() == 1 && found[0].contains(name), "{found:?}");
        }
    }

    #[test]
    fn one_part_with_failures_or_losses_is_enough() {
        let mut samples = flat();
        samples[3].failed = 1.0;
        samples[4].delivered = 0.99;
        assert_eq!(complaints(&samples).len(), 2);
    }
}
