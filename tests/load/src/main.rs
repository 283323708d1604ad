//! A load generator for WHIP and WHEP servers: real WebRTC clients, thousands in one process, and what they cost the
//! server. Owns the order of runs; must never be linked into the relay. Read `arguments.rs` next, then `scenarios/mod.rs`.

mod answer;
mod arguments;
mod calibrate;
mod canvas;
mod client;
mod clock;
mod desk;
mod http;
mod identity;
mod link;
mod machine;
mod net;
mod offer;
mod plot;
mod processes;
mod progress;
mod publisher;
mod raw;
mod report;
mod scenarios;
mod scraper;
mod stream;
mod summary;
mod target;
mod viewer;
mod world;

use std::process::ExitCode;

use anyhow::{Context, Result};

use arguments::{Arguments, HELP};
use progress::Progress;
use report::Row;
use scenarios::Run;
use target::Target;
use world::Options;

fn main() -> ExitCode {
    match Arguments::parse(lexopt::Parser::from_env()) {
        Ok(None) => print!("{HELP}"),
        Ok(Some(arguments)) => match measure(&arguments) {
            Ok(true) => {}
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => {
                eprintln!("millrace-load: {error:#}");
                return ExitCode::FAILURE;
            }
        },
        Err(error) => {
            eprintln!("millrace-load: {error:#}; --help says more");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// Makes all runs; false when one failed.
fn measure(arguments: &Arguments) -> Result<bool> {
    machine::raise_file_limit();
    let targets = targets(arguments)?;
    // After the servers have started, which have cores of their own.
    if arguments.scenario.is_pinned() {
        machine::pin(arguments.cpu)?;
    }
    let mut progress = Progress::new();
    let mut rows: Vec<Row> = Vec::new();
    let mut whole = true;
    for run in runs(arguments) {
        for target in &targets {
            match scenarios::run(&run, target, &mut progress) {
                Ok(found) => {
                    found.iter().for_each(|row| println!("{}\n", row.to_text()));
                    rows.extend(found);
                }
                Err(error) => {
                    whole = false;
                    eprintln!("{}: {error:#}", run.to_string(target));
                }
            }
        }
    }
    let lines = summary::lines(&rows);
    if !lines.is_empty() {
        println!("{}", summary::to_text(&lines));
    }
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&rows.iter().map(Row::to_json).collect::<Vec<_>>())?;
        if path.as_os_str() == "-" {
            println!("{text}");
        } else {
            std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
        }
    }
    if let Some(path) = arguments.plot.as_ref().filter(|_| !lines.is_empty()) {
        plot::write(path, arguments.scenario.name(), &lines)?;
    }
    Ok(whole)
}

fn targets(arguments: &Arguments) -> Result<Vec<Target>> {
    let running = arguments.running.clone().map(Target::running);
    let cpu = arguments.scenario.is_pinned().then_some(arguments.server_cpu);
    let started = arguments.servers.iter().map(|command| Target::start(command, cpu));
    started.chain(running).collect()
}

/// The runs in their order. The machine's speed drifts, so each run is made once before any is made again.
fn runs(arguments: &Arguments) -> Vec<Run> {
    let mut runs = Vec::new();
    for round in 0..arguments.rounds {
        for profile in &arguments.profiles {
            for (viewers, publishers, tracks) in sizes(arguments) {
                runs.push(Run {
                    scenario: arguments.scenario,
                    profile: *profile,
                    round,
                    viewers,
                    publishers,
                    tracks,
                    seconds: arguments.seconds,
                    rate: arguments.rate,
                    kills: arguments.kills,
                    scrape: arguments.scrape,
                    options: Options { gro: arguments.gro, uneven: arguments.uneven, sample: arguments.sample },
                    server_cpu: arguments.server_cpu,
                });
            }
        }
    }
    runs
}

/// Viewers, publishers and tracks of each run.
fn sizes(arguments: &Arguments) -> impl Iterator<Item = (usize, usize, usize)> {
    arguments.viewers.iter().flat_map(move |viewers| {
        let publishers = arguments.publishers.iter();
        publishers
            .flat_map(move |publishers| arguments.tracks.iter().map(move |tracks| (*viewers, *publishers, *tracks)))
    })
}
