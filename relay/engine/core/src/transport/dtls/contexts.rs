//! What all DTLS handshakes of a worker share: our certificate, and the versions, ciphers and profiles that we accept. Owns OpenSSL's
//! contexts; must never know a transport. Read `handshake.rs` next.

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{
    SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslSessionCacheMode, SslVerifyMode, SslVersion,
};
use openssl::x509::X509;

use crate::transport::srtp::Profile;

/// Forward secrecy and AEAD only (RFC 8827 section 6.5 asks for the first); our own certificate is ECDSA, and the RSA
/// suites are for servers with RSA certificates when we are the client.
const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
    ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
const GROUPS: &str = "X25519:P-256:P-384";
/// GStreamer and older clients have RSA certificates.
const SIGNATURES: &str = "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:RSA-PSS+SHA256:RSA-PSS+SHA384:RSA-PSS+SHA512:\
    RSA+SHA256:RSA+SHA384:RSA+SHA512";
/// 112 bits: RSA from 2048 bits, nothing signed with SHA-1. Set here so that no system configuration changes it.
const SECURITY_LEVEL: u32 = 2;

/// OpenSSL's contexts for both roles; a clone shares them.
#[derive(Clone)]
pub struct DtlsContexts {
    pub(super) server: SslContext,
    pub(super) client: SslContext,
}

impl DtlsContexts {
    pub fn new(certificate_pem: &str, private_key_pem: &str) -> Result<DtlsContexts, String> {
        DtlsContexts::with_profiles(certificate_pem, private_key_pem, &Profile::PREFERRED)
    }

    /// Contexts that offer or accept only these SRTP profiles, the preferred one first.
    pub fn with_profiles(certificate: &str, private_key: &str, profiles: &[Profile]) -> Result<DtlsContexts, String> {
        let profiles = profiles.iter().map(|profile| openssl_name(*profile)).collect::<Vec<_>>().join(":");
        let build = |method| context(method, certificate, private_key, &profiles).map_err(|error| error.to_string());
        Ok(DtlsContexts { server: build(SslMethod::dtls_server())?, client: build(SslMethod::dtls_client())? })
    }
}

fn openssl_name(profile: Profile) -> &'static str {
    match profile {
        Profile::Aes128Gcm => "SRTP_AEAD_AES_128_GCM",
        Profile::Aes256Gcm => "SRTP_AEAD_AES_256_GCM",
        Profile::Aes128CmSha1_80 => "SRTP_AES128_CM_SHA1_80",
    }
}

fn context(method: SslMethod, certificate: &str, private_key: &str, profiles: &str) -> Result<SslContext, ErrorStack> {
    let mut context = SslContextBuilder::new(method)?;
    context.set_security_level(SECURITY_LEVEL);
    context.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
    // `alerts.rs` knows the records of this version only.
    context.set_max_proto_version(Some(SslVersion::DTLS1_2))?;
    context.set_cipher_list(CIPHERS)?;
    context.set_groups_list(GROUPS)?;
    context.set_sigalgs_list(SIGNATURES)?;
    context.set_certificate(&*X509::from_pem(certificate.as_bytes())?)?;
    context.set_private_key(&*PKey::private_key_from_pem(private_key.as_bytes())?)?;
    context.check_private_key()?;
    context.set_tlsext_use_srtp(profiles)?;
    // No cookies either: ICE has proven the address already.
    context.set_options(
        SslOptions::NO_TICKET
            | SslOptions::NO_RENEGOTIATION
            | SslOptions::NO_QUERY_MTU
            | SslOptions::NO_COMPRESSION
            | SslOptions::CIPHER_SERVER_PREFERENCE
            | SslOptions::SINGLE_ECDH_USE,
    );
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    context.set_mode(SslMode::RELEASE_BUFFERS);
    // Each handshake brings its own callback, which knows the promised fingerprints.
    context.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    Ok(context.build())
}
