//! The elements of a block, rebuilt under other ids, are the same values in the same order.

use millrace_core::rtp::{self, Header, extensions};

pub fn run(bytes: &[u8]) {
    let Some((choice, block)) = bytes.split_first() else { return };
    let profile = if choice & 1 == 0 { extensions::ONE_BYTE } else { extensions::TWO_BYTE | u16::from(choice >> 4) };
    let found = Some(rtp::ExtensionBlock { profile, start: 0, len: block.len() });
    let mut elements = extensions::Elements::new();
    let mut expected: Vec<(u8, &[u8])> = Vec::new();
    for (id, range) in extensions::iterate(block, found) {
        let mapped = id.wrapping_add(choice >> 1);
        let value = &block[range];
        let known = expected.iter().position(|(present, _)| *present == mapped);
        if !elements.set(mapped, value) {
            assert!(mapped == 0 || expected.len() == extensions::MAX_ELEMENTS);
            continue;
        }
        match known {
            Some(at) => expected[at].1 = value,
            None => expected.push((mapped, value)),
        }
    }
    let mut out = [0xff; 8192];
    let len = elements.write(&mut out).expect("16 elements of 255 bytes fit");
    assert_eq!(len, elements.written_len());
    if len == 0 {
        return assert!(expected.is_empty());
    }
    let mut packet = vec![0x90; rtp::header::FIXED_LEN];
    packet.extend(&out[..len]);
    let header = Header::parse(&packet).expect("a header that ends with its extension block");
    assert_eq!(header.payload_offset, packet.len());
    let again = extensions::iterate(&packet, header.extension).map(|(id, range)| (id, &packet[range]));
    assert!(again.eq(expected.iter().copied()));
}
