# To be read by scripts that need the oldest Rust that Cargo.toml promises (`rust-version`): sets `floor` to its version, and to nothing
# where rustup does not have it and cannot get it.
floor=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if ! command -v rustup >/dev/null; then
    echo "rust $floor: there is no rustup to install it with" >&2
    floor=
elif ! cargo "+$floor" --version >/dev/null 2>&1 &&
    ! rustup toolchain install "$floor" --profile minimal --no-self-update >/dev/null 2>&1; then
    echo "rust $floor: rustup cannot install it now" >&2
    floor=
fi
