#!/usr/bin/env bash
# Installs the Debian packages that building, running and testing need, and nothing that is already there.
# Where there is no apt, it says what tests need; what building needs is said by scripts/toolchain.sh, which comes after.
# Usage: [CARGO=cargo] scripts/debian-packages.sh build|test-fast|test
set -euo pipefail

toolchain=$(dirname "$0")/toolchain.sh
cargo=${CARGO:-cargo}

build_packages=(ca-certificates gcc libc6-dev libssl-dev pkg-config python3-venv)
# The engine's own tests are a program that links Python.
fast_packages=(libpython3-dev)
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
    test-fast) wanted=("${build_packages[@]}" "${fast_packages[@]}") ;;
    test) wanted=("${build_packages[@]}" "${fast_packages[@]}" "${test_packages[@]}") ;;
    *) echo "usage: $0 build|test-fast|test" >&2; exit 2 ;;
esac

if ! command -v apt-get >/dev/null; then
    case "$1" in
        test-fast) echo "No apt-get here. Tests need what Debian calls: ${fast_packages[*]}" >&2 ;;
        test) echo "No apt-get here. Tests need what Debian calls: ${fast_packages[*]} ${test_packages[*]}" >&2 ;;
    esac
    exit 0
fi

is_installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q '^install ok installed$'; }

# Debian's `cargo` stays at its release's version; `cargo-web`, which builds the browsers, follows Rust and takes the
# other's place. A cargo that is not Debian's comes first on PATH, so only its owner can bring it up to date.
wants_cargo_web() {
    if "$toolchain" has-cargo "$cargo" || is_installed rustup; then return 1; fi
    case "$(command -v "$cargo")" in "" | /bin/* | /usr/bin/*) return 0 ;; *) return 1 ;; esac
}

missing=() rust=()
for package in "${wanted[@]}"; do is_installed "$package" || missing+=("$package"); done
if wants_cargo_web; then rust=(cargo-web); fi
if [ "$1" = test ] && { is_installed cargo-web || [ ${#rust[@]} -ne 0 ]; }; then
    for package in rustfmt-web rust-web-clippy; do is_installed "$package" || rust+=("$package"); done
fi
[ $((${#missing[@]} + ${#rust[@]})) -eq 0 ] && exit 0

run=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "These Debian packages are missing, and only root can install them: ${missing[*]} ${rust[*]}" >&2
        exit 1
    }
    run=(sudo)
fi
# Who watches sees apt's own progress.
quiet=(-q) output=/dev/stdout
[ -t 1 ] || { quiet=(-qq); output=/dev/null; }
"${run[@]}" apt-get update -qq
offered=$(apt-cache policy cargo-web | sed -n 's/^ *Candidate: //p')
"$toolchain" takes-cargo "$offered" && missing+=("${rust[@]}")
[ ${#missing[@]} -eq 0 ] && exit 0
echo "Installing Debian packages: ${missing[*]}"
"${run[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y "${quiet[@]}" --no-install-recommends "${missing[@]}" >"$output"
