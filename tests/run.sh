#!/usr/bin/env bash
# Passes all tests, installing what they need where it is missing. Says what it does.
# Needs Rust (rustup) and a Debian-like system; everything else it gets through apt, pip and cargo.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '\n== %s\n' "$*"; }

CARGO_DENY_VERSION=0.20.2
LOG_DIR=target/test-logs
mkdir -p "$LOG_DIR"

# --- what the tests need -------------------------------------------------------------------------
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
apt_missing=()
command -v cc >/dev/null || apt_missing+=(build-essential)
command -v python3 >/dev/null || apt_missing+=(python3)
command -v strace >/dev/null || apt_missing+=(strace)
# Power cuts: disks that are files.
PATH="$PATH:/usr/sbin:/sbin" command -v mkfs.ext4 >/dev/null || apt_missing+=(e2fsprogs)
command -v mount >/dev/null || apt_missing+=(mount)
# Metrics: promtool for names and rules, a certificate.
command -v promtool >/dev/null || apt_missing+=(prometheus)
command -v openssl >/dev/null || apt_missing+=(openssl)
python3 -c 'import venv, ensurepip' 2>/dev/null || apt_missing+=(python3-venv)
# The dashboard: a browser to look at it with. Its tool chain sees to itself.
command -v chromium >/dev/null || apt_missing+=(chromium)
if [ ${#apt_missing[@]} -gt 0 ]; then
    say "installing with apt: ${apt_missing[*]}"
    as_root apt-get update -q
    as_root apt-get install -y -q "${apt_missing[@]}"
    # Only promtool is wanted: no Prometheus that serves port 9090 from now on.
    if [[ " ${apt_missing[*]} " == *" prometheus "* && -d /run/systemd/system ]]; then
        as_root systemctl disable --now prometheus.service || true
    fi
fi
if ! cargo deny --version >/dev/null 2>&1; then
    say "installing cargo-deny $CARGO_DENY_VERSION with cargo (a few minutes)"
    cargo install --quiet --locked "cargo-deny@$CARGO_DENY_VERSION"
fi

# --- static checks -------------------------------------------------------------------------------
say "format"
cargo fmt --all --check
say "licences, bans, sources"
cargo deny --log-level error check licenses bans sources
say "clippy, warnings denied"
cargo clippy --workspace --all-targets --quiet -- -D warnings
say "documentation, warnings denied"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

# --- tests ---------------------------------------------------------------------------------------
say "the server, as the black-box suites run it"
cargo build --quiet --package stonechat --bin stonechat
target_dir=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json,sys; print(json.load(sys.stdin)["target_directory"])')
export STONECHAT_BIN="$target_dir/debug/stonechat"

status=0
say "Rust: unit, property, simulation, architecture and black-box tests"
cargo test --workspace --no-fail-fast 2>&1 | tee "$LOG_DIR/rust.log" || status=1
say "Python: a second opinion on the protocol, by an independent client"
tests/python/run.sh 2>&1 | tee "$LOG_DIR/python.log" || status=1
say "dashboard: types, lint, unit tests, the committed build, every page in a browser"
tests/dashboard.sh 2>&1 | tee "$LOG_DIR/dashboard.log" || status=1

# What a test could not do here (it says so and counts as passed).
grep -h "^NOT RUN:" "$LOG_DIR"/*.log || true

# --- summary -------------------------------------------------------------------------------------
python3 - "$LOG_DIR" "$status" <<'PY'
import pathlib, re, sys
logs, status = pathlib.Path(sys.argv[1]), int(sys.argv[2])
passed = failed = 0
for name in ("rust.log", "python.log", "dashboard.log"):
    text = (logs / name).read_text(errors="replace")
    if name == "dashboard.log":
        for f, p in re.findall(r"^ +Tests  (?:(\d+) failed \| )?(\d+) passed", text, re.M):
            passed, failed = passed + int(p), failed + int(f or 0)
        continue
    for p, f in re.findall(r"^test result: \w+\. (\d+) passed; (\d+) failed", text, re.M):
        passed, failed = passed + int(p), failed + int(f)
    for word, into in (("passed", "p"), ("failed", "f"), ("error", "f"), ("errors", "f")):
        for n in re.findall(rf"^=*.*?\b(\d+) {word}\b.* in [\d.]+s", text, re.M) if name == "python.log" else []:
            if into == "p":
                passed += int(n)
            else:
                failed += int(n)
if status and not failed:
    failed = 1  # a suite did not even run to its end
print(f"\ntotal: {passed} passed, {failed} failed")
sys.exit(1 if status or failed else 0)
PY
