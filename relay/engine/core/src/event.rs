//! Engine -> Python: what happened that the control plane must know. Never anything per packet. Same wire form as
//! commands; `relay/contract/events.py` is the other side.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    TransportConnected(TransportConnected),
    TransportClosed(TransportClosed),
    TransportStalled(TransportStalled),
    PublicationStarted(PublicationStarted),
    PublicationEnded(PublicationEnded),
    CodecInUse(CodecInUse),
    TransportReport(TransportReport),
    CommandFailed(CommandFailed),
    TransportAdopted(TransportAdopted),
    AdoptionDone(AdoptionDone),
    MoveDone(MoveDone),
    PublisherSilent(PublisherSilent),
    PublisherHeard(PublisherHeard),
}

/// Why a transport ended or does not work; the label is the metric's label and what `GET /sessions/{id}` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The control plane closed it: not a failure.
    Closed,
    /// The client sent DTLS close_notify: not a failure.
    ClosedByPeer,
    /// No STUN request with this ufrag arrived.
    NoStun,
    /// STUN arrived, but its MESSAGE-INTEGRITY never matched.
    BadIntegrity,
    /// ICE worked, but no DTLS record arrived.
    NoClientHello,
    /// DTLS began and did not finish in time.
    HandshakeTimeout,
    /// The peer sent a DTLS alert, or the library refused the handshake.
    DtlsAlert,
    /// The peer's certificate is not the one that its SDP promised.
    FingerprintMismatch,
    /// DTLS finished without a common SRTP profile.
    NoSrtpProfile,
    /// Connected, and a publisher, but no SRTP packet that authenticates has come.
    NoSrtp,
    /// No authenticated STUN request for the consent period (RFC 7675).
    ConsentLost,
}

impl Cause {
    pub const ALL: &'static [Cause] = &[
        Cause::Closed,
        Cause::ClosedByPeer,
        Cause::NoStun,
        Cause::BadIntegrity,
        Cause::NoClientHello,
        Cause::HandshakeTimeout,
        Cause::DtlsAlert,
        Cause::FingerprintMismatch,
        Cause::NoSrtpProfile,
        Cause::NoSrtp,
        Cause::ConsentLost,
    ];

    /// The wire name, which is the metric's label too.
    pub fn label(self) -> &'static str {
        match self {
            Cause::Closed => "closed",
            Cause::ClosedByPeer => "closed_by_peer",
            Cause::NoStun => "no_stun",
            Cause::BadIntegrity => "bad_integrity",
            Cause::NoClientHello => "no_client_hello",
            Cause::HandshakeTimeout => "handshake_timeout",
            Cause::DtlsAlert => "dtls_alert",
            Cause::FingerprintMismatch => "fingerprint_mismatch",
            Cause::NoSrtpProfile => "no_srtp_profile",
            Cause::NoSrtp => "no_srtp",
            Cause::ConsentLost => "consent_lost",
        }
    }

    /// Whether a session that ended so counts as failed.
    pub fn is_failure(self) -> bool {
        !matches!(self, Cause::Closed | Cause::ClosedByPeer)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransportConnected {
    pub transport: u64,
    /// IANA name, such as `AEAD_AES_128_GCM`.
    pub srtp_profile: String,
    /// Such as `DTLSv1.2`.
    pub dtls_version: String,
    /// From the first DTLS record to the keys, microseconds.
    pub handshake_us: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransportClosed {
    pub transport: u64,
    pub cause: Cause,
}

/// Something is wrong, and the transport lives on in case it mends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransportStalled {
    pub transport: u64,
    pub cause: Cause,
}

/// The first packet of a publication is in its log, or the first after `PublicationEnded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicationStarted {
    pub publication: u64,
}

/// Every stream of the publication said BYE. It may send again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicationEnded {
    pub publication: u64,
}

/// No publication of the transport has brought a packet for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublisherSilent {
    pub transport: u64,
}

/// A packet of one of the transport's publications came: the first since the opening, since the adoption or since `PublisherSilent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublisherHeard {
    pub transport: u64,
}

/// Which of its codecs a publication sends: with the first packet, and when that changes. Never for one that has a single codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodecInUse {
    pub publication: u64,
    pub payload_type: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransportReport {
    pub transport: u64,
    pub request: u64,
    /// `new`, `checked`, `handshaking`, `connected`.
    pub state: String,
    pub remote_address: Option<String>,
    pub srtp_profile: Option<String>,
    pub packets_received: u64,
    pub bytes_received: u64,
    pub packets_sent: u64,
    pub bytes_sent: u64,
    /// Drops by label, zero entries left out.
    pub drops: Vec<(String, u64)>,
    /// From RTCP of either direction; `None` before the first measurement.
    pub round_trip_ms: Option<f64>,
    pub publications: Vec<PublicationReport>,
    pub subscriptions: Vec<SubscriptionReport>,
    /// `udp` or `tcp`, of the path that media goes to.
    #[serde(default)]
    pub remote_protocol: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicationReport {
    pub publication: u64,
    pub packets: u64,
    pub bytes: u64,
    pub packets_lost: u64,
    pub packets_recovered: u64,
    pub jitter_ms: f64,
    pub nacks_sent: u64,
    pub key_frame_requests_sent: u64,
    pub key_frames: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionReport {
    pub subscription: u64,
    pub publication: Option<u64>,
    pub packets: u64,
    pub bytes: u64,
    pub retransmitted: u64,
    pub nacks_received: u64,
    /// 0..1, from the viewer's last receiver report.
    pub fraction_lost: f64,
    pub key_frame_requests_received: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandFailed {
    /// The command's name.
    pub command: String,
    /// The id that the command was about: transport, publication or subscription.
    pub id: u64,
    pub reason: String,
}

/// A transport of this slot's dead worker, or of another slot that moved it here, lives on here under the same ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransportAdopted {
    pub transport: u64,
    /// As `SaveRecord` saved it last. A transport of which the control plane never saved a record is not adopted.
    pub record: serde_bytes::ByteBuf,
    pub publications: Vec<u64>,
    /// Attached as they were.
    pub subscriptions: Vec<u64>,
    /// Else its handshake had not begun.
    pub connected: bool,
}

/// Every transport that could be adopted has been named. Sent once, at every start, before all other events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdoptionDone {
    pub adopted: u32,
    /// Unfinished handshakes, transports of which the control plane saved no record, and records that could not be used.
    pub lost: u32,
}

/// The outcome of `MoveTransport`. Unless it moved, the transport goes on here as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveDone {
    pub transport: u64,
    pub slot: u8,
    pub outcome: Outcome,
}

/// Whether a transport moved, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The other slot has it.
    Moved,
    /// Its handshake is under way, which no other worker can finish.
    Handshaking,
    /// It has no session record from which another worker could adopt it.
    NoRecord,
    /// The ring to the other worker, or the address table, is full just now.
    Busy,
    /// The other slot has no room for it, or cannot read its record.
    Refused,
    /// The other slot did not answer in time.
    Unanswered,
}
