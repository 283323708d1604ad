//! Each two bytes are one AES-CM packet: its sender, and its length. All are sealed one by one, and with their tags deferred and made
//! side by side. Both must have the same bytes. Read `core/src/transport/srtp/tags.rs` next.

use millrace_core::transport::srtp::sha1_lanes::portable;
use millrace_core::transport::srtp::{SEAL_ROOM, Srtp};
use millrace_core::transport::{Profile, Tags};

use super::srtp_open::ends;

const SENDERS: u8 = 5;
/// More than a portion of an outbox holds.
const MOST: usize = 150;

pub fn run(bytes: &[u8]) {
    let senders: Vec<Srtp> = (0..SENDERS).map(|fill| ends(Profile::Aes128CmSha1_80, fill, 0xee)).collect();
    let mut tags = Tags::new(Some(portable));
    let (mut at_once, mut deferred) = (Vec::new(), Vec::new());
    for (sequence, [whose, len]) in bytes.as_chunks::<2>().0.iter().take(MOST).enumerate() {
        let sender = &senders[usize::from(whose % SENDERS)];
        // Every length below 64 bytes, then steps that meet all places within a block.
        let len = 12 + usize::from(*len) * if whose & 0x80 == 0 { 1 } else { 5 };
        let mut packet = vec![*whose; len + SEAL_ROOM];
        packet[..12].copy_from_slice(&[0x80, 96, 0, sequence as u8, 0, 0, 0, 0, 0, 0, 0, 7]);
        let start = deferred.len();
        deferred.extend(&packet);
        let sealed = sender.seal_rtp(sequence as u64, &mut packet, len).expect("a valid packet");
        at_once.extend(&packet[..sealed]);
        let later = sender.seal_rtp_later(sequence as u64, &mut deferred[start..], len, (&mut tags, start));
        assert_eq!(later, Ok(sealed));
        deferred.truncate(start + sealed);
    }
    tags.finish(&mut deferred);
    assert_eq!(deferred, at_once);
}
