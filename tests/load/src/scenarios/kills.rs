//! Kills workers while calls run in many rooms, and measures each session's silence: of sessions of the killed worker, of all others,
//! and of all of them when no worker is killed. Knows how Millrace orders its workers and names its sessions; must never be
//! run against another server. Read `idle.rs` next.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::media::{Call, Plan};
use super::spread::slot;
use super::{AUDIO, GALLERY, PATIENCE, Run};
use crate::processes::Processes;
use crate::progress::Progress;
use crate::report::{Quantiles, Row, Verified};
use crate::stream::Kind;
use crate::target::Target;
use crate::world::ClientId;
use crate::{clock, machine};

/// Clients of each room: one sends, the others watch.
const ROOM: usize = 5;
const WORKERS: usize = 2;
/// As in `spread.rs`.
const TRIES: usize = 40;
/// The time before and after a kill: longer than `workers.quick_death_seconds`, which `make kills` sets to a second.
const PAUSE: Duration = Duration::from_millis(1_300);
/// A silence counts when it ends after the kill and began at most this many nanoseconds after it.
const WINDOW: u64 = 1_200_000_000;

/// Milliseconds between two packets of sound: the shortest possible silence.
const RHYTHM: f64 = 1_000.0 / AUDIO.per_second as f64;

/// The longest silences that pass, in milliseconds.
const VICTIMS_P50: f64 = 150.0;
const VICTIMS_P95: f64 = 300.0;
const OTHERS_P95: f64 = 50.0;

/// A viewer, and the workers whose death it notices: its own, and its publisher's.
struct Watcher {
    id: ClientId,
    slots: [usize; 2],
}

/// The figures of one kind of session, in milliseconds: silences; how late the latest packet was; the server's part of a silence. When
/// the load generator sends late there is a silence, too, but no packet is late.
#[derive(Default)]
struct Found {
    silences: Vec<f64>,
    latest: Vec<f64>,
    shares: Vec<f64>,
}

pub fn run(run: &Run, target: &Target, progress: &mut Progress) -> Result<Row> {
    let processes = target.processes.context("a kill needs to know the server's process (--pid)")?;
    // In the order of their slots: that is how a master forks its first workers.
    let mut pids = processes.children();
    ensure!(pids.len() == WORKERS, "expected {WORKERS} workers, found {}", pids.len());
    let rooms = run.viewers / ROOM;
    let plan = Plan { shapes: vec![AUDIO, GALLERY], rooms, watches: Vec::new() };
    let (mut call, watchers) = open(run, target, &plan, progress)?;
    let (mut quiet, mut victims, mut others) = (Found::default(), Found::default(), Found::default());
    let (mut own_quiet, mut own) = (0f64, 0f64);
    let own_before = Processes::own_cpu();
    for kill in 0..run.kills {
        progress.show(kill as f64 / run.kills as f64, "workers are killed");
        record_times(&mut call);
        call.world.run_for(PAUSE)?;
        let at = clock::stamp();
        watchers.iter().for_each(|watcher| quiet.add(&call, watcher, at - WINDOW));
        own_quiet = own_quiet.max(between_sends(&call, at - WINDOW));
        let dies = kill % WORKERS;
        let at = clock::stamp();
        machine::kill(pids[dies]).with_context(|| format!("worker {dies} cannot be killed"))?;
        call.world.run_for(PAUSE)?;
        for watcher in &watchers {
            let found = if watcher.slots.contains(&dies) { &mut victims } else { &mut others };
            found.add(&call, watcher, at);
        }
        own = own.max(between_sends(&call, at));
        let successor = processes.children().into_iter().find(|pid| !pids.contains(pid));
        pids[dies] = successor.with_context(|| format!("worker {dies} has no successor"))?;
    }
    let mut row = Row {
        setting: run.setting(target),
        counts: call.world.counts(),
        generator: Processes::own_cpu().since(&own_before),
        latency: Quantiles::of(&call.world.findings.latency),
        verified: Some(Verified::of(watchers.len(), &call.world.findings)),
        troubles: call.world.troubles.clone(),
        failed: call.world.failed,
        ..Row::default()
    };
    row.setting.publishers = rooms;
    row.setting.viewers = watchers.len();
    row.setting.seconds = run.kills as f64 * 2.0 * PAUSE.as_secs_f64();
    row.more = quiet.figures([
        "nobody is killed: silence p50",
        "nobody is killed: silence p95",
        "nobody is killed: longest silence",
        "nobody is killed: of that the server's, p95",
        "nobody is killed: latest packet",
    ]);
    row.more.extend(victims.figures([
        "victims: silence p50",
        "victims: silence p95",
        "victims: longest silence",
        "victims: of that the server's, p95",
        "victims: latest packet",
    ]));
    row.more.extend(others.figures([
        "everybody else: silence p50",
        "everybody else: silence p95",
        "everybody else: longest silence",
        "everybody else: of that the server's, p95",
        "everybody else: latest packet",
    ]));
    row.more.push(("between two sends of the load generator, nobody is killed", own_quiet, "ms at most"));
    row.more.push(("between two sends of the load generator, around kills", own, "ms at most"));
    call.world.remove_all()?;
    let complaints = complaints(&mut quiet, &mut victims, &mut others);
    if !complaints.is_empty() {
        // Bad figures are shown, too, before the error.
        progress.clear();
        println!("{}\n", row.to_text());
        bail!("{}", complaints.join("; "));
    }
    Ok(row)
}

/// Opens rooms on the two workers alternately, each with as many viewers on one worker as on the other.
fn open(run: &Run, target: &Target, plan: &Plan, progress: &mut Progress) -> Result<(Call, Vec<Watcher>)> {
    let (world, rooms) = (run.world(target)?, super::rooms(plan.rooms)?);
    let mut call = Call { world, rooms, publishers: Vec::new(), viewers: Vec::new() };
    let kinds: Vec<Kind> = plan.shapes.iter().map(|shape| shape.kind).collect();
    progress.show(0.0, "publishers look for their workers");
    let (mut senders, mut viewers, mut watches) = (Vec::new(), Vec::new(), Vec::new());
    for room in 0..plan.rooms {
        senders.push((target.whip(&call.rooms[room])?, room % WORKERS));
        for place in 0..ROOM - 1 {
            viewers.push((target.whep(&call.rooms[room])?, place % WORKERS));
            watches.push((room, [place % WORKERS, room % WORKERS]));
        }
    }
    call.publishers = place(&mut call, &senders, |call, url| call.world.add_publisher(url, &plan.shapes))?;
    call.world.start_publishers();
    progress.show(0.5, "viewers look for their workers");
    // All viewers are of the sample, so that the kernel stamps their packets.
    let ids = place(&mut call, &viewers, |call, url| call.world.add_viewer(url, &kinds, true))?;
    call.viewers = ids.iter().zip(&watches).map(|(id, (room, _))| (*id, *room)).collect();
    call.wait_for_media(progress)?;
    Ok((call, ids.into_iter().zip(watches).map(|(id, (_, slots))| Watcher { id, slots }).collect()))
}

/// Opens a client for each, and opens it again until it is on its worker.
fn place<U>(
    call: &mut Call,
    wanted: &[(U, usize)],
    mut add: impl FnMut(&mut Call, &U) -> Result<ClientId>,
) -> Result<Vec<ClientId>> {
    let mut placed = vec![None; wanted.len()];
    for _ in 0..TRIES {
        let lacking: Vec<usize> = (0..wanted.len()).filter(|place| placed[*place].is_none()).collect();
        if lacking.is_empty() {
            return Ok(placed.into_iter().flatten().collect());
        }
        let mut came = Vec::new();
        for place in lacking {
            came.push((place, add(call, &wanted[place].0)?));
        }
        call.world.connect_all(PATIENCE)?;
        for (place, id) in came {
            if call.world.client(id).and_then(slot).map(usize::from) == Some(wanted[place].1) {
                placed[place] = Some(id);
            } else {
                call.world.remove(id);
            }
        }
        call.world.run_until("leaving", PATIENCE, |world| world.requests_left() == 0)?;
    }
    bail!("no client lands on the wanted worker: does the server have two?")
}

fn record_times(call: &mut Call) {
    let viewers = call.viewers.iter().map(|(id, _)| *id);
    for id in call.publishers.iter().copied().chain(viewers) {
        if let Some(client) = call.world.client_mut(id) {
            client.record_times();
        }
    }
}

/// The longest pause of a publisher, in milliseconds, which is the load generator's own part of a silence.
fn between_sends(call: &Call, since: u64) -> f64 {
    let bursts = |id: &ClientId| call.world.client(*id)?.publisher()?.bursts.as_deref();
    let silences = call.publishers.iter().filter_map(bursts).map(|bursts| silence(bursts.iter().copied(), since));
    silences.fold(0.0, f64::max)
}

/// The longest silence that ended after `since` and began before the window was over, in milliseconds.
fn silence(times: impl Iterator<Item = u64>, since: u64) -> f64 {
    let (mut before, mut longest) = (None, 0);
    for at in times.chain([clock::stamp()]) {
        if let Some(before) = before
            && at > since
            && before < since + WINDOW
        {
            longest = longest.max(at.saturating_sub(before));
        }
        before = Some(at);
    }
    longest as f64 / 1e6
}

impl Found {
    fn add(&mut self, call: &Call, watcher: &Watcher, since: u64) {
        let viewer = call.world.client(watcher.id).and_then(|client| client.viewer());
        let Some(arrivals) = viewer.and_then(|viewer| viewer.arrivals.as_ref()) else { return };
        let silence = silence(arrivals.iter().map(|(at, _)| *at), since);
        let within = arrivals.iter().filter(|(at, _)| (since..since + WINDOW).contains(at));
        let latest = within.map(|(at, sent)| at.saturating_sub(*sent)).max().unwrap_or(0) as f64 / 1e6;
        self.silences.push(silence);
        self.latest.push(latest);
        self.shares.push(silence.min(RHYTHM + latest));
    }

    fn figures(&mut self, names: [&'static str; 5]) -> Vec<(&'static str, f64, &'static str)> {
        let Found { silences, latest, shares } = self;
        let figures = [
            quantile(silences, 0.5),
            quantile(silences, 0.95),
            quantile(silences, 1.0),
            quantile(shares, 0.95),
            quantile(latest, 1.0),
        ];
        names.into_iter().zip(figures).map(|(name, value)| (name, value, "ms")).collect()
    }
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (values.len() as f64 * share) as usize;
    values.get(place.min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// The figures that are above the bounds. On a machine that is late by itself, only that.
fn complaints(quiet: &mut Found, victims: &mut Found, others: &mut Found) -> Vec<String> {
    let calm = quantile(&mut quiet.shares, 0.95);
    if calm >= OTHERS_P95 {
        return vec![format!("the machine is not quiet: {calm:.0} ms of silence (p95) while nobody is killed")];
    }
    let mut found = Vec::new();
    let mut hold = |what: &str, silences: &mut [f64], share: f64, bound: f64| {
        let value = quantile(silences, share);
        if value >= bound {
            found.push(format!("{what}: {value:.0} ms of silence, not below {bound:.0}"));
        }
    };
    hold("victims, p50", &mut victims.silences, 0.5, VICTIMS_P50);
    hold("victims, p95", &mut victims.silences, 0.95, VICTIMS_P95);
    hold("everybody else, p95", &mut others.shares, 0.95, OTHERS_P95);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_the_longest_one_that_touches_the_window() {
        let begun = clock::stamp() - 5_000_000_000;
        // Every 10 ms for 5 s, with a hole of 0.2 s from the first second on.
        let times = || (0..500u64).filter(|i| !(100..120).contains(i)).map(|i| begun + i * 10_000_000);
        assert_eq!(silence(times(), begun + 950_000_000), 210.0);
        assert!(silence(times(), begun + 2_000_000_000) < 100.0);
        assert!(silence(times().take(50), begun) > 4_000.0, "what came no more is a silence until now");
    }

    #[test]
    fn a_bar_that_is_missed_is_named() {
        let found =
            |silence: f64| Found { silences: vec![silence; 20], latest: vec![1.0; 20], shares: vec![silence; 20] };
        assert!(complaints(&mut found(30.0), &mut found(100.0), &mut found(40.0)).is_empty());
        assert_eq!(complaints(&mut found(30.0), &mut found(200.0), &mut found(60.0)).len(), 2);
        assert!(complaints(&mut found(90.0), &mut found(100.0), &mut found(40.0))[0].contains("not quiet"));
    }
}
