#!/usr/bin/env bash
# A second opinion on the protocol: Python's `websockets` against the real binary.
#
#   tests/python/run.sh [pytest arguments]
#
# Makes a virtual environment under target/ the first time and when requirements.txt changes; any
# other time it needs no network. Builds the server (debug) unless STONECHAT_BIN names a binary.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
venv=$target/python-venv
python=${PYTHON:-python3}

say() { printf 'python suite: %s\n' "$*"; }

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    say "needs Python 3.10 or later; set PYTHON to one" >&2
    exit 1
fi
if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
    say "installing requirements.txt into $venv"
    if ! "$python" -m venv --clear "$venv"; then
        say "cannot make a virtual environment (on Debian: apt install python3-venv)" >&2
        exit 1
    fi
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/installed.txt"
fi

if [[ -z ${STONECHAT_BIN:-} ]]; then
    say "building the server"
    (cd "$root" && cargo build --quiet --package stonechat --bin stonechat)
    export STONECHAT_BIN=$target/debug/stonechat
fi
say "testing $STONECHAT_BIN"
cd "$here"
exec "$venv/bin/python" -m pytest -p no:cacheprovider "$@"
