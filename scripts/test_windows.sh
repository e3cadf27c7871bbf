#!/usr/bin/env bash
# Runs the tests of the Rust crates as Windows programs under Wine, and prints the closing lines of the runner: maniple-sys
# with its conformance suite, maniple-engine, and maniple. Documentation's examples are not run: each is a program.
# Wine is not Windows: docs/design/windows.md names what a run here cannot show.
#
# usage: scripts/test_windows.sh [KIT] [MORE ARGUMENTS OF THE RUNNER]
# TEST_THREADS: how many tests run at once (4).
# KIT is a folder outside the checkout that is kept between runs (1.6 GB; default: ~/.cache/maniple-windows). If it is
# missing, it is made from packages of apt: a rustc, the source of the standard library, mingw-w64 and Wine. A folder with
# `env.sh` in it is used as it is. Needs cargo; making a kit needs Debian 12 or newer, and root.
set -euo pipefail
cd "$(dirname "$0")/.."

kit=$(realpath -m "${1:-${XDG_CACHE_HOME:-$HOME/.cache}/maniple-windows}")
shift || true
target=x86_64-pc-windows-gnu

fail() { echo "test_windows: $*" >&2; exit 1; }

make_kit() {
    local need=() package
    for package in gcc-mingw-w64-x86-64 wine64 wine; do
        dpkg -s "$package" >/dev/null 2>&1 || need+=("$package")
    done
    if ((${#need[@]})); then
        [ "$(id -u)" = 0 ] || fail "missing packages: ${need[*]} (apt-get install ${need[*]})"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${need[@]}" >/dev/null
    fi
    mkdir -p "$kit"

    # A compiler of its own, unpacked and not installed: the standard library for Windows must be of the same build.
    if [ ! -x "$kit/rust/usr/bin/rustc" ]; then
        mkdir -p "$kit/packages/partial" "$kit/rust"
        apt-get -qq -y --no-install-recommends --download-only -o Dir::Cache::archives="$kit/packages" \
            -o APT::Sandbox::User=root install rustc-web rust-web-src >/dev/null
        for package in "$kit"/packages/*.deb; do
            dpkg -x "$package" "$kit/rust"
        done
        rm -rf "$kit/packages"
    fi
    local tool
    for tool in rustc rustdoc; do
        printf '#!/bin/sh\nLD_LIBRARY_PATH="%s/rust/usr/lib/x86_64-linux-gnu" exec "%s/rust/usr/bin/%s" "$@"\n' \
            "$kit" "$kit" "$tool" >"$kit/$tool"
        chmod +x "$kit/$tool"
    done

    local lib="$kit/rust/usr/lib/rustlib/$target/lib"
    if ! compgen -G "$lib/libstd-*.rlib" >/dev/null; then
        mkdir -p "$kit/std/src" "$lib"
        printf '[package]\nname = "std-for-windows"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' >"$kit/std/Cargo.toml"
        : >"$kit/std/src/lib.rs"
        (cd "$kit/std" && env -u RUSTFLAGS CARGO_TARGET_DIR="$kit/std/target" RUSTC="$kit/rustc" RUSTC_BOOTSTRAP=1 \
            cargo build --quiet --release -Zbuild-std=std,panic_unwind,panic_abort,test --target "$target")
        # Everything but the empty crate itself.
        find "$kit/std/target/$target/release/deps" -name '*.rlib' ! -name 'libstd_for_windows-*' -exec cp {} "$lib/" \;
        rm -rf "$kit/std"
    fi

    export WINEPREFIX="$kit/prefix" WINEARCH=win64 WINEDEBUG=-all
    unset DISPLAY LD_LIBRARY_PATH
    if [ ! -e "$kit/prefix/.ready" ]; then
        wineboot -i >/dev/null 2>&1 </dev/null | cat
        wine winecfg -v win10 >/dev/null 2>&1 </dev/null || true
        # Wine 8 lacks the library from which Rust's standard library has its random numbers.
        local library="$kit/prefix/drive_c/windows/system32/bcryptprimitives.dll"
        if [ ! -e "$library" ]; then
            cat >"$kit/random.c" <<'C'
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID to, ULONG len);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE to, SIZE_T len)
{
    while (len > 0) {
        ULONG piece = len > 1048576 ? 1048576 : (ULONG)len;
        if (!SystemFunction036(to, piece))
            return FALSE;
        to += piece;
        len -= piece;
    }
    return TRUE;
}
C
            x86_64-w64-mingw32-gcc -O2 -s -shared -o "$library" "$kit/random.c" -ladvapi32
        fi
        wineserver -w
        touch "$kit/prefix/.ready"
    fi

    # Standard streams are pipes: Wine's programs cannot use every kind of file as one. Wine starts its debugger for every
    # process that crashes, in every error mode of the process; without it, the process ends as on Windows.
    cat >"$kit/run" <<RUN
#!/bin/bash
set -o pipefail
export WINEPREFIX="$kit/prefix" WINEARCH=win64 WINEDEBUG=\${WINEDEBUG--all} WINEDLLOVERRIDES=winedbg.exe=d
unset DISPLAY LD_LIBRARY_PATH
wine "\$@" </dev/null 2>&1 | cat
RUN
    chmod +x "$kit/run"
    cat >"$kit/env.sh" <<ENV
export RUSTC="$kit/rustc" RUSTDOC="$kit/rustdoc" CARGO_BUILD_TARGET=$target CARGO_TARGET_DIR="$kit/target"
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER="$kit/run"
ENV
}

command -v cargo >/dev/null || fail "cargo is missing"
if [ ! -e "$kit/env.sh" ]; then
    echo "test_windows: making a kit in $kit (minutes)"
    make_kit
fi
# shellcheck disable=SC1091 # It is written above.
source "$kit/env.sh"
# Flags for this machine's own compiler mean nothing here.
unset RUSTFLAGS

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A start of a process takes half a second under Wine: more tests at once than processors gain nothing.
threads=${TEST_THREADS:-4}
failed=()

echo "test_windows: compiling"
timeout -k 10 5400 cargo test --quiet --locked --no-run --package maniple-sys --lib --test conformance
timeout -k 10 5400 cargo test --quiet --locked --no-run --package maniple-engine --package maniple --lib --tests
# The crate's tests run them.
timeout -k 10 1800 cargo build --quiet --locked --package maniple --examples

# Runs the tests of a package for so many seconds at most: prints the closing lines, and everything if a test fails.
run_tests() {
    local name=$1 most=$2
    shift 2
    echo "$name:"
    if timeout -k 10 "$most" cargo test --locked --no-fail-fast "$@" >"$log" 2>&1; then
        grep -E '^test result' "$log"
    else
        cat "$log"
        failed+=("$name")
    fi
}

run_tests "maniple-sys and its conformance suite" 900 \
    --package maniple-sys --lib --test conformance -- --test-threads="$threads" "$@"
run_tests "maniple-engine" 2400 --package maniple-engine --lib --tests -- --test-threads="$threads" "$@"
run_tests "maniple" 5400 --package maniple --lib --tests -- --test-threads="$threads" "$@"

if ((${#failed[@]})); then
    fail "failed: ${failed[*]}"
fi
