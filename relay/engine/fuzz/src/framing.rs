//! However a stream is cut into reads, the packets in it are the same ones, and nothing longer than a packet is ever kept.

use millrace_core::transport::framing::{HEADER, MAX_PACKET, TooLong, first_packet, header};

pub fn run(bytes: &[u8]) {
    let Some((&cut, stream)) = bytes.split_first() else { return };
    let whole = packets(&[stream]);
    assert_eq!(packets(&stream.chunks(usize::from(cut) + 1).collect::<Vec<_>>()), whole);
    let mut written = Vec::new();
    for packet in &whole.0 {
        written.extend(header(packet.len()));
        written.extend(packet);
    }
    assert!(stream.starts_with(&written), "what was read is what stands there");
}

/// What a connection does with its reads; true when the stream ended badly.
fn packets(reads: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let (mut found, mut kept) = (Vec::new(), Vec::new());
    for read in reads {
        kept.extend_from_slice(read);
        let mut at = 0;
        loop {
            match first_packet(&kept[at..]) {
                Ok(Some(packet)) => {
                    found.push(kept[at..][packet.clone()].to_vec());
                    at += packet.end;
                }
                Ok(None) => break,
                Err(TooLong) => return (found, true),
            }
        }
        kept.drain(..at);
        assert!(kept.len() < HEADER + MAX_PACKET);
    }
    (found, false)
}
