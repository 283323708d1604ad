//! How a worker's threads share their core: the engine runs first, then handshakes, then the control plane. Owns the requests to the
//! scheduler; must never take a priority that other programs of the box would notice. Read `workers/scheduling.py` next, the control
//! plane's part.

use std::mem;

/// The shortest slice that Linux grants (6.12 and later). A thread with a shorter slice than the running one gets the core
/// when it wakes, if it has not had more than its share; with equal slices it waits for the other one's to end, or for the
/// next tick, up to 4 ms at 250 Hz.
const SLICE_NS: u64 = 100_000;

/// The slice of handshakes: long enough for a step, and shorter than the usual slice, which the control plane has.
const STEP_SLICE_NS: u64 = 1_000_000;
/// The nice value of handshakes: a third of the engine's weight, as the control plane has. More handshakes than that wait for each other.
const STEP_NICE: i32 = 5;

/// Has this thread preempt the running one when it wakes. It gets no more time in all than without.
pub fn preempt_on_wake() {
    ask_for(SLICE_NS, 0);
}

/// Has this thread be preempted by one that called `preempt_on_wake`.
pub fn lower_priority() {
    ask_for(STEP_SLICE_NS, STEP_NICE);
}

/// Sets slice and nice value. Older kernels ignore the slice and sandboxes may refuse the call; a policy that the operator chose for the
/// server is left as it is.
fn ask_for(slice_ns: u64, nicer: i32) {
    // SAFETY: all zero is a valid value of this struct of integers.
    let mut attributes = unsafe { mem::zeroed::<libc::sched_attr>() };
    let size = mem::size_of_val(&attributes) as libc::c_uint;
    // SAFETY: the struct is writable and has the size that is given; 0 is the calling thread.
    let known = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if known == 0 && attributes.sched_policy == libc::SCHED_OTHER as u32 {
        attributes.size = size;
        attributes.sched_runtime = slice_ns;
        attributes.sched_nice += nicer;
        // SAFETY: as above, and the kernel only reads it.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice_ns() -> u64 {
        // SAFETY: all zero is a valid value of this struct of integers.
        let mut attributes = unsafe { mem::zeroed::<libc::sched_attr>() };
        let size = mem::size_of_val(&attributes);
        // SAFETY: the struct is writable and has the size that is given; 0 is the calling thread.
        unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
        attributes.sched_runtime
    }

    #[test]
    fn a_thread_gets_the_short_slice_where_there_are_slices() {
        let before = slice_ns();
        preempt_on_wake();
        // Kernels before 6.12 report none.
        assert_eq!(slice_ns(), if before == 0 { 0 } else { SLICE_NS });
    }

    #[test]
    fn a_thread_keeps_its_policy_and_its_nice_value() {
        let own = || {
            // SAFETY: neither has a pointer; 0 is the calling thread.
            unsafe { (libc::sched_getscheduler(0), libc::getpriority(libc::PRIO_PROCESS, 0)) }
        };
        let before = own();
        preempt_on_wake();
        assert_eq!(own(), before);
    }

    #[test]
    fn a_thread_of_lower_priority_is_still_in_the_usual_policy() {
        let nice = || {
            // SAFETY: no pointer; 0 is the calling thread.
            unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
        };
        let before = nice();
        let slices = slice_ns() > 0;
        lower_priority();
        assert_eq!(nice(), (before + STEP_NICE).min(19));
        assert_eq!(slice_ns(), if slices { STEP_SLICE_NS } else { 0 });
    }
}
