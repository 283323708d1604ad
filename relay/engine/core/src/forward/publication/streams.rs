//! The publication and encoding of each SSRC of a transport (RFC 8843 section 9.2, RFC 8852). Owns the table and its bound; must
//! never look at payloads. Read `mod.rs` next, which takes the packets.
//!
//! An SSRC is named in the offer, or learnt from its first packet: by the mid and rid extensions, or by a payload type that only one
//! publication has. Of one encoding's SSRCs the last two are known.

use serde::{Deserialize, Serialize};

use crate::command::{Codec, ExtensionKind, Publish};
use crate::drop::Drop;
use crate::rtp::{Header, extensions};

/// The encoding that a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    pub publication: u64,
    /// Index into the publication's encodings.
    pub encoding: usize,
    pub is_rtx: bool,
}

/// What identifies one publication's packets.
#[derive(Clone, Debug)]
struct Track {
    publication: u64,
    mid: String,
    codecs: Vec<Codec>,
    rids: Vec<Option<String>>,
    /// Extension ids of the m-line; 0 when it was not negotiated.
    mid_id: u8,
    rid_id: u8,
    repaired_rid_id: u8,
}

/// The SSRCs of one transport. There are few, so they are searched one by one.
#[derive(Clone, Debug)]
pub struct Streams {
    tracks: Vec<Track>,
    known: Vec<(u32, Stream)>,
    learnt: u64,
    limit: usize,
}

impl Streams {
    /// Knows `limit` SSRCs at the most; packets of further ones are dropped.
    pub fn new(limit: usize) -> Streams {
        Streams { tracks: Vec::new(), known: Vec::new(), learnt: 0, limit }
    }

    /// Adds a publication and the SSRCs that its offer named.
    pub fn add(&mut self, publish: &Publish) {
        let id = |kind| publish.extensions.iter().find(|extension| extension.kind == kind).map_or(0, |found| found.id);
        self.tracks.push(Track {
            publication: publish.publication,
            mid: publish.mid.clone(),
            codecs: publish.track_codecs().into_iter().map(|known| known.codec).collect(),
            rids: publish.encodings.iter().map(|encoding| encoding.rid.clone()).collect(),
            mid_id: id(ExtensionKind::Mid),
            rid_id: id(ExtensionKind::Rid),
            repaired_rid_id: id(ExtensionKind::RepairedRid),
        });
        for (at, encoding) in publish.encodings.iter().enumerate() {
            for (ssrc, is_rtx) in [(encoding.ssrc, false), (encoding.rtx_ssrc, true)] {
                let stream = Stream { publication: publish.publication, encoding: at, is_rtx };
                if let Some(ssrc) = ssrc.filter(|ssrc| self.find(*ssrc).is_none() && self.known.len() < self.limit) {
                    self.known.push((ssrc, stream));
                }
            }
        }
    }

    /// All SSRCs that are known.
    pub fn known(&self) -> &[(u32, Stream)] {
        &self.known
    }

    /// How many SSRCs were learnt. `known` has changed when this has.
    pub fn learnt(&self) -> u64 {
        self.learnt
    }

    /// Resumes with the SSRCs that a predecessor knew, of the publications that were added. They cannot be learnt again: clients name
    /// their streams in header extensions of the first packets only.
    pub fn restore(&mut self, known: Vec<(u32, Stream)>) {
        let is_added = |stream: &Stream| self.tracks.iter().any(|track| track.publication == stream.publication);
        self.known = known.into_iter().filter(|(_, stream)| is_added(stream)).collect();
    }

    /// Forgets a publication and its SSRCs.
    pub fn remove(&mut self, publication: u64) {
        self.tracks.retain(|track| track.publication != publication);
        self.known.retain(|(_, stream)| stream.publication != publication);
    }

    /// The encoding of an SSRC that is known, for RTCP.
    pub fn find(&self, ssrc: u32) -> Option<Stream> {
        self.known.iter().find(|(known, _)| *known == ssrc).map(|(_, stream)| *stream)
    }

    /// The encoding of a packet. Learns its SSRC when that is new.
    pub fn resolve(&mut self, header: &Header, packet: &[u8]) -> Result<Stream, Drop> {
        match self.find(header.ssrc) {
            Some(stream) => Ok(stream),
            None => self.learn(header, packet),
        }
    }

    fn learn(&mut self, header: &Header, packet: &[u8]) -> Result<Stream, Drop> {
        let track = self.track_by_mid(header, packet).or_else(|| self.track_by_payload_type(header));
        let stream = track.ok_or(Drop::RtpUnknownStream)?.stream(header, packet)?;
        // An encoder that starts over takes a new SSRC. Packets of the old one may still be under way, so two stay known.
        let mut same = self.known.iter().enumerate().filter(|(_, (_, known))| *known == stream).map(|(at, _)| at);
        if let (Some(oldest), Some(_)) = (same.next(), same.next()) {
            self.known.remove(oldest);
        } else if self.known.len() >= self.limit {
            return Err(Drop::TooManyStreams);
        }
        self.known.push((header.ssrc, stream));
        self.learnt += 1;
        Ok(stream)
    }

    fn track_by_mid(&self, header: &Header, packet: &[u8]) -> Option<&Track> {
        self.tracks.iter().find(|track| value(header, packet, track.mid_id) == Some(track.mid.as_bytes()))
    }

    fn track_by_payload_type(&self, header: &Header) -> Option<&Track> {
        let mut tracks = self.tracks.iter().filter(|track| track.takes(header.payload_type));
        let track = tracks.next()?;
        tracks.next().is_none().then_some(track)
    }
}

impl Track {
    fn takes(&self, payload_type: u8) -> bool {
        self.is_media(payload_type) || self.codecs.iter().any(|codec| codec.rtx_payload_type == Some(payload_type))
    }

    fn is_media(&self, payload_type: u8) -> bool {
        self.codecs.iter().any(|codec| codec.payload_type == payload_type)
    }

    fn stream(&self, header: &Header, packet: &[u8]) -> Result<Stream, Drop> {
        if !self.takes(header.payload_type) {
            return Err(Drop::RtpPayloadType);
        }
        let is_rtx = !self.is_media(header.payload_type);
        let wire_rid = is_rtx
            .then(|| value(header, packet, self.repaired_rid_id))
            .flatten()
            .or_else(|| value(header, packet, self.rid_id));
        let encoding = match (wire_rid, self.rids.len()) {
            (Some(wire_rid), _) if self.rids.iter().any(Option::is_some) => {
                self.rids.iter().position(|rid| rid.as_deref().map(str::as_bytes) == Some(wire_rid))
            }
            (_, 1) => Some(0),
            _ => None,
        };
        let encoding = encoding.ok_or(Drop::RtpUnknownStream)?;
        Ok(Stream { publication: self.publication, encoding, is_rtx })
    }
}

fn value<'a>(header: &Header, packet: &'a [u8], id: u8) -> Option<&'a [u8]> {
    if id == 0 { None } else { extensions::find(packet, header, id) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{CodecName, Encoding, Extension, MediaKind};
    use crate::rtp::{Fields, extensions::Elements};

    fn publish(publication: u64, mid: &str, payload_type: u8, encodings: &[(Option<&str>, Option<u32>)]) -> Publish {
        let kinds = [ExtensionKind::Mid, ExtensionKind::Rid, ExtensionKind::RepairedRid];
        Publish {
            publication,
            transport: 1,
            kind: MediaKind::Video,
            mid: mid.into(),
            codec: Codec {
                name: CodecName::Vp8,
                payload_type,
                rtx_payload_type: Some(payload_type + 1),
                clock_rate: 90_000,
            },
            encodings: encodings
                .iter()
                .map(|(rid, ssrc)| Encoding { rid: rid.map(String::from), ssrc: *ssrc, rtx_ssrc: None, log: 0 })
                .collect(),
            extensions: kinds.iter().zip(1..).map(|(kind, id)| Extension { id, kind: *kind }).collect(),
            nack: true,
            pli: true,
            fir: false,
            codecs: vec![],
            parameter_sets: Default::default(),
        }
    }

    fn resolve(streams: &mut Streams, ssrc: u32, payload_type: u8, values: &[(u8, &str)]) -> Result<Stream, Drop> {
        let mut elements = Elements::new();
        for (id, value) in values {
            assert!(elements.set(*id, value.as_bytes()));
        }
        let mut packet = [0; 100];
        let fields = Fields { marker: false, payload_type, sequence: 1, timestamp: 0, ssrc };
        let head = fields.write(!elements.is_empty(), &mut packet).unwrap();
        let len = head + elements.write(&mut packet[head..]).unwrap();
        streams.resolve(&Header::parse(&packet[..len]).unwrap(), &packet[..len])
    }

    fn stream(publication: u64, encoding: usize, is_rtx: bool) -> Result<Stream, Drop> {
        Ok(Stream { publication, encoding, is_rtx })
    }

    fn simulcast() -> Streams {
        let mut streams = Streams::new(8);
        streams.add(&publish(7, "0", 96, &[(Some("q"), None), (Some("h"), None), (Some("f"), None)]));
        streams
    }

    #[test]
    fn an_offered_ssrc_is_known_at_once() {
        let mut streams = Streams::new(8);
        streams.add(&publish(7, "0", 96, &[(None, Some(11))]));
        assert_eq!(resolve(&mut streams, 11, 96, &[]), stream(7, 0, false));
        assert_eq!(streams.find(12), None);
        streams.remove(7);
        assert_eq!(resolve(&mut streams, 11, 96, &[]), Err(Drop::RtpUnknownStream));
    }

    #[test]
    fn encodings_and_their_repairs_are_learnt_by_rid_and_kept() {
        let mut streams = simulcast();
        assert_eq!(resolve(&mut streams, 21, 96, &[(1, "0"), (2, "h")]), stream(7, 1, false));
        assert_eq!(resolve(&mut streams, 22, 97, &[(1, "0"), (3, "h")]), stream(7, 1, true));
        assert_eq!(resolve(&mut streams, 21, 96, &[]), stream(7, 1, false));
        assert_eq!(streams.find(22), stream(7, 1, true).ok());
    }

    #[test]
    fn without_a_rid_a_simulcast_packet_belongs_nowhere() {
        assert_eq!(resolve(&mut simulcast(), 21, 96, &[(1, "0")]), Err(Drop::RtpUnknownStream));
        assert_eq!(resolve(&mut simulcast(), 21, 96, &[(1, "0"), (2, "x")]), Err(Drop::RtpUnknownStream));
    }

    #[test]
    fn a_payload_type_that_only_one_publication_has_is_enough() {
        let mut streams = Streams::new(8);
        streams.add(&publish(7, "0", 96, &[(None, None)]));
        streams.add(&publish(8, "1", 100, &[(None, None)]));
        assert_eq!(resolve(&mut streams, 31, 100, &[]), stream(8, 0, false));
        assert_eq!(resolve(&mut streams, 32, 97, &[]), stream(7, 0, true));
        streams.add(&publish(9, "2", 100, &[(None, None)]));
        assert_eq!(resolve(&mut streams, 33, 100, &[]), Err(Drop::RtpUnknownStream));
        assert_eq!(resolve(&mut streams, 33, 100, &[(1, "2")]), stream(9, 0, false));
        assert_eq!(resolve(&mut streams, 34, 111, &[(1, "2")]), Err(Drop::RtpPayloadType));
    }

    #[test]
    fn ssrcs_are_bounded() {
        let mut streams = Streams::new(2);
        streams.add(&publish(7, "0", 96, &[(Some("q"), None), (Some("h"), None), (Some("f"), None)]));
        assert!(resolve(&mut streams, 1, 96, &[(1, "0"), (2, "q")]).is_ok());
        assert!(resolve(&mut streams, 2, 96, &[(1, "0"), (2, "h")]).is_ok());
        assert_eq!(resolve(&mut streams, 3, 96, &[(1, "0"), (2, "f")]), Err(Drop::TooManyStreams));
    }

    #[test]
    fn a_later_ssrc_of_the_same_encoding_replaces_the_older_one() {
        let mut streams = simulcast();
        for ssrc in 1..100 {
            assert_eq!(resolve(&mut streams, ssrc, 96, &[(1, "0"), (2, "q")]), stream(7, 0, false));
        }
        assert_eq!(streams.known.len(), 2);
        assert!(streams.find(98).is_some() && streams.find(99).is_some());
    }
}
