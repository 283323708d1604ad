//! Starts the engine's thread, ends it within a bounded time, and aborts the process when it panics. Must never touch a packet. Read `reactor.rs` next.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::crash_traces::{Ours, Traced};
use crate::scheduling;

/// How long the thread may take to end. A round takes milliseconds, so a thread that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(2);

pub struct Thread {
    handle: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    /// Closed when the thread has done its work.
    done: Receiver<()>,
}

impl Thread {
    /// Runs `work`, which is to end soon after `stop` is set, on a thread named `engine`.
    pub fn start(stop: Arc<AtomicBool>, work: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
        let (working, done) = channel::<()>();
        let handle = Builder::new().name("engine".to_owned()).spawn(move || {
            or_abort(|| {
                scheduling::preempt_on_wake();
                let _traced = Traced::new(Ours::Engine);
                work();
            });
            drop(working);
        })?;
        Ok(Thread { handle, stop, done })
    }

    /// Asks the thread to end, wakes it by `wake`, and waits; false when it did not end in time.
    pub fn stop(self, wake: impl FnOnce()) -> bool {
        self.stop.store(true, Relaxed);
        wake();
        match self.done.recv_timeout(PATIENCE) {
            Err(RecvTimeoutError::Timeout) => false,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => self.handle.join().is_ok(),
        }
    }
}

/// Runs a thread's work, and aborts the process when it panics; the panic's text is on stderr then. A worker without one of its threads
/// is of no use, and the master replaces it.
pub fn or_abort(work: impl FnOnce()) {
    block_signals();
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        process::abort();
    }
}

/// Blocks signals, which are Python's main thread's, except those that this thread causes itself and the master's SIGABRT.
fn block_signals() {
    // SAFETY: the set is initialised by `sigfillset` before it is used; the old mask is not asked for.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut set);
        for own in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT] {
            libc::sigdelset(&raw mut set, own);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_thread_ends_when_it_is_asked_to() {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let (waker, woken) = channel();
        let thread = Thread::start(stop, move || {
            while !asked.load(Relaxed) {
                woken.recv().expect("woken once");
            }
        })
        .expect("a thread");
        assert!(thread.stop(|| waker.send(()).expect("it waits")));
    }

    /// Only run by the test below, in a process of its own.
    #[test]
    #[ignore = "takes its process down"]
    fn panics() {
        let work = || panic!("the invariant that broke");
        let thread = Thread::start(Arc::new(AtomicBool::new(false)), work).expect("a thread");
        let _ = thread.handle.join();
    }

    #[test]
    fn a_panic_takes_the_process_down_and_says_why() {
        let this = std::env::current_exe().expect("a test binary");
        let arguments = ["thread::tests::panics", "--exact", "--ignored", "--nocapture"];
        let output = process::Command::new(this).args(arguments).output().expect("it runs");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("'engine'") && stderr.contains("the invariant that broke"), "{stderr}");
    }
}
