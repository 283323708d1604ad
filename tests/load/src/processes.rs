//! What a server costs: the CPU and memory of a process and all its descendants, from the kernel's accounting. Must never
//! know what they do. Read `target.rs` next.

use std::collections::{HashMap, HashSet};
use std::fs;

use crate::clock;

/// A process and its descendants.
#[derive(Clone, Copy, Debug)]
pub struct Processes {
    root: i32,
}

/// The CPU time used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    /// Nanoseconds, user and system, exact.
    pub total_ns: u64,
    /// User and system time in clock ticks.
    pub user_ticks: u64,
    pub system_ticks: u64,
}

impl Cpu {
    pub fn since(&self, before: &Cpu) -> Cpu {
        Cpu {
            total_ns: self.total_ns.saturating_sub(before.total_ns),
            user_ticks: self.user_ticks.saturating_sub(before.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(before.system_ticks),
        }
    }

    /// The share of it that was spent in the kernel.
    pub fn system_share(&self) -> f64 {
        self.system_ticks as f64 / (self.user_ticks + self.system_ticks).max(1) as f64
    }
}

/// Bytes of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Sum of the resident sets: shared pages count once for each process.
    pub resident: u64,
    /// Proportional: shared pages are divided among the processes that map them.
    pub proportional: u64,
}

impl Processes {
    pub fn of(root: i32) -> Processes {
        Processes { root }
    }

    /// This process alone.
    pub fn own_cpu() -> Cpu {
        cpu_of(std::process::id() as i32)
    }

    pub fn pids(&self) -> Vec<i32> {
        let mut children = HashMap::<i32, Vec<i32>>::new();
        for pid in all_pids() {
            if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse().ok()) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let (mut found, mut next) = (HashSet::new(), vec![self.root]);
        while let Some(pid) = next.pop() {
            if found.insert(pid) {
                next.extend(children.get(&pid).into_iter().flatten());
            }
        }
        found.into_iter().collect()
    }

    /// The root's living children, in the order of their numbers.
    pub fn children(&self) -> Vec<i32> {
        let root = self.root.to_string();
        let is_child = |pid: &i32| {
            let fields = stat(*pid).unwrap_or_default();
            fields.first().is_some_and(|state| state != "Z") && fields.get(1) == Some(&root)
        };
        let mut found: Vec<i32> = all_pids().filter(is_child).collect();
        found.sort_unstable();
        found
    }

    pub fn cpu(&self) -> Cpu {
        self.pids().into_iter().map(cpu_of).fold(Cpu::default(), |sum, cpu| Cpu {
            total_ns: sum.total_ns + cpu.total_ns,
            user_ticks: sum.user_ticks + cpu.user_ticks,
            system_ticks: sum.system_ticks + cpu.system_ticks,
        })
    }

    /// Open descriptors of all together.
    pub fn descriptors(&self) -> usize {
        let count = |pid| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        self.pids().into_iter().map(count).sum()
    }

    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for pid in self.pids() {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let bytes = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name))?;
                line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
            };
            memory.resident += bytes("Rss:").unwrap_or(0);
            memory.proportional += bytes("Pss:").unwrap_or(0);
        }
        memory
    }
}

fn cpu_of(pid: i32) -> Cpu {
    let fields = stat(pid).unwrap_or_default();
    // proc(5): utime and stime are fields 14 and 15, and what is left after the name begins with field 3.
    let ticks = |at: usize| fields.get(at - 3).and_then(|field| field.parse().ok()).unwrap_or(0);
    Cpu { total_ns: clock::process_cpu(pid).unwrap_or(0), user_ticks: ticks(14), system_ticks: ticks(15) }
}

fn all_pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The fields of proc(5)'s stat behind the name, from the state on.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_ascii_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn descendants_are_found_and_cost_something() {
        let mut shell = Command::new("sh")
            .args(["-c", "sh -c 'while :; do :; done' & echo up; read stop; kill $!"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = [0; 3];
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut up).unwrap();
        let processes = Processes::of(shell.id() as i32);
        assert_eq!(processes.pids().len(), 2);
        let before = processes.cpu();
        while processes.cpu().since(&before).total_ns < 10_000_000 {
            std::thread::yield_now();
        }
        let memory = processes.memory();
        assert!(memory.resident >= memory.proportional && memory.proportional > 0);
        assert!(processes.descriptors() >= 4, "standard input and output of both");
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }
}
