#!/usr/bin/env bash
# Compiles the crates with the oldest Rust that Cargo.toml promises. If that toolchain is not available, clippy's
# `incompatible_msrv`, which `make lint` runs in any case, has to do: it knows since when each item of the standard
# library is there, but not each feature of the language.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/floor.sh

if [ -z "$floor" ]; then
    echo "not checked; clippy's incompatible_msrv has to do" >&2
    exit 0
fi
# A folder of its own: another compiler's files would have everything compiled anew each time.
CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/msrv" cargo "+$floor" check --quiet --locked --workspace --all-features
