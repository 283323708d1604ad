"""The DTLS certificate that all workers share, and why a configured one is refused. Clients know it by its fingerprint
alone (RFC 8122), so no authority has to sign it. This file must never import a cryptographic library: a start that
inherits its certificate needs none. Read next: `master/start/x509.py`, which makes and reads certificates.
"""

from dataclasses import dataclass


class CertificateRefused(Exception):
    """The configured files cannot be used; each problem names its key."""

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
