#!/usr/bin/env bash
# Installs the Debian packages that building, running and testing need, and nothing that is already there.
# Usage: scripts/debian-packages.sh build|test
set -euo pipefail

build_packages=(libssl-dev pkg-config python3-venv)
test_packages=(
    chromium firefox-esr
    gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-nice
    python3-gi python3-gst-1.0 gir1.2-gst-plugins-bad-1.0
    iproute2 nftables
)
# Other sources of Node.js bring npm along and conflict with Debian's.
command -v npm >/dev/null || test_packages+=(nodejs npm)

case "${1:-}" in
    build) wanted=("${build_packages[@]}") ;;
    test) wanted=("${build_packages[@]}" "${test_packages[@]}") ;;
    *) echo "usage: $0 build|test" >&2; exit 2 ;;
esac

missing=()
for package in "${wanted[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

run=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "These Debian packages are missing, and only root can install them: ${missing[*]}" >&2; exit 1; }
    run=(sudo)
fi
echo "Installing Debian packages: ${missing[*]}"
"${run[@]}" apt-get update -qq
"${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
