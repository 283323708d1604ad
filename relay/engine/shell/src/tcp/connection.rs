//! One TCP connection of a client: packets in frames (RFC 4571), both ways. Owns the descriptor and at most one frame that is not whole
//! yet in either direction; must never wait, nor queue a packet: the kernel's bounded buffer is the queue. Read `../tcp.rs` next.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;

use millrace_core::outbox::{Datagram, Path};
use millrace_core::time::Time;
use millrace_core::transport::framing::{self, HEADER, MAX_PACKET};

/// Packets a system call.
pub const BATCH: usize = 64;
/// Of the kernel, each way. Half a second at 4 Mbit/s: what does not fit comes too late to be of use. The kernel doubles it, for its own
/// records.
const SEND_BUFFER: libc::c_int = 256 * 1024;

pub struct Connection {
    fd: OwnedFd,
    pub path: Path,
    /// No valid check of a client of this worker has come, since when. Such a connection is closed soon.
    pub stranger_since: Option<Time>,
    /// How many workers have passed it on without a valid check.
    pub hops: u8,
    /// Of the frame that was sent in part, what is still to be sent.
    pub unsent: Vec<u8>,
    /// Of the frame that came in part, what has come.
    pub unread: Vec<u8>,
}

/// What became of some packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub packets: usize,
    pub bytes: usize,
    pub calls: usize,
}

impl Connection {
    pub fn new(fd: OwnedFd, path: Path, now: Time) -> Connection {
        for (level, option, value) in [
            // A packet must not wait for the acknowledgement of the one before.
            (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
            (libc::SOL_SOCKET, libc::SO_SNDBUF, SEND_BUFFER),
        ] {
            // Without them it works, with more delay.
            let _ = crate::udp::set_option(&fd, level, option, value);
        }
        Connection { fd, path, stranger_since: Some(now), hops: 0, unsent: Vec::new(), unread: Vec::new() }
    }

    /// Reads into `buffer`, without waiting. `WouldBlock` when nothing has come; 0 when the client has closed.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the buffer is writable and its length is given.
        let count =
            unsafe { libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Sends what is left of a frame; true when nothing is.
    pub fn finish_frame(&mut self) -> bool {
        if self.unsent.is_empty() {
            return true;
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the bytes are readable and their length is given.
        let count = unsafe { libc::send(self.fd.as_raw_fd(), self.unsent.as_ptr().cast(), self.unsent.len(), flags) };
        if let Ok(count) = usize::try_from(count) {
            self.unsent.drain(..count);
        }
        self.unsent.is_empty()
    }

    /// Sends up to `BATCH` packets, which index `bytes`, each as one frame. Those behind the first that does not fit are not sent, and a
    /// frame that fits in part is finished later: the client never sees half a frame.
    pub fn write(&mut self, datagrams: &[Datagram], bytes: &[u8]) -> Written {
        let datagrams = &datagrams[..datagrams.len().min(BATCH)];
        if !self.finish_frame() {
            return Written::default();
        }
        let mut headers = [[0; HEADER]; BATCH];
        let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; 2 * BATCH];
        for (i, datagram) in datagrams.iter().enumerate() {
            headers[i] = framing::header(datagram.len);
            let packet = &bytes[datagram.start..datagram.start + datagram.len];
            // The kernel only reads through these pointers, whatever their type says.
            vectors[2 * i] = libc::iovec { iov_base: headers[i].as_ptr().cast_mut().cast(), iov_len: HEADER };
            vectors[2 * i + 1] = libc::iovec { iov_base: packet.as_ptr().cast_mut().cast(), iov_len: packet.len() };
        }
        // SAFETY: all zero is a valid `msghdr`.
        let mut message = unsafe { std::mem::zeroed::<libc::msghdr>() };
        message.msg_iov = vectors.as_mut_ptr();
        message.msg_iovlen = (2 * datagrams.len()) as _;
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the vectors point at `headers` and `bytes`, which outlive the call, and their number is given.
        let count = unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const message, flags) };
        let Ok(mut count) = usize::try_from(count) else { return Written::default() };
        let mut written = Written { calls: 1, ..Written::default() };
        for (i, datagram) in datagrams.iter().enumerate() {
            let frame = HEADER + datagram.len;
            if count == 0 {
                break;
            }
            written.packets += 1;
            written.bytes += datagram.len;
            if count < frame {
                let packet = &bytes[datagram.start..datagram.start + datagram.len];
                self.unsent.extend(headers[i].iter().chain(packet).skip(count));
                break;
            }
            count -= frame;
        }
        written
    }

    /// True when no frame fits what is kept of one: the message of a passed connection is wrong then.
    pub fn is_sound(&self) -> bool {
        self.unsent.len() <= HEADER + MAX_PACKET
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use millrace_core::outbox::SocketIndex;

    use super::*;

    fn pair() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        client.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let (server, remote) = listener.accept().expect("it has connected");
        let path = Path { socket: SocketIndex(SocketIndex::TCP), remote };
        (Connection::new(server.into(), path, Time(0)), client)
    }

    fn batch(path: Path, lens: &[usize]) -> (Vec<Datagram>, Vec<u8>) {
        let (mut datagrams, mut bytes) = (Vec::new(), Vec::new());
        for (n, &len) in lens.iter().enumerate() {
            datagrams.push(Datagram { path, start: bytes.len(), len });
            bytes.extend(std::iter::repeat_n(n as u8, len));
        }
        (datagrams, bytes)
    }

    fn read_frame(client: &mut TcpStream) -> Vec<u8> {
        let mut header = [0; HEADER];
        client.read_exact(&mut header).expect("a header");
        let mut packet = vec![0; usize::from(u16::from_be_bytes(header))];
        client.read_exact(&mut packet).expect("a packet");
        packet
    }

    #[test]
    fn packets_arrive_whole_and_in_order() {
        let (mut connection, mut client) = pair();
        let (datagrams, bytes) = batch(connection.path, &[1200, 1, 1472, 20]);
        let written = connection.write(&datagrams, &bytes);
        assert_eq!(written, Written { packets: 4, bytes: 2693, calls: 1 });
        for (n, datagram) in datagrams.iter().enumerate() {
            assert_eq!(read_frame(&mut client), vec![n as u8; datagram.len]);
        }
    }

    #[test]
    fn a_client_that_does_not_read_costs_whole_packets_and_no_memory() {
        let (mut connection, mut client) = pair();
        let (datagrams, bytes) = batch(connection.path, &[1201; BATCH]);
        let mut sent = 0;
        let mut refused = 0;
        for _ in 0..10_000 {
            let written = connection.write(&datagrams, &bytes);
            sent += written.packets;
            refused += usize::from(written.packets == 0);
            assert!(connection.unsent.len() <= HEADER + 1201);
        }
        assert!(refused > 9_000, "the kernel's buffers end somewhere");
        // What comes out then is whole, whether it was sent at once or in parts.
        for n in 0..sent {
            let packet = read_frame(&mut client);
            assert!(packet.len() == 1201 && packet.iter().all(|byte| *byte == packet[0]), "packet {n}");
            connection.finish_frame();
        }
        let (datagrams, bytes) = batch(connection.path, &[7]);
        assert_eq!(connection.write(&datagrams, &bytes).packets, 1, "and it goes on");
        assert_eq!(read_frame(&mut client), vec![0; 7]);
    }
}
