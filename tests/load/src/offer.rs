//! Writes the offers of publishers and viewers, as plain as a browser's can be: Opus, VP8 with RTX, one BUNDLE group.
//! Owns the numbering of payload types and header extensions; must never read an answer. Read `answer.rs` next.

use std::net::SocketAddr;

use crate::stream::Kind;

/// What differs from one offer to another.
pub struct Offer<'a> {
    pub ufrag: &'a str,
    pub pwd: &'a str,
    /// Of SHA-256, as it stands in SDP.
    pub fingerprint: &'a str,
    /// Our one candidate.
    pub address: SocketAddr,
    pub media: &'a [Media],
    pub sends: bool,
}

/// One m-line; its mid is its position in the list.
#[derive(Clone, Copy, Debug)]
pub struct Media {
    pub kind: Kind,
    /// The SSRCs of a publisher's media and its repair.
    pub ssrc: u32,
    pub rtx_ssrc: u32,
}

/// Payload types as Chromium, and Janus by default, number them.
pub const OPUS: u8 = 111;
pub const VP8: u8 = 96;
pub const RTX: u8 = 97;

pub const MID: (u8, &str) = (4, "urn:ietf:params:rtp-hdrext:sdes:mid");
pub const ABS_SEND_TIME: (u8, &str) = (2, "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time");
pub const TRANSPORT_CC: (u8, &str) = (3, "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01");

impl Offer<'_> {
    pub fn write(&self) -> String {
        let family = if self.address.is_ipv6() { "IP6" } else { "IP4" };
        let ip = self.address.ip();
        let mids: Vec<_> = (0..self.media.len()).map(|mid| mid.to_string()).collect();
        let mut lines = vec![
            "v=0".to_owned(),
            format!("o=- {} 1 IN {family} {ip}", self.address.port()),
            "s=-".to_owned(),
            "t=0 0".to_owned(),
            format!("a=group:BUNDLE {}", mids.join(" ")),
            "a=msid-semantic: WMS *".to_owned(),
        ];
        for (mid, media) in self.media.iter().enumerate() {
            self.write_media(mid, media, family, &mut lines);
        }
        lines.join("\r\n") + "\r\n"
    }

    fn write_media(&self, mid: usize, media: &Media, family: &str, lines: &mut Vec<String>) {
        let ip = self.address.ip();
        let port = self.address.port();
        let mut add = |line: String| lines.push(line);
        match media.kind {
            Kind::Audio => add(format!("m=audio 9 UDP/TLS/RTP/SAVPF {OPUS}")),
            Kind::Video => add(format!("m=video 9 UDP/TLS/RTP/SAVPF {VP8} {RTX}")),
        }
        add(format!("c=IN {family} {ip}"));
        add(format!("a=candidate:1 1 udp 2130706431 {ip} {port} typ host"));
        add("a=end-of-candidates".to_owned());
        add(format!("a=ice-ufrag:{}", self.ufrag));
        add(format!("a=ice-pwd:{}", self.pwd));
        add(format!("a=fingerprint:sha-256 {}", self.fingerprint));
        add("a=setup:actpass".to_owned());
        add(format!("a=mid:{mid}"));
        let mut extensions = vec![MID, ABS_SEND_TIME];
        if self.sends {
            // Viewers leave it out, so that no server estimates their bandwidth and each gets every packet.
            extensions.push(TRANSPORT_CC);
        }
        for (id, uri) in extensions {
            add(format!("a=extmap:{id} {uri}"));
        }
        add(if self.sends { "a=sendonly" } else { "a=recvonly" }.to_owned());
        if self.sends {
            add(format!("a=msid:load load{mid}"));
        }
        add("a=rtcp-mux".to_owned());
        add("a=rtcp-rsize".to_owned());
        match media.kind {
            Kind::Audio => {
                add(format!("a=rtpmap:{OPUS} opus/48000/2"));
                add(format!("a=fmtp:{OPUS} minptime=10;useinbandfec=1"));
            }
            Kind::Video => {
                add(format!("a=rtpmap:{VP8} VP8/90000"));
                for feedback in ["nack", "nack pli", "ccm fir"] {
                    add(format!("a=rtcp-fb:{VP8} {feedback}"));
                }
                add(format!("a=rtpmap:{RTX} rtx/90000"));
                add(format!("a=fmtp:{RTX} apt={VP8}"));
            }
        }
        if self.sends {
            let payload_type = if media.kind == Kind::Audio { OPUS } else { VP8 };
            add(format!("a=rtcp-fb:{payload_type} transport-cc"));
            if media.kind == Kind::Video {
                add(format!("a=ssrc-group:FID {} {}", media.ssrc, media.rtx_ssrc));
                add(format!("a=ssrc:{} cname:load", media.rtx_ssrc));
            }
            add(format!("a=ssrc:{} cname:load", media.ssrc));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_says_what_it_sends_and_a_viewer_only_what_it_takes() {
        let media =
            [Media { kind: Kind::Audio, ssrc: 11, rtx_ssrc: 0 }, Media { kind: Kind::Video, ssrc: 12, rtx_ssrc: 13 }];
        let address = "[::1]:5000".parse().unwrap();
        let offer = |sends| Offer { ufrag: "uuuu", pwd: "p", fingerprint: "AB", address, media: &media, sends }.write();
        let (publisher, viewer) = (offer(true), offer(false));
        assert!(publisher.contains("a=group:BUNDLE 0 1\r\n") && publisher.contains("a=ssrc-group:FID 12 13\r\n"));
        assert!(publisher.contains("c=IN IP6 ::1\r\n") && publisher.matches("a=sendonly\r\n").count() == 2);
        assert!(viewer.matches("a=recvonly\r\n").count() == 2);
        assert!(!viewer.contains("ssrc") && !viewer.contains("transport"));
        assert!(viewer.lines().all(|line| line.as_bytes()[1] == b'='));
    }
}
