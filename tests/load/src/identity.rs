//! The certificate that all clients of a run share, and random ICE credentials. They last for one run; must never be used for
//! anything but measuring. Read `client.rs` next.

use std::fmt::Write;

use anyhow::{Result, anyhow};
use millrace_core::transport::{DtlsContexts, Profile};
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::X509;

pub struct Identity {
    pub contexts: DtlsContexts,
    /// As it stands in SDP, of SHA-256.
    pub fingerprint: String,
}

impl Identity {
    /// One key for all clients: making thousands of them would take longer than the run.
    pub fn new(profile: Profile) -> Result<Identity> {
        let key = PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?)?)?;
        let mut builder = X509::builder()?;
        builder.set_version(2)?;
        builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
        builder.set_not_after(&*Asn1Time::days_from_now(30)?)?;
        builder.set_pubkey(&key)?;
        builder.sign(&key, MessageDigest::sha256())?;
        let certificate = builder.build();
        let (certificate_pem, key_pem) = (certificate.to_pem()?, key.private_key_to_pem_pkcs8()?);
        let (certificate_pem, key_pem) = (String::from_utf8(certificate_pem)?, String::from_utf8(key_pem)?);
        let contexts = DtlsContexts::with_profiles(&certificate_pem, &key_pem, &[profile]);
        let digest = certificate.digest(MessageDigest::sha256())?;
        let pairs: Vec<_> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(Identity { contexts: contexts.map_err(|why| anyhow!(why))?, fingerprint: pairs.join(":") })
    }
}

/// That many random bytes as hex: every digit is an ice-char.
pub fn random_text(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    openssl::rand::rand_bytes(&mut random)?;
    Ok(random.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

pub fn random_u32() -> Result<u32> {
    let mut random = [0; 4];
    openssl::rand::rand_bytes(&mut random)?;
    Ok(u32::from_be_bytes(random))
}
