"""`millrace check` beyond the text: what is wrong with the files and folders that a configuration names. It must never
make or change any of them. Read next: `relay/config/parse.py`, which checks the text.
"""

import errno
import os
from pathlib import Path

from millrace.master.start.certificate import CertificateRefused
from millrace.master.start.https import https_for
from millrace.master.start.x509 import certificate_for
from millrace.master.takeover.runtime_directory import unusable
from millrace.relay.config.model import Config
from millrace.workers.trusted_files import open_log


def outside(config: Config) -> list[str]:
    """Returns why `serve` would refuse the configuration, as lines that name the key."""
    problems: list[str] = []
    # A certificate without a key is a problem that the text's check finds.
    if config.dtls.certificate and config.dtls.key:
        try:
            certificate_for(config.dtls)
        except CertificateRefused as refusal:
            problems += refusal.problems
    if config.http.certificate and config.http.key:
        try:
            https_for(config.http, None)
        except CertificateRefused as refusal:
            problems += refusal.problems
    if config.log.file and (why := _unwritable(Path(config.log.file))) is not None:
        problems.append(f"log.file: {config.log.file} cannot be written: {why}")
    if config.runtime.directory and (refusal_of_it := unusable(Path(config.runtime.directory))) is not None:
        problems.append(refusal_of_it)
    return problems


def _unwritable(file: Path) -> str | None:
    """Returns why opening the file to append would fail, without making it; None when it would not."""
    try:
        if file.exists():
            os.close(open_log(file, 0))
        elif not file.parent.is_dir():
            return os.strerror(errno.ENOTDIR if file.parent.exists() else errno.ENOENT)
        elif not os.access(file.parent, os.W_OK | os.X_OK):
            return os.strerror(errno.EACCES)
    except OSError as error:
        return error.strerror
    return None
