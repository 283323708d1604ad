"""The links of `millrace token --link`: a page's URL with the token in its fragment, which no browser sends on.
It must never make a token. Read next: `workers/web/access.js`, which takes the token out of the link.
"""

from urllib.parse import quote, urlsplit

EXPECTED = "the server's URL for browsers, such as https://box.example or https://box.example/media"


def link(server: str, room: str, token: str, can_publish: bool) -> str | None:
    """Returns the link for a browser: the page for whoever may publish, else the player; None when `server` is no URL
    of a server.
    """
    try:
        url = urlsplit(server)
        is_url = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return None
    if (
        not is_url
        or "@" in url.netloc
        or "?" in server
        or "#" in server
        or not (server.isascii() and _is_visible(server))
    ):
        return None
    page = "" if can_publish else f"watch/{quote(room, safe='')}"
    return f"{server.rstrip('/')}/{page}#token={token}"


def _is_visible(text: str) -> bool:
    return text.isprintable() and " " not in text
