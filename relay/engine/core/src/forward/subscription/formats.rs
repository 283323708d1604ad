//! What each payload type of the publisher's is at one subscriber. A publisher may send any codec that was negotiated with it, and
//! change it with any packet (RFC 3550 section 5.1). Owns the table; must never know which codec is best. Read `attachment.rs` next,
//! where a change of codec begins a new source.

use crate::command::{Attach, Codec, Format};

#[derive(Debug)]
pub struct Formats {
    /// That of the last packet; almost always that of the next one, too.
    newest: Format,
    /// Empty when each packet is `newest.codec`.
    all: Vec<Format>,
    is_playable: bool,
}

impl Formats {
    pub fn new(attach: &Attach) -> Formats {
        let is_first = |format: &&Format| format.codec == attach.codec;
        let first = attach.formats.iter().find(is_first).map_or(u8::MAX, |format| format.payload_type);
        let newest = Format { payload_type: first, codec: attach.codec };
        Formats { newest, all: attach.formats.clone(), is_playable: true }
    }

    /// The codec of the last packet that the subscriber could play; before any, the codec in use at the attaching.
    pub fn codec(&self) -> Codec {
        self.newest.codec
    }

    /// False when the last packet was of a codec that the subscriber cannot play.
    pub fn is_playable(&self) -> bool {
        self.is_playable
    }

    /// What the subscriber gets a packet as; `None` when it cannot play it.
    pub fn of(&self, payload_type: u8) -> Option<Codec> {
        if payload_type == self.newest.payload_type || self.all.is_empty() {
            return Some(self.newest.codec);
        }
        self.all.iter().find(|format| format.payload_type == payload_type).map(|format| format.codec)
    }

    /// Looks at a packet. False when the subscriber cannot play it.
    pub fn handle_packet(&mut self, payload_type: u8) -> bool {
        let codec = self.of(payload_type);
        self.is_playable = codec.is_some();
        if let Some(codec) = codec {
            self.newest = Format { payload_type, codec };
        }
        self.is_playable
    }

    /// True when repairs go by RTX, whatever the publisher sends.
    pub fn have_rtx(&self) -> bool {
        self.all.iter().chain([&self.newest]).all(|format| format.codec.rtx_payload_type.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CodecName;

    fn codec(name: CodecName, payload_type: u8, rtx_payload_type: Option<u8>) -> Codec {
        Codec { name, payload_type, rtx_payload_type, clock_rate: 90_000 }
    }

    fn formats(codec: Codec, formats: &[Format]) -> Formats {
        let formats = formats.to_vec();
        Formats::new(&Attach {
            subscription: 1,
            publication: 1,
            logs: vec![0],
            codec,
            source_extensions: vec![],
            formats,
        })
    }

    #[test]
    fn a_packet_is_the_subscribers_codec_of_its_payload_type() {
        let (vp8, h264) = (codec(CodecName::Vp8, 120, Some(121)), codec(CodecName::H264, 122, Some(123)));
        let known = [Format { payload_type: 96, codec: vp8 }, Format { payload_type: 102, codec: h264 }];
        let mut formats = formats(h264, &known);
        assert!(formats.have_rtx() && formats.is_playable());
        assert_eq!((formats.codec(), formats.of(96), formats.of(98)), (h264, Some(vp8), None));
        assert!(formats.handle_packet(96));
        assert_eq!((formats.codec(), formats.of(102)), (vp8, Some(h264)), "for repairs of what was sent before");
        assert!(!formats.handle_packet(98) && !formats.is_playable());
        assert_eq!(formats.codec(), vp8);
    }

    #[test]
    fn without_a_table_each_packet_is_the_one_codec() {
        let vp8 = codec(CodecName::Vp8, 120, None);
        let mut formats = formats(vp8, &[]);
        assert!(formats.handle_packet(96) && formats.handle_packet(100));
        assert_eq!((formats.of(7), formats.have_rtx()), (Some(vp8), false));
    }

    #[test]
    fn one_codec_without_rtx_is_enough_for_repairs_that_repeat_their_bytes() {
        let (vp8, h264) = (codec(CodecName::Vp8, 120, Some(121)), codec(CodecName::H264, 122, None));
        let known = [Format { payload_type: 96, codec: vp8 }, Format { payload_type: 102, codec: h264 }];
        assert!(!formats(vp8, &known).have_rtx());
    }
}
