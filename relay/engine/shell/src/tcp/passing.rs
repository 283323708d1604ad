//! Passing a connection to another worker, or to a successor: its descriptor over a Unix socket (SCM_RIGHTS), with what was read of it
//! and what is still to be sent. Owns the form of that message; must never choose who gets one. Read `../tcp.rs` next.
//!
//! Each slot has a pair of sockets, which the master made and holds: whatever lies in it outlives both workers.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use millrace_core::outbox::SocketIndex;
use millrace_core::transport::framing::{HEADER, MAX_PACKET};

use super::connection::Connection;

/// Of the message's form. A message with another one is of another release: its connection is closed, and the client comes back.
const VERSION: u8 = 1;
/// Version, listener, hops, whether it was a client's, length of what is to be sent.
const HEAD: usize = 6;
/// The longest message: a frame to send, and as much to handle as is ever read of a stranger.
pub const LONGEST: usize = HEAD + HEADER + MAX_PACKET + 2 * super::STRANGERS_READ;

/// Room for one descriptor.
#[repr(C, align(8))]
struct Control([u8; 24]);

/// A connection that was passed here.
pub struct Passed {
    pub fd: OwnedFd,
    pub listener: SocketIndex,
    pub hops: u8,
    /// A valid check had come over it.
    pub was_clients: bool,
    pub unsent: Vec<u8>,
    pub unread: Vec<u8>,
}

/// Passes it through `door`, with `unread` in place of what it holds itself. An error when there is no room; then it is as before.
pub fn pass(door: RawFd, connection: &Connection, unread: &[u8]) -> io::Result<()> {
    if HEAD + connection.unsent.len() + unread.len() > LONGEST {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let was_clients = u8::from(connection.stranger_since.is_none());
    let mut head = [VERSION, connection.path.socket.0, connection.hops, was_clients, 0, 0];
    head[4..].copy_from_slice(&(connection.unsent.len() as u16).to_be_bytes());
    let parts = [&head[..], &connection.unsent, unread];
    let mut vectors = parts.map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
    let mut control = Control([0; 24]);
    // SAFETY: all zero is a valid `msghdr`.
    let mut message = unsafe { std::mem::zeroed::<libc::msghdr>() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len() as _;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: the header points at a `Control`, which is aligned and large enough for one message of one descriptor.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as libc::c_uint) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(connection.as_raw_fd());
    }
    // SAFETY: the vectors point at bytes that outlive the call, and the control message at a descriptor that is open.
    let sent = unsafe { libc::sendmsg(door, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The next connection that was passed here; `None` when there is none. What does not hold is closed and skipped.
pub fn receive(inbox: RawFd, buffer: &mut [u8; LONGEST]) -> Option<Passed> {
    loop {
        let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut control = Control([0; 24]);
        // SAFETY: all zero is a valid `msghdr`.
        let mut message = unsafe { std::mem::zeroed::<libc::msghdr>() };
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Control>() as _;
        // SAFETY: the buffer and the control message are writable, and their lengths are given.
        let len = unsafe { libc::recvmsg(inbox, &raw mut message, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) };
        let len = usize::try_from(len).ok().filter(|len| *len > 0)?;
        let Some(fd) = descriptor_of(&message) else { continue };
        if message.msg_flags & libc::MSG_TRUNC == 0
            && let Some(passed) = parse(&buffer[..len], fd)
        {
            return Some(passed);
        }
    }
}

fn descriptor_of(message: &libc::msghdr) -> Option<OwnedFd> {
    // SAFETY: the kernel has filled the control message; the macros stay within its length.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        if header.is_null() || (*header).cmsg_level != libc::SOL_SOCKET || (*header).cmsg_type != libc::SCM_RIGHTS {
            return None;
        }
        // The kernel has just opened it for us, and nothing else owns it.
        Some(OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()))
    }
}

fn parse(message: &[u8], fd: OwnedFd) -> Option<Passed> {
    let (&[version, listener, hops, was_clients, high, low], rest) = message.split_first_chunk::<HEAD>()?;
    let listener = SocketIndex(listener);
    if version != VERSION || !listener.is_tcp() {
        return None;
    }
    let (unsent, unread) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
    Some(Passed { fd, listener, hops, was_clients: was_clients != 0, unsent: unsent.to_vec(), unread: unread.to_vec() })
}

/// The other end's address; `None` when it has gone.
pub fn remote_of(fd: RawFd) -> Option<std::net::SocketAddr> {
    let mut storage = crate::udp::empty_address();
    let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the storage is writable and its size is given.
    let result = unsafe { libc::getpeername(fd, (&raw mut storage).cast(), &raw mut len) };
    if result == 0 { crate::udp::decode_address(&storage) } else { None }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use millrace_core::outbox::Path;
    use millrace_core::time::Time;

    use super::*;

    pub fn pair() -> (OwnedFd, OwnedFd) {
        let mut fds = [0; 2];
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        // SAFETY: room for two descriptors.
        assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) }, 0);
        // SAFETY: both were just opened.
        fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).into()
    }

    #[test]
    fn a_connection_arrives_with_what_was_not_handled() {
        let (door, inbox) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (server, remote) = listener.accept().expect("it has connected");
        let path = Path { socket: SocketIndex(SocketIndex::TCP + 3), remote };
        let mut connection = Connection::new(server.into(), path, Time(0));
        connection.unsent = vec![5; 100];
        connection.hops = 2;
        connection.stranger_since = None;
        pass(door.as_raw_fd(), &connection, b"unread").expect("there is room");
        drop(connection);

        let mut buffer = [0; LONGEST];
        let passed = receive(inbox.as_raw_fd(), &mut buffer).expect("it was passed");
        assert_eq!((passed.listener, passed.hops, passed.was_clients), (path.socket, 2, true));
        assert_eq!((passed.unsent, passed.unread), (vec![5; 100], b"unread".to_vec()));
        assert_eq!(remote_of(passed.fd.as_raw_fd()), Some(remote));
        assert!(receive(inbox.as_raw_fd(), &mut buffer).is_none());
        let mut server = TcpStream::from(passed.fd);
        server.write_all(b"still open").expect("it is");
        let mut found = [0; 10];
        client.read_exact(&mut found).expect("it is");
        assert_eq!(&found, b"still open");
    }

    #[test]
    fn what_is_no_message_of_ours_is_skipped() {
        let (door, inbox) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let path = |socket| Path { socket: SocketIndex(socket), remote: listener.local_addr().expect("bound") };
        let make = |socket| Connection::new(listener.try_clone().expect("open").into(), path(socket), Time(0));
        // SAFETY: one readable byte.
        assert_eq!(unsafe { libc::send(door.as_raw_fd(), b"x".as_ptr().cast(), 1, 0) }, 1);
        pass(door.as_raw_fd(), &make(3), b"of no listener").expect("there is room");
        pass(door.as_raw_fd(), &make(SocketIndex::TCP), b"good").expect("there is room");
        let passed = receive(inbox.as_raw_fd(), &mut [0; LONGEST]).expect("the last one");
        assert_eq!(passed.unread, b"good");
    }
}
