//! A server under test: where its WHIP and WHEP are, and which processes to charge. It runs already, or a script of
//! `servers/` starts it. Must never know how the server works inside. Read `servers/millrace.py` next, which keeps the contract.
//!
//! A script prints one line, `ready name=NAME whip=URL whep=URL pid=PID`, when clients may come. It runs until its standard
//! input is closed, and then stops its server. It may add `token=TOKEN`, `metrics=URL`, and `bind=IP` for where clients have
//! to be. `{room}` in a URL stands for a room of the generator's choice.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::arguments::Running;
use crate::http::Url;
use crate::machine;
use crate::processes::Processes;

pub struct Target {
    pub name: String,
    whip: String,
    whep: String,
    pub token: Option<String>,
    /// The URL of its metrics.
    pub metrics: Option<Url>,
    /// Where clients' sockets are to be bound, when not simply where its HTTP leads.
    pub bind: Option<IpAddr>,
    pub processes: Option<Processes>,
    /// Stops with the target.
    _server: Option<StartedServer>,
}

struct StartedServer {
    child: Child,
    /// Closed to have the script stop the server.
    stdin: Option<ChildStdin>,
}

impl Target {
    pub fn running(found: Running) -> Result<Target> {
        Ok(Target {
            name: "server".to_owned(),
            whip: found.whip,
            whep: found.whep,
            token: found.token,
            metrics: found.metrics.map(|url| Url::parse(&url)).transpose()?,
            bind: None,
            processes: found.pid.map(Processes::of),
            _server: None,
        })
    }

    /// Runs a script with its arguments, on core `cpu` if there is one; what the script starts inherits the core.
    pub fn start(command: &str, cpu: Option<usize>) -> Result<Target> {
        let mut words = command.split_ascii_whitespace();
        let executable = words.next().context("an empty command for a server")?;
        let mut builder = Command::new(executable);
        builder.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A child has the core of the thread that starts it.
        let start = move || {
            cpu.map_or(Ok(()), machine::pin)?;
            anyhow::Ok(builder.spawn()?)
        };
        let started = std::thread::spawn(start).join().map_err(|_| anyhow::anyhow!("the starting thread panicked"))?;
        let mut child = started.with_context(|| format!("starting {executable}"))?;
        let stdin = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let mut started = StartedServer { child, stdin };
        let ready = loop {
            match lines.next() {
                Some(line) => {
                    let line = line?;
                    if let Some(fields) = line.strip_prefix("ready ") {
                        break fields.to_owned();
                    }
                    eprintln!("{executable}: {line}");
                }
                None => {
                    started.stop();
                    bail!("{executable} ended before it was ready");
                }
            }
        };
        let field = |name: &str| {
            let mut words = ready.split_ascii_whitespace();
            let found = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.map(str::to_owned).with_context(|| format!("{executable} did not say its {name}"))
        };
        let pid = field("pid")?.parse().context("the server's pid is no number")?;
        Ok(Target {
            name: field("name")?,
            whip: field("whip")?,
            whep: field("whep")?,
            token: field("token").ok(),
            metrics: field("metrics").ok().map(|url| Url::parse(&url)).transpose()?,
            bind: field("bind").ok().map(|ip| ip.parse()).transpose().context("the server's bind is no address")?,
            processes: Some(Processes::of(pid)),
            _server: Some(started),
        })
    }

    pub fn whip(&self, room: &str) -> Result<Url> {
        Url::parse(&self.whip.replace("{room}", room))
    }

    pub fn whep(&self, room: &str) -> Result<Url> {
        Url::parse(&self.whep.replace("{room}", room))
    }

    /// True when the server has rooms, so that several publishers can be told apart.
    pub fn has_rooms(&self) -> bool {
        self.whip.contains("{room}") && self.whep.contains("{room}")
    }
}

impl StartedServer {
    fn stop(&mut self) {
        drop(self.stdin.take());
        // Its exit status does not matter any more.
        let _ = self.child.wait();
    }
}

impl Drop for StartedServer {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_says_where_its_server_is_and_stops_with_its_input() {
        let path = std::env::temp_dir().join(format!("millrace-load-server-{}.sh", std::process::id()));
        std::fs::write(
            &path,
            "echo hello\necho ready name=x whip=http://h/{room}/i whep=http://h/{room}/e pid=$$\nread stop\n",
        )
        .unwrap();
        let target = Target::start(&format!("sh {}", path.display()), Some(machine::cores()[0])).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((target.name.as_str(), target.has_rooms()), ("x", true));
        assert_eq!(target.whip("r").unwrap(), Url::parse("http://h/r/i").unwrap());
        let processes = target.processes.unwrap();
        assert_eq!(processes.pids().len(), 1);
        drop(target);
        assert_eq!(processes.cpu().total_ns, 0);
    }

    #[test]
    fn a_script_that_ends_early_is_an_error() {
        let error = Target::start("true", None).err().unwrap();
        assert!(error.to_string().contains("ended before"));
    }
}
