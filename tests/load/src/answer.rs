//! Reads an answer, whoever wrote it: where the server is, its ICE and DTLS side, and how each m-line is numbered. Must
//! never know which server it was. Read `desk.rs` next.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use millrace_core::command::{DtlsRole, FingerprintHash};

/// What a client needs of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub ufrag: String,
    pub pwd: String,
    /// Our role.
    pub role: DtlsRole,
    pub hash: FingerprintHash,
    pub fingerprint: Vec<u8>,
    /// On UDP, in the order of the answer.
    pub candidates: Vec<SocketAddr>,
    pub media: Vec<Section>,
}

/// One m-line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    pub accepted: bool,
    /// The one that media uses, and its repair's.
    pub payload_type: u8,
    pub rtx_payload_type: Option<u8>,
    /// Ids with their URIs.
    pub extensions: Vec<(u8, String)>,
}

impl Section {
    pub fn extension(&self, uri: &str) -> Option<u8> {
        self.extensions.iter().find(|(_, found)| found == uri).map(|(id, _)| *id)
    }
}

impl Answer {
    pub fn parse(text: &str) -> Result<Answer> {
        let mut reader = Reader::default();
        for line in text.lines() {
            reader.take(line.trim_end());
        }
        let role = match reader.setup.as_deref() {
            Some("active") => DtlsRole::Server,
            Some("passive") => DtlsRole::Client,
            other => bail!("the answer's a=setup is {other:?}"),
        };
        let (name, digits) =
            reader.fingerprint.as_deref().and_then(|line| line.split_once(' ')).context("no fingerprint")?;
        let hash = match name.to_ascii_lowercase().as_str() {
            "sha-256" => FingerprintHash::Sha256,
            "sha-384" => FingerprintHash::Sha384,
            "sha-512" => FingerprintHash::Sha512,
            _ => bail!("the answer's fingerprint is of {name}"),
        };
        let fingerprint: Result<Vec<u8>, _> =
            digits.trim().split(':').map(|pair| u8::from_str_radix(pair, 16)).collect();
        ensure!(!reader.candidates.is_empty(), "the answer has no candidate on UDP");
        ensure!(reader.media.iter().any(|section| section.accepted), "the answer accepts no m-line");
        Ok(Answer {
            ufrag: reader.ufrag.context("the answer has no ufrag")?,
            pwd: reader.pwd.context("the answer has no pwd")?,
            role,
            hash,
            fingerprint: fingerprint.context("the answer's fingerprint is not hex")?,
            candidates: reader.candidates,
            media: reader.media,
        })
    }
}

/// The first of each attribute counts, above the m-lines or in one: with BUNDLE they are the same.
#[derive(Default)]
struct Reader {
    ufrag: Option<String>,
    pwd: Option<String>,
    setup: Option<String>,
    fingerprint: Option<String>,
    candidates: Vec<SocketAddr>,
    media: Vec<Section>,
}

impl Reader {
    fn take(&mut self, line: &str) {
        if let Some(media) = line.strip_prefix("m=") {
            let mut words = media.split(' ').skip(1);
            let accepted = words.next().is_some_and(|port| port != "0");
            let payload_type = words.nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
            self.media.push(Section { accepted, payload_type, ..Section::default() });
        }
        let Some((name, value)) = line.strip_prefix("a=").and_then(|attribute| attribute.split_once(':')) else {
            if line == "a=inactive" {
                self.section(|section| section.accepted = false);
            }
            return;
        };
        let set_once = |place: &mut Option<String>| {
            place.get_or_insert_with(|| value.trim().to_owned());
        };
        match name {
            "ice-ufrag" => set_once(&mut self.ufrag),
            "ice-pwd" => set_once(&mut self.pwd),
            "setup" => set_once(&mut self.setup),
            "fingerprint" => set_once(&mut self.fingerprint),
            "candidate" => self.candidates.extend(candidate(value).filter(|found| !self.candidates.contains(found))),
            "extmap" => {
                let extension = value.split_once(' ').and_then(|(id, uri)| {
                    let id = id.split('/').next()?.parse().ok()?;
                    Some((id, uri.split(' ').next()?.to_owned()))
                });
                self.section(|section| section.extensions.extend(extension));
            }
            "fmtp" => {
                if let Some((payload_type, repaired)) = value.split_once(" apt=") {
                    self.section(|section| {
                        if repaired.trim().parse() == Ok(section.payload_type) {
                            section.rtx_payload_type = payload_type.parse().ok();
                        }
                    });
                }
            }
            _ => {}
        }
    }

    fn section(&mut self, change: impl FnOnce(&mut Section)) {
        if let Some(section) = self.media.last_mut() {
            change(section);
        }
    }
}

/// RFC 8839 section 5.1; names (mDNS) and other components than RTP's are left out.
fn candidate(value: &str) -> Option<SocketAddr> {
    let words: Vec<_> = value.split_ascii_whitespace().collect();
    let [_, component, transport, _, ip, port, ..] = words[..] else { return None };
    if component != "1" || !transport.eq_ignore_ascii_case("udp") {
        return None;
    }
    Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "v=0\r\na=ice-lite\r\nm=audio 7882 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:00ab\r\na=ice-pwd:secret\r\n\
        a=fingerprint:SHA-256 0A:ff\r\na=setup:passive\r\na=mid:0\r\na=extmap:4/sendonly urn:mid\r\n\
        a=candidate:1 1 udp 1 127.0.0.1 7882 typ host\r\na=candidate:2 1 tcp 1 127.0.0.1 9 typ host\r\n\
        a=candidate:3 2 udp 1 127.0.0.1 7883 typ host\r\na=candidate:4 1 UDP 1 ::1 7882 typ host\r\n\
        a=candidate:5 1 udp 1 x.local 7882 typ host\r\n\
        m=video 7882 UDP/TLS/RTP/SAVPF 96 97\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=setup:passive\r\n\
        m=video 0 UDP/TLS/RTP/SAVPF 96\r\n";

    #[test]
    fn all_that_a_client_needs_is_found() {
        let answer = Answer::parse(ANSWER).unwrap();
        assert_eq!((answer.ufrag.as_str(), answer.pwd.as_str(), answer.role), ("00ab", "secret", DtlsRole::Client));
        assert_eq!((answer.hash, answer.fingerprint.as_slice()), (FingerprintHash::Sha256, &[0x0a, 0xff][..]));
        let candidates: Vec<_> = answer.candidates.iter().map(ToString::to_string).collect();
        assert_eq!(candidates, ["127.0.0.1:7882", "[::1]:7882"]);
        assert_eq!(answer.media[0].extension("urn:mid"), Some(4));
        assert_eq!((answer.media[1].payload_type, answer.media[1].rtx_payload_type), (96, Some(97)));
        assert_eq!(answer.media.iter().map(|section| section.accepted).collect::<Vec<_>>(), [true, true, false]);
    }

    #[test]
    fn an_active_server_makes_us_the_dtls_server() {
        assert_eq!(Answer::parse(&ANSWER.replace("passive", "active")).unwrap().role, DtlsRole::Server);
    }

    #[test]
    fn an_answer_that_cannot_be_followed_says_why() {
        for (from, to, why) in [
            ("udp", "tls", "no candidate"),
            ("passive", "actpass", "setup"),
            ("SHA-256", "md5", "fingerprint"),
            ("ice-pwd", "pwd", "no pwd"),
            ("m=audio 7882", "m=audio 0", ""),
        ] {
            let changed = ANSWER.replace(from, to).replace(if why == "no candidate" { "UDP 1" } else { "\0" }, "TLS 1");
            match Answer::parse(&changed) {
                Ok(answer) => assert!(why.is_empty() && !answer.media[0].accepted),
                Err(error) => assert!(!why.is_empty() && error.to_string().contains(why), "{error}"),
            }
        }
    }
}
