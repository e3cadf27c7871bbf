#!/usr/bin/env bash
# Ends with 0 if cargo is there and new enough for this workspace; else says what to do.
# As root on Debian or Ubuntu it installs the distribution's cargo, where that is new enough.
set -euo pipefail
cd "$(dirname "$0")/.."

floor=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

new_enough() { [ "$(printf '%s\n' "$floor" "$1" | sort -V | head -n 1)" = "$floor" ]; }

# What apt would install, as "1.89.0"; Debian calls cargo 1.63 "0.66.0", which is as good as none.
offered() { apt-cache policy cargo 2>/dev/null | sed -n 's/^ *Candidate: \([0-9.]*\).*/\1/p'; }

say_how() {
    echo "$1 maniple needs Rust $floor or newer: install it with rustup (https://rustup.rs), then run make again." >&2
    exit 1
}

if ! command -v cargo >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -q >&2 || true
        if candidate=$(offered) && [ -n "$candidate" ] && new_enough "$candidate"; then
            apt-get install -y -q --no-install-recommends cargo rustc >&2
        fi
    fi
    command -v cargo >/dev/null || say_how "cargo is not here."
fi
version=$(cargo --version | cut -d ' ' -f 2)
new_enough "$version" || say_how "cargo is $version."
command -v cc >/dev/null || {
    echo "cc is not here: Rust needs a C linker (on Debian and Ubuntu: apt-get install gcc libc6-dev)." >&2
    exit 1
}
