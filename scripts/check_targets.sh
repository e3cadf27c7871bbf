#!/usr/bin/env bash
# Type-checks the workspace for other systems and other processors: nothing but `maniple-sys` may depend on the system, and nothing on
# the size or the order of bytes of a word. The part of macOS's backend that is POSIX is checked on this system as well. Needs the
# standard library of each target: rustup's, or, if that is not available, its source (rust-src), of which the compiler then makes one.
#
# usage: scripts/check_targets.sh [--run [i686|aarch64|s390x]...]
# With --run it runs the tests of maniple-sys and of the engine for other processors instead, and prints the closing lines: i686 as it
# is, the others under qemu, which lacks some calls (docs/design/platforms.md lists what fails there). Needs the packages
# gcc-PROCESSOR-linux-gnu and libc6-dev-PROCESSOR-cross (i386, arm64, s390x), libc6-i386 and lib32gcc-s1 for i686, and qemu-user-static.
set -euo pipefail
cd "$(dirname "$0")/.."

# Runs a command where the kernel starts programs for another processor by qemu: in namespaces of its own (Linux 6.7 or newer), so
# that the machine keeps its settings.
emulated() {
    local processor=$1 head mask
    shift
    # The head of such a program: 64 bits and the order of bytes, a program or a shared object, the number of the processor.
    case $processor in
        aarch64) head='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00' mask='\xfe\xff' ;;
        s390x) head='\x7fELF\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x16' mask='\xff\xfe' ;;
    esac
    local start='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff'
    # shellcheck disable=SC2016 # The inner shell expands them.
    QEMU_LD_PREFIX="/usr/$processor-linux-gnu" unshare --user --map-root-user --mount bash -c '
        mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
        printf "%s\n" "$1" >/proc/sys/fs/binfmt_misc/register
        shift
        exec "$@"
    ' - ":maniple-$processor:M::$head:$start$mask\xff\xff:$(command -v "qemu-$processor-static"):F" "$@"
}

run_tests() {
    local processor=$1 target="$1-unknown-linux-gnu" here=()
    has_std "$target" || rustup target add "$target"
    [ "$processor" = i686 ] || here=(emulated "$processor")
    local linker="CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")_LINKER=$processor-linux-gnu-gcc"
    env "$linker" cargo test --quiet --locked --target "$target" --package maniple-sys --package maniple-engine --lib --tests --no-run
    echo "$processor:"
    # An emulator is slow, and some tests measure time: few at once.
    local log
    log=$(mktemp)
    "${here[@]}" env "$linker" timeout -k 10 3600 cargo test --locked --no-fail-fast --target "$target" \
        --package maniple-sys --package maniple-engine --lib --tests -- --test-threads 2 >"$log" 2>&1 || failed=1
    grep -E '^test .* FAILED|^test result' "$log" || cat "$log"
    rm -f "$log"
}

# A folder of its own: other targets' files would have build scripts compiled anew each time.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/targets"
# No interpreter is asked: the module is linked to none.
export PYO3_NO_PYTHON=1
unset CARGO_BUILD_TARGET PYO3_PYTHON
check=(cargo clippy --quiet --locked --workspace --all-features --features pyo3/extension-module)
sysroot=$(rustc --print sysroot)
failed=0

has_std() { compgen -G "$sysroot/lib/rustlib/$1/lib/libstd-*.rlib" >/dev/null; }

if [ "${1:-}" = --run ]; then
    shift
    [ $# -gt 0 ] || set -- i686 aarch64 s390x
    for processor; do run_tests "$processor"; done
    exit $failed
fi

# The conformance suite is compiled for macOS, too; it is run there by hand.
suite=(cargo clippy --quiet --locked -p maniple-sys --test conformance)

# A conversion that one processor needs is one of a type into itself on another.
lints=(-D warnings -A clippy::useless_conversion -A clippy::unnecessary_cast -A clippy::unnecessary_fallible_conversions)

# FreeBSD has no backend yet; the processors are one of 64 bits, one whose bytes are in the other order, and one of 32 bits.
for target in x86_64-pc-windows-gnu aarch64-apple-darwin \
    x86_64-unknown-freebsd aarch64-unknown-linux-gnu s390x-unknown-linux-gnu i686-unknown-linux-gnu; do
    if ! has_std "$target" && command -v rustup >/dev/null; then
        timeout 300 rustup target add "$target" >/dev/null 2>&1 || true
    fi
    if has_std "$target"; then
        "${check[@]}" --target "$target" -- "${lints[@]}" || failed=1
        [ "$target" != aarch64-apple-darwin ] || "${suite[@]}" --target "$target" -- "${lints[@]}" || failed=1
    elif [ -d "$sysroot/lib/rustlib/src/rust/library/std" ]; then
        # Of the two for Windows, the one whose import libraries need no tool.
        RUSTC_BOOTSTRAP=1 "${check[@]}" -Zbuild-std=std,panic_unwind --target "${target/windows-gnu/windows-msvc}" -- "${lints[@]}" ||
            failed=1
    else
        echo "$target: not checked; its standard library is missing (rustup target add $target, or rustup component add rust-src)" >&2
    fi
done
if [ "$(uname)" = Linux ]; then
    RUSTFLAGS="${RUSTFLAGS:-} --cfg maniple_posix" CARGO_TARGET_DIR="$CARGO_TARGET_DIR/posix" \
        cargo clippy --quiet --locked -p maniple-sys --all-targets -- -D warnings || failed=1
fi
exit $failed
