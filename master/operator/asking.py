"""Asks the administration address of a running server. It must never know what is asked. Read next:
`workers/http/admin.py`, which answers.
"""

import json
import sys
import urllib.error
import urllib.request
from typing import Any


def ask(method: str, url: str) -> tuple[int, Any]:
    """Returns status and JSON of the answer. Without an answer the status is 0 and `detail` says why."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        try:
            return error.code, json.loads(error.read())
        except ValueError:
            return error.code, {"detail": str(error)}
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        return 0, {"detail": f"{url} does not answer: {why}"}


def refuse(said: dict[str, Any]) -> int:
    """Prints the server's refusal; returns the exit status."""
    print(f"millrace: {said.get('detail')}", file=sys.stderr)
    return 1
