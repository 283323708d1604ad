//! Python -> engine: what the control plane wants done, as msgpack. Owns the shapes, refuses what it does not know; must
//! never act on them. `relay/contract/commands.py` is the other side, `tests/contract` holds the golden bytes both must match.
//!
//! A command is a map of one entry, `{"Name": {field: value, ...}}`. The caller names everything (ids, ICE credentials,
//! SSRCs, track logs), so nothing waits for a reply; a command that cannot be carried out comes back as `CommandFailed`.

use serde::{Deserialize, Serialize};

/// The longest record that `SaveRecord` may carry.
pub const MAX_RECORD_BYTES: usize = 8_192;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    OpenTransport(OpenTransport),
    RestartIce(RestartIce),
    CloseTransport(CloseTransport),
    Publish(Publish),
    Unpublish(Unpublish),
    Subscribe(Subscribe),
    Attach(Attach),
    Detach(Detach),
    Unsubscribe(Unsubscribe),
    ReportTransport(ReportTransport),
    SaveRecord(SaveRecord),
    MoveTransport(MoveTransport),
    SetWish(SetWish),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DtlsRole {
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FingerprintHash {
    #[serde(rename = "sha-256")]
    Sha256,
    #[serde(rename = "sha-384")]
    Sha384,
    #[serde(rename = "sha-512")]
    Sha512,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaKind {
    Audio,
    Video,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodecName {
    Opus,
    Vp8,
    Vp9,
    H264,
    Av1,
}

/// An RTP header extension by meaning; the URIs are in `relay/negotiation/extensions.py`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExtensionKind {
    Mid,
    Rid,
    RepairedRid,
    AudioLevel,
    TransportCc,
    AbsSendTime,
    AbsCaptureTime,
    PlayoutDelay,
    VideoOrientation,
    DependencyDescriptor,
    VideoContentType,
    ColorSpace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extension {
    /// 1..=14 fit a one-byte header (RFC 8285 section 4.2), up to 255 a two-byte one.
    pub id: u8,
    pub kind: ExtensionKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenTransport {
    pub transport: u64,
    /// Two lowercase hex digits of the slot, then random ice-chars.
    pub local_ufrag: String,
    pub local_pwd: String,
    pub remote_ufrag: String,
    pub remote_pwd: String,
    /// Our role: `client` when the offer said `setup:passive`.
    pub dtls_role: DtlsRole,
    pub fingerprint_hash: FingerprintHash,
    /// Raw digests; the peer's certificate must match one.
    pub fingerprints: Vec<serde_bytes::ByteBuf>,
    /// Whether the client will send media: then its silence after the handshake is reported as `no_srtp`.
    pub expects_media: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartIce {
    pub transport: u64,
    pub local_ufrag: String,
    pub local_pwd: String,
    pub remote_ufrag: String,
    pub remote_pwd: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloseTransport {
    pub transport: u64,
}

/// A codec as one side numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Codec {
    pub name: CodecName,
    pub payload_type: u8,
    pub rtx_payload_type: Option<u8>,
    /// Hz.
    pub clock_rate: u32,
}

/// A codec that a publisher may send, and whether it answers generic NACK (RFC 4585), PLI and FIR (RFC 5104) then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackCodec {
    pub codec: Codec,
    pub nack: bool,
    pub pli: bool,
    pub fir: bool,
}

/// What a payload type of the publisher's is at a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Format {
    /// As the publisher numbers it.
    pub payload_type: u8,
    /// As the subscriber numbers it.
    pub codec: Codec,
}

/// One RTP stream of a publication: the only one, or one simulcast encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encoding {
    /// The wire name of a simulcast encoding (RFC 8852).
    pub rid: Option<String>,
    /// Known when the offer says so; otherwise learnt from mid and rid, or from the payload type.
    pub ssrc: Option<u32>,
    pub rtx_ssrc: Option<u32>,
    /// The track log that this encoding is written to; the caller owns the numbering.
    pub log: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    pub publication: u64,
    pub transport: u64,
    pub kind: MediaKind,
    pub mid: String,
    /// The codec in use, as far as it is known; else the first of `codecs`. A release that takes one codec goes on with it.
    pub codec: Codec,
    /// Lowest quality first, at most three.
    pub encodings: Vec<Encoding>,
    pub extensions: Vec<Extension>,
    /// Whether the client answers generic NACK (RFC 4585), PLI and FIR (RFC 5104) while it sends `codec`.
    pub nack: bool,
    pub pli: bool,
    pub fir: bool,
    /// All codecs that the client may send. Empty when `codec` is the only one.
    #[serde(default)]
    pub codecs: Vec<TrackCodec>,
    /// H264's parameter sets, as far as the offer has them (`sprop-parameter-sets`, RFC 6184 section 8.1): each unit behind its size in
    /// two bytes. Empty once the log has them.
    #[serde(default)]
    pub parameter_sets: serde_bytes::ByteBuf,
}

impl Publish {
    /// All codecs that the client may send, at least one.
    pub fn track_codecs(&self) -> Vec<TrackCodec> {
        if self.codecs.is_empty() {
            let Publish { codec, nack, pli, fir, .. } = *self;
            return vec![TrackCodec { codec, nack, pli, fir }];
        }
        self.codecs.clone()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unpublish {
    pub publication: u64,
}

/// The receiving end of one m-line of a viewer: an outgoing RTP stream with its own SSRC, fed by `Attach`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    pub subscription: u64,
    pub transport: u64,
    pub kind: MediaKind,
    pub mid: String,
    pub ssrc: u32,
    pub rtx_ssrc: Option<u32>,
    pub cname: String,
    pub extensions: Vec<Extension>,
}

/// Feeds a subscription from a publication's track logs. Attaching another publication later keeps the outgoing
/// sequence numbers and timestamps continuous.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    pub subscription: u64,
    pub publication: u64,
    /// The logs of the publication's encodings, lowest quality first.
    pub logs: Vec<u32>,
    /// The codec in use, as the subscriber numbers it.
    pub codec: Codec,
    /// The publisher's numbering, to be rewritten to the subscriber's.
    pub source_extensions: Vec<Extension>,
    /// The publisher's payload types that the subscriber can play. Empty when each packet is `codec`.
    #[serde(default)]
    pub formats: Vec<Format>,
}

/// How large a viewer shows a subscription, whatever it is attached to, now and later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetWish {
    pub subscription: u64,
    /// Pixels. The viewer gets the smallest encoding that is as high; `None` is the best there is.
    pub height: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detach {
    pub subscription: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unsubscribe {
    pub subscription: u64,
}

/// Asks for a `TransportReport` event that carries `request` back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportTransport {
    pub transport: u64,
    pub request: u64,
}

/// Saves these bytes with the transport, in place of those before. Should this worker die, its successor's control plane gets
/// them back in `TransportAdopted`. Only the control plane knows what they say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaveRecord {
    pub transport: u64,
    pub record: serde_bytes::ByteBuf,
}

/// Moves this transport, with all that is published and subscribed over it, to the worker of another slot. `MoveDone` tells
/// the outcome; until then no command about the transport can be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveTransport {
    pub transport: u64,
    pub slot: u8,
}
