#!/usr/bin/env bash
# Starts Debian's Janus for the load generator, with WHIP and WHEP in front of it. Usage: see ../README.md.
set -euo pipefail

root=$(cd "$(dirname "$0")/../../.." && pwd)
if ! command -v janus >/dev/null; then
    echo "Janus is not installed: apt-get install --no-install-recommends janus" >&2
    exit 1
fi
for python in "$root/.venv/bin/python" "${PYTHON:-python3}"; do
    if "$python" -c 'import aiohttp' 2>/dev/null; then
        cd "$root"
        exec "$python" -m tests.load.servers.janus "$@"
    fi
done
echo "No Python with aiohttp: run make build first." >&2
exit 1
