#!/usr/bin/env bash
# Type-checks the workspace for other systems and other processors: nothing but `maniple-sys` may depend on the system, and nothing on
# the size or the order of bytes of a word. The part of macOS's backend that is POSIX is checked on this system as well. Needs the standard library of each target: rustup's, or, if that is not
# available, its source (rust-src), of which the compiler then makes one.
set -euo pipefail
cd "$(dirname "$0")/.."

# A folder of its own: other targets' files would have build scripts compiled anew each time.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/targets"
# No interpreter is asked: the module is linked to none.
export PYO3_NO_PYTHON=1
unset CARGO_BUILD_TARGET PYO3_PYTHON
check=(cargo clippy --quiet --locked --workspace --all-features --features pyo3/extension-module)
sysroot=$(rustc --print sysroot)
failed=0

has_std() { compgen -G "$sysroot/lib/rustlib/$1/lib/libstd-*.rlib" >/dev/null; }

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
