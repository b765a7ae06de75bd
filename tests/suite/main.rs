//! The integration tests, as one binary: `cargo test --test suite NAME` runs those whose path holds NAME.

mod bad_input;
mod cli;
mod common;
mod conditional;
mod data;
mod examples;
mod files;
mod gpu;
mod gradients;
#[cfg(unix)]
mod hardware;
mod laws;
mod model;
mod options;
mod oracle;
mod parity;
mod plan;
mod practice;
mod preprocess;
mod real_tables;
mod report;
mod shaders;
#[cfg(unix)]
mod signals;
mod stored_models;
mod tables;
mod training;
