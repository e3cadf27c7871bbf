#!/usr/bin/env bash
# Builds the Python package for Windows on x86-64 (CPython 3.11 and newer, stable interface) on another system: a folder
# with `maniple`, whose native module is `_maniple.pyd`, to be put on Python's search path.
# The module needs no library of the compiler: libgcc is linked into it.
#
# usage: scripts/build_windows.sh KIT [FOLDER]
# KIT is the folder of scripts/test_windows.sh with a compiler for Windows. FOLDER (default: KIT/package) gets the package.
# For quick builds set CARGO_PROFILE_RELEASE_OPT_LEVEL=1 and CARGO_PROFILE_RELEASE_INCREMENTAL=true.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "build_windows: $*" >&2; exit 1; }

[ $# -ge 1 ] || fail "usage: scripts/build_windows.sh KIT [FOLDER]"
kit=$(realpath -m "$1")
folder=$(realpath -m "${2:-$kit/package}")
[ -e "$kit/env.sh" ] || fail "$kit has no env.sh: make the kit by scripts/test_windows.sh $1"
# shellcheck disable=SC1091 # The kit has it.
source "$kit/env.sh"
unset RUSTFLAGS PYO3_PYTHON
# No interpreter for Windows can be asked on this system: the module uses the stable interface.
export PYO3_NO_PYTHON=1
# The kit's standard library is not made for optimization across crates.
export CARGO_PROFILE_RELEASE_LTO=off

cargo build --locked --quiet --release -p maniple-python --features pyo3/extension-module --target x86_64-pc-windows-gnu
module="$CARGO_TARGET_DIR/x86_64-pc-windows-gnu/release/_maniple.dll"

mkdir -p "$folder"
rm -rf "$folder/maniple.new"
cp -R python/maniple "$folder/maniple.new"
find "$folder/maniple.new" \( -name __pycache__ -prune -o -name '*.so' \) -exec rm -rf {} +
cp "$module" "$folder/maniple.new/_maniple.pyd"
rm -rf "$folder/maniple"
mv "$folder/maniple.new" "$folder/maniple"

if command -v x86_64-w64-mingw32-objdump >/dev/null; then
    needed=$(x86_64-w64-mingw32-objdump -p "$module" | sed -n 's/.*DLL Name: //p' | sort -uf)
    if grep -iE '^(libgcc|libstdc|libwinpthread)' <<<"$needed"; then
        fail "the module needs libraries of the compiler"
    fi
fi
echo "build_windows: $folder/maniple"
