//! RealNVP normalizing flows, trained, scored and sampled on any GPU or on the CPU.
//!
//! [`Trainer`] fits a [`Recipe`] to a [`Dataset`]; what comes of it is a [`Density`] to score and sample with, and its
//! [`Model`] is what is kept. Beneath them, a [`Flow`] is pure data. An [`engine::Engine`] executes it: `gpu` in WGSL compute shaders
//! through wgpu, [`cpu`] in Rust, generic over `f32` and `f64`. [`train`] fits a flow to a
//! dataset, and a model holds flow, parameters and preprocessing, with log-densities in nats and in the user's own units.
#![warn(missing_docs)]

pub mod cpu;
pub mod data;
#[cfg(not(target_arch = "wasm32"))]
pub mod density;
pub mod device;
pub mod engine;
pub mod error;
pub mod flow;
pub mod gpu;
#[cfg(any(feature = "report", feature = "tables"))]
mod guard;
pub mod layout;
pub mod model;
pub mod optimiser;
pub mod random;
#[cfg(feature = "report")]
pub mod report;
pub mod shown;
pub mod train;

pub use data::{Dataset, Table};
#[cfg(not(target_arch = "wasm32"))]
pub use density::{Density, Trained, Trainer};
pub use device::Device;
pub use error::{Error, Result};
pub use flow::Flow;
#[cfg(any(feature = "report", feature = "tables"))]
pub use guard::panic_is_guarded;
pub use model::{Model, Recipe};

/// The examples of README and of the pages under `docs` are compiled and run with the documentation's.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;

    #[doc = include_str!("../docs/flows.md")]
    struct Flows;

    #[doc = include_str!("../docs/library.md")]
    struct Library;
}
