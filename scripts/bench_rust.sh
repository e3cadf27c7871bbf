#!/usr/bin/env bash
# The Rust benchmarks: scripts/bench_rust.sh [OPTIONS]; with the oldest supported Rust, since one of the peers fails with newer ones.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/floor.sh

# Cargo shows its progress.
echo "Building the benchmarks and their peers in Rust: several minutes the first time." >&2
cargo ${floor:+"+$floor"} build --locked --release --manifest-path benchmarks/rust/Cargo.toml
cargo ${floor:+"+$floor"} run --locked --quiet --release --manifest-path benchmarks/rust/Cargo.toml -- "$@"
