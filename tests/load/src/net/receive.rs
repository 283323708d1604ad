//! Receiving: what one socket holds, in one system call, with the kernel's time of arrival. Owns the buffers; must never
//! wait. Read `../world.rs` next.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::ptr;

/// Datagrams that one call receives: four frames of a video stream.
const MESSAGES: usize = 32;
/// The longest datagram that a relay sends is below this.
const ROOM: usize = 2048;
/// With UDP_GRO a message is up to 64 segments.
const GRO_MESSAGES: usize = 8;
const GRO_ROOM: usize = 65_536;

/// Room for a timespec and a segment size.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

/// The buffers of one call, used for one socket after the other.
pub struct Batch {
    room: usize,
    buffers: Box<[u8]>,
    controls: Box<[Control]>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    count: usize,
}

/// One datagram of a batch.
pub struct Datagram<'a> {
    pub bytes: &'a mut [u8],
    /// When it came to the socket, if the socket has stamps.
    pub stamp: Option<u64>,
}

impl Batch {
    pub fn new(gro: bool) -> Batch {
        let (messages, room) = if gro { (GRO_MESSAGES, GRO_ROOM) } else { (MESSAGES, ROOM) };
        // SAFETY: all zero is a valid `mmsghdr`: null pointers and lengths of zero.
        let header = unsafe { std::mem::zeroed::<libc::mmsghdr>() };
        let mut batch = Batch {
            room,
            buffers: vec![0; messages * room].into_boxed_slice(),
            controls: vec![Control([0; 64]); messages].into_boxed_slice(),
            vectors: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; messages].into_boxed_slice(),
            headers: vec![header; messages].into_boxed_slice(),
            count: 0,
        };
        for (i, buffer) in batch.buffers.chunks_exact_mut(room).enumerate() {
            batch.vectors[i] = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: room };
            let header = &mut batch.headers[i].msg_hdr;
            // The boxes' contents stay where they are when `batch` moves.
            header.msg_iov = &raw mut batch.vectors[i];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut batch.controls[i]).cast();
        }
        batch
    }

    /// Receives what the socket holds, at most a batch, and returns how many messages. An error counts as none.
    pub fn receive(&mut self, socket: &UdpSocket) -> usize {
        for header in &mut self.headers {
            header.msg_hdr.msg_controllen = size_of::<Control>() as _;
        }
        // SAFETY: every header points at buffers of `self`, which outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        self.count = usize::try_from(count).unwrap_or(0);
        self.count
    }

    /// True when the last call was filled, so that there may be more.
    pub fn is_full(&self) -> bool {
        self.count == self.headers.len()
    }

    /// Passes on each datagram of the last call, in order.
    pub fn each(&mut self, mut take: impl FnMut(Datagram<'_>)) {
        for (header, buffer) in self.headers[..self.count].iter().zip(self.buffers.chunks_exact_mut(self.room)) {
            let len = (header.msg_len as usize).min(self.room);
            let (stamp, segment) = control(&header.msg_hdr);
            for bytes in buffer[..len].chunks_mut(segment.unwrap_or(len).max(1)) {
                take(Datagram { bytes, stamp });
            }
        }
    }
}

/// The time of arrival and the segment size, where the kernel gave them.
fn control(header: &libc::msghdr) -> (Option<u64>, Option<usize>) {
    let (mut stamp, mut segment) = (None, None);
    // SAFETY: the kernel filled the control buffer and set its length; these walk within that length, and the types are
    // those that the kernel documents for the two messages.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = at.as_ref() {
            match (message.cmsg_level, message.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time = libc::CMSG_DATA(at).cast::<libc::timespec>().read_unaligned();
                    stamp = Some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64);
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size = libc::CMSG_DATA(at).cast::<libc::c_int>().read_unaligned();
                    segment = usize::try_from(size).ok();
                }
                _ => {}
            }
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
    (stamp, segment)
}
