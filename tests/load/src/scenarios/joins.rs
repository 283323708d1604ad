//! Viewers come and go at a given rate while a call runs: how long until they see something, what a join costs, and
//! whether the call is harmed. Must never count newcomers in the call's own figures. Read `spread.rs` next.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use millrace_core::time::{Span, Time};

use super::media::{Call, Plan};
use super::{Run, VIDEO};
use crate::clock;
use crate::processes::Processes;
use crate::progress::Progress;
use crate::report::{Quantiles, Row, Verified};
use crate::scraper::Scraper;
use crate::target::Target;
use crate::viewer::{Counts, Findings};
use crate::world::ClientId;

/// How long a newcomer stays after its first packet.
const STAY: Span = Span::from_millis(500);
/// A newcomer without a packet for this long has failed.
const PATIENCE: Span = Span::from_secs(10);

pub fn run(run: &Run, target: &Target, progress: &mut Progress) -> Result<Row> {
    let plan = Plan::video(run.viewers, run.publishers);
    let mut call = Call::open(run, target, &plan, progress)?;
    // The call alone first, whose cost is subtracted.
    let alone = call.measure(run, target, progress)?;
    let mut row = with_joins(run, target, &mut call, progress)?;
    if let (Some((with, _)), Some((without, _))) = (row.server.take(), alone.server) {
        // The CPU includes that of joins, so there is no cost per packet.
        let extra = with.total_ns.saturating_sub(without.total_ns) as f64 / 1e9;
        let joins = row.more[0].1 * run.seconds;
        row.more.push(("CPU of the server", with.total_ns as f64 / 1e9 / run.seconds, "cores"));
        row.more.push(("CPU of a join and a leave", 1e3 * extra / joins.max(1.0), "ms"));
    }
    row.setting.publishers = plan.rooms;
    if let Some(latency) = alone.latency {
        row.more.push(("latency p50 without joins", latency.p50, "ms"));
        row.more.push(("latency p99 without joins", latency.p99, "ms"));
        row.more.push(("latency p99.9 without joins", latency.p999, "ms"));
    }
    call.finish(run, &plan, &mut row, progress)?;
    Ok(row)
}

/// Runs joins for a while. At its end all newcomers have left.
pub fn with_joins(run: &Run, target: &Target, call: &mut Call, progress: &mut Progress) -> Result<Row> {
    call.quiet()?;
    let kinds = [VIDEO.kind];
    let urls: Vec<_> = call.rooms.iter().map(|room| target.whep(room)).collect::<Result<_>>()?;
    let sent_before = call.sent();
    let counts_before = own_counts(call);
    call.world.findings = Findings::new();
    let server_before = target.processes.map(|processes| processes.cpu());
    let own_before = Processes::own_cpu();
    call.world.start_publishers();
    let scraper = match &target.metrics {
        Some(url) if run.scrape > 0.0 => Some(Scraper::start(url.clone(), Duration::from_secs_f64(run.scrape))),
        None if run.scrape > 0.0 => bail!("where are this server's metrics? (--metrics)"),
        _ => None,
    };
    let mut comers = Comers::default();
    let (began, mut made) = (clock::now(), 0u64);
    let end = began + Span((run.seconds * 1e6) as u64);
    while clock::now() < end {
        let due = (clock::now().since(began).0 as f64 / 1e6 * run.rate) as u64;
        // A join that the server is too slow for is left out.
        if made < due && call.world.requests_left() < 64 {
            let url = &urls[made as usize % urls.len()];
            comers.under_way.push_back((call.world.add_viewer(url, &kinds, false)?, clock::now()));
        }
        made = due.max(made);
        call.world.step()?;
        comers.look(call);
        progress.show(clock::now().since(began).0 as f64 / 1e6 / run.seconds, "viewers come and go");
    }
    let server = target.processes.zip(server_before).map(|(processes, before)| processes.cpu().since(&before));
    let generator = Processes::own_cpu().since(&own_before);
    let scrapes = scraper.map(Scraper::stop).transpose()?;
    call.quiet()?;
    let mut counts = own_counts(call).since(&counts_before);
    counts.raw = 0;
    let sent = call.sent();
    let live = call.viewers.iter().filter(|(id, _)| call.is_live(*id));
    let expected = live.map(|(_, room)| sent[*room] - sent_before[*room]).sum();
    let sample = call.world.viewers().filter(|(_, viewer)| viewer.is_sample()).count();
    // Newcomers that are under way now count neither as joined nor as failed.
    let mut more = comers.figures(run.seconds);
    if let Some(longest) = scrapes.iter().flatten().max() {
        more.push(("slowest scrape", longest.as_secs_f64() * 1e3, "ms"));
    }
    while !comers.are_gone() {
        call.world.step()?;
        comers.look(call);
    }
    Ok(Row {
        setting: run.setting(target),
        counts,
        expected,
        server: server.zip(target.processes.map(|processes| processes.memory())),
        generator,
        latency: Quantiles::of(&call.world.findings.latency),
        verified: Some(Verified::of(sample, &call.world.findings)),
        more,
        troubles: call.world.troubles.clone(),
        failed: call.world.failed,
        ..Row::default()
    })
}

/// The figures of the viewers that stay.
fn own_counts(call: &Call) -> Counts {
    let mut sum = Counts::default();
    for (id, _) in &call.viewers {
        if let Some(viewer) = call.world.client(*id).and_then(|client| client.viewer()) {
            sum.add(&viewer.counts);
        }
    }
    sum
}

struct Comers {
    under_way: VecDeque<(ClientId, Time)>,
    leaving: VecDeque<(ClientId, Time)>,
    joined: u64,
    failed: u64,
    answered: Histogram<u64>,
    first_packet: Histogram<u64>,
}

impl Default for Comers {
    fn default() -> Comers {
        let latency = || Findings::new().latency;
        Comers {
            under_way: VecDeque::new(),
            leaving: VecDeque::new(),
            joined: 0,
            failed: 0,
            answered: latency(),
            first_packet: latency(),
        }
    }
}

impl Comers {
    /// Notes which newcomers have seen a packet, and removes those that have stayed long enough.
    fn look(&mut self, call: &mut Call) {
        let now = clock::now();
        for _ in 0..self.under_way.len() {
            let Some((id, came_at)) = self.under_way.pop_front() else { return };
            let Some(client) = call.world.client(id) else { continue };
            if let Some(at) = client.viewer().and_then(|viewer| viewer.first_media_at) {
                self.joined += 1;
                self.first_packet.saturating_record(at.since(client.asked_at).0 * 1_000);
                self.answered.saturating_record(client.answer_took.map_or(0, |took| took.as_nanos() as u64));
                self.leaving.push_back((id, now + STAY));
            } else if client.link.broken.is_some() || now.since(came_at) > PATIENCE {
                self.failed += 1;
                self.leaving.push_back((id, now));
            } else {
                self.under_way.push_back((id, came_at));
            }
        }
        while self.leaving.front().is_some_and(|(_, at)| *at <= now) {
            if let Some((id, _)) = self.leaving.pop_front() {
                call.world.remove(id);
            }
        }
    }

    fn are_gone(&self) -> bool {
        self.under_way.is_empty() && self.leaving.is_empty()
    }

    fn figures(&self, seconds: f64) -> Vec<(&'static str, f64, &'static str)> {
        let mut figures =
            vec![("joins", self.joined as f64 / seconds, "a second"), ("joins that failed", self.failed as f64, "")];
        for (names, times) in [
            (["answer p50", "answer p99"], &self.answered),
            (["first packet p50", "first packet p99"], &self.first_packet),
        ] {
            if let Some(quantiles) = Quantiles::of(times) {
                figures.push((names[0], quantiles.p50, "ms after the POST"));
                figures.push((names[1], quantiles.p99, "ms after the POST"));
            }
        }
        figures
    }
}
