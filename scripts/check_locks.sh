#!/usr/bin/env bash
# Checks that each Cargo.lock fits the manifests beside it and in the crates that these name. The builds that use the locks of `fuzz` and
# `benchmarks/rust` run seldom, and would fail.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=0
for lock in $(git ls-files '*Cargo.lock' 2>/dev/null || find . -name Cargo.lock -not -path '*/target/*'); do
    if ! cargo update --quiet --workspace --locked --manifest-path "${lock%.lock}.toml"; then
        echo "$lock is out of date: cargo update --workspace --manifest-path ${lock%.lock}.toml" >&2
        failed=1
    fi
done
exit "$failed"
