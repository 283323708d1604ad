#!/usr/bin/env bash
# Makes what is installed without a compiler, in dist/. Usage: [CARGO=cargo] scripts/dist.sh PYTHON wheels|deb
#
# wheels: for x86-64 and aarch64, with an OpenSSL of their own, so that they run on any distribution; what is missing to
#         make one of them is said, and the other is made.
# deb:    for this machine's Debian and processor, with Debian's OpenSSL and all Python packages that Debian has not.
set -euo pipefail

tree=$(cd "$(dirname "$0")/.." && pwd)
python=$(realpath -s "$1")
maturin=$(dirname "$python")/maturin
out=$tree/dist
cd "$tree"
mkdir -p "$out"

has_target() { [ -d "$("${RUSTC:-rustc}" --print sysroot)/lib/rustlib/$1/lib" ]; }

# Named by target and the C compiler for it, which links, too.
wheel() {
    local target=$1 compiler=$2 name=${1//-/_}
    if ! command -v "$compiler" >/dev/null; then
        echo "No wheel for $target: its C compiler $compiler is missing (Debian: gcc-${target%%-*}-linux-gnu)." >&2
        return
    fi
    if ! has_target "$target"; then
        echo "No wheel for $target: Rust's library for it is missing (rustup target add $target)." >&2
        return
    fi
    # Any version does, as the wheel is for all from 3.11 on; maturin knows this one without having it.
    local interpreter=$python
    [ "${target%%-*}" = "$(uname -m)" ] || interpreter=python3.11
    echo "Building the wheel for $target, OpenSSL included (some minutes the first time) ..."
    env "CC_$name=$compiler" "CARGO_TARGET_${name^^}_LINKER=$compiler" \
        "$maturin" build --release --locked --quiet --features extension-module,vendored-openssl \
        --target "$target" --interpreter "$interpreter" --out "$out"
}

deb() {
    local version architecture debian_python
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml | head -n 1)
    architecture=$(dpkg --print-architecture)
    debian_python=/usr/bin/python3
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    echo "Building the Debian package ..."
    "$maturin" build --release --locked --quiet --auditwheel skip --out "$root/wheels"
    "$debian_python" -m venv "$root/opt/millrace"
    "$root/opt/millrace/bin/pip" install -q --disable-pip-version-check --no-compile --require-hashes -r requirements/run.txt
    "$root/opt/millrace/bin/pip" install -q --disable-pip-version-check --no-compile --no-index "$root"/wheels/*.whl
    # Its programs name the Python beside them by its path, which is another one once it is installed.
    grep -rlI "$root" "$root/opt/millrace" | xargs sed -i "s#$root##g"
    "$root/opt/millrace/bin/python" -m pip uninstall -q -y setuptools 2>/dev/null || true
    rm -rf "$root/wheels"

    install -D -m 0644 deploy/millrace.service "$root/lib/systemd/system/millrace.service"
    install -D -m 0640 deploy/millrace.example.toml "$root/etc/millrace/millrace.toml"
    install -D -m 0644 deploy/OPERATIONS.md "$root/opt/millrace/share/doc/millrace/OPERATIONS.md"
    install -D -m 0644 LICENSE "$root/usr/share/doc/millrace/copyright"
    install -D -m 0644 deploy/millrace.1 "$root/usr/share/man/man1/millrace.1"
    gzip -9n "$root/usr/share/man/man1/millrace.1"
    mkdir -p "$root/usr/bin" "$root/usr/share/bash-completion/completions" "$root/DEBIAN"
    ln -s /opt/millrace/bin/millrace "$root/usr/bin/millrace"
    "$(dirname "$python")/register-python-argcomplete" millrace >"$root/usr/share/bash-completion/completions/millrace"

    local minor size
    minor=$("$debian_python" -c 'import sys; print(sys.version_info.minor)')
    size=$(du -sk --exclude=DEBIAN "$root" | cut -f 1)
    # The packages in there are for this version of Python alone.
    sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@SIZE@/$size/" \
        -e "s/@PYTHON@/python3 (>= 3.$minor), python3 (<< 3.$((minor + 1)))/" deploy/debian/control >"$root/DEBIAN/control"
    install -m 0644 deploy/debian/conffiles "$root/DEBIAN/conffiles"
    install -m 0755 deploy/debian/postinst deploy/debian/prerm deploy/debian/postrm "$root/DEBIAN/"
    dpkg-deb --root-owner-group --build "$root" "$out/millrace_${version}_${architecture}.deb" >/dev/null
}

case "${2:-}" in
    wheels)
        wheel x86_64-unknown-linux-gnu x86_64-linux-gnu-gcc
        wheel aarch64-unknown-linux-gnu aarch64-linux-gnu-gcc
        ;;
    deb) deb ;;
    *) echo "usage: $0 PYTHON wheels|deb" >&2; exit 2 ;;
esac
ls -l "$out"
