//! An eventfd, which stays readable from `ring` to `silence`. Owns the descriptor; must never carry a meaning.
//! Read `mailbox.rs` next.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::udp::duplicate;

pub struct Bell {
    fd: OwnedFd,
}

impl Bell {
    pub fn new() -> io::Result<Bell> {
        // SAFETY: plain system call without pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and nothing else owns it.
        Ok(Bell { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Another descriptor of an existing bell, such as another worker's.
    pub fn share(fd: RawFd) -> io::Result<Bell> {
        Ok(Bell { fd: duplicate(fd)? })
    }

    /// Makes the descriptor readable.
    pub fn ring(&self) {
        let one = 1u64;
        // SAFETY: eight readable bytes. The call fails only when the counter is full, and then the bell rings already.
        unsafe { libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }

    /// Makes it unreadable again. Only to be called while it is readable, as the descriptor may be a blocking one.
    pub fn silence(&self) {
        let mut count = 0u64;
        // SAFETY: eight writable bytes. The call fails only when the bell is silent already.
        unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
