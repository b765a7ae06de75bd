//! RealNVP normalizing flows, trained, scored and sampled on any GPU or on the CPU.
//!
//! A flow is an invertible map between a table's rows and normal noise. Once it is fitted, it gives the log-density of any
//! row, in nats and in the data's own units, and draws new rows.
//!
//! # Examples
//! ```
//! use moonflow::data::{Dataset, Table};
//! use moonflow::{Device, Recipe, Trainer};
//!
//! # fn main() -> moonflow::Result<()> {
//! // Two columns, the second of which follows the first.
//! let values = (0..400).flat_map(|i| [f64::from(i % 40), f64::from(i % 40 + i % 7)]).collect();
//! let table = Table { name: "sums".into(), columns: vec!["a".into(), "b".into()], values };
//! // A tenth of the rows is kept for validation; the last argument is the split's seed.
//! let dataset = Dataset::split(&table, 0.1, 1)?;
//!
//! let recipe = Recipe { epochs: 2, layers: 2, hidden: vec![8], ..Recipe::default() };
//! let mut trained = Trainer::new(recipe).on(Device::Cpu).fit(&dataset)?;
//! let log_prob = trained.density.log_prob(&[3.0, 5.0, 3.0, 90.0])?; // two rows, [2]
//! let samples = trained.density.sample(100, 7)?; // row-major [100, 2]
//! # assert_eq!((log_prob.len(), samples.len()), (2, 200));
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature  | what it adds                                                | default |
//! |----------|-------------------------------------------------------------|---------|
//! | `cli`    | the program `moonflow`; implies the two below               | yes     |
//! | `tables` | tables in NPY and Parquet, and compressed by gzip or zstd   | by `cli` |
//! | `report` | pictures of a fitted model                                  | by `cli` |
//!
//! The defaults are for those who install the program. A library takes only what it needs:
//!
//! ```toml
//! [dependencies]
//! moonflow = { version = "0.1", default-features = false, features = ["tables"] }
//! ```
//!
//! # Where things are
//!
//! | module        | what it holds                                                                       |
//! |---------------|-------------------------------------------------------------------------------------|
//! | [`density`]   | [`Trainer`], [`Density`]: train, score and sample with calls that block |
//! | [`data`]      | tables, toy densities, splits, and the preprocessing between units and engines      |
//! | [`flow`]      | a [`Flow`]: base density and list of transforms, as data                            |
//! | [`layout`]    | where each transform's parameters lie in the flat vector of parameters              |
//! | [`engine`]    | the interface of everything that executes a flow                                    |
//! | [`cpu`]       | the CPU engine, generic over `f32` and `f64`                                        |
//! | [`gpu`]       | the GPU engine: WGSL compute shaders through wgpu                                   |
//! | [`device`]    | the choice between them while the program runs                                      |
//! | [`train`]     | the training loop over any engine: checkpoints, early stopping, averages            |
//! | [`optimiser`] | update rule, learning rate and state of a training                                  |
//! | [`model`]     | a fitted flow with its preprocessing and record, and the file that keeps it         |
//! | [`files`]     | files that are read whole, or written whole or not at all                           |
//! | [`random`]    | counter-based random numbers, the same on every device                              |
//! | [`error`]     | [`Error`] and the ways around it                                                    |
//!
//! Some modules are public for the project's tests and benches and hidden here: kernels, uniforms, and the functions on the
//! CPU that kernels are compared with. They may change in any version.
#![warn(missing_docs)]

pub mod cpu;
pub mod data;
#[cfg(not(target_arch = "wasm32"))]
pub mod density;
pub mod device;
pub mod engine;
pub mod error;
#[cfg(not(target_arch = "wasm32"))]
pub mod files;
pub mod flow;
pub mod gpu;
#[cfg(any(feature = "report", feature = "tables"))]
mod guard;
pub mod layout;
mod mixture;
pub mod model;
mod normal;
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
