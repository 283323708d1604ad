//! Publishers send, viewers watch, and both are counted from one quiet moment to another, so that what arrived can be compared to what
//! was sent. Must never know how clients work. Read `joins.rs` next.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{AUDIO, GALLERY, PATIENCE, QUIET, Run, VIDEO, rooms};
use crate::calibrate;
use crate::processes::Processes;
use crate::progress::Progress;
use crate::raw::{self, Burst};
use crate::report::{Quantiles, Row, Verified};
use crate::stream::Shape;
use crate::target::Target;
use crate::viewer::Findings;
use crate::world::{ClientId, World};

/// Which publishers send what to which viewers.
pub struct Plan {
    pub shapes: Vec<Shape>,
    /// One publisher in each.
    pub rooms: usize,
    /// For each viewer, the room that it watches.
    pub watches: Vec<usize>,
}

impl Plan {
    pub fn video(viewers: usize, publishers: usize) -> Plan {
        Plan::spread_over(publishers, viewers, VIDEO)
    }

    pub fn audio(viewers: usize, publishers: usize) -> Plan {
        Plan::spread_over(publishers, viewers, AUDIO)
    }

    /// One video to many: fewer frames a second where one core could not carry the usual number.
    pub fn viewers(viewers: usize) -> Plan {
        Plan::spread_over(1, viewers, slowed(VIDEO, viewers, VIDEO_A_SECOND))
    }

    /// Rooms of one speaker each. Sound, so that it is the number of packets that come one by one which grows with the rooms.
    pub fn rooms(rooms: usize, viewers: usize) -> Plan {
        let shape = slowed(AUDIO, rooms * viewers, AUDIO_A_SECOND);
        Plan::spread_over(rooms, rooms * viewers, shape)
    }

    /// One publisher of many videos, each with a frame of its own time.
    pub fn tracks(tracks: usize, viewers: usize) -> Plan {
        let shape = slowed(VIDEO, tracks * viewers, VIDEO_A_SECOND);
        Plan { shapes: vec![shape; tracks], ..Plan::spread_over(1, viewers, shape) }
    }

    fn spread_over(publishers: usize, viewers: usize, shape: Shape) -> Plan {
        let watches = (0..viewers).map(|viewer| viewer % publishers.max(1)).collect();
        Plan { shapes: vec![shape], rooms: publishers.max(1), watches }
    }

    /// WHEP has one publisher a session, so each participant watches all others with a session each.
    pub fn meeting(participants: usize) -> Plan {
        let others = |own| (0..participants).filter(move |other| *other != own);
        Plan {
            shapes: vec![AUDIO, GALLERY],
            rooms: participants,
            watches: (0..participants).flat_map(others).collect(),
        }
    }

    /// The largest burst that one viewer gets, of datagrams of this size.
    pub fn burst(&self, size: usize) -> Burst {
        let shape = self.shapes.iter().max_by_key(|shape| shape.packets).unwrap_or(&VIDEO);
        Burst { packets: shape.packets as usize, size, rooms: self.rooms, per_second: shape.per_second }
    }
}

/// The most packets a second to all viewers together, so that neither the server's core nor the generator's is at its limit, even in a
/// slow hour of the machine. A queue would make batches larger, and cheaper, than they are.
const VIDEO_A_SECOND: usize = 60_000;
const AUDIO_A_SECOND: usize = 50_000;
/// How long the server is measured with all clients connected and nothing sent.
const REST: Duration = Duration::from_secs(2);

/// The shape, with fewer frames a second when so many streams of it would be more than `most` packets a second.
fn slowed(shape: Shape, streams: usize, most: usize) -> Shape {
    let frames = most / (streams * shape.packets as usize).max(1);
    Shape { per_second: (frames.max(1) as u32).min(shape.per_second), ..shape }
}

/// Publishers and viewers that are connected, with media running.
pub struct Call {
    pub world: World,
    pub rooms: Vec<String>,
    pub publishers: Vec<ClientId>,
    pub viewers: Vec<(ClientId, usize)>,
}

pub fn run(run: &Run, target: &Target, plan: &Plan, progress: &mut Progress) -> Result<Row> {
    let mut call = Call::open(run, target, plan, progress)?;
    let mut row = call.measure(run, target, progress)?;
    if run.scenario.is_sweep() {
        row.rest_ns = call.rest(target, progress)?;
    }
    row.setting.publishers = plan.rooms;
    row.setting.tracks = plan.shapes.len();
    row.setting.per_second = plan.shapes.iter().map(|shape| shape.per_second).max().unwrap_or(0);
    row.setting.viewers = plan.watches.len();
    call.finish(run, plan, &mut row, progress)?;
    Ok(row)
}

impl Call {
    pub fn open(run: &Run, target: &Target, plan: &Plan, progress: &mut Progress) -> Result<Call> {
        ensure!(plan.rooms == 1 || target.has_rooms(), "several publishers need URLs with {{room}}");
        let mut world = run.world(target)?;
        let rooms = rooms(plan.rooms)?;
        let mut publishers = Vec::new();
        for room in &rooms {
            publishers.push(world.add_publisher(&target.whip(room)?, &plan.shapes)?);
        }
        progress.show(0.0, "publishers connect");
        world.connect_all(PATIENCE)?;
        world.start_publishers();
        let kinds: Vec<_> = plan.shapes.iter().map(|shape| shape.kind).collect();
        let mut viewers = Vec::new();
        for (place, room) in plan.watches.iter().enumerate() {
            let is_sample = place.is_multiple_of(run.options.sample);
            viewers.push((world.add_viewer(&target.whep(&rooms[*room])?, &kinds, is_sample)?, *room));
        }
        let mut call = Call { world, rooms, publishers, viewers };
        call.wait_for_media(progress)?;
        Ok(call)
    }

    /// Runs until every client is connected and every viewer gets packets.
    pub fn wait_for_media(&mut self, progress: &mut Progress) -> Result<()> {
        let wanted = self.viewers.len();
        if wanted == 0 {
            return Ok(());
        }
        let result = self.world.run_until("the first packets", PATIENCE, |world| {
            let (mut live, mut broken) = (0, 0);
            for (client, viewer) in world.viewers() {
                live += usize::from(viewer.first_media_at.is_some());
                broken += usize::from(client.link.broken.is_some());
            }
            progress.show(live as f64 / wanted as f64, "viewers connect");
            live + broken >= wanted
        });
        let live = self.world.viewers().filter(|(_, viewer)| viewer.first_media_at.is_some()).count();
        let troubles = self.world.troubles.join("; ");
        ensure!(
            live > 0,
            "no viewer gets anything: {troubles}{}",
            result.err().map_or(String::new(), |e| e.to_string())
        );
        Ok(())
    }

    /// Counts over the run's length, from one quiet moment to another.
    pub fn measure(&mut self, run: &Run, target: &Target, progress: &mut Progress) -> Result<Row> {
        self.quiet()?;
        let sent_before = self.sent();
        let counts_before = self.world.counts();
        self.world.findings = Findings::new();
        let server_before = target.processes.map(|processes| processes.cpu());
        let own_before = Processes::own_cpu();
        self.world.start_publishers();
        self.run_for(run.length(), progress)?;
        self.quiet()?;
        let server = target.processes.zip(server_before).map(|(processes, before)| processes.cpu().since(&before));
        let sent = self.sent();
        let expected =
            self.viewers.iter().filter(|(id, _)| self.is_live(*id)).map(|(_, room)| sent[*room] - sent_before[*room]);
        let sample = self.world.viewers().filter(|(_, viewer)| viewer.is_sample()).count();
        Ok(Row {
            setting: run.setting(target),
            counts: self.world.counts().since(&counts_before),
            expected: expected.sum(),
            received: sent.iter().zip(&sent_before).map(|(sent, before)| sent - before).sum(),
            burst: None,
            server: server.zip(target.processes.map(|processes| processes.memory())),
            generator: Processes::own_cpu().since(&own_before),
            raw: None,
            rest_ns: None,
            latency: Quantiles::of(&self.world.findings.latency),
            verified: Some(Verified::of(sample, &self.world.findings)),
            more: Vec::new(),
            troubles: self.world.troubles.clone(),
            failed: self.world.failed,
        })
    }

    /// Nanoseconds of the server's CPU a second while nobody sends media: reports, checks, and its own housekeeping.
    fn rest(&mut self, target: &Target, progress: &mut Progress) -> Result<Option<f64>> {
        progress.show(1.0, "the server at rest");
        let before = target.processes.map(|processes| processes.cpu());
        self.world.run_for(REST)?;
        let spent = target.processes.zip(before).map(|(processes, before)| processes.cpu().since(&before));
        Ok(spent.map(|cpu| cpu.total_ns as f64 / REST.as_secs_f64()))
    }

    /// The raw limit and the calibration with this call's sizes, then the end of the call.
    pub fn finish(&mut self, run: &Run, plan: &Plan, row: &mut Row, progress: &mut Progress) -> Result<()> {
        progress.show(1.0, "the kernel's own limit");
        let size = self.world.viewers().map(|(_, viewer)| viewer.datagram_len()).max().unwrap_or(0);
        let burst = plan.burst(size);
        row.burst = Some(burst);
        if row.server.is_some() && size > 0 {
            row.raw = Some(raw::measure(&mut self.world, run.server_cpu, burst)?);
        }
        row.setting.aes_gcm_ns = calibrate::aes_128_gcm_ns(size.max(16), run.server_cpu)?;
        progress.show(1.0, "clients leave");
        self.world.remove_all()
    }

    fn run_for(&mut self, length: Duration, progress: &mut Progress) -> Result<()> {
        let parts = 40;
        for part in 0..parts {
            progress.show(f64::from(part) / f64::from(parts), "measuring");
            self.world.run_for(length / parts)?;
        }
        Ok(())
    }

    /// Stops the media and waits until what was sent has arrived.
    pub fn quiet(&mut self) -> Result<()> {
        self.world.pause_publishers();
        self.world.run_for(QUIET)
    }

    /// Packets that each publisher has sent.
    pub fn sent(&self) -> Vec<u64> {
        let sent = |id: &ClientId| self.world.client(*id)?.publisher().map(|publisher| publisher.sent);
        self.publishers.iter().map(|id| sent(id).unwrap_or(0)).collect()
    }

    pub fn is_live(&self, id: ClientId) -> bool {
        self.world.client(id).is_some_and(|client| client.link.is_connected())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_meeting_everyone_watches_everyone_else() {
        let plan = Plan::meeting(4);
        assert_eq!((plan.rooms, plan.watches.len(), plan.burst(9).packets), (4, 12, 2));
        assert!((0..4).all(|room| plan.watches.iter().filter(|watched| **watched == room).count() == 3));
    }

    #[test]
    fn a_sweep_slows_down_where_a_core_would_be_full() {
        let rates = [10, 100, 500, 1_000].map(|viewers| Plan::viewers(viewers).shapes[0].per_second);
        assert_eq!(rates, [30, 30, 15, 7]);
        assert_eq!([1, 100, 500].map(|rooms| Plan::rooms(rooms, 4).shapes[0].per_second), [50, 50, 25]);
        assert_eq!(Plan::rooms(1_000_000, 4).shapes[0].per_second, 1, "never none");
        let plan = Plan::tracks(4, 50);
        assert_eq!((plan.shapes.len(), plan.rooms, plan.watches.len()), (4, 1, 50));
    }

    #[test]
    fn listeners_are_spread_over_the_publishers() {
        let plan = Plan::audio(10, 4);
        assert_eq!(plan.watches, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]);
    }
}
