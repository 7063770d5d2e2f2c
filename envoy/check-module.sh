#!/usr/bin/env bash
#! Fails if a module (`check-module.sh libtidegate_module.so`) could not be shipped.
#!
#! It must load wherever the stock Envoy wheel (manylinux_2_31) does: no symbol newer than glibc
#! 2.31, no library but glibc's own. It must bind at load, so that an Envoy without one of its
#! callbacks refuses it instead of dying later, and carry its version for the control plane to read.
set -euo pipefail

limit=2.31
module=${1:?usage: check-module.sh libtidegate_module.so}
failed=0

complain() {
    printf 'check-module.sh: %s: %s\n' "$module" "$1" >&2
    failed=1
}

command -v readelf >/dev/null || { echo "check-module.sh: readelf is missing (package binutils)" >&2; exit 1; }
dynamic=$(readelf --wide --dynamic "$module")
symbols=$(readelf --wide --dyn-syms "$module")

newest=$(grep -o 'GLIBC_[0-9.]*' <<<"$symbols" | cut -d_ -f2 | sort -Vu | tail -1)
if [[ $(printf '%s\n' "$newest" "$limit" | sort -V | tail -1) != "$limit" ]]; then
    too_new=$(grep -o '[^ ]*@GLIBC_[0-9.]*' <<<"$symbols" | sort -u |
        while IFS= read -r symbol; do
            [[ $(printf '%s\n' "${symbol##*_}" "$limit" | sort -V | tail -1) == "$limit" ]] || printf ' %s' "$symbol"
        done)
    complain "needs glibc $newest, but Envoy's wheel runs from $limit:$too_new (build with envoy/build-module.sh)"
fi

while read -r library; do
    case $library in
    libc.so.6 | libpthread.so.0 | libdl.so.2 | ld-linux-*.so.*) ;;
    *) complain "needs $library, which Envoy's images do not hold" ;;
    esac
done < <(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' <<<"$dynamic")

grep -Eq 'BIND_NOW|FLAGS_1.*NOW' <<<"$dynamic" || complain "binds lazily"

for hook in on_program_init on_early_header_mutation_mutate on_http_filter_request_headers; do
    grep -q " envoy_dynamic_module_$hook\$" <<<"$symbols" || complain "does not export envoy_dynamic_module_$hook"
done
grep -q ' tidegate_module_version$' <<<"$symbols" || complain "does not export tidegate_module_version"

version=$(grep -aom1 'TIDEGATE_MODULE=[0-9][0-9A-Za-z.+-]*' "$module" | head -1 || true)
[[ -n $version ]] || complain "carries no version"

((failed)) && exit 1
printf '%s: %s, glibc %s\n' "$module" "${version#*=}" "$newest"
