//! Clocks: the one that protocols run on, the one that kernel and payload stamps share, and those of threads and
//! processes. Owns the system calls; must never decide what is due. Read `machine.rs` next.

use millrace_core::time::Time;
use nix::time::ClockId;
use nix::unistd::Pid;

/// The monotonic clock, as the engine's protocols want it.
pub fn now() -> Time {
    Time(read(ClockId::CLOCK_MONOTONIC).unwrap_or(0) / 1_000)
}

/// Nanoseconds on the clock that the kernel stamps received datagrams with.
pub fn stamp() -> u64 {
    read(ClockId::CLOCK_REALTIME).unwrap_or(0)
}

/// Nanoseconds of CPU that this thread has used.
pub fn thread_cpu() -> u64 {
    read(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap_or(0)
}

/// Nanoseconds of CPU, user and system, that a process's threads have used; `None` when there is no such process.
pub fn process_cpu(pid: i32) -> Option<u64> {
    read(ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).ok()?)
}

fn read(clock: ClockId) -> Option<u64> {
    let time = clock.now().ok()?;
    Some(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_cpu_and_a_missing_one_has_none() {
        let before = process_cpu(std::process::id() as i32).unwrap();
        let mut sum = 0u64;
        while process_cpu(std::process::id() as i32).unwrap() < before + 100_000 {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        assert!(thread_cpu() > 0 && sum > 0);
        // Above Linux's highest pid (PID_MAX_LIMIT).
        assert_eq!(process_cpu(5_000_000), None);
    }
}
