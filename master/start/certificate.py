"""The DTLS certificate: made at start or read from the configured files. Clients know it by its fingerprint alone
(RFC 8122), so nobody has to sign it. A key of our own making must never be written to a disk. Read next:
`master/start/x509.py`, which makes it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from millrace.relay.config.model import DtlsConfig


class CertificateRefused(Exception):
    """The configured files do not hold; each problem names its key."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its private key, as the engine takes them."""

    certificate_pem: str
    private_key_pem: str
    fingerprint: str
    """As in the SDP (RFC 8122 section 5): `sha-256 AB:CD:...`."""


def certificate_for(config: DtlsConfig) -> Certificate:
    """The configured certificate, or a fresh one. Raises CertificateRefused."""
    # Only now: a start that inherits a certificate is in a hurry.
    from millrace.master.start.x509 import make_certificate, read_certificate

    return read_certificate(config) if config.certificate else make_certificate(datetime.now(UTC))
