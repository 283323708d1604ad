//! Writes the stack traces of the engine's and the handshakes' thread when the process is aborted. Python writes those of its own
//! threads and does not know ours. Owns the SIGABRT handler that runs before Python's; must never keep the process from ending. Read `master/start/spawn.py` next, where Python's handler comes from.
//!
//! ```text
//! SIGABRT ─► any other thread: sends ours the same signal, waits ─► the handler before ours: Python's traceback
//!        └─► one of ours: writes its stack ─► returns when it was asked to write, else the handler before ours
//! ```

use std::backtrace::Backtrace;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// How long to wait for both threads together. Reading a library's line tables takes some ten milliseconds. A thread that was interrupted
/// while it held a lock of the allocator never answers.
const PATIENCE: Duration = Duration::from_millis(1_500);
const LOOK: Duration = Duration::from_millis(2);

/// A thread that Python does not know.
#[derive(Clone, Copy)]
pub enum Ours {
    Engine,
    Handshakes,
}

struct Watched {
    name: &'static str,
    /// The kernel's number of the thread; 0 while there is none.
    id: AtomicI32,
    has_written: AtomicBool,
}

impl Watched {
    const fn new(name: &'static str) -> Watched {
        Watched { name, id: AtomicI32::new(0), has_written: AtomicBool::new(false) }
    }
}

/// By `Ours`.
static THREADS: [Watched; 2] = [Watched::new("the engine's thread"), Watched::new("the handshakes' thread")];
static ASKED: AtomicBool = AtomicBool::new(false);
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Registers the calling thread as this one of ours, until it is dropped.
pub struct Traced(Ours);

impl Traced {
    pub fn new(which: Ours) -> Traced {
        install();
        THREADS[which as usize].id.store(this_thread(), SeqCst);
        Traced(which)
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // Another engine of the same process may have registered since: tests have several.
        let _ = THREADS[self.0 as usize].id.compare_exchange(this_thread(), 0, SeqCst, SeqCst);
    }
}

/// Installs our handler before the present one, once.
fn install() {
    BEFORE.get_or_init(|| {
        let handler: extern "C" fn(libc::c_int) = on_abort;
        // SAFETY: an all-zero sigaction is a valid one; both calls get initialised memory. The old one is written by the
        // kernel, and stays all zero, the default, should the call fail.
        unsafe {
            let mut ours = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            let mut before = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            ours.sa_sigaction = handler as usize;
            libc::sigemptyset(&raw mut ours.sa_mask);
            libc::sigaction(libc::SIGABRT, &raw const ours, &raw mut before);
            before
        }
    });
}

extern "C" fn on_abort(_signal: libc::c_int) {
    if let Some(own) = THREADS.iter().find(|thread| thread.id.load(SeqCst) == this_thread()) {
        write_stack(own);
        own.has_written.store(true, SeqCst);
        if ASKED.load(SeqCst) {
            return;
        }
    } else if !ASKED.swap(true, SeqCst) {
        ask_ours();
    }
    go_on();
}

/// Signals our threads one after the other, and waits until each has written its stack.
fn ask_ours() {
    let mut waited = Duration::ZERO;
    for thread in THREADS.iter().filter(|thread| thread.id.load(SeqCst) != 0) {
        // SAFETY: plain system calls without pointers. A thread that has ended meanwhile makes the second one fail.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread.id.load(SeqCst), libc::SIGABRT) };
        while !thread.has_written.load(SeqCst) && waited < PATIENCE {
            std::thread::sleep(LOOK);
            waited += LOOK;
        }
        if !thread.has_written.load(SeqCst) {
            write(&format!("{} did not write its stack\n", thread.name));
        }
    }
}

/// Passes the signal to the handler before ours, as soon as this one returns: SIGABRT is blocked until then.
fn go_on() {
    // All zero is the default action, which ends the process.
    let before = BEFORE.get().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: a sigaction that the kernel has written, or null, by which nothing changes.
    unsafe {
        libc::sigaction(libc::SIGABRT, before, ptr::null_mut());
        libc::raise(libc::SIGABRT);
    }
}

/// Writes this thread's stack. It allocates, which a signal handler should not: but the process is ending, and the wait for it is bounded.
fn write_stack(own: &Watched) {
    write(&format!("Stack of {}:\n{}\n", own.name, Backtrace::force_capture()));
}

/// Standard error is where panics and Python's tracebacks go. What has no room there is left out, as this process must end.
fn write(text: &str) {
    for piece in text.as_bytes().chunks(libc::PIPE_BUF) {
        let mut room = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
        // SAFETY: one initialised pollfd, and a readable range.
        unsafe {
            if libc::poll(&raw mut room, 1, 0) != 1 {
                return;
            }
            libc::write(libc::STDERR_FILENO, piece.as_ptr().cast(), piece.len());
        }
    }
}

fn this_thread() -> libc::c_int {
    // SAFETY: plain system call without pointers.
    unsafe { libc::gettid() }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Output};
    use std::sync::mpsc::{Sender, channel};
    use std::thread;

    use super::*;

    #[inline(never)]
    fn loops_for_ever(ready: &Sender<()>) {
        // From here on the stack has this function in it.
        ready.send(()).expect("somebody waits");
        while black_box(true) {
            std::hint::spin_loop();
        }
    }

    #[inline(never)]
    fn waits_for_ever() {
        while black_box(true) {
            thread::park();
        }
    }

    /// Only run by the tests below, in a process of its own.
    #[test]
    #[ignore = "takes its process down"]
    fn aborted_while_it_loops() {
        let (ready, is_ready) = channel();
        thread::spawn(move || {
            let _traced = Traced::new(Ours::Engine);
            loops_for_ever(&ready);
        });
        is_ready.recv().expect("it runs");
        let (ready, is_ready) = channel();
        thread::spawn(move || {
            let _traced = Traced::new(Ours::Handshakes);
            ready.send(()).expect("somebody waits");
            waits_for_ever();
        });
        is_ready.recv().expect("it runs");
        // SAFETY: plain system call without pointers.
        unsafe { libc::kill(libc::getpid(), libc::SIGABRT) };
        thread::sleep(Duration::from_secs(20));
    }

    #[test]
    #[ignore = "takes its process down"]
    fn aborted_after_its_end() {
        thread::spawn(|| drop(Traced::new(Ours::Engine))).join().expect("it ends");
        std::process::abort();
    }

    fn run(test: &str) -> Output {
        let this = std::env::current_exe().expect("a test binary");
        let test = format!("crash_traces::tests::{test}");
        let arguments = [test.as_str(), "--exact", "--ignored", "--nocapture"];
        Command::new(this).args(arguments).output().expect("it runs")
    }

    #[test]
    fn an_aborted_process_says_where_its_threads_are_and_ends() {
        let output = run("aborted_while_it_loops");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("Stack of the engine's thread:"), "{stderr}");
        assert!(stderr.contains("loops_for_ever"), "{stderr}");
        assert!(stderr.contains("Stack of the handshakes' thread:") && stderr.contains("waits_for_ever"), "{stderr}");
    }

    #[test]
    fn without_an_engine_it_just_ends() {
        let output = run("aborted_after_its_end");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT));
        assert!(!String::from_utf8_lossy(&output.stderr).contains("engine's thread"));
    }
}
