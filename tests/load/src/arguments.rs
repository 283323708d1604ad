//! The command line. Owns its words and their defaults; must never start anything. Read `scenarios/mod.rs` next.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use lexopt::ValueExt;
use millrace_core::transport::Profile;

use crate::machine;
use crate::scenarios::Scenario;

pub const HELP: &str = "\
Measures WHIP and WHEP servers with many WebRTC clients in one process.

usage: millrace-load [SCENARIO] [OPTIONS]

SCENARIO   video, audio, meeting, joins, spread, idle, soak or kills (video);
           viewers, rooms or tracks: what a packet costs at each of many sizes

which servers, in turns:
  --server COMMAND     a script of servers/ that starts one; may be given again
  --whip URL --whep URL [--token TOKEN] [--pid PID] [--metrics URL]
                       one that runs; {room} stands for a room; without its process there is no cost

how much:
  --viewers N[,N...]   viewers, participants of a meeting, viewers of each room of the rooms scenario, or sessions
                       of the kills scenario
  --publishers N[,N...]
                       publishers of the video, audio and joins scenarios, over which their viewers are spread (1);
                       rooms of the rooms scenario
  --tracks N[,N...]    tracks of each session of the tracks scenario
  --seconds S          length of each measurement (10)
  --rate R             joins a second (50)
  --kills N            workers killed in the kills scenario (20)
  --scrape S           reads the server's metrics every S seconds while viewers join (0: never)
  --rounds N           repetitions, the servers in turns (1)
  --profile gcm|cm|both
                       the only SRTP profile that clients offer: AEAD_AES_128_GCM, AES128_CM_SHA1_80 (gcm)
  --sample N           one of N viewers authenticates every packet and measures latency (10)
  --uneven             the second half of a frame's packets are one byte longer, as libwebrtc often splits it
  --gro                viewers take runs of datagrams as one, as behind a card that segments by itself

where:
  --server-cpu N       core of servers that --server starts, and of the raw limit (the first)
  --cpu N              core of the load generator (the second)
  --json FILE          all figures; - for standard output
  --plot FILE          a PNG of cost and latency against the number of viewers, rooms or tracks
";

/// As many m-lines as servers commonly take.
const MAX_TRACKS: usize = 16;

pub struct Arguments {
    pub scenario: Scenario,
    pub servers: Vec<String>,
    pub running: Option<Running>,
    pub viewers: Vec<usize>,
    pub publishers: Vec<usize>,
    pub tracks: Vec<usize>,
    pub seconds: f64,
    pub rate: f64,
    pub kills: usize,
    pub scrape: f64,
    pub rounds: usize,
    pub profiles: Vec<Profile>,
    pub sample: usize,
    pub gro: bool,
    pub uneven: bool,
    pub server_cpu: usize,
    pub cpu: usize,
    pub json: Option<PathBuf>,
    pub plot: Option<PathBuf>,
}

/// A server that runs already.
#[derive(Clone, Debug, Default)]
pub struct Running {
    pub whip: String,
    pub whep: String,
    pub token: Option<String>,
    pub pid: Option<i32>,
    pub metrics: Option<String>,
}

impl Arguments {
    /// `None` when help was asked for.
    pub fn parse(mut parser: lexopt::Parser) -> Result<Option<Arguments>> {
        use lexopt::Arg::{Long, Short, Value};
        let cores = machine::cores();
        let first = *cores.first().context("there is no core")?;
        let mut found = Arguments {
            scenario: Scenario::Video,
            servers: Vec::new(),
            running: None,
            viewers: Vec::new(),
            publishers: Vec::new(),
            tracks: Vec::new(),
            seconds: 10.0,
            rate: 50.0,
            kills: 20,
            scrape: 0.0,
            rounds: 1,
            profiles: vec![Profile::Aes128Gcm],
            sample: 10,
            gro: false,
            uneven: false,
            server_cpu: first,
            cpu: cores.get(1).copied().unwrap_or(first),
            json: None,
            plot: None,
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Value(name) => {
                    let name = name.string()?;
                    found.scenario = Scenario::named(&name).with_context(|| format!("there is no scenario {name}"))?;
                }
                Long("server") => found.servers.push(parser.value()?.string()?),
                Long("whip") => found.running.get_or_insert_default().whip = parser.value()?.string()?,
                Long("whep") => found.running.get_or_insert_default().whep = parser.value()?.string()?,
                Long("token") => found.running.get_or_insert_default().token = Some(parser.value()?.string()?),
                Long("pid") => found.running.get_or_insert_default().pid = Some(parser.value()?.parse()?),
                Long("viewers") => found.viewers = numbers("--viewers", &parser.value()?.string()?)?,
                Long("publishers") => found.publishers = numbers("--publishers", &parser.value()?.string()?)?,
                Long("tracks") => found.tracks = numbers("--tracks", &parser.value()?.string()?)?,
                Long("metrics") => {
                    found.running.get_or_insert_default().metrics = Some(parser.value()?.string()?);
                }
                Long("seconds") => found.seconds = parser.value()?.parse()?,
                Long("rate") => found.rate = parser.value()?.parse()?,
                Long("kills") => found.kills = parser.value()?.parse()?,
                Long("scrape") => found.scrape = parser.value()?.parse()?,
                Long("rounds") => found.rounds = parser.value()?.parse()?,
                Long("profile") => found.profiles = profiles(&parser.value()?.string()?)?,
                Long("sample") => found.sample = parser.value()?.parse()?,
                Long("gro") => found.gro = true,
                Long("uneven") => found.uneven = true,
                Long("server-cpu") => found.server_cpu = parser.value()?.parse()?,
                Long("cpu") => found.cpu = parser.value()?.parse()?,
                Long("json") => found.json = Some(parser.value()?.into()),
                Long("plot") => found.plot = Some(parser.value()?.into()),
                Short('h') | Long("help") => return Ok(None),
                other => return Err(other.unexpected().into()),
            }
        }
        for (given, usual) in [
            (&mut found.viewers, found.scenario.usual_viewers()),
            (&mut found.publishers, found.scenario.usual_publishers()),
            (&mut found.tracks, found.scenario.usual_tracks()),
        ] {
            if given.is_empty() {
                *given = usual;
            }
        }
        found.check()?;
        Ok(Some(found))
    }

    fn check(&self) -> Result<()> {
        if let Some(running) = &self.running {
            ensure!(!running.whip.is_empty() && !running.whep.is_empty(), "--whip and --whep go together");
        }
        if self.servers.is_empty() && self.running.is_none() {
            bail!("no server to measure: --server or --whip and --whep");
        }
        let least_viewers = match self.scenario {
            Scenario::Meeting => 2,
            // Two rooms, so that one is not hit.
            Scenario::Kills => 10,
            _ => 1,
        };
        ensure!(self.viewers.iter().all(|viewers| *viewers >= least_viewers), "--viewers: at least {least_viewers}");
        let lists = [&self.publishers, &self.tracks];
        let are_counts = lists.iter().all(|list| list.iter().all(|count| *count > 0));
        ensure!(are_counts && self.sample > 0 && self.rounds > 0 && self.kills > 0, "expected numbers above zero");
        ensure!(self.tracks.iter().all(|tracks| *tracks <= MAX_TRACKS), "--tracks: at most {MAX_TRACKS}");
        // In less than a second the begin and the end weigh too much.
        ensure!(self.seconds >= 1.0 && self.rate > 0.0, "expected --seconds from 1 on and a --rate above zero");
        ensure!(self.scrape >= 0.0, "--scrape: expected seconds");
        Ok(())
    }
}

fn numbers(option: &str, text: &str) -> Result<Vec<usize>> {
    let numbers: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
    numbers.with_context(|| format!("{option} {text}: expected numbers"))
}

fn profiles(name: &str) -> Result<Vec<Profile>> {
    Ok(match name {
        "gcm" => vec![Profile::Aes128Gcm],
        "cm" => vec![Profile::Aes128CmSha1_80],
        "both" => vec![Profile::Aes128Gcm, Profile::Aes128CmSha1_80],
        _ => bail!("--profile {name}: expected gcm, cm or both"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Arguments>> {
        Arguments::parse(lexopt::Parser::from_args(line.split_ascii_whitespace()))
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let found = parse("audio --server x --publishers 20 --profile both").unwrap().unwrap();
        assert_eq!((found.scenario, found.publishers.clone(), found.profiles.len()), (Scenario::Audio, vec![20], 2));
        assert_eq!(found.viewers, Scenario::Audio.usual_viewers());
        let found = parse("--whip http://a --whep http://b --pid 7 --viewers 5,10").unwrap().unwrap();
        assert_eq!((found.viewers, found.running.unwrap().pid), (vec![5, 10], Some(7)));
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for line in [
            "",
            "video",
            "dance --server x",
            "--server x --viewers 0",
            "--server x --viewers a",
            "--whip http://a",
            "--server x --profile null",
            "--server x --seconds 0.1",
            "meeting --server x --viewers 1",
            "--server x --nope",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("--help").unwrap().is_none());
    }
}
