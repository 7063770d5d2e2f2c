#!/usr/bin/env bash
#! The linker of a release build of the module: `zig cc` for glibc 2.31, called by rustc.
#!
#! The standard library of Rust runs on old glibc, but a link against this machine's glibc binds
#! some of its symbols to their newest versions. Zig carries the symbol lists of all versions.
set -euo pipefail

args=()
for arg in "$@"; do
    case $arg in
    # Zig's own unwinder, static.
    -lgcc_s) args+=(-lunwind) ;;
    # Meant for the system's linker.
    -fuse-ld=* | -B*) ;;
    *) args+=("$arg") ;;
    esac
done
exec "$TIDEGATE_ZIG" cc -target "$TIDEGATE_ZIG_TARGET" "${args[@]}"
