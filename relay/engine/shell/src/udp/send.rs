//! Sending: runs of equal datagrams to one path leave as one GSO message, many messages a system call. Owns the headers
//! and what the kernel is known to refuse; must never wait: a datagram that does not fit is dropped and counted. Read `reactor.rs` next.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use millrace_core::outbox::Datagram;

use super::{Socket, address};

/// Messages a system call.
const BATCH: usize = 64;
/// The kernel's limit on segments of one GSO message (UDP_MAX_SEGMENTS), and bytes somewhat below that of an IP packet.
const MAX_SEGMENTS: usize = 64;
const MAX_BYTES: usize = 64_000;
/// A path with a small MTU refuses a large segment. After this many refusals in a row every path may refuse. Then this many datagrams go
/// out singly before another run is tried, as other viewers may have come.
const MAX_REFUSALS: u32 = 16;
const PAUSE: u32 = 10_000;

/// Room for the one control message that is sent, UDP_SEGMENT with its 16-bit size.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 24]);

pub struct Sender {
    addresses: Box<[libc::sockaddr_storage]>,
    controls: Box<[Control]>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    /// The runs of the batch at hand, as ranges of datagrams.
    runs: Vec<Range<usize>>,
    segmentation: bool,
    refusals: u32,
    /// How many datagrams are still to go out singly.
    pause: u32,
}

/// The outcome of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub datagrams: u64,
    pub bytes: u64,
    /// System calls that sent something.
    pub calls: u64,
    /// Datagrams that the kernel refused.
    pub failed: u64,
    /// Packets that their TCP connection had no room for.
    pub backlog: u64,
}

impl Sender {
    /// Asks the kernel on one socket whether it knows GSO (Linux 4.18).
    pub fn new(sockets: &[Socket]) -> Sender {
        let known = |socket: &Socket| super::set_option(&socket.fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
        // SAFETY: all zero is a valid `mmsghdr`: null pointers and lengths of zero.
        let header = unsafe { std::mem::zeroed::<libc::mmsghdr>() };
        Sender {
            addresses: vec![address::empty(); BATCH].into_boxed_slice(),
            controls: vec![Control([0; 24]); BATCH].into_boxed_slice(),
            vectors: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH].into_boxed_slice(),
            headers: vec![header; BATCH].into_boxed_slice(),
            runs: Vec::with_capacity(BATCH),
            segmentation: sockets.first().is_some_and(known),
            refusals: 0,
            pause: 0,
        }
    }

    /// Sends all datagrams, which index `bytes`, in order; never waits. Those of no UDP socket are `others`'s.
    pub fn send(
        &mut self,
        sockets: &[Socket],
        datagrams: &[Datagram],
        bytes: &[u8],
        mut others: impl FnMut(&[Datagram], &mut Sent),
    ) -> Sent {
        let mut sent = Sent::default();
        let mut next = 0;
        while let Some(first) = datagrams.get(next) {
            let (socket, first_of_batch) = (first.path.socket, next);
            self.runs.clear();
            while self.runs.len() < BATCH && datagrams.get(next).is_some_and(|datagram| datagram.path.socket == socket)
            {
                let end = if self.segmentation && self.pause == 0 { run_end(datagrams, next) } else { next + 1 };
                self.pause = self.pause.saturating_sub(1);
                self.runs.push(next..end);
                next = end;
            }
            match sockets.get(usize::from(socket.0)) {
                Some(socket) => {
                    let left = self.send_runs(socket.as_raw_fd(), datagrams, bytes, &mut sent);
                    next = left.unwrap_or(next);
                }
                None => others(&datagrams[first_of_batch..next], &mut sent),
            }
        }
        sent
    }

    /// Sends all runs, as long as runs are allowed. Returns the first datagram that is left then, if any.
    fn send_runs(&mut self, fd: RawFd, datagrams: &[Datagram], bytes: &[u8], sent: &mut Sent) -> Option<usize> {
        for position in 0..self.runs.len() {
            self.prepare(position, self.runs[position].clone(), datagrams, bytes);
        }
        let mut position = 0;
        let mut again = true;
        while position < self.runs.len() {
            match self.call(fd, position..self.runs.len()) {
                Ok(count) => {
                    sent.calls += 1;
                    for run in &self.runs[position..position + count] {
                        sent.datagrams += run.len() as u64;
                        sent.bytes += run_bytes(datagrams, run) as u64;
                        if run.len() > 1 {
                            self.refusals = 0;
                        }
                    }
                    position += count;
                    again = true;
                }
                // EINTR, or a pending ICMP error of the socket, which the call has cleared: once more.
                Err(libc::EINTR | libc::ECONNREFUSED) if again => again = false,
                Err(error) => {
                    let run = self.runs[position].clone();
                    if run.len() > 1 && error != libc::EAGAIN && error != libc::ENOBUFS {
                        self.note_refusal(error);
                        self.send_singly(fd, position, run, datagrams, bytes, sent);
                        if self.pause > 0 {
                            return self.runs.get(position + 1).map(|run| run.start);
                        }
                    } else {
                        sent.failed += run.len() as u64;
                    }
                    position += 1;
                    again = true;
                }
            }
        }
        None
    }

    /// Notes that the kernel refused a run: for this path, or every run.
    fn note_refusal(&mut self, error: libc::c_int) {
        self.refusals += 1;
        // EIO is the answer of a device without checksum offload, which stays so.
        if error == libc::EIO || error == libc::EOPNOTSUPP || self.refusals >= MAX_REFUSALS {
            self.refusals = 0;
            self.pause = PAUSE;
        }
    }

    fn send_singly(
        &mut self,
        fd: RawFd,
        position: usize,
        run: Range<usize>,
        datagrams: &[Datagram],
        bytes: &[u8],
        sent: &mut Sent,
    ) {
        for i in run {
            self.prepare(position, i..i + 1, datagrams, bytes);
            match self.call(fd, position..position + 1) {
                Ok(_) => {
                    sent.calls += 1;
                    sent.datagrams += 1;
                    sent.bytes += datagrams[i].len as u64;
                }
                Err(_) => sent.failed += 1,
            }
        }
    }

    /// Fills the header at `position` for one run.
    fn prepare(&mut self, position: usize, run: Range<usize>, datagrams: &[Datagram], bytes: &[u8]) {
        let first = &datagrams[run.start];
        let slice = &bytes[first.start..first.start + run_bytes(datagrams, &run)];
        // The kernel only reads through this pointer, whatever its type says.
        self.vectors[position] = libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() };
        let namelen = address::encode(&first.path.remote, &mut self.addresses[position]);
        let header = &mut self.headers[position].msg_hdr;
        header.msg_name = (&raw mut self.addresses[position]).cast();
        header.msg_namelen = namelen;
        header.msg_iov = &raw mut self.vectors[position];
        header.msg_iovlen = 1;
        if run.len() > 1 {
            header.msg_control = (&raw mut self.controls[position]).cast();
            header.msg_controllen = size_of::<Control>() as _;
            write_segment_size(header, first.len as u16);
        } else {
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
        }
    }

    /// How many of the prepared messages were sent, at least one; or why the first was not.
    fn call(&mut self, fd: RawFd, positions: Range<usize>) -> Result<usize, libc::c_int> {
        let headers = &mut self.headers[positions];
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: `prepare` pointed these headers at memory of `self` and at the caller's bytes; both are borrowed until
        // the send is over.
        let count = unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), headers.len() as libc::c_uint, flags as _) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }
}

/// Where the run that begins at `first` ends: same path, one after the other in memory, all of one size but for the last,
/// which may be smaller.
fn run_end(datagrams: &[Datagram], first: usize) -> usize {
    let segment = datagrams[first].len;
    let mut bytes = segment;
    let mut end = first + 1;
    while let Some(next) = datagrams.get(end) {
        let before = &datagrams[end - 1];
        let fits = end - first < MAX_SEGMENTS && bytes + next.len <= MAX_BYTES;
        let follows = next.path == before.path && next.start == before.start + before.len;
        if !fits || !follows || before.len != segment || next.len > segment || next.len == 0 {
            break;
        }
        bytes += next.len;
        end += 1;
    }
    end
}

fn run_bytes(datagrams: &[Datagram], run: &Range<usize>) -> usize {
    datagrams[run.clone()].iter().map(|datagram| datagram.len).sum()
}

fn write_segment_size(header: &libc::msghdr, size: u16) {
    // SAFETY: the header points at a `Control`, which is aligned and large enough for one message of two bytes.
    unsafe {
        let control = libc::CMSG_FIRSTHDR(header);
        (*control).cmsg_level = libc::SOL_UDP;
        (*control).cmsg_type = libc::UDP_SEGMENT;
        (*control).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as libc::c_uint) as _;
        libc::CMSG_DATA(control).cast::<u16>().write_unaligned(size);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::time::Duration;

    use millrace_core::outbox::{Outbox, Path, SocketIndex};

    use super::*;

    struct Bench {
        sockets: Vec<Socket>,
        clients: Vec<UdpSocket>,
    }

    impl Bench {
        fn new(ips: &[&str]) -> Bench {
            let bind = |ip: &&str| UdpSocket::bind((*ip, 0)).expect("loopback");
            let sockets = ips.iter().map(|ip| Socket::share(bind(ip).as_raw_fd()).expect("open")).collect();
            let clients: Vec<UdpSocket> = ips.iter().map(bind).collect();
            for client in &clients {
                client.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            }
            Bench { sockets, clients }
        }

        fn path(&self, i: usize) -> Path {
            Path { socket: SocketIndex(i as u8), remote: self.clients[i].local_addr().expect("bound") }
        }

        fn expect(&self, i: usize, datagrams: &[Vec<u8>]) {
            let mut buffer = [0; 2048];
            for expected in datagrams {
                let len = self.clients[i].recv(&mut buffer).expect("it was sent");
                assert_eq!(&buffer[..len], &expected[..]);
            }
        }
    }

    fn refuse(datagrams: &[Datagram], sent: &mut Sent) {
        sent.failed += datagrams.len() as u64;
    }

    fn outbox(datagrams: &[(Path, Vec<u8>)]) -> Outbox {
        let mut outbox = Outbox::new(1 << 20, 1024);
        assert!(datagrams.iter().all(|(path, datagram)| outbox.push(*path, datagram)));
        outbox
    }

    fn total(datagrams: &[Vec<u8>]) -> u64 {
        datagrams.iter().map(|datagram| datagram.len() as u64).sum()
    }

    #[test]
    fn datagrams_of_many_sizes_arrive_whole_with_and_without_segmentation() {
        let lens = [1200, 1200, 1200, 700, 700, 1200, 1, 1, 1, 900, 1472, 1472];
        let datagrams: Vec<Vec<u8>> = lens.iter().enumerate().map(|(n, &len)| vec![n as u8; len]).collect();
        for segmentation in [true, false] {
            let bench = Bench::new(&["127.0.0.1", "::1"]);
            let mut sender = Sender::new(&bench.sockets);
            sender.segmentation &= segmentation;
            for i in [0, 1] {
                let batch: Vec<_> = datagrams.iter().map(|datagram| (bench.path(i), datagram.clone())).collect();
                let outbox = outbox(&batch);
                let (queued, bytes) = outbox.queued();
                let sent = sender.send(&bench.sockets, queued, bytes, refuse);
                let expected = Sent { datagrams: 12, bytes: total(&datagrams), calls: 1, failed: 0, backlog: 0 };
                assert_eq!(sent, expected);
                bench.expect(i, &datagrams);
            }
            assert_eq!(sender.refusals, 0, "the kernel took the runs as they were");
        }
    }

    #[test]
    fn a_run_is_one_path_one_size_and_within_the_kernels_limits() {
        let bench = Bench::new(&["127.0.0.1", "::1"]);
        let (a, b) = (bench.path(0), bench.path(1));
        let runs = |batch: &[(Path, usize)]| {
            let outbox = outbox(&batch.iter().map(|&(path, len)| (path, vec![0; len])).collect::<Vec<_>>());
            let (queued, _) = outbox.queued();
            let mut ends = vec![0];
            while ends[ends.len() - 1] < queued.len() {
                ends.push(run_end(queued, ends[ends.len() - 1]));
            }
            ends[1..].to_vec()
        };
        assert_eq!(runs(&[(a, 100), (a, 100), (a, 60), (a, 60)]), [3, 4]);
        assert_eq!(runs(&[(a, 100), (a, 101), (a, 101)]), [1, 3]);
        assert_eq!(runs(&[(a, 100), (b, 100), (a, 100)]), [1, 2, 3]);
        assert_eq!(runs(&[(a, 1); 130]), [64, 128, 130]);
        assert_eq!(runs(&[(a, 1472); 50]), [43, 50]);
    }

    #[test]
    fn alternating_sockets_and_full_batches_lose_nothing() {
        let bench = Bench::new(&["127.0.0.1", "::1"]);
        let datagrams: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; 50 + usize::from(n)]).collect();
        let batch: Vec<_> = (0..200).map(|n| (bench.path(n % 2), datagrams[n / 2].clone())).collect();
        let outbox = outbox(&batch);
        let (queued, bytes) = outbox.queued();
        let sent = Sender::new(&bench.sockets).send(&bench.sockets, queued, bytes, refuse);
        assert_eq!((sent.datagrams, sent.failed), (200, 0));
        bench.expect(0, &datagrams);
        bench.expect(1, &datagrams);
    }

    #[test]
    fn what_the_kernel_refuses_is_counted_and_the_rest_is_sent() {
        let bench = Bench::new(&["127.0.0.1"]);
        let good = bench.path(0);
        // Port 0 is no destination; socket 9 does not exist.
        let bad = Path { remote: SocketAddr::from(([127, 0, 0, 1], 0)), ..good };
        let absent = Path { socket: SocketIndex(9), ..good };
        let batch =
            [(good, vec![1; 9]), (bad, vec![2; 9]), (bad, vec![3; 9]), (absent, vec![4; 9]), (good, vec![5; 9])];
        let outbox = outbox(&batch);
        let (queued, bytes) = outbox.queued();
        let sent = Sender::new(&bench.sockets).send(&bench.sockets, queued, bytes, refuse);
        assert_eq!((sent.datagrams, sent.bytes, sent.failed), (2, 18, 3));
        bench.expect(0, &[vec![1; 9], vec![5; 9]]);
    }

    #[test]
    fn a_kernel_that_refuses_segmentation_is_left_alone_for_a_while() {
        let bench = Bench::new(&["127.0.0.1"]);
        let run = outbox(&[(bench.path(0), vec![1; 20]), (bench.path(0), vec![1; 20])]);
        let (queued, bytes) = run.queued();
        let runs = |sender: &mut Sender| {
            assert_eq!(sender.send(&bench.sockets, queued, bytes, refuse).failed, 0);
            sender.runs.len()
        };
        for refusals in [vec![libc::EIO], vec![libc::EMSGSIZE; MAX_REFUSALS as usize]] {
            let mut sender = Sender::new(&bench.sockets);
            for (noted, error) in refusals.into_iter().enumerate() {
                assert!(sender.pause == 0 && sender.refusals == noted as u32, "one path may have a small MTU");
                sender.note_refusal(error);
            }
            assert_eq!(runs(&mut sender), 2);
            sender.pause = 1;
            assert_eq!((runs(&mut sender), runs(&mut sender)), (2, 1), "and is asked again");
        }
    }

    #[test]
    fn what_is_left_of_a_batch_goes_out_singly_once_runs_are_refused() {
        let bench = Bench::new(&["127.0.0.1"]);
        // Port 0 is no destination.
        let bad = |n: u8| Path { remote: SocketAddr::from(([127, 0, 0, n], 0)), ..bench.path(0) };
        let batch: Vec<_> =
            (0..40).flat_map(|n| [(bad(1 + n % 2), vec![1; 20]), (bad(1 + n % 2), vec![1; 20])]).collect();
        let outbox = outbox(&batch);
        let (queued, bytes) = outbox.queued();
        let mut sender = Sender::new(&bench.sockets);
        assert_eq!(sender.send(&bench.sockets, queued, bytes, refuse).failed, 80);
        assert_eq!(sender.runs.len(), 80 - 2 * MAX_REFUSALS as usize);
    }

    #[test]
    fn a_closed_port_on_the_other_side_disturbs_nobody() {
        let bench = Bench::new(&["127.0.0.1"]);
        let gone = UdpSocket::bind("127.0.0.1:0").expect("loopback").local_addr().expect("bound");
        let closed = Path { remote: gone, ..bench.path(0) };
        let mut sender = Sender::new(&bench.sockets);
        for _ in 0..5 {
            let outbox = outbox(&[(closed, vec![1; 20]), (bench.path(0), vec![2; 20])]);
            let (queued, bytes) = outbox.queued();
            assert_eq!(sender.send(&bench.sockets, queued, bytes, refuse).failed, 0);
            bench.expect(0, &[vec![2; 20]]);
        }
    }
}
