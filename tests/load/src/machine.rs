//! Pins threads to cores, raises the limit of open files, kills a process. Owns those system calls; must never know why. Read
//! `processes.rs` next.

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill as send_signal};
use nix::unistd::Pid;

/// Pins the calling thread, and what it starts later, to one core.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).with_context(|| format!("there is no core {cpu}"))?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("core {cpu} cannot be used"))
}

/// Kills a process that was just found among the server's children.
pub fn kill(pid: libc::pid_t) -> Result<()> {
    send_signal(Pid::from_raw(pid), Signal::SIGKILL).context("kill")
}

/// Has this thread not preempt a running one when it wakes: it runs when others sleep, or have had their share.
pub fn yield_to_others() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: one parameter to read. Any thread may ask for less than it has.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
}

/// The cores that this process may run on.
pub fn cores() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
}

/// One socket for each viewer: lets this process have as many files as the hard limit allows.
pub fn raise_file_limit() -> u64 {
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
    match setrlimit(Resource::RLIMIT_NOFILE, most, most) {
        Ok(()) => most,
        Err(_) => now,
    }
}
