//! epoll, and the clock of the engine's thread. Owns the epoll descriptor; must never know what a token stands for. Read `reactor.rs` next.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use millrace_core::time::{Span, Time};

/// Descriptors that one wait reports; the rest is reported by the next.
const BATCH: usize = 32;

pub struct Poll {
    epoll: OwnedFd,
    events: [libc::epoll_event; BATCH],
    /// Linux 5.11 has waits of nanosecond precision; before it, a wait is rounded up to milliseconds.
    precise: bool,
}

impl Poll {
    pub fn new() -> io::Result<Poll> {
        // SAFETY: plain system call without pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and nothing else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Poll { epoll, events: [libc::epoll_event { events: 0, u64: 0 }; BATCH], precise: true })
    }

    /// Reports `token` whenever `fd` is readable.
    pub fn add(&self, fd: RawFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN, token)
    }

    /// As `add`, for a descriptor that other workers wait for, too: one of those that wait is woken, if any does.
    pub fn add_shared(&self, fd: RawFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN | libc::EPOLLEXCLUSIVE, token)
    }

    /// Reports `token` from now on when `fd` is readable, and with `writable` when it is that, too.
    pub fn watch(&self, fd: RawFd, token: u64, writable: bool) -> io::Result<()> {
        let events = libc::EPOLLIN | if writable { libc::EPOLLOUT } else { 0 };
        self.control(libc::EPOLL_CTL_MOD, fd, events, token)
    }

    /// Reports nothing of `fd` any more. A descriptor that is open elsewhere, too, needs this before it is closed.
    pub fn remove(&self, fd: RawFd) {
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, events: libc::c_int, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        // SAFETY: the event outlives the call.
        let result = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The tokens of what is readable now or within `span`; none when it passed, or a signal came.
    pub fn wait(&mut self, span: Span) -> impl Iterator<Item = u64> + use<> {
        let count = self.call(span);
        let events = self.events;
        (0..count).map(move |i| events[i].u64)
    }

    fn call(&mut self, span: Span) -> usize {
        let (fd, events) = (self.epoll.as_raw_fd(), self.events.as_mut_ptr());
        if self.precise {
            let timeout = libc::timespec {
                tv_sec: (span.0 / 1_000_000) as libc::time_t,
                tv_nsec: (span.0 % 1_000_000 * 1_000) as libc::c_long,
            };
            // SAFETY: `events` has room for `BATCH` entries, the timeout outlives the call, the mask may be null.
            let count = unsafe { libc::epoll_pwait2(fd, events, BATCH as libc::c_int, &timeout, ptr::null()) };
            if let Ok(count) = usize::try_from(count) {
                return count;
            }
            if io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS) {
                return 0;
            }
            self.precise = false;
        }
        let timeout = span.0.div_ceil(1_000).min(1_000) as libc::c_int;
        // SAFETY: as above.
        usize::try_from(unsafe { libc::epoll_wait(fd, events, BATCH as libc::c_int, timeout) }).unwrap_or(0)
    }
}

/// The box's monotonic clock.
pub fn now() -> Time {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one writable timespec; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Time(time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bell::Bell;

    #[test]
    fn what_rings_is_reported_until_it_is_silenced() {
        let (mut poll, bell) = (Poll::new().expect("epoll"), Bell::new().expect("eventfd"));
        poll.add(bell.as_raw_fd(), 9).expect("open");
        for precise in [true, false] {
            poll.precise = precise;
            assert_eq!(poll.wait(Span(0)).count(), 0);
            bell.ring();
            bell.ring();
            assert_eq!(poll.wait(Span(1_000_000)).collect::<Vec<_>>(), [9]);
            assert_eq!(poll.wait(Span(0)).collect::<Vec<_>>(), [9]);
            bell.silence();
            assert_eq!(poll.wait(Span(0)).count(), 0);
        }
    }

    #[test]
    fn a_wait_is_not_shorter_than_asked() {
        let mut poll = Poll::new().expect("epoll");
        for precise in [true, false] {
            poll.precise = precise;
            let before = now();
            assert_eq!(poll.wait(Span(3_000)).count(), 0);
            assert!(now().since(before) >= Span(3_000));
        }
    }
}
