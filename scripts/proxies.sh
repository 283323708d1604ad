#!/usr/bin/env bash
# Unpacks Debian's nginx and Caddy into a folder, for the tests of deploy/nginx.conf and deploy/Caddyfile. They are not
# installed, as their packages would start servers on port 80. Without apt, the tests take those on PATH.
# Usage: scripts/proxies.sh FOLDER
set -euo pipefail

folder=$(realpath -m "$1")
if ! command -v apt-get >/dev/null; then
    for program in nginx caddy; do
        command -v "$program" >/dev/null || echo "No apt-get here. Tests need $program on PATH." >&2
    done
    exit 0
fi
rm -rf "$folder"
mkdir -p "$folder/packages"
cd "$folder/packages"
download() { apt-get download -q -q nginx caddy >/dev/null; }
download 2>/dev/null || {
    # The lists are older than what the mirror still has.
    if [ "$(id -u)" -eq 0 ]; then apt-get update -q -q; else sudo apt-get update -q -q; fi
    download
}
for package in ./*.deb; do dpkg-deb -x "$package" "$folder"; done
rm -r "$folder/packages"
