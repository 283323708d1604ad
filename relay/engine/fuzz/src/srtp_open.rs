//! The first byte picks a profile and SRTP or SRTCP. The rest is opened as it is, which must fail, and then sealed and opened, which
//! must return the same bytes. Read `core/src/transport/srtp/mod.rs` next.

use millrace_core::transport::srtp::{Keying, SEAL_ROOM, Srtp};
use millrace_core::transport::{MasterKey, Profile};

pub fn run(bytes: &[u8]) {
    let Some((&choice, packet)) = bytes.split_first() else { return };
    let profile = Profile::PREFERRED[usize::from(choice) % 3];
    let (mut sender, mut receiver) = (ends(profile, 1, 2), ends(profile, 2, 1));
    let mut forged = packet.to_vec();
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + SEAL_ROOM, 0);
    let opened = if choice & 0x80 == 0 {
        assert!(receiver.open_rtp(&mut forged).is_err());
        let sequence = packet.get(2..4).map_or(0, |bytes| u64::from(bytes[0]) << 8 | u64::from(bytes[1]));
        let Ok(len) = sender.seal_rtp(sequence, &mut buffer, packet.len()) else { return };
        receiver.open_rtp(&mut buffer[..len])
    } else {
        assert!(receiver.open_rtcp(&mut forged).is_err());
        let Ok(len) = sender.seal_rtcp(&mut buffer, packet.len()) else { return };
        receiver.open_rtcp(&mut buffer[..len])
    };
    // Sealing does not look at RTCP's version; opening does.
    if let Ok(len) = opened {
        assert_eq!(&buffer[..len], packet);
    } else {
        assert!(choice & 0x80 != 0 && packet[0] >> 6 != 2);
    }
}

pub(super) fn ends(profile: Profile, local: u8, remote: u8) -> Srtp {
    let key = |fill: u8| MasterKey::new(profile, &vec![fill; profile.key_len()], &vec![fill; profile.salt_len()]);
    let keys = key(local).zip(key(remote)).expect("the profile's own lengths");
    Srtp::new(Keying { profile, local: keys.0, remote: keys.1 }, 4).expect("the profile's own lengths")
}
