//! The first byte picks our role; the rest is cut into datagrams (a length byte, times eight, before each) that come
//! from a proven address. Asserts that nobody connects without the promised certificate and that nothing we send is
//! too large. Read `core/src/transport/dtls/mod.rs` next.

use std::sync::OnceLock;

use millrace_core::command::{DtlsRole, FingerprintHash, OpenTransport};
use millrace_core::outbox::{Outbox, Path, SocketIndex};
use millrace_core::time::{Span, Time};
use millrace_core::transport::stun::{self, Integrity, attribute};
use millrace_core::transport::stun_writer::Writer;
use millrace_core::transport::{DtlsContexts, Limits, Transport};
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::X509;

const LIMITS: Limits = Limits {
    max_addresses: 2,
    max_streams: 2,
    ice_timeout: Span::from_secs(10),
    handshake_timeout: Span::from_secs(10),
    consent_timeout: Span::from_secs(30),
    media_timeout: Span::from_secs(10),
};

pub fn run(bytes: &[u8]) {
    let Some((&choice, mut rest)) = bytes.split_first() else { return };
    let role = if choice & 1 == 0 { DtlsRole::Server } else { DtlsRole::Client };
    let mut now = Time(1_000_000);
    let mut outbox = Outbox::new(64 * 1024, 64);
    let path = Path { socket: SocketIndex(0), remote: ([192, 0, 2, 1], 4000).into() };
    let mut transport = Transport::new(now, &command(role), contexts(), &LIMITS).expect("a good command");
    let mut check = [0; 128];
    let len = Writer::new(&mut check, stun::BINDING_REQUEST, &[0; 12])
        .attribute(attribute::USERNAME, b"00ours:theirs")
        .attribute(attribute::USE_CANDIDATE, &[])
        .finish(&Integrity::new(b"a password of enough characters"))
        .expect("a check is small");
    transport.handle_stun(now, path, &check[..len], &mut outbox).expect("an authentic check");
    transport.vouch_for(now, path, &mut outbox);
    run_step(&mut transport, now, &mut outbox);
    while let Some((&eighths, after)) = rest.split_first() {
        let len = (usize::from(eighths) * 8).min(after.len());
        let _ = transport.handle_dtls(now, path, &after[..len], &mut outbox);
        run_step(&mut transport, now, &mut outbox);
        rest = &after[len..];
        now = now + Span::from_millis(50);
        transport.handle_deadline(now, &mut outbox);
        assert!(outbox.queued().0.iter().all(|datagram| datagram.len <= 1200));
        outbox.clear();
        while transport.next_event().is_some() {}
    }
    assert!(!transport.is_connected());
}

/// Runs the step of the handshake that is due, if one is.
pub fn run_step(transport: &mut Transport, now: Time, outbox: &mut Outbox) {
    if let Some(step) = transport.take_step() {
        transport.finish_step(now, step.run(), outbox);
    }
}

fn command(role: DtlsRole) -> OpenTransport {
    OpenTransport {
        transport: 1,
        local_ufrag: "00ours".to_owned(),
        local_pwd: "a password of enough characters".to_owned(),
        remote_ufrag: "theirs".to_owned(),
        remote_pwd: "another password of some length".to_owned(),
        dtls_role: role,
        fingerprint_hash: FingerprintHash::Sha256,
        fingerprints: vec![serde_bytes::ByteBuf::from([0; 32])],
        expects_media: true,
    }
}

fn contexts() -> &'static DtlsContexts {
    static CONTEXTS: OnceLock<DtlsContexts> = OnceLock::new();
    CONTEXTS.get_or_init(|| {
        let (certificate, key) = certificate().expect("OpenSSL makes a certificate");
        DtlsContexts::new(&certificate, &key).expect("OpenSSL takes its own certificate")
    })
}

pub(super) fn certificate() -> Result<(String, String), ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut builder = X509::builder()?;
    builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    builder.set_not_after(&*Asn1Time::days_from_now(1)?)?;
    builder.set_pubkey(&key)?;
    builder.sign(&key, MessageDigest::sha256())?;
    let text = |pem: Vec<u8>| String::from_utf8_lossy(&pem).into_owned();
    Ok((text(builder.build().to_pem()?), text(key.private_key_to_pem_pkcs8()?)))
}
