//! The same call twice: all viewers on their publisher's worker, then all on others. Knows that a Millrace session's id
//! begins with two hex digits of its worker's slot; must never be run against another server. Read `idle.rs` next.

use anyhow::{Context, Result, ensure};

use super::media::{Call, Plan};
use super::{PATIENCE, Run, VIDEO};
use crate::client::Client;
use crate::progress::Progress;
use crate::report::Row;
use crate::target::Target;

/// How often a viewer tries again. The kernel picks the worker of a connection, so with two workers half of the viewers have to each
/// time.
const TRIES: usize = 40;

pub fn run(run: &Run, target: &Target, progress: &mut Progress) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for elsewhere in [false, true] {
        let plan = Plan { shapes: vec![VIDEO], rooms: 1, watches: Vec::new() };
        let mut call = Call::open(run, target, &plan, progress)?;
        gather(&mut call, run, target, elsewhere, progress)?;
        call.wait_for_media(progress)?;
        let mut row = call.measure(run, target, progress)?;
        row.setting.scenario = if elsewhere { "spread, other worker" } else { "spread, same worker" }.to_owned();
        call.finish(run, &plan, &mut row, progress)?;
        rows.push(row);
    }
    Ok(rows)
}

/// Opens viewers until enough are on the wanted worker, and removes the others.
fn gather(call: &mut Call, run: &Run, target: &Target, elsewhere: bool, progress: &mut Progress) -> Result<()> {
    let publisher = call.world.client(call.publishers[0]).and_then(slot).context("no slot in the session's URL")?;
    let url = target.whep(&call.rooms[0])?;
    for _ in 0..TRIES {
        let lacking = run.viewers - call.viewers.len();
        if lacking == 0 {
            return Ok(());
        }
        let mut came = Vec::new();
        for place in 0..lacking {
            let is_sample = place.is_multiple_of(run.options.sample);
            came.push(call.world.add_viewer(&url, &[VIDEO.kind], is_sample)?);
        }
        call.world.connect_all(PATIENCE)?;
        for id in came {
            let at = call.world.client(id).and_then(slot).context("no slot in the session's URL")?;
            if (at != publisher) == elsewhere {
                call.viewers.push((id, 0));
            } else {
                call.world.remove(id);
            }
        }
        progress.show(call.viewers.len() as f64 / run.viewers as f64, "viewers look for their worker");
    }
    ensure!(call.viewers.len() == run.viewers, "no viewer lands on the wanted worker: does the server have two?");
    Ok(())
}

/// The worker that has this client's session.
pub fn slot(client: &Client) -> Option<u8> {
    let path = &client.session.as_ref()?.url.path;
    u8::from_str_radix(path.rsplit('/').next()?.get(..2)?, 16).ok()
}
