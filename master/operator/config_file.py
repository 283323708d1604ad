"""The configuration file: which one is taken when none is named, whether others can read its secrets, and how a key
gets into it. It must never know what else the file says. Read next: `master/operator/cli.py`.
"""

import os
import re
import stat
import tomllib
from pathlib import Path

PLACES = (Path("millrace.toml"), Path("/etc/millrace/millrace.toml"))
"""Where a file is looked for, in this order."""
_NO_KEYS = re.compile(r"^keys\s*=\s*\{\s*\}", re.MULTILINE)
_HEADER = re.compile(r"^\[auth\]", re.MULTILINE)


class KeysRefused(Exception):
    """Why no key was written."""


def found() -> Path | None:
    """Returns the file that is taken when none is named; None when there is none."""
    return next((place.absolute() for place in PLACES if place.is_file()), None)


def readable_secrets(file: Path, has_secrets: bool) -> str | None:
    """Returns a warning when others can read the secrets of a file; else None."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return None
    if not has_secrets or not mode & (stat.S_IRGRP | stat.S_IROTH):
        return None
    return f"{file} has secrets, and others can read it (mode {mode:04o}); chmod 600 {file}"


def write_keys(file: Path, section: str) -> None:
    """Adds the keys of an `[auth]` section to a file, which is made if it is absent, and which then only its owner
    reads. Raises KeysRefused.
    """
    try:
        text = file.read_text() if file.exists() else ""
        written_text = _with_keys(text, section)
        if written_text is None:
            raise KeysRefused(f"{file} has keys in [auth] already; `millrace keys` without --write prints a pair")
        new = file.with_name(f".{file.name}.new")
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as written:
            written.write(written_text)
            if file.exists():
                # An operator may have given it to the server's user.
                owner = file.stat()
                os.fchown(written.fileno(), owner.st_uid, owner.st_gid)
        new.replace(file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise KeysRefused(f"{file} cannot be used: {getattr(error, 'strerror', None) or error}") from error


def _with_keys(text: str, section: str) -> str | None:
    """Returns the text with the section's keys; None when it has some, or there is no place for them. Raises
    TOMLDecodeError.
    """
    before, (header, line) = tomllib.loads(text), section.splitlines()
    if "auth" not in before:
        return f"{text.rstrip()}\n\n{section}" if text.strip() else section
    auth = before["auth"]
    if not isinstance(auth, dict) or auth.get("keys"):
        return None
    # In the place of the empty ones, as in the example, or as the section's first line.
    place, instead = (_NO_KEYS, line) if "keys" in auth else (_HEADER, f"{header}\n{line}")
    changed = place.sub(lambda _: instead, text, count=1)
    wanted = before | {"auth": auth | {"keys": tomllib.loads(section)["auth"]["keys"]}}
    try:
        return changed if tomllib.loads(changed) == wanted else None
    except tomllib.TOMLDecodeError:
        return None
