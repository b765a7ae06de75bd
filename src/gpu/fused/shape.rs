//! How much a workgroup of the fused plan takes on, from the flow and the device's limits: the constants that its
//! kernels are compiled with.

use std::fmt;

use super::super::kernel::Constant;
use super::super::uniforms::MOST_SPANS;
use crate::error::{Error, Result};
use crate::flow::Flow;

/// The two ways in which the GPU engine executes a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanKind {
    /// One dispatch for each layer of each coupling: any width.
    Layered,
    /// One dispatch for the whole flow, and three for a training step: networks that fit a workgroup.
    Fused,
}

impl fmt::Display for PlanKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Layered => "layered",
            Self::Fused => "fused",
        })
    }
}

impl PlanKind {
    /// The fused plan where `flow` fits a device with these limits, else the layered one.
    pub fn choose(flow: &Flow, limits: &wgpu::Limits) -> Self {
        if Shape::training(flow, limits, 1).is_ok() { Self::Fused } else { Self::Layered }
    }
}

/// Widest hidden layer: beyond it, a tiled matrix product over the whole batch makes better use of a GPU.
pub const MOST_WIDTH: usize = 128;
/// Rows of a block, from the best that there is to the least that a thread's 4 × 4 block allows.
const ROWS: [usize; 4] = [32, 16, 8, 4];
/// Rows of a block in an evaluation. One number whatever the rows at hand, because the order of sums depends on it.
const EVALUATION_ROWS: [usize; 3] = [16, 8, 4];
/// Workgroups that a batch should be spread over before a block takes more rows.
const ENOUGH_GROUPS: usize = 16;
/// Fewest and most threads of a workgroup.
const THREADS: (usize, usize) = (64, 256);
/// Most shares in which a thin layer's depth is cut.
const MOST_SLICES: usize = 4;

/// The sizes of a workgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of a block.
    pub rows: usize,
    /// Threads of a workgroup.
    pub threads: usize,
    /// Quads of four features in a row.
    pub quads: usize,
    /// Shares in which a thin layer's depth is cut.
    pub slices: usize,
    /// Quads of the widest hidden layer.
    pub width: usize,
    /// Activation tiles.
    pub tiles: usize,
    /// Number of the activation.
    pub activation: u32,
    /// Whether gradients at the networks' outputs are kept too.
    training: bool,
}

impl Shape {
    /// The shape for training on batches of `batch` rows.
    ///
    /// # Errors
    /// [`Error::Device`] names what does not fit, what is needed and what there is.
    pub fn training(flow: &Flow, limits: &wgpu::Limits, batch: usize) -> Result<Self> {
        let enough = |rows: usize| batch.div_ceil(rows) >= ENOUGH_GROUPS || rows == ROWS[ROWS.len() - 1];
        let rows = ROWS.into_iter().filter(|&rows| enough(rows));
        // One tile for the activations that go into a layer, one for every hidden layer's pre-activations.
        Self::largest(flow, limits, rows, flow.hidden.len() + 1, true)
    }

    /// The shape for evaluation.
    ///
    /// # Errors
    /// As [`Shape::training`].
    pub fn evaluation(flow: &Flow, limits: &wgpu::Limits) -> Result<Self> {
        Self::largest(flow, limits, EVALUATION_ROWS.into_iter(), 2, false)
    }

    fn largest(
        flow: &Flow,
        limits: &wgpu::Limits,
        rows: impl Iterator<Item = usize>,
        tiles: usize,
        training: bool,
    ) -> Result<Self> {
        let refuse = |what: String| {
            Err(Error::Device(format!("the fused plan does not fit: {what}; --plan layered takes any flow")))
        };
        let widest = flow.hidden.iter().copied().max().unwrap_or_default();
        if widest > MOST_WIDTH {
            return refuse(format!("a hidden layer is {widest} wide, at most {MOST_WIDTH} is supported"));
        }
        if flow.hidden.len() + 1 > MOST_SPANS {
            return refuse(format!(
                "there are {} hidden layers, at most {} are supported",
                flow.hidden.len(),
                MOST_SPANS - 1
            ));
        }
        let storage = limits.max_storage_buffers_per_shader_stage;
        if storage < 8 {
            return refuse(format!(
                "it binds 8 storage buffers, the adapter allows {storage} (max_storage_buffers_per_shader_stage)"
            ));
        }
        let memory = limits.max_compute_workgroup_storage_size as usize;
        let threads = THREADS.1.min(limits.max_compute_invocations_per_workgroup as usize);
        let mut least = 0;
        for rows in rows {
            let shape = Self::with_rows(flow, rows, threads, tiles, training);
            least = shape.workgroup_bytes();
            if least <= memory {
                return Ok(shape);
            }
        }
        refuse(format!(
            "a workgroup needs {least} bytes of memory, the adapter allows {memory} \
             (max_compute_workgroup_storage_size)"
        ))
    }

    fn with_rows(flow: &Flow, rows: usize, most_threads: usize, tiles: usize, training: bool) -> Self {
        let quads = flow.features.div_ceil(4);
        let width = flow.hidden.iter().copied().max().unwrap_or_default().div_ceil(4);
        // A thread for each block of 4 × 4 of the widest layer.
        let threads = (rows / 4 * width).next_power_of_two().clamp(THREADS.0, most_threads);
        let slices = (threads / (rows * quads)).clamp(1, MOST_SLICES);
        Self { rows, threads, quads, slices, width, tiles, activation: flow.activation.code(), training }
    }

    /// Quads of a block of rows.
    pub fn spots(&self) -> usize {
        self.rows * self.quads
    }

    /// Bytes of workgroup memory that the kernels declare.
    pub fn workgroup_bytes(&self) -> usize {
        let areas = 2 + 2 * self.slices + if self.training { 2 } else { 0 };
        16 * (areas * self.spots() + self.tiles * self.rows * self.width) + 4 * self.spots()
    }

    /// The constants of its kernels.
    pub fn constants(&self) -> Vec<Constant> {
        let values = [self.rows, self.threads, self.quads, self.slices, self.width, self.tiles];
        let names = ["ROWS", "THREADS", "QUADS", "SLICES", "WIDTH", "TILES"];
        let sizes = names.into_iter().zip(values.map(|value| value as u32));
        sizes.chain([("ACTIVATION", self.activation)]).collect()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = self.workgroup_bytes() as f64 / 1024.0;
        write!(f, "{} rows, {} threads, {kib:.1} KiB", self.rows, self.threads)
    }
}
