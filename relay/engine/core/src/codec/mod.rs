//! What a packet's payload tells without decoding: start of a key frame, layers, whether other frames depend on it. Must never decode
//! media or have state between packets. Read `vp8.rs` next, the simplest of them.

pub mod av1;
pub mod h264;
pub mod parameter_sets;
pub mod picture_ids;
pub mod size;
pub mod vp8;
pub mod vp9;

use crate::command::CodecName;

/// The traits of one packet that forwarding needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// A decoder without any earlier packet can begin here. Several packets of one H264 key frame may have this (SPS, then IDR): among
    /// those with one timestamp, the frame begins at the lowest sequence number.
    pub key_frame_start: bool,
    /// VP9: the descriptor calls this a start, but no key frame is seen behind it. It is one if the payload is encrypted, and none if the
    /// descriptor is one of those that never say "predicted".
    pub is_doubtful: bool,
    /// VP9: the descriptor says that the frame is predicted from another picture.
    pub is_predicted: bool,
    /// No other frame depends on this packet's frame.
    pub discardable: bool,
    /// Spatial layer inside this stream (SVC); a simulcast encoding is a stream of its own.
    pub spatial: u8,
    pub temporal: u8,
}

/// The traits of one packet, from its payload without padding. A payload that does not parse has none: it is forwarded, but no viewer
/// starts with it.
pub fn inspect(codec: CodecName, payload: &[u8]) -> Traits {
    match codec {
        // Every Opus packet decodes by itself (RFC 7587), but that makes none dispensable.
        CodecName::Opus => Traits { key_frame_start: !payload.is_empty(), ..Traits::default() },
        CodecName::Vp8 => vp8::inspect(payload),
        CodecName::Vp9 => vp9::inspect(payload),
        CodecName::H264 => h264::inspect(payload),
        CodecName::Av1 => av1::inspect(payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [CodecName; 5] = [CodecName::Opus, CodecName::Vp8, CodecName::Vp9, CodecName::H264, CodecName::Av1];

    #[test]
    fn an_empty_payload_has_no_traits() {
        for codec in ALL {
            assert_eq!(inspect(codec, &[]), Traits::default());
        }
    }

    #[test]
    fn every_opus_packet_is_a_start() {
        assert!(inspect(CodecName::Opus, &[0x78, 1, 2]).key_frame_start);
    }

    proptest! {
        #[test]
        fn arbitrary_payloads_never_panic_and_layers_stay_in_their_fields(payload in prop::collection::vec(any::<u8>(), 0..80)) {
            for codec in ALL {
                let traits = inspect(codec, &payload);
                prop_assert!(traits.spatial < 8 && traits.temporal < 8);
            }
        }

        #[test]
        fn every_prefix_of_a_payload_can_be_inspected(payload in prop::collection::vec(any::<u8>(), 40)) {
            for codec in ALL {
                for len in 0..payload.len() {
                    inspect(codec, &payload[..len]);
                }
            }
        }
    }
}
