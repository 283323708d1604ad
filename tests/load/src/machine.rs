//! Which core a thread runs on, how many files it may open, who is ended. Owns those system calls; must never know why. Read
//! `processes.rs` next.

use anyhow::{Result, ensure};

/// Keeps the calling thread, and what it starts later, on one core.
pub fn pin(cpu: usize) -> Result<()> {
    // SAFETY: a set of bits that is all zero is an empty set; CPU_SET stays within it.
    let result = unsafe {
        let mut set = std::mem::zeroed::<libc::cpu_set_t>();
        ensure!(cpu < 8 * size_of::<libc::cpu_set_t>(), "there is no core {cpu}");
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    ensure!(result == 0, "core {cpu} cannot be used: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Ends a process that was found among the server's children a moment ago.
pub fn kill(pid: libc::pid_t) -> Result<()> {
    // SAFETY: no memory is passed.
    let result = unsafe { libc::kill(pid, libc::SIGKILL) };
    ensure!(result == 0, "kill: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Has this thread not interrupt those that are at work when it wakes: it comes when they sleep, or have had their share.
pub fn yield_to_others() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: one parameter to read. Any thread may ask for less than it has.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
}

/// The cores that this process may run on.
pub fn cores() -> Vec<usize> {
    // SAFETY: as above; the kernel fills the set.
    unsafe {
        let mut set = std::mem::zeroed::<libc::cpu_set_t>();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
        (0..8 * size_of::<libc::cpu_set_t>()).filter(|cpu| libc::CPU_ISSET(*cpu, &set)).collect()
    }
}

/// One socket for each viewer: lets this process have as many files as the hard limit allows.
pub fn raise_file_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: one limit to write, then to read.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
    limit.rlim_cur
}
