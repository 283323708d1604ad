//! The reasons why a packet or datagram is not forwarded. Each is counted under its own label and never logged. Must never carry
//! values: a reason is a counter, not a message. Read `stats.rs` next.

macro_rules! drops {
    ($($(#[$doc:meta])* $name:ident => $label:literal $direction:ident,)*) => {
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

            /// `in` on the way from a client, `out` on the way to one.
            pub fn direction(self) -> &'static str {
                match self {
                    $(Drop::$name => stringify!($direction),)*
                }
            }
        }
    };
}

drops! {
    /// Empty, or its first byte belongs to no protocol of this port (RFC 7983).
    NotDemuxed => "not_demuxed" in,
    /// Not STUN, and from an address that no transport of any worker has proven.
    UnknownSource => "unknown_source" in,
    /// STUN that does not parse, or is not a binding request or response.
    StunMalformed => "stun_malformed" in,
    /// A STUN request whose ufrag names no transport.
    StunUnknownUfrag => "stun_unknown_ufrag" in,
    /// MESSAGE-INTEGRITY or FINGERPRINT does not match.
    StunIntegrity => "stun_integrity" in,
    /// The transport had as many addresses as it may, so the one that was checked longest ago was dropped for a new one.
    TooManyAddresses => "too_many_addresses" in,
    /// DTLS before an authenticated ICE check, or not a DTLS record.
    DtlsUnexpected => "dtls_unexpected" in,
    /// As many handshakes are under way as the configuration allows.
    TooManyHandshakes => "too_many_handshakes" in,
    /// RTP or RTCP before the handshake made keys.
    SrtpNoKeys => "srtp_no_keys" in,
    /// Too short for its headers and tag, or its header does not parse.
    SrtpMalformed => "srtp_malformed" in,
    /// The authentication tag does not match.
    SrtpAuthentication => "srtp_authentication" in,
    /// Seen before, or too old to tell.
    SrtpReplay => "srtp_replay" in,
    /// The RTP inside does not parse.
    RtpMalformed => "rtp_malformed" in,
    /// The RTCP inside does not parse.
    RtcpMalformed => "rtcp_malformed" in,
    /// An SSRC, mid or rid that belongs to no publication.
    RtpUnknownStream => "rtp_unknown_stream" in,
    /// More SSRCs than a client may send over one transport.
    TooManyStreams => "too_many_streams" in,
    /// A payload type that was not negotiated for its publication.
    RtpPayloadType => "rtp_payload_type" in,
    /// Already in the track log.
    RtpDuplicate => "rtp_duplicate" in,
    /// Older than the track log reaches.
    RtpTooOld => "rtp_too_old" in,
    /// Larger than a track log entry.
    RtpTooLarge => "rtp_too_large" in,
    /// Padding only, or a retransmission without a payload: probes for bandwidth.
    RtpPadding => "rtp_padding" in,
    /// The subscriber has not reached a key frame yet.
    AwaitsKeyFrame => "awaits_key_frame" out,
    /// A layer that this subscription does not forward.
    LayerNotSelected => "layer_not_selected" out,
    /// The writer of the track log had overwritten it before it was read.
    LogOvertaken => "log_overtaken" out,
    /// The subscriber's transport has no selected address or no keys.
    NotConnected => "not_connected" out,
    /// The outgoing batch is full.
    OutboxFull => "outbox_full" out,
    /// The kernel refused the datagram.
    SendFailed => "send_failed" out,
    /// The box's address table (`arena.addresses`) has no room for an address. Its datagrams come in only if the kernel delivers them to
    /// the owner.
    AddressTableFull => "address_table_full" in,
    /// The ring to the owning worker is full.
    HandoverFull => "handover_full" in,
    /// An answer to no request of ours that is under way at the address it came from.
    StunUnexpectedAnswer => "stun_unexpected_answer" in,
    /// The client answered our request with an error, which proves nothing.
    StunErrorAnswer => "stun_error_answer" in,
    /// An answer that names another address than ours: somebody passed our request on to the client.
    StunRelayedAnswer => "stun_relayed_answer" in,
    /// A DTLS alert that nothing protects: anybody could have sent it.
    DtlsPlainAlert => "dtls_plain_alert" in,
    /// An address that is not proven would have got more than three times what came from there.
    UnprovenAddress => "unproven_address" out,
    /// Of a codec that the publisher changed to and this subscription cannot play.
    CodecNotPlayable => "codec_not_playable" out,
    /// The client does not read its TCP connection as fast as media comes, and the kernel's buffer is full.
    TcpBacklog => "tcp_backlog" out,
    /// A frame (RFC 4571) longer than any datagram that is taken; its TCP connection was closed.
    TcpFrameTooLong => "tcp_frame_too_long" in,
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
