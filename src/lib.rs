//! RealNVP normalizing flows, trained, scored and sampled on any GPU or on the CPU.
//!
//! A [`flow::Flow`] is pure data. An [`engine::Engine`] executes it: `gpu` in WGSL compute shaders
//! through wgpu, [`cpu`] in Rust, generic over `f32` and `f64`. [`train`] fits a flow to a
//! [`data::Dataset`], and a [`model::Model`] is what is kept: flow, parameters and standardiser, with
//! log-densities in nats and in the user's own units.
#![warn(missing_docs)]

pub mod cpu;
pub mod data;
pub mod engine;
pub mod error;
pub mod flow;
pub mod gpu;
pub mod layout;
pub mod model;
pub mod optimiser;
pub mod random;
#[cfg(feature = "report")]
pub mod report;
pub mod train;

pub use error::{Error, Result};

/// The README's example is compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
