"""`millrace serve --https`: what a demonstration on the local network needs beside the configuration. Owns a folder of
the user's with a self-signed certificate and a key for tokens, which stay the same from start to start: a browser that
was told to trust the certificate does so the next time. It must never overrule a configured certificate, key or
address.
Read next: `master/operator/cli.py`, which adds the settings to its own.
"""

import os
import socket
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from millrace.master.kernel.addresses import own_addresses
from millrace.master.start.x509 import make_https_certificate
from millrace.relay.config.model import LOOPBACK, Config

LIFE = timedelta(days=365)
"""Some systems take no certificate that lasts longer than 398 days."""
SPARE = timedelta(days=30)
"""A certificate that ends sooner is made anew."""


class DemoRefused(Exception):
    """Why there is no demonstration."""


def folder(environment: Mapping[str, str]) -> Path:
    """Returns where the files lie (XDG Base Directory, `XDG_STATE_HOME`). Raises DemoRefused."""
    if state := environment.get("XDG_STATE_HOME"):
        return Path(state) / "millrace"
    if home := environment.get("HOME"):
        return Path(home) / ".local" / "state" / "millrace"
    raise DemoRefused("--https: neither XDG_STATE_HOME nor HOME says where to keep its certificate")


def settings(config: Config, kept: Path, new_key: str, now: datetime) -> list[str]:
    """Makes the files that are missing; returns settings as `--set` takes them. `new_key` is an `[auth]` section as
    `millrace keys` prints it. Raises DemoRefused.
    """
    if config.http.certificate:
        raise DemoRefused("--https makes a certificate of its own, and http.certificate names one already")
    certificate, key = kept / "https-certificate.pem", kept / "https-key.pem"
    try:
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = _names()
        if not _serves(certificate, names, now) or not key.exists():
            made = make_https_certificate(names, now, LIFE)
            _write(certificate, made.certificate_pem)
            _write(key, made.private_key_pem)
        found = [f'http.certificate="{certificate}"', f'http.key="{key}"']
        # As it stands after a start without any configuration. Another address was chosen by somebody.
        if config.http.bind == LOOPBACK:
            found.append('http.bind=["0.0.0.0", "::"]')
        if config.media.bind == LOOPBACK:
            found.append('media.bind=["0.0.0.0", "::"]')
        if config.is_open:
            keys = kept / "keys.toml"
            if not keys.exists():
                _write(keys, new_key)
            found.append(f"auth.{keys.read_text().partition(']')[2].strip()}")
    except OSError as error:
        raise DemoRefused(f"--https: {error.filename} cannot be used: {error.strerror}") from error
    return found


def _names() -> list[str]:
    """Returns what the machine may be called by: its names and its addresses."""
    host = socket.gethostname()
    return list(
        dict.fromkeys([*own_addresses(4), *own_addresses(6), *("127.0.0.1", "::1", "localhost"), host, f"{host}.local"])
    )


def _serves(file: Path, names: list[str], now: datetime) -> bool:
    """True when the certificate is for all these names, and for some time yet."""
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return False
    has = {*named.get_values_for_type(x509.DNSName), *map(str, named.get_values_for_type(x509.IPAddress))}
    return has >= set(names) and certificate.not_valid_after_utc > now + SPARE


def _write(file: Path, text: str) -> None:
    """Writes a file that only its owner reads. One that others could read is replaced, not written to."""
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as opened:
        opened.write(text)
    new.replace(file)
