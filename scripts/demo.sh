#!/usr/bin/env bash
# All examples, one after the other: scripts/demo.sh PYTHON [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."

python=$1
# Without a folder both count the Python standard library.
folder=("${@:2}")

show() {
    printf '\n$ %s\n' "$*"
    "$@"
}

# Built beforehand, so that the examples' output is all that follows. Cargo shows its progress.
echo "Building the examples in Rust: several minutes the first time."
cargo build --release --locked -p maniple --examples

show "$python" examples/python/squares.py
show cargo run --quiet --release --locked -p maniple --example squares
show cargo run --quiet --release --locked -p maniple --example another_program
show "$python" examples/python/wordcount.py "${folder[@]}"
show cargo run --quiet --release --locked -p maniple --example wordcount -- "${folder[@]}"
for name in deadline pipeline shared depot python; do
    show cargo run --quiet --release --locked -p maniple --example "$name"
done
