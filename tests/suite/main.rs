//! The integration tests, as one binary: `cargo test --test suite NAME` runs those whose path holds NAME.

mod atoms;
mod bad_input;
mod categories;
mod cli;
mod common;
mod conditional;
#[cfg(unix)]
mod damage;
mod data;
mod docs;
mod ensemble;
mod examples;
mod files;
mod gpu;
mod gradients;
mod grids;
mod groups;
mod hard_tables;
#[cfg(unix)]
mod hardware;
mod imports;
mod inspect;
mod laws;
#[cfg(unix)]
mod limited;
#[cfg(target_os = "linux")]
mod memory;
mod mixed;
mod model;
#[cfg(unix)]
mod mutation;
#[cfg(unix)]
mod names;
mod options;
mod oracle;
mod parity;
mod plan;
mod practice;
mod preprocess;
mod reading;
mod real_tables;
mod report;
mod search;
mod shaders;
#[cfg(unix)]
mod signals;
mod stored_models;
mod tables;
mod test_rows;
mod training;
