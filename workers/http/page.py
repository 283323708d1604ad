"""The demo page, the player and their files, read from `workers/web/` at the import, before the fork, and served from
memory. It must never know what a page does. Read next: `workers/http/public.py`, which serves the page at `/` and the
player at `/watch/{room}`.
"""

import hashlib
from collections.abc import Collection
from copy import copy
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from millrace.workers.http.answers import method_not_allowed

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".txt": "text/plain; charset=utf-8",
}
"""Content types by suffix. Files with any other suffix are not served."""

PLAYER = ("watch.html",)
"""The file of the player, which is served for each room and may be framed."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "media-src 'self' blob: mediastream:; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors "
)
"""The Content-Security-Policy, up to who may frame the file."""

HEADERS = {
    "Content-Security-Policy": POLICY + "'none'",
    "Permissions-Policy": "camera=(self), microphone=(self), display-capture=(self), autoplay=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # File names carry no hash of the content, so a browser asks each time, and mostly gets 304.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    content_type: str
    etag: str


class Page:
    """The files of one folder, by their path. Besides the server's own pages, only those of `framed_by` may frame the
    player, and nobody anything else.
    """

    def __init__(self, folder: Path) -> None:
        self._policy_of_player = POLICY + "'self'"
        self._files: dict[tuple[str, ...], _File] = {}
        for path in sorted(folder.rglob("*")):
            content_type = TYPES.get(path.suffix)
            if content_type is None or not path.is_file():
                continue
            content = path.read_bytes()
            etag = '"' + hashlib.sha256(content).hexdigest()[:32] + '"'
            self._files[path.relative_to(folder).parts] = _File(content, content_type, etag)
        index = self._files.get(("index.html",))
        if index is not None:
            self._files[()] = index

    def framed_by(self, origins: Collection[str]) -> "Page":
        """Returns the same files, whose player these origins may frame."""
        page = copy(self)
        page._policy_of_player = " ".join((self._policy_of_player, *origins))
        return page

    def has(self, segments: tuple[str, ...]) -> bool:
        """True when there is such a file."""
        return segments in self._files

    def respond(self, request: web.BaseRequest, segments: tuple[str, ...]) -> web.Response:
        """Returns the file, or 304 when the browser has it."""
        file = self._files[segments]
        if request.method not in ("GET", "HEAD"):
            return method_not_allowed("GET, HEAD")
        headers = HEADERS | {"ETag": file.etag}
        if segments == PLAYER:
            headers["Content-Security-Policy"] = self._policy_of_player
        if file.etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=file.content, headers=headers | {"Content-Type": file.content_type})


DEMO = Page(Path(__file__).parents[1] / "web")
