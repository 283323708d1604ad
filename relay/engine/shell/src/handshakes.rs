//! The thread that runs the steps of DTLS handshakes. A step takes half a millisecond or more, and media must not wait for it. Owns
//! the queues there and back; must never see a packet. Read the core's `transport/dtls/step.rs` for a step, `scheduling.rs` for how
//! the two threads share a core.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use millrace_core::time::{Span, Time};
use millrace_core::transport::{Step, Stepped};

use crate::bell::Bell;
use crate::crash_traces::{Ours, Traced};
use crate::scheduling;
use crate::thread::or_abort;

/// A thread that finishes no step for this long hangs. Even a starved one finishes a step sooner.
const PATIENCE: Span = Span::from_secs(5);

/// The engine's end. There are never more steps under way than handshakes, so that the channels need no bound of their own.
pub struct Handshakes<I = Step, O = Stepped> {
    /// `None` once the thread is to end.
    steps: Option<Sender<I>>,
    done: Receiver<O>,
    bell: Bell,
    under_way: usize,
    /// When the thread last finished a step, or began to have one.
    progressed_at: Time,
    thread: Option<JoinHandle<()>>,
}

impl Handshakes {
    pub fn start() -> io::Result<Handshakes> {
        Handshakes::start_with(Step::run)
    }
}

impl<I: Send + 'static, O: Send + 'static> Handshakes<I, O> {
    fn start_with(run: fn(I) -> O) -> io::Result<Handshakes<I, O>> {
        let (steps, to_run) = channel();
        let (finished, done) = channel();
        let bell = Bell::new()?;
        let rings = Bell::share(bell.as_raw_fd())?;
        let work = move || {
            scheduling::lower_priority();
            let _traced = Traced::new(Ours::Handshakes);
            while let Ok(step) = to_run.recv() {
                if finished.send(run(step)).is_err() {
                    return;
                }
                rings.ring();
            }
        };
        let thread = Builder::new().name("handshakes".to_owned()).spawn(|| or_abort(work))?;
        Ok(Handshakes { steps: Some(steps), done, bell, under_way: 0, progressed_at: Time(0), thread: Some(thread) })
    }

    /// Readable when `next_done` may return an outcome.
    pub fn fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// To be called when `fd` is readable, before the outcomes are taken.
    pub fn silence(&self) {
        self.bell.silence();
    }

    pub fn begin(&mut self, now: Time, step: I) {
        if self.under_way == 0 {
            self.progressed_at = now;
        }
        if self.steps.as_ref().is_some_and(|steps| steps.send(step).is_ok()) {
            self.under_way += 1;
        }
    }

    pub fn next_done(&mut self, now: Time) -> Option<O> {
        let done = self.done.try_recv().ok()?;
        self.under_way -= 1;
        self.progressed_at = now;
        Some(done)
    }

    /// True when steps are under way and none has been finished for `PATIENCE`.
    pub fn is_stuck(&self, now: Time) -> bool {
        self.under_way > 0 && now.since(self.progressed_at) > PATIENCE
    }
}

impl<I, O> Drop for Handshakes<I, O> {
    /// Waits for the step under way, because OpenSSL must not be torn down beside it, and not for the steps behind it.
    fn drop(&mut self) {
        self.steps = None;
        // The thread ends when it cannot send an outcome any more.
        self.done = channel().1;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::SeqCst;
    use std::time::Duration;

    use super::*;

    const START: Time = Time(1_000_000);

    fn until_readable(fd: RawFd) {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry.
        assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 10_000) }, 1);
    }

    fn until_done(handshakes: &mut Handshakes<u32, u32>, now: Time) -> u32 {
        loop {
            if let Some(done) = handshakes.next_done(now) {
                return done;
            }
            until_readable(handshakes.fd());
            handshakes.silence();
        }
    }

    #[test]
    fn steps_are_run_in_order_and_each_outcome_rings() {
        let mut handshakes = Handshakes::start_with(|step: u32| step * 2).expect("a thread");
        for step in 0..100 {
            handshakes.begin(START, step);
        }
        for step in 0..100 {
            assert_eq!(until_done(&mut handshakes, START), step * 2);
        }
        assert_eq!(handshakes.next_done(START), None);
    }

    #[test]
    fn a_thread_without_work_is_not_stuck_and_one_that_gets_on_neither() {
        let slow = |step: u32| {
            std::thread::sleep(Duration::from_millis(u64::from(step)));
            step
        };
        let mut handshakes = Handshakes::start_with(slow).expect("a thread");
        let late = START + PATIENCE + Span::from_millis(1);
        assert!(!handshakes.is_stuck(late), "it has nothing to do");
        handshakes.begin(START, 0);
        handshakes.begin(START, 200);
        assert!(!handshakes.is_stuck(START + PATIENCE));
        assert!(handshakes.is_stuck(late));
        assert_eq!(until_done(&mut handshakes, late), 0);
        assert!(!handshakes.is_stuck(late), "one of two is done");
        assert_eq!(until_done(&mut handshakes, late), 200);
        assert!(!handshakes.is_stuck(late + PATIENCE + PATIENCE));
    }

    #[test]
    fn what_is_under_way_is_waited_for_and_what_waits_is_not() {
        static RUN: AtomicU32 = AtomicU32::new(0);
        let slow = |step: u32| {
            std::thread::sleep(Duration::from_millis(20));
            RUN.fetch_add(1, SeqCst);
            step
        };
        let mut handshakes = Handshakes::start_with(slow).expect("a thread");
        for step in 0..1_000 {
            handshakes.begin(START, step);
        }
        until_done(&mut handshakes, START);
        drop(handshakes);
        let run = RUN.load(SeqCst);
        assert!((1..1_000).contains(&run), "{run} steps were run");
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!(RUN.load(SeqCst), run, "the thread has ended");
    }
}
