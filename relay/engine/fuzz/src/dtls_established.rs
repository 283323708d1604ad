//! Datagrams (a length byte, times eight, before each) that come from a proven address after the handshake. Asserts that
//! nobody without the keys ends the association, and that nothing but our last flight is sent, at most every 50 ms. Read
//! `core/src/transport/dtls/established.rs` next.

use std::sync::OnceLock;

use millrace_core::command::{DtlsRole, FingerprintHash, OpenTransport};
use millrace_core::outbox::{Outbox, Path, SocketIndex};
use millrace_core::time::{Span, Time};
use millrace_core::transport::stun::{self, Integrity, attribute};
use millrace_core::transport::stun_writer::Writer;
use millrace_core::transport::{DtlsContexts, Limits, Transport, TransportState};
use openssl::hash::MessageDigest;
use openssl::x509::X509;

use super::dtls_in::run_step;

const PWD: &str = "a password of enough characters";
const PAUSE: Span = Span::from_millis(50);
const LIMITS: Limits = Limits {
    max_addresses: 2,
    max_streams: 2,
    ice_timeout: Span::from_secs(10),
    handshake_timeout: Span::from_secs(10),
    consent_timeout: Span::from_secs(3_600),
    media_timeout: Span::from_secs(10),
};

pub fn run(mut rest: &[u8]) {
    let mut now = Time(2_000_000);
    let mut transport = Transport::import(now, connected(), &LIMITS).expect("what was exported");
    let mut outbox = outbox();
    let mut sent_at: Option<Time> = None;
    while let Some((&eighths, after)) = rest.split_first() {
        let len = (usize::from(eighths) * 8).min(after.len());
        let _ = transport.handle_dtls(now, path(), &after[..len], &mut outbox);
        rest = &after[len..];
        if !outbox.is_empty() {
            assert!(outbox.queued().0.iter().map(|datagram| datagram.len).sum::<usize>() <= 200, "more than Finished");
            assert!(sent_at.is_none_or(|at| now.since(at) >= PAUSE), "it can be made to send at will");
            sent_at = Some(now);
            outbox.clear();
        }
        now = now + Span::from_millis(20);
    }
    assert!(transport.is_connected());
}

fn path() -> Path {
    Path { socket: SocketIndex(0), remote: ([192, 0, 2, 1], 4000).into() }
}

fn outbox() -> Outbox {
    Outbox::new(64 * 1024, 64)
}

/// A server's side after a handshake, made once.
fn connected() -> &'static TransportState {
    static STATE: OnceLock<TransportState> = OnceLock::new();
    STATE.get_or_init(|| {
        let (certificate, key) = super::dtls_in::certificate().expect("OpenSSL makes a certificate");
        let contexts = DtlsContexts::new(&certificate, &key).expect("OpenSSL takes its own certificate");
        let digest =
            X509::from_pem(certificate.as_bytes()).and_then(|it| Ok(it.digest(MessageDigest::sha256())?.to_vec()));
        let digest = digest.expect("a digest");
        let open = |role| Transport::new(Time(1_000_000), &command(role, &digest), &contexts, &LIMITS).expect("good");
        let mut ends = [open(DtlsRole::Client), open(DtlsRole::Server)];
        let mut under_way = Vec::new();
        for (place, end) in ends.iter_mut().enumerate() {
            let mut out = outbox();
            end.handle_stun(Time(1_000_000), path(), &check(), &mut out).expect("an authentic check");
            end.vouch_for(Time(1_000_000), path(), &mut out);
            run_step(end, Time(1_000_000), &mut out);
            under_way
                .extend(taken(&mut out).into_iter().filter(|bytes| bytes[0] >= 20).map(|bytes| (1 - place, bytes)));
        }
        while let Some((to, bytes)) = under_way.pop() {
            let mut out = outbox();
            let _ = ends[to].handle_dtls(Time(1_000_000), path(), &bytes, &mut out);
            run_step(&mut ends[to], Time(1_000_000), &mut out);
            // The last of a flight goes first from the stack.
            under_way.extend(taken(&mut out).into_iter().rev().map(|bytes| (1 - to, bytes)));
        }
        ends[1].export().expect("the handshake is over")
    })
}

fn taken(outbox: &mut Outbox) -> Vec<Vec<u8>> {
    let (datagrams, bytes) = outbox.queued();
    let taken = datagrams.iter().map(|datagram| bytes[datagram.start..][..datagram.len].to_vec()).collect();
    outbox.clear();
    taken
}

fn check() -> Vec<u8> {
    let mut buffer = [0; 128];
    let len = Writer::new(&mut buffer, stun::BINDING_REQUEST, &[0; 12])
        .attribute(attribute::USERNAME, b"00ours:theirs")
        .attribute(attribute::USE_CANDIDATE, &[])
        .finish(&Integrity::new(PWD.as_bytes()))
        .expect("a check is small");
    buffer[..len].to_vec()
}

fn command(role: DtlsRole, digest: &[u8]) -> OpenTransport {
    OpenTransport {
        transport: 1,
        local_ufrag: "00ours".to_owned(),
        local_pwd: PWD.to_owned(),
        remote_ufrag: "theirs".to_owned(),
        remote_pwd: "another password of some length".to_owned(),
        dtls_role: role,
        fingerprint_hash: FingerprintHash::Sha256,
        fingerprints: vec![serde_bytes::ByteBuf::from(digest)],
        expects_media: false,
    }
}
