"""What the public port encrypts with when `http.certificate` names a file. Made before the fork: workers then share the
keys of session tickets, and a client that comes back to another worker needs no whole handshake. It must never log nor
know who calls. Read next: `workers/http/renewal.py`, which has it look at its files.
"""

import os
import ssl

from millrace.master.start.certificate import CertificateRefused
from millrace.relay.config.model import HttpConfig

Stamp = tuple[tuple[int, int, int], ...]


class Https:
    """One context, and the files of its certificate. A `millrace.relay.contract.boot.PublicTls`."""

    def __init__(self, certificate: str, key: str) -> None:
        self.context = _context()
        self._files = (certificate, key)
        self._seen: Stamp = ()
        self._loaded = b""
        self._ends_at: float | None = None

    def is_for(self, config: HttpConfig) -> bool:
        """True when these files are configured."""
        return self._files == (config.certificate, config.key)

    def renew(self) -> bool:
        """See PublicTls. The files are written one after the other by who renews them, so a look in between finds two
        that do not fit.
        """
        stamp = tuple((each.st_mtime_ns, each.st_ino, each.st_size) for each in map(os.stat, self._files))
        if stamp == self._seen:
            return False
        # Before they are read, so that what is written meanwhile is a change again.
        self._seen = stamp
        pem = b"\n".join(_read(path) for path in self._files)
        if pem == self._loaded:
            return False
        # The library reads files only, and one that it refuses leaves half of itself in the context.
        with open(os.memfd_create("millrace-https", os.MFD_CLOEXEC), "wb") as copy:
            copy.write(pem)
            copy.flush()
            path = f"/proc/self/fd/{copy.fileno()}"
            for context in (_context(), self.context):
                # Without a password of ours the library would ask for one on the terminal.
                context.load_cert_chain(path, password="")
        self._loaded = pem
        self._ends_at = None
        return True

    def ends_at(self) -> float:
        """See PublicTls."""
        if self._ends_at is None:
            from millrace.master.start.x509 import ends_at

            self._ends_at = ends_at(self._loaded)
        return self._ends_at


def https_for(config: HttpConfig, old: Https | None) -> Https | None:
    """Returns what the public port needs, `old` with its files looked at if they are the same; None for HTTP. Raises
    CertificateRefused.
    """
    if not config.certificate:
        return None
    https = old if old is not None and old.is_for(config) else Https(config.certificate, config.key)
    try:
        https.renew()
    except (OSError, ValueError) as error:
        check_https(config)
        raise CertificateRefused(f"http.certificate: {config.certificate} cannot be used ({error})") from error
    return https


def check_https(config: HttpConfig) -> None:
    """Says what is wrong with the configured files. Raises CertificateRefused."""
    # Takes a tenth of a second to import, which a start that is in a hurry does not have.
    from millrace.master.start.x509 import read_certificate

    read_certificate("http", config.certificate, config.key)


def _context() -> ssl.SSLContext:
    """TLS 1.2 and later, with the library's own choice of ciphers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client could have us compute handshakes without end on one connection.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    return context


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(1 << 20)
