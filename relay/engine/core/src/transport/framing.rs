//! RFC 4571: how packets lie in a TCP stream, each behind its length of two bytes. Owns that form and its bound; must never know what a
//! packet is. Read the shell's `tcp/connection.rs` next, which reads streams by it.
//!
//! ```text
//!  0               1
//! | length, bytes 0-1 | packet of that length | length | packet | ...
//! ```

use std::ops::Range;

/// Bytes before each packet.
pub const HEADER: usize = 2;
/// The longest packet that is taken: as long as a datagram may be. A longer one is no media.
pub const MAX_PACKET: usize = 2_048;

/// Longer than `MAX_PACKET`. What follows in the stream cannot be trusted either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Where the first packet of `stream` lies; `None` when it is not whole yet.
pub fn first_packet(stream: &[u8]) -> Result<Option<Range<usize>>, TooLong> {
    let Some(&[high, low]) = stream.first_chunk::<HEADER>() else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_PACKET {
        return Err(TooLong);
    }
    let packet = HEADER..HEADER + len;
    Ok((packet.end <= stream.len()).then_some(packet))
}

/// What stands before a packet. No packet of ours is longer than its field allows.
pub fn header(len: usize) -> [u8; HEADER] {
    debug_assert!(len <= usize::from(u16::MAX));
    (len as u16).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_cut_into_the_packets_that_were_written() {
        let packets: [&[u8]; 4] = [b"one", b"", &[7; MAX_PACKET], b"four"];
        let mut stream: Vec<u8> = Vec::new();
        for packet in packets {
            stream.extend(header(packet.len()));
            stream.extend(packet);
        }
        let mut rest = &stream[..];
        for packet in packets {
            let found = first_packet(rest).expect("none is too long").expect("all are whole");
            assert_eq!(&rest[found.clone()], packet);
            rest = &rest[found.end..];
        }
        assert_eq!(first_packet(rest), Ok(None));
    }

    #[test]
    fn a_packet_waits_for_its_last_byte() {
        let stream = [0, 3, 1, 2, 3, 0];
        for len in 0..5 {
            assert_eq!(first_packet(&stream[..len]), Ok(None));
        }
        assert_eq!(first_packet(&stream), Ok(Some(2..5)));
    }

    #[test]
    fn a_length_beyond_any_packet_ends_the_stream() {
        let header = header(MAX_PACKET + 1);
        assert_eq!(first_packet(&header), Err(TooLong));
        assert_eq!(first_packet(&[0xFF, 0xFF, 1, 2]), Err(TooLong));
    }
}
