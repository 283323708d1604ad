#!/usr/bin/env bash
# Says in one line each what building needs and does not find: a Python and a cargo that are new enough, a C compiler,
# OpenSSL's headers. It installs nothing; scripts/debian-packages.sh does.
# Usage: scripts/toolchain.sh PYTHON CARGO | find-python | has-cargo CARGO | takes-cargo VERSION
set -euo pipefail

least_python=3.11
least_cargo=1.89

is_new_enough() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

python_version() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null; }

cargo_version() { "$1" --version 2>/dev/null | cut -d ' ' -f 2; }

takes_cargo() { case "$1" in [0-9]*) is_new_enough "$1" "$least_cargo" ;; *) return 1 ;; esac; }

has_headers() {
    [ -n "${OPENSSL_DIR:-}" ] || pkg-config --exists openssl 2>/dev/null
}

case "${1:-} $#" in
    "find-python 1")
        for name in python3.11 python3 python3.12 python3.13 python3.14; do
            if found=$(python_version "$name") && is_new_enough "$found" "$least_python"; then
                echo "$name"
                exit 0
            fi
        done
        # What most people have, to say how old it is.
        echo python3
        exit 0 ;;
    "has-cargo 2") takes_cargo "$(cargo_version "$2" || true)" && exit 0 || exit 1 ;;
    "takes-cargo 2") takes_cargo "$2" && exit 0 || exit 1 ;;
    *" 2") ;;
    *) echo "usage: $0 PYTHON CARGO | find-python | has-cargo CARGO | takes-cargo VERSION" >&2; exit 2 ;;
esac

status=0
lacks() { echo "$*" >&2; status=1; }

found=$(python_version "$1") || found="none that runs"
if [ "$found" = "none that runs" ] || ! is_new_enough "$found" "$least_python"; then
    lacks "PYTHON=$1: found $found, expected Python $least_python or later: Debian 12's \`python3\` is one," \
        "or name another with \`make PYTHON=...\`"
elif ! "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    lacks "PYTHON=$1: found no \`venv\`, expected one with pip: Debian's \`python3-venv\` brings it"
fi
found=$(cargo_version "$2") || found=""
if ! takes_cargo "$found"; then
    lacks "$2: found ${found:-none that runs}, expected cargo $least_cargo or later: Debian's \`cargo-web\` is one (of the" \
        "security archive in Debian 12), and https://rustup.rs installs another"
fi
cc --version >/dev/null 2>&1 || lacks "cc: found none that runs, expected a C compiler: Debian's \`gcc\` is one"
if ! has_headers; then
    lacks "OpenSSL's headers: found none by pkg-config, expected those of 1.1.1 or later: Debian's \`libssl-dev\` and" \
        "\`pkg-config\` bring them, elsewhere \`openssl-devel\`; or set OPENSSL_DIR"
fi
exit $status
