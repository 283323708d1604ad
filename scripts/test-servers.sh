#!/usr/bin/env bash
# Unpacks Debian's nginx, Caddy, coturn and Prometheus into a folder, for the tests of their configurations in deploy/.
# They are not installed, as their packages would start servers on well-known ports. Without apt, the tests take those
# on PATH.
# Usage: scripts/test-servers.sh FOLDER
set -euo pipefail

servers=(nginx caddy coturn prometheus)
folder=$(realpath -m "$1")
if ! command -v apt-get >/dev/null; then
    for program in nginx caddy turnserver promtool; do
        command -v "$program" >/dev/null || echo "No apt-get here. Tests need $program on PATH." >&2
    done
    exit 0
fi
rm -rf "$folder"
mkdir -p "$folder/packages"
cd "$folder/packages"
# Themselves, and of what they need whatever this machine lacks.
wanted() {
    { printf '%s\n' "${servers[@]}"; apt-get install --simulate --no-install-recommends "${servers[@]}" | awk '/^Inst/ {print $2}'; } |
        sort -u
}
download() { wanted | xargs apt-get download -q -q >/dev/null; }
download 2>/dev/null || {
    # The lists are older than what the mirror still has.
    if [ "$(id -u)" -eq 0 ]; then apt-get update -q -q; else sudo apt-get update -q -q; fi
    download
}
for package in ./*.deb; do dpkg-deb -x "$package" "$folder"; done
rm -r "$folder/packages"
