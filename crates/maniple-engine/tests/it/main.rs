//! The engine's integration tests: one program, so that the engine is linked once.
//!
//! A test that changes its whole process, or that no other may disturb, runs in a process of its own: `support::alone`. The model checker's

//! tests are a program beside this folder, since `--cfg loom` compiles them and none of these.
#![cfg(not(loom))]
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used)]

mod arenas;
mod auth;
mod barrier;
mod channel;
// Windows has no limits on the sizes of files.
#[cfg(not(windows))]
mod file_size;
mod idle;
// Windows has no forks.
#[cfg(not(windows))]
mod idle_forks;
// Windows frees whole sections only, and does not tell how much of one is in use.
#[cfg(not(windows))]
mod idle_queue;
mod lifelines;
mod listener;
// Windows has no signals, and keeps the exit of a process as long as a handle on it is open.
#[cfg(not(windows))]
mod reaped_elsewhere;
// Windows has no filter that refuses calls to a process.
#[cfg(not(windows))]
mod refused;
mod rwlock;
mod simulation;
mod support;
mod sync;
