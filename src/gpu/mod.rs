//! The GPU engine: the flow's computations as WGSL compute shaders, executed through wgpu.
//!
//! [`kernel`] is the table of entry points, [`plan`] turns a flow and its sizes into buffers and dispatches without
//! touching a device, [`cost`] says what they cost, [`executor`] records and replays them, and [`GpuEngine`] is the
//! [`Engine`](crate::engine::Engine) on top. A plan of training or evaluation is made by `layered` or by [`fused`], and both
//! have the form of [`training`] and [`evaluation`].

mod adapter;
pub mod autotune;
mod choice;
pub mod cost;
mod engine;
mod epochs;
pub mod evaluation;
pub mod executor;
pub mod fused;
#[doc(hidden)]
pub mod kernel;
mod layered;
pub mod pace;
pub mod plan;
pub mod score;
mod target;
pub mod tile;
#[cfg(not(target_arch = "wasm32"))]
pub mod tile_cache;
mod timing;
pub mod training;
#[doc(hidden)]
pub mod uniforms;

pub use adapter::{Adapter, Context, adapters};
pub use choice::Instead;
pub use engine::GpuEngine;
pub use plan::PlanKind;
pub use target::Target;
