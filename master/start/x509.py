"""Makes certificates and reads the configured files. Its library takes a tenth of a second to import, so callers import
this file only where they need a certificate: a start that inherits one is in a hurry. A key that is made here must
never be written to a disk. Read next: `master/start/prepare.py`, which asks for a certificate.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from millrace.master.start.certificate import Certificate, CertificateRefused
from millrace.relay.config.model import DtlsConfig

_LIFE = timedelta(days=3650)
"""Longer than any server runs. Clients check the fingerprint, and none checks the dates."""


def certificate_for(config: DtlsConfig) -> Certificate:
    """Returns the configured certificate, or a fresh one when none is configured. Raises CertificateRefused."""
    if not config.certificate:
        return make_certificate(datetime.now(UTC))
    return read_certificate("dtls", config.certificate, config.key)


def make_certificate(now: datetime) -> Certificate:
    """Makes a self-signed certificate, ECDSA P-256 as RFC 8827 section 6.5 requires."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _paired(_self_signed(key, now, _LIFE).sign(key, hashes.SHA256()), key)


def make_https_certificate(names: Sequence[str], now: datetime, life: timedelta) -> Certificate:
    """Makes a self-signed certificate for host names and addresses (RFC 6125: browsers read no other place)."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _self_signed(key, now, life).add_extension(
        x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return _paired(builder.add_extension(usage, critical=False).sign(key, hashes.SHA256()), key)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _self_signed(key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta) -> x509.CertificateBuilder:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "millrace")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A client's clock may be behind ours.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + life)
    )


def read_certificate(section: str, certificate_path: str, key_path: str) -> Certificate:
    """Reads the files of `{section}.certificate` and `{section}.key`, and checks that they fit each other. Raises
    CertificateRefused with all problems.
    """
    certificate, key = _certificate(f"{section}.certificate", certificate_path), _key(f"{section}.key", key_path)
    if isinstance(certificate, str) or isinstance(key, str):
        raise CertificateRefused(*(problem for problem in (certificate, key) if isinstance(problem, str)))
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise CertificateRefused(f"{section}.key: {key_path} is not the key of {certificate_path}")
    return _paired(certificate, key)


def ends_at(pem: bytes) -> float:
    """Returns until when the first certificate of a PEM text holds: Unix time, seconds."""
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()


def _certificate(named: str, path: str) -> x509.Certificate | str:
    try:
        certificate = x509.load_pem_x509_certificate(Path(path).read_bytes())
        # Raises for an unknown curve.
        certificate.public_key()
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        return f"{named}: {path} is no PEM certificate of a usable key ({error})"
    return certificate


def _key(named: str, path: str) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | str:
    try:
        key = load_pem_private_key(Path(path).read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        return f"{named}: {path} is no PEM private key without a password ({error})"
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        return f"{named}: {path} is neither an ECDSA nor an RSA key"
    return key


def _paired(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> Certificate:
    return Certificate(
        certificate.public_bytes(Encoding.PEM).decode(),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "sha-256 " + certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
    )
