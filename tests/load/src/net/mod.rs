//! UDP sockets that are polled and never waited for: the wake-up of a sleeping receiver would be charged to the server's send. Owns
//! sockets and their options; must never know what a datagram says. Read `receive.rs` and `send.rs` next.

mod receive;
mod send;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Type};

pub use receive::Batch;
pub use send::{Messages, RAW};

/// Bytes of a socket's receive queue: a second of one stream at 2 Mbit/s. The kernel clamps it to net.core.rmem_max.
const RECEIVE_BUFFER: usize = 1 << 20;

/// The options of one socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Stamp each datagram when it arrives, so that the time until the next sweep is not counted as latency.
    pub stamps: bool,
    /// Take runs of datagrams as one (UDP_GRO), as behind a network card that segments.
    pub gro: bool,
}

/// A socket of its own for one client.
pub fn bind(ip: IpAddr, options: Options) -> io::Result<UdpSocket> {
    let address = SocketAddr::new(ip, 0);
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if options.stamps {
        enable(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)?;
    }
    if options.gro {
        enable(&socket, libc::SOL_UDP, libc::UDP_GRO)?;
    }
    Ok(socket.into())
}

fn enable(socket: &impl AsRawFd, level: i32, option: i32) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(batch: &mut Batch, socket: &UdpSocket, expected: usize) -> Vec<(Vec<u8>, Option<u64>)> {
        let mut got = Vec::new();
        while got.len() < expected {
            batch.receive(socket);
            batch.each(|datagram| got.push((datagram.bytes.to_vec(), datagram.stamp)));
        }
        got
    }

    #[test]
    fn bursts_arrive_whole_whether_sent_singly_or_segmented_and_taken_either_way() {
        let sender = bind([127, 0, 0, 1].into(), Options::default()).unwrap();
        for gro in [false, true] {
            let socket = bind([127, 0, 0, 1].into(), Options { stamps: true, gro }).unwrap();
            let to = socket.local_addr().unwrap();
            let mut batch = Batch::new(gro);
            let bytes: Vec<u8> = (0..25).collect();
            for segmented in [false, true] {
                let before = crate::clock::stamp();
                let mut messages = Messages::default();
                messages.add(to, &bytes, 10, segmented);
                assert_eq!(messages.send(&sender, &bytes).unwrap(), messages.len());
                let got = drain(&mut batch, &socket, 3);
                let sizes: Vec<_> = got.iter().map(|(bytes, _)| bytes.len()).collect();
                assert_eq!(sizes, [10, 10, 5]);
                assert_eq!(got.concat_bytes(), bytes);
                let now = crate::clock::stamp();
                assert!(got.iter().all(|(_, stamp)| stamp.is_some_and(|at| before <= at && at <= now)));
            }
        }
    }

    #[test]
    fn an_empty_socket_gives_nothing() {
        let socket = bind([127, 0, 0, 1].into(), Options::default()).unwrap();
        let mut batch = Batch::new(false);
        assert_eq!(batch.receive(&socket), 0);
        batch.each(|_| panic!("nothing was sent"));
    }

    trait Concat {
        fn concat_bytes(&self) -> Vec<u8>;
    }

    impl Concat for Vec<(Vec<u8>, Option<u64>)> {
        fn concat_bytes(&self) -> Vec<u8> {
            self.iter().flat_map(|(bytes, _)| bytes.clone()).collect()
        }
    }
}
