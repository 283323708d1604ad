//! Viewers of a silent publisher: what a session costs in memory, whether all of it comes back, and what keeping one alive
//! costs in CPU. Must never send media. Read `../main.rs` next.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{PATIENCE, Run, VIDEO, rooms};
use crate::calibrate;
use crate::processes::{Memory, Processes};
use crate::progress::Progress;
use crate::report::Row;
use crate::target::Target;
use crate::world::World;

/// How long the server has for freeing memory and deferred work before a figure is taken.
const CALM: Duration = Duration::from_secs(2);
/// How often viewers come and go. The second time shows whether the first one's memory is used again.
const CYCLES: usize = 3;

pub fn run(run: &Run, target: &Target, progress: &mut Progress) -> Result<Row> {
    let processes = target.processes.context("memory needs to know the server's process (--pid)")?;
    let mut world = run.world(target)?;
    let room = &rooms(1)?[0];
    world.add_publisher(&target.whip(room)?, &[VIDEO])?;
    world.connect_all(PATIENCE)?;
    // Before the first figure, so that what is allocated once is allocated.
    let first = world.add_viewer(&target.whep(room)?, &[VIDEO.kind], false)?;
    world.connect_all(PATIENCE)?;
    world.remove(first);
    world.run_for(CALM)?;
    let mut row = Row { setting: run.setting(target), ..Row::default() };
    row.setting.publishers = 1;
    let empty = processes.memory();
    let mut before = empty;
    for cycle in 0..CYCLES {
        progress.show(cycle as f64 / CYCLES as f64, "viewers come");
        let ids = (0..run.viewers).map(|_| world.add_viewer(&target.whep(room)?, &[VIDEO.kind], false));
        let ids = ids.collect::<Result<Vec<_>>>()?;
        world.connect_all(PATIENCE)?;
        world.run_for(CALM)?;
        let full = processes.memory();
        if cycle == 0 {
            measure_upkeep(&mut world, &processes, run, &mut row)?;
            row.server = row.server.map(|(cpu, _)| (cpu, full));
            row.more.push(("memory of an idle session, first time", per_session(before, full, run.viewers), "KiB"));
        } else if cycle + 1 == CYCLES {
            row.more.push(("memory of an idle session, last time", per_session(before, full, run.viewers), "KiB"));
        }
        progress.show((cycle as f64 + 0.5) / CYCLES as f64, "viewers leave");
        ids.into_iter().for_each(|id| world.remove(id));
        world.run_until("leaving", PATIENCE, |world| world.requests_left() == 0)?;
        world.run_for(CALM)?;
        before = processes.memory();
        let name =
            ["kept after leaving, first time", "kept after leaving, second time", "kept after leaving, last time"];
        row.more.push((name[cycle.min(2)], kib(empty, before), "KiB"));
    }
    row.troubles = world.troubles.clone();
    row.failed = world.failed;
    row.setting.aes_gcm_ns = calibrate::aes_128_gcm_ns(VIDEO.payload, run.server_cpu)?;
    world.remove_all()?;
    Ok(row)
}

fn measure_upkeep(world: &mut World, processes: &Processes, run: &Run, row: &mut Row) -> Result<()> {
    let (before, own) = (processes.cpu(), Processes::own_cpu());
    world.run_for(run.length())?;
    let spent = processes.cpu().since(&before);
    row.generator = Processes::own_cpu().since(&own);
    row.server = Some((spent, Memory::default()));
    let per_session = spent.total_ns as f64 / run.viewers as f64 / run.seconds;
    row.more.push(("CPU to keep a session alive", per_session / 1e3, "us a second"));
    Ok(())
}

fn per_session(before: Memory, after: Memory, sessions: usize) -> f64 {
    kib(before, after) / sessions as f64
}

/// The proportional set size: the arena counts once, however many processes map it.
fn kib(before: Memory, after: Memory) -> f64 {
    (after.proportional as f64 - before.proportional as f64) / 1024.0
}
