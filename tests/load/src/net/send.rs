//! Sending many datagrams in one system call, singly or as GSO sends: for publishers, and to measure what the kernel
//! itself can do. Owns the headers; must never know what it sends. Read `../raw.rs` next.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use socket2::SockAddr;

/// First byte of the datagrams of the raw measurement: in no protocol's range of RFC 7983.
pub const RAW: u8 = 0xff;
/// Messages a call, as the relay's own sender.
const BATCH: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 24]);

/// A list of messages, whose bytes are passed to `send`.
#[derive(Default)]
pub struct Messages {
    list: Vec<Message>,
}

struct Message {
    to: SockAddr,
    start: usize,
    len: usize,
    /// The size of each datagram of a GSO send.
    segment: Option<u16>,
}

impl Messages {
    /// All of `bytes` to one address, in datagrams of `size`, the last one perhaps smaller.
    pub fn add(&mut self, to: SocketAddr, bytes: &[u8], size: usize, segmented: bool) {
        if segmented && bytes.len() > size {
            let segment = u16::try_from(size).ok();
            self.list.push(Message { to: to.into(), start: 0, len: bytes.len(), segment });
            return;
        }
        for start in (0..bytes.len()).step_by(size.max(1)) {
            self.add_range(to, start, size.min(bytes.len() - start));
        }
    }

    /// One datagram.
    pub fn add_range(&mut self, to: SocketAddr, start: usize, len: usize) {
        self.list.push(Message { to: to.into(), start, len, segment: None });
    }

    // There is no `is_empty`, as nothing calls it.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Sends all messages, and returns how many went out before one was refused, if one was.
    pub fn send(&self, socket: &UdpSocket, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        for part in self.list.chunks(BATCH) {
            let mut done = 0;
            while done < part.len() {
                match call(socket, &part[done..], bytes) {
                    Ok(count) => done += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // A pending ICMP error, which the call has cleared.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(sent + done),
                    Err(error) => return Err(error),
                }
            }
            sent += done;
        }
        Ok(sent)
    }
}

fn call(socket: &UdpSocket, part: &[Message], bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: all zero is a valid `mmsghdr`.
    let mut headers = [unsafe { std::mem::zeroed::<libc::mmsghdr>() }; BATCH];
    let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
    let mut controls = [Control([0; 24]); BATCH];
    for (i, message) in part.iter().enumerate() {
        let piece = &bytes[message.start..message.start + message.len];
        vectors[i] = libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
        let header = &mut headers[i].msg_hdr;
        header.msg_name = message.to.as_ptr().cast_mut().cast();
        header.msg_namelen = message.to.len();
        header.msg_iov = &raw mut vectors[i];
        header.msg_iovlen = 1;
        if let Some(size) = message.segment {
            header.msg_control = (&raw mut controls[i]).cast();
            header.msg_controllen = size_of::<Control>() as _;
            // SAFETY: the header points at a `Control`, aligned and large enough for one message of two bytes.
            unsafe {
                let control = libc::CMSG_FIRSTHDR(header);
                (*control).cmsg_level = libc::SOL_UDP;
                (*control).cmsg_type = libc::UDP_SEGMENT;
                (*control).cmsg_len = libc::CMSG_LEN(2) as _;
                libc::CMSG_DATA(control).cast::<u16>().write_unaligned(size);
            }
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: headers, vectors, controls, addresses and bytes all outlive the call, which only reads them.
    let count =
        unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), part.len() as libc::c_uint, flags as _) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
