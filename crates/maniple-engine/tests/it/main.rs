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
mod file_size;
mod idle;
mod idle_forks;
mod idle_queue;
mod listener;
mod reaped_elsewhere;
mod refused;
mod rwlock;
mod simulation;
mod support;
mod sync;
