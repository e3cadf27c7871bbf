#!/usr/bin/env bash
# Checks licences and sources of all dependencies by deny.toml, where cargo-deny is installed. Advisories need a database from the network: the
# CI workflow checks them.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo-deny >/dev/null; then
    echo "dependencies: not checked; cargo-deny is not here (cargo install --locked cargo-deny)" >&2
    exit 0
fi
cargo deny --offline --log-level error check --hide-inclusion-graph bans licenses sources
