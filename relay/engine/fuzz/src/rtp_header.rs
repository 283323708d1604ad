//! The parts of a packet lie inside it, do not overlap, and what is written from them reads the same.

use millrace_core::rtp::{self, Header, extensions};

pub fn run(packet: &[u8]) {
    let Ok(header) = Header::parse(packet) else { return };
    assert!(header.payload_offset <= header.payload_end && header.payload_end <= packet.len());
    assert_eq!(header.payload_end + header.padding as usize, packet.len());
    assert_eq!(header.payload(packet).len(), header.payload_range().len());
    for (id, range) in extensions::iterate(packet, header.extension) {
        assert!(id != 0 && range.start >= rtp::header::FIXED_LEN && range.end <= header.payload_offset);
    }
    let mut out = [0; rtp::header::FIXED_LEN];
    assert_eq!(header.fields().write(false, &mut out), Some(out.len()));
    assert_eq!(Header::parse(&out).map(|again| again.fields()), Ok(header.fields()));
}
