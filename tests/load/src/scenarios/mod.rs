//! The scenarios, and the figures that each reports. Owns their choice and what they share; must never know a protocol. Read `media.rs`
//! next, which most of them use.

pub mod idle;
pub mod joins;
pub mod kills;
pub mod media;
pub mod soak;
pub mod spread;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_core::transport::Profile;

use crate::identity::{Identity, random_text};
use crate::link::Tools;
use crate::progress::Progress;
use crate::report::{Row, Setting};
use crate::stream::{Kind, Shape};
use crate::target::Target;
use crate::world::{Options, World};

/// How long clients have for connecting. One that is not connected by then never will be.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough for all packets that are under way to arrive.
pub const QUIET: Duration = Duration::from_millis(300);

/// A browser's 2 Mbit/s: 30 frames a second, each a burst of 8 packets.
pub const VIDEO: Shape = Shape { kind: Kind::Video, per_second: 30, packets: 8, payload: 1_100, uneven: false };
/// Opus at 64 kbit/s.
pub const AUDIO: Shape = Shape { kind: Kind::Audio, per_second: 50, packets: 1, payload: 160, uneven: false };
/// A small picture of a gallery: 0.5 Mbit/s.
pub const GALLERY: Shape = Shape { kind: Kind::Video, per_second: 30, packets: 2, payload: 1_000, uneven: false };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    Video,
    Audio,
    Viewers,
    Rooms,
    Tracks,
    Meeting,
    Joins,
    Spread,
    Idle,
    Soak,
    Kills,
}

impl Scenario {
    pub const ALL: [(Scenario, &str); 11] = [
        (Scenario::Video, "video"),
        (Scenario::Audio, "audio"),
        (Scenario::Viewers, "viewers"),
        (Scenario::Rooms, "rooms"),
        (Scenario::Tracks, "tracks"),
        (Scenario::Meeting, "meeting"),
        (Scenario::Joins, "joins"),
        (Scenario::Spread, "spread"),
        (Scenario::Idle, "idle"),
        (Scenario::Soak, "soak"),
        (Scenario::Kills, "kills"),
    ];

    pub fn named(name: &str) -> Option<Scenario> {
        Scenario::ALL.iter().find(|(_, found)| *found == name).map(|(scenario, _)| *scenario)
    }

    pub fn name(self) -> &'static str {
        Scenario::ALL.iter().find(|(scenario, _)| *scenario == self).map_or("", |(_, name)| name)
    }

    /// The size that differs from run to run, against which figures are shown.
    pub fn axis(self) -> Axis {
        match self {
            Scenario::Rooms => Axis::Rooms,
            Scenario::Tracks => Axis::Tracks,
            _ => Axis::Viewers,
        }
    }

    /// True for scenarios that show how the cost of a packet changes with a size.
    pub fn is_sweep(self) -> bool {
        matches!(self, Scenario::Viewers | Scenario::Rooms | Scenario::Tracks)
    }

    /// The default number of viewers or participants; in the rooms scenario, of viewers of each room.
    pub fn usual_viewers(self) -> Vec<usize> {
        match self {
            Scenario::Video => vec![50, 200, 500],
            Scenario::Audio => vec![200, 1_000],
            Scenario::Viewers => vec![10, 20, 50, 100, 200, 500, 1_000],
            Scenario::Rooms => vec![4],
            Scenario::Tracks => vec![50],
            Scenario::Meeting => vec![25],
            Scenario::Joins => vec![50],
            Scenario::Spread => vec![100],
            Scenario::Idle => vec![500],
            Scenario::Soak => vec![20],
            Scenario::Kills => vec![50],
        }
    }

    /// True when server and generator have a core each. Kills are measured with workers on several cores, as in production.
    pub fn is_pinned(self) -> bool {
        self != Scenario::Kills
    }

    /// The default number of publishers, each in a room of its own.
    pub fn usual_publishers(self) -> Vec<usize> {
        if self == Scenario::Rooms { vec![1, 5, 20, 100, 500] } else { vec![1] }
    }

    /// The default number of a session's tracks.
    pub fn usual_tracks(self) -> Vec<usize> {
        if self == Scenario::Tracks { vec![1, 2, 4] } else { vec![1] }
    }
}

/// A size that a scenario goes through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Axis {
    #[default]
    Viewers,
    Rooms,
    Tracks,
}

impl Axis {
    pub fn name(self) -> &'static str {
        match self {
            Axis::Viewers => "viewers",
            Axis::Rooms => "rooms",
            Axis::Tracks => "tracks",
        }
    }
}

/// How one run is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub scenario: Scenario,
    pub profile: Profile,
    pub round: usize,
    pub viewers: usize,
    pub publishers: usize,
    /// Tracks of each session.
    pub tracks: usize,
    pub seconds: f64,
    /// Joins a second.
    pub rate: f64,
    /// Workers to kill.
    pub kills: usize,
    /// Seconds between two requests for the server's metrics; 0 for none.
    pub scrape: f64,
    pub options: Options,
    pub server_cpu: usize,
}

impl Run {
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// What is run against which server, in a few words.
    pub fn to_string(self, target: &Target) -> String {
        let axis = self.scenario.axis();
        let size = match axis {
            Axis::Viewers => self.viewers,
            Axis::Rooms => self.publishers,
            Axis::Tracks => self.tracks,
        };
        format!("{} {} {size} {}", self.scenario.name(), target.name, axis.name())
    }

    pub fn world(&self, target: &Target) -> Result<World> {
        let tools = Tools::new(Identity::new(self.profile)?);
        let ip = match target.bind {
            Some(ip) => ip,
            None => way_to(target.whip("probe")?.address()?)?,
        };
        Ok(World::new(self.options, tools, ip, target.token.clone()))
    }

    pub fn setting(&self, target: &Target) -> Setting {
        Setting {
            scenario: self.scenario.name().to_owned(),
            target: target.name.clone(),
            profile: self.profile.name(),
            round: self.round,
            viewers: self.viewers,
            publishers: self.publishers,
            tracks: self.tracks,
            axis: self.scenario.axis(),
            per_second: 0,
            seconds: self.seconds,
            aes_gcm_ns: 0.0,
        }
    }
}

/// Our address on the way to a server; nothing is sent.
fn way_to(server: SocketAddr) -> Result<IpAddr> {
    let unspecified: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((unspecified, 0))?;
    socket.connect(server).with_context(|| format!("no way to {server}"))?;
    Ok(socket.local_addr()?.ip())
}

pub fn run(run: &Run, target: &Target, progress: &mut Progress) -> Result<Vec<Row>> {
    progress.begin(run.to_string(target));
    let rows = match run.scenario {
        Scenario::Video => {
            let plan = media::Plan::video(run.viewers, run.publishers);
            media::run(run, target, &plan, progress).map(|row| vec![row])
        }
        Scenario::Audio => {
            let plan = media::Plan::audio(run.viewers, run.publishers);
            media::run(run, target, &plan, progress).map(|row| vec![row])
        }
        Scenario::Viewers => media::run(run, target, &media::Plan::viewers(run.viewers), progress).map(|row| vec![row]),
        Scenario::Rooms => {
            let plan = media::Plan::rooms(run.publishers, run.viewers);
            media::run(run, target, &plan, progress).map(|row| vec![row])
        }
        Scenario::Tracks => {
            let plan = media::Plan::tracks(run.tracks, run.viewers);
            media::run(run, target, &plan, progress).map(|row| vec![row])
        }
        Scenario::Meeting => {
            ensure!(target.has_rooms(), "a meeting needs URLs with {{room}}");
            media::run(run, target, &media::Plan::meeting(run.viewers), progress).map(|row| vec![row])
        }
        Scenario::Joins => joins::run(run, target, progress).map(|row| vec![row]),
        Scenario::Spread => spread::run(run, target, progress),
        Scenario::Idle => idle::run(run, target, progress).map(|row| vec![row]),
        Scenario::Soak => soak::run(run, target, progress).map(|row| vec![row]),
        Scenario::Kills => kills::run(run, target, progress).map(|row| vec![row]),
    };
    progress.clear();
    rows
}

/// Names that no other run has used.
pub fn rooms(count: usize) -> Result<Vec<String>> {
    let run = random_text(4)?;
    Ok((0..count).map(|place| format!("load-{run}-{place}")).collect())
}
