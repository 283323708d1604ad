//! UDP in batches: many datagrams a system call, both ways. Owns the sockets and the buffers that the kernel fills and
//! empties; must never look into a datagram nor wait. Read `udp/receive.rs` and `udp/send.rs` next.

mod address;
mod receive;
mod send;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub use address::{decode as decode_address, empty as empty_address};
pub use receive::Receiver;
pub use send::{Sender, Sent};

/// Index of the drops in SO_MEMINFO's array (SK_MEMINFO_DROPS).
const MEMINFO_DROPS: usize = 8;

/// One bound UDP socket, which the master has, too.
pub struct Socket {
    fd: OwnedFd,
    /// The kernel's own count of datagrams that did not fit the receive queue, as last seen.
    overflows: u32,
}

impl Socket {
    /// Takes a descriptor of its own, so that the caller may close its one at any time.
    pub fn share(fd: RawFd) -> io::Result<Socket> {
        let fd = duplicate(fd)?;
        // The kernel then tells with each datagram how many it has dropped before.
        set_option(&fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
        // The count outlives workers, as the master has the socket open: a successor starts from its present value.
        let overflows = overflows_so_far(&fd).unwrap_or(0);
        Ok(Socket { fd, overflows })
    }

    /// How many datagrams the kernel dropped since it was last asked, given its running count.
    fn note_overflows(&mut self, count: u32) -> u32 {
        let new = count.wrapping_sub(self.overflows);
        self.overflows = count;
        new
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// A second descriptor of the same open file, closed on exec.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: plain system call; a descriptor that is not open comes back as EBADF.
    let own = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if own < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `own` was just opened and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(own) })
}

/// The kernel's count of dropped datagrams, by SO_MEMINFO.
fn overflows_so_far(fd: &OwnedFd) -> Option<u32> {
    let mut figures = [0u32; MEMINFO_DROPS + 1];
    let mut size = size_of_val(&figures) as libc::socklen_t;
    // SAFETY: the array is writable and its size is given; the kernel writes no more than that.
    let result = unsafe {
        let out = figures.as_mut_ptr().cast();
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, out, &raw mut size)
    };
    (result == 0).then_some(figures[MEMINFO_DROPS])
}

pub fn set_option(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value outlives the call and its size is given.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
