#!/usr/bin/env bash
#! Builds the module as it is shipped: for every host that the stock Envoy wheel runs on.
#!
#! The wheel is manylinux_2_31. A plain `cargo build --release` on a newer system makes a module
#! that needs that system's glibc (2.35 on Debian 12: `_dl_find_object` of its libgcc_eh, 2.34
#! `pthread_key_*` and `pthread_once`, 2.33 `stat64` and `fstat64`, all for Rust's std). It does for
#! tests on the same machine. This links through zig (from PyPI, pinned) instead and checks.
#!
#! The last line on stdout is the path of the module; everything else goes to stderr.
#! TIDEGATE_ZIG=/path/to/zig overrides the download.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=0.17.1
pin=ea6cc5d87b033cf0aedfbc8f9549a908cae6c50ac31f1698188fa48a74524b54

fail() {
    printf 'envoy/build-module.sh: %s\n' "$@" >&2
    exit 1
}

if [[ -z ${TIDEGATE_ZIG:-} ]]; then
    home=${XDG_CACHE_HOME:-$HOME/.cache}/tidegate/zig/$version-${pin:0:16}
    if [[ ! -x $home/ziglang/zig ]]; then
        [[ $HOSTTYPE == x86_64 ]] || fail "no zig is pinned for $HOSTTYPE; set TIDEGATE_ZIG to a zig $version."
        mkdir -p "${home%/*}"
        work=$(mktemp -d "${home%/*}/.install.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-cache-dir --no-compile \
            --only-binary=:all: --target "$work/home" --require-hashes \
            --requirement <(printf 'ziglang==%s --hash=sha256:%s\n' "$version" "$pin") >&2 ||
            fail "pip could not install ziglang==$version (see above); set TIDEGATE_ZIG to a zig of your own."
        mv -T "$work/home" "$home" 2>/dev/null || [[ -x $home/ziglang/zig ]] || fail "could not move zig to $home."
    fi
    TIDEGATE_ZIG=$home/ziglang/zig
fi
export TIDEGATE_ZIG

target=${1:-$HOSTTYPE-unknown-linux-gnu}
export TIDEGATE_ZIG_TARGET=${target%%-*}-linux-gnu.2.31
linker=CARGO_TARGET_${target//-/_}_LINKER
export "${linker^^}=$here/zig-linker.sh"

cd "$here/.."
cargo rustc --locked --package tidegate-module --release --crate-type cdylib --target "$target" >&2
built=${CARGO_TARGET_DIR:-$PWD/target}/$target/release/libtidegate_module.so
"$here/check-module.sh" "$built" >&2
printf '%s\n' "$built"
