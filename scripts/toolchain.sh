#!/usr/bin/env bash
# Says in one line each what building needs and does not find: a Python and a cargo that are new enough.
# Usage: scripts/toolchain.sh PYTHON CARGO | scripts/toolchain.sh find-python
set -euo pipefail

least_python=3.11
least_cargo=1.89

is_new_enough() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

python_version() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null; }

if [ "${1:-}" = find-python ]; then
    for name in python3.11 python3 python3.12 python3.13 python3.14; do
        if found=$(python_version "$name") && is_new_enough "$found" "$least_python"; then
            echo "$name"
            exit 0
        fi
    done
    # What most people have, to say how old it is.
    echo python3
    exit 0
fi
[ $# -eq 2 ] || { echo "usage: $0 PYTHON CARGO | find-python" >&2; exit 2; }

status=0
if ! found=$(python_version "$1"); then found="none that runs"; fi
if ! is_new_enough "$found" "$least_python" || [ "$found" = "none that runs" ]; then
    echo "PYTHON=$1: found $found, expected Python $least_python or later: Debian 12's \`python3\` is one," \
        "or name another with \`make PYTHON=...\`" >&2
    status=1
fi
if ! found=$("$2" --version 2>/dev/null | cut -d ' ' -f 2) || [ -z "$found" ]; then found="none that runs"; fi
if ! is_new_enough "$found" "$least_cargo" || [ "$found" = "none that runs" ]; then
    echo "$2: found $found, expected cargo $least_cargo or later: https://rustup.rs installs it" >&2
    status=1
fi
exit $status
