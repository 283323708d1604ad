//! The kernel's own limit: the same datagrams to the same sockets from the server's core, without a server. Owns that
//! measurement; must never run while a server is being measured. Read `calibrate.rs` next.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::clock;
use crate::machine;
use crate::net::{self, Messages, RAW};
use crate::world::World;

/// Nanoseconds of CPU for one datagram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Raw {
    /// sendmmsg alone.
    pub single_ns: f64,
    /// One GSO send for each viewer's burst; the same as above for bursts of one.
    pub segmented_ns: f64,
    /// As before, but a room's burst at a time in the call's own rhythm, so that caches are as cold as a server finds them.
    pub paced_ns: f64,
    /// The share of datagrams that arrived: below 1 the figures flatter the kernel.
    pub arrived: f64,
}

/// Bursts of `packets` datagrams of `size` bytes, one for each viewer of one of `rooms`, each of which has `per_second`.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    pub packets: usize,
    pub size: usize,
    pub rooms: usize,
    pub per_second: u32,
}

/// Each way of sending is measured for half of this, in alternating rounds.
const LENGTH: Duration = Duration::from_millis(1_500);
/// How long a round's datagrams are waited for before the next round.
const DRAIN: Duration = Duration::from_millis(50);
/// Datagrams of a round: well above one batch, well below the sockets' queues.
const ROUND: usize = 256;

/// Sends from `cpu` while the world sweeps on its own core.
pub fn measure(world: &mut World, cpu: usize, burst: Burst) -> Result<Raw> {
    let viewers = world.viewer_addresses()?;
    let server = net::bind(viewers.first().context("no viewers")?.ip(), net::Options::default())?;
    let before = world.counts().raw;
    let received = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let sender = {
        let (received, over) = (received.clone(), over.clone());
        thread::spawn(move || {
            let result = machine::pin(cpu).and_then(|()| send(&server, &viewers, burst, &received));
            over.store(true, Ordering::Release);
            result
        })
    };
    while !over.load(Ordering::Acquire) {
        world.step()?;
        received.store(world.counts().raw - before, Ordering::Release);
    }
    sender.join().map_err(|_| anyhow::anyhow!("the sending thread panicked"))?
}

fn send(socket: &UdpSocket, viewers: &[SocketAddr], burst: Burst, received: &AtomicU64) -> Result<Raw> {
    let mut bytes = vec![0; burst.packets * burst.size];
    bytes.iter_mut().step_by(burst.size).for_each(|first| *first = RAW);
    let repeats = ROUND.div_ceil(viewers.len() * burst.packets).max(1);
    let [single, segmented] = [false, true].map(|segmented| {
        let mut messages = Messages::default();
        for viewer in viewers.iter().cycle().take(viewers.len() * repeats) {
            messages.add(*viewer, &bytes, burst.size, segmented);
        }
        messages
    });
    let round = (viewers.len() * repeats * burst.packets) as u64;
    let (mut spent, mut rounds, mut sent) = ([0; 2], 0, 0);
    let began = Instant::now();
    while began.elapsed() < LENGTH {
        for (spent, messages) in spent.iter_mut().zip([&single, &segmented]) {
            let before = clock::thread_cpu();
            messages.send(socket, &bytes)?;
            *spent += clock::thread_cpu() - before;
            sent += round;
            let since = Instant::now();
            while received.load(Ordering::Acquire) < sent && since.elapsed() < DRAIN {
                thread::sleep(Duration::from_micros(200));
            }
        }
        rounds += 1;
    }
    let each = |spent: u64| spent as f64 / (rounds * round) as f64;
    let arrived = received.load(Ordering::Acquire) as f64 / sent as f64;
    let paced_ns = send_paced(socket, viewers, burst, &bytes)?;
    Ok(Raw { single_ns: each(spent[0]), segmented_ns: each(spent[1]), paced_ns, arrived })
}

fn send_paced(socket: &UdpSocket, viewers: &[SocketAddr], burst: Burst, bytes: &[u8]) -> Result<f64> {
    let rooms: Vec<Messages> = viewers
        .chunks(viewers.len().div_ceil(burst.rooms))
        .map(|viewers| {
            let mut messages = Messages::default();
            viewers.iter().for_each(|viewer| messages.add(*viewer, bytes, burst.size, true));
            messages
        })
        .collect();
    let interval = Duration::from_secs(1) / burst.per_second.max(1) / rooms.len() as u32;
    let (mut spent, mut sent) = (0, 0);
    let began = Instant::now();
    for (position, (messages, room)) in
        rooms.iter().zip(viewers.chunks(viewers.len().div_ceil(burst.rooms))).cycle().enumerate()
    {
        let at = interval * position as u32;
        if at > LENGTH {
            break;
        }
        thread::sleep(at.saturating_sub(began.elapsed()));
        let before = clock::thread_cpu();
        messages.send(socket, bytes)?;
        spent += clock::thread_cpu() - before;
        sent += (room.len() * burst.packets) as u64;
    }
    Ok(spent as f64 / sent as f64)
}
