//! Receiving: up to `BATCH` datagrams a system call into memory that is allocated once. Owns the buffers; must never hold
//! a datagram beyond the next call. Read `send.rs` next.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::ptr;

use super::{Socket, address};

/// Datagrams a system call: what a worker gets within some 100 us at full load.
const BATCH: usize = 64;
/// Bytes for each datagram: above what an Ethernet frame carries. A longer one is no media and is dropped.
pub const ROOM: usize = 2048;

/// Room for the one control message that is asked for, SO_RXQ_OVFL with its 32-bit count.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 32]);

pub struct Receiver {
    buffers: Box<[u8]>,
    addresses: Box<[libc::sockaddr_storage]>,
    controls: Box<[Control]>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    /// Headers that the kernel may have filled since they were prepared, from the first on.
    used: usize,
}

/// The outcome of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// How many datagrams `Receiver::datagram` has.
    pub count: usize,
    /// Whether the call was filled, so that there may be more.
    pub full: bool,
    /// Datagrams that the kernel has dropped since the last call, for want of room in the receive queue.
    pub kernel_drops: u32,
}

impl Default for Receiver {
    fn default() -> Receiver {
        // SAFETY: all zero is a valid `mmsghdr`: null pointers and lengths of zero.
        let header = unsafe { std::mem::zeroed::<libc::mmsghdr>() };
        Receiver {
            buffers: vec![0; BATCH * ROOM].into_boxed_slice(),
            addresses: vec![address::empty(); BATCH].into_boxed_slice(),
            controls: vec![Control([0; 32]); BATCH].into_boxed_slice(),
            vectors: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH].into_boxed_slice(),
            headers: vec![header; BATCH].into_boxed_slice(),
            used: BATCH,
        }
    }
}

impl Receiver {
    /// Receives what is ready, without waiting. A pending ICMP error of the socket is cleared and no error here: consent tells when a
    /// client is gone.
    pub fn receive(&mut self, socket: &mut Socket) -> io::Result<Received> {
        self.prepare();
        // SAFETY: `prepare` has pointed every header at buffers of `self`, which are boxed and stay where they are.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        self.used = usize::try_from(count).unwrap_or(0);
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EAGAIN) => Ok(Received { count: 0, full: false, kernel_drops: 0 }),
                Some(libc::EINTR | libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EMSGSIZE) => {
                    Ok(Received { count: 0, full: true, kernel_drops: 0 })
                }
                _ => Err(error),
            };
        };
        let overflows = self.headers[..count].last().and_then(|last| overflow_count(&last.msg_hdr));
        let kernel_drops = overflows.map_or(0, |overflows| socket.note_overflows(overflows));
        Ok(Received { count, full: count == BATCH, kernel_drops })
    }

    /// The `i`-th datagram of the last call; `None` when it is empty or longer than `ROOM`.
    pub fn datagram(&mut self, i: usize) -> Option<(SocketAddr, &mut [u8])> {
        let header = &self.headers[i];
        let len = header.msg_len as usize;
        if len == 0 || len > ROOM || header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        let remote = address::decode(&self.addresses[i])?;
        Some((remote, &mut self.buffers[i * ROOM..i * ROOM + len]))
    }

    /// Points headers at their buffers, those that the last call filled anew: the kernel overwrote their lengths. A call that
    /// fails fills none (recvmmsg writes a header when its datagram is whole).
    fn prepare(&mut self) {
        for (i, buffer) in self.buffers.chunks_exact_mut(ROOM).enumerate().take(self.used) {
            self.vectors[i] = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: ROOM };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = (&raw mut self.addresses[i]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut self.vectors[i];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[i]).cast();
            header.msg_controllen = size_of::<Control>() as _;
            header.msg_flags = 0;
        }
    }
}

/// The kernel's running count of dropped datagrams; it comes only once there are any.
fn overflow_count(header: &libc::msghdr) -> Option<u32> {
    // SAFETY: the kernel filled the header's control buffer and set its length; these walk within that length.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = control.as_ref() {
            if message.cmsg_level == libc::SOL_SOCKET && message.cmsg_type == libc::SO_RXQ_OVFL {
                return Some(libc::CMSG_DATA(control).cast::<u32>().read_unaligned());
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn pair(ip: &str) -> (UdpSocket, Socket, SocketAddr) {
        let ours = UdpSocket::bind((ip, 0)).expect("loopback");
        let theirs = UdpSocket::bind((ip, 0)).expect("loopback");
        let to = ours.local_addr().expect("bound");
        // The Socket has a descriptor of its own: `ours` may go.
        (theirs, Socket::share(ours.as_raw_fd()).expect("open"), to)
    }

    #[test]
    fn datagrams_come_in_order_with_their_source() {
        for ip in ["127.0.0.1", "::1"] {
            let (client, mut socket, to) = pair(ip);
            for n in 0..100u8 {
                client.send_to(&vec![n; usize::from(n) + 1], to).expect("loopback");
            }
            let mut receiver = Receiver::default();
            let mut next = 0u8;
            loop {
                let received = receiver.receive(&mut socket).expect("open");
                for i in 0..received.count {
                    let (remote, datagram) = receiver.datagram(i).expect("neither empty nor long");
                    assert_eq!(remote, client.local_addr().expect("bound"));
                    assert_eq!(datagram, vec![next; usize::from(next) + 1]);
                    next += 1;
                }
                if !received.full {
                    break;
                }
            }
            assert_eq!(next, 100);
        }
    }

    #[test]
    fn what_is_empty_or_too_long_is_left_out() {
        let (client, mut socket, to) = pair("127.0.0.1");
        for len in [0, ROOM + 1, ROOM] {
            client.send_to(&vec![7; len], to).expect("loopback");
        }
        let mut receiver = Receiver::default();
        assert_eq!(receiver.receive(&mut socket).expect("open").count, 3);
        assert!(receiver.datagram(0).is_none() && receiver.datagram(1).is_none());
        assert_eq!(receiver.datagram(2).map(|(_, datagram)| datagram.len()), Some(ROOM));
    }

    #[test]
    fn an_idle_socket_gives_nothing_at_once() {
        let (_client, mut socket, _) = pair("127.0.0.1");
        let received = Receiver::default().receive(&mut socket).expect("open");
        assert_eq!(received, Received { count: 0, full: false, kernel_drops: 0 });
    }

    #[test]
    fn datagrams_that_the_kernel_drops_are_counted() {
        let (client, mut socket, to) = pair("127.0.0.1");
        super::super::set_option(&socket.fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 4096).expect("a small queue");
        let mut receiver = Receiver::default();
        let (mut sent, mut received, mut dropped) = (0, 0, 0);
        for _ in 0..2 {
            for _ in 0..200 {
                client.send_to(&[1; 1000], to).expect("loopback");
                sent += 1;
            }
            loop {
                let batch = receiver.receive(&mut socket).expect("open");
                received += batch.count;
                dropped += batch.kernel_drops as usize;
                if !batch.full {
                    break;
                }
            }
            // A drop is told with the next datagram that does fit.
            client.send_to(&[2], to).expect("loopback");
            sent += 1;
            let batch = receiver.receive(&mut socket).expect("open");
            received += batch.count;
            dropped += batch.kernel_drops as usize;
        }
        assert!(dropped > 0);
        assert_eq!(received + dropped, sent);

        let successor = Socket::share(socket.as_raw_fd()).expect("open");
        assert_eq!(successor.overflows, socket.overflows, "a successor does not count them again");
    }
}
