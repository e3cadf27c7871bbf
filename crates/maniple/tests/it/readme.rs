//! The Rust blocks of README.md: `readme/blocks.rs` has the same lines, so that they compile, and most of them run here.

use crate::support::watchdog;

#[rustfmt::skip]
#[allow(unused_variables, clippy::pedantic, clippy::nursery)]
mod blocks;

const README: &str = include_str!("../../../../README.md");
const COMPILED: &str = include_str!("readme/blocks.rs");

fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

#[test]
fn every_block_compiles() {
    let compiled = lines(COMPILED);
    let blocks: Vec<&str> = README.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 10, "{} blocks", blocks.len());
    for block in blocks {
        let wanted = lines(block);
        assert!(
            compiled.windows(wanted.len()).any(|window| window == wanted),
            "readme/blocks.rs does not contain this block of README.md:\n{block}"
        );
    }
}

/// The rest uses a fixed port or name, another program, or ten seconds.
#[test]
fn the_blocks_run() {
    let _dog = watchdog();
    blocks::first().unwrap();
    blocks::pools(["one", "three"].map(String::from).into(), ["five".to_string()].into()).unwrap();
    blocks::limits().unwrap();
    blocks::sizes(std::env::temp_dir()).unwrap();
    blocks::pipes(blocks::Job).unwrap();
    blocks::managers().unwrap();
}
