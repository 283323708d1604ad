//! Why a packet or datagram was not forwarded. Each reason is counted under its own label and never logged.
//! Must never carry values: a reason is a counter, not a message. Read `stats.rs` next.

macro_rules! drops {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)*) => {
        /// The reason for a drop; its label is the metric's label.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum Drop {
            $($(#[$doc])* $name,)*
        }

        impl Drop {
            pub const ALL: &'static [Drop] = &[$(Drop::$name,)*];

            pub fn label(self) -> &'static str {
                match self {
                    $(Drop::$name => $label,)*
                }
            }
        }
    };
}

drops! {
    /// Empty, or its first byte belongs to no protocol that we take (RFC 7983).
    NotDemuxed => "not_demuxed",
    /// Not STUN, and from an address that no transport here or elsewhere has proven.
    UnknownSource => "unknown_source",
    /// STUN that does not parse, or is not a binding request or response.
    StunMalformed => "stun_malformed",
    /// A STUN request whose ufrag names no transport.
    StunUnknownUfrag => "stun_unknown_ufrag",
    /// MESSAGE-INTEGRITY or FINGERPRINT does not match.
    StunIntegrity => "stun_integrity",
    /// The transport held as many addresses as it may, so its oldest was dropped for a new one.
    TooManyAddresses => "too_many_addresses",
    /// DTLS before an authenticated ICE check, or not a DTLS record.
    DtlsUnexpected => "dtls_unexpected",
    /// As many handshakes are under way as the configuration allows.
    TooManyHandshakes => "too_many_handshakes",
    /// RTP or RTCP before the handshake gave keys.
    SrtpNoKeys => "srtp_no_keys",
    /// Too short for its headers and tag, or its header does not parse.
    SrtpMalformed => "srtp_malformed",
    /// The authentication tag does not match.
    SrtpAuthentication => "srtp_authentication",
    /// Seen before, or too old to tell.
    SrtpReplay => "srtp_replay",
    /// The RTP inside does not parse.
    RtpMalformed => "rtp_malformed",
    /// The RTCP inside does not parse.
    RtcpMalformed => "rtcp_malformed",
    /// An SSRC, mid or rid that belongs to no publication.
    RtpUnknownStream => "rtp_unknown_stream",
    /// More SSRCs than a transport may bring.
    TooManyStreams => "too_many_streams",
    /// A payload type that was not negotiated for its publication.
    RtpPayloadType => "rtp_payload_type",
    /// Already in the track log.
    RtpDuplicate => "rtp_duplicate",
    /// Older than the track log reaches.
    RtpTooOld => "rtp_too_old",
    /// Larger than a track log entry.
    RtpTooLarge => "rtp_too_large",
    /// Padding only, or retransmission of nothing: probes, not media.
    RtpPadding => "rtp_padding",
    /// The subscriber has not reached a key frame yet.
    AwaitsKeyFrame => "awaits_key_frame",
    /// A layer that this subscription does not take.
    LayerNotSelected => "layer_not_selected",
    /// The reader was overtaken by the writer of the track log.
    LogOvertaken => "log_overtaken",
    /// The subscriber's transport has no selected address or no keys.
    NotConnected => "not_connected",
    /// The outgoing batch is full.
    OutboxFull => "outbox_full",
    /// The kernel refused the datagram.
    SendFailed => "send_failed",
    /// The ring to the owning worker is full.
    HandoverFull => "handover_full",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_has_a_label_of_its_own() {
        let mut labels: Vec<_> = Drop::ALL.iter().map(|drop| drop.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Drop::ALL.len());
    }
}
