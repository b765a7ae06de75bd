//! How much a workgroup of the fused plan takes on, from the flow and the device's limits: the constants that its
//! kernels are compiled with.

use std::fmt;

use super::super::kernel::Constant;
use super::super::plan::PlanKind;
use super::super::target::Target;
use super::super::uniforms::MOST_STEPS;
use super::Packing;
use crate::error::{Error, Remedy, Result};
use crate::flow::{Activation, Flow};

impl PlanKind {
    /// The fused plan where `flow` fits `target`, else the layered one.
    pub fn choose(flow: &Flow, target: &Target) -> Self {
        if Shape::fit(flow, target).is_ok() { Self::Fused } else { Self::Layered }
    }
}

/// Widest hidden layer: beyond it, a tiled matrix product over the whole batch makes better use of a GPU.
pub const MOST_WIDTH: usize = 128;
/// Most hidden layers of a network.
const MOST_HIDDEN: usize = 7;
/// Most threads of a workgroup.
const MOST_THREADS: usize = 256;
/// Most shares in which a thin layer's depth is cut.
const MOST_SLICES: usize = 4;

/// What suits a kind of device.
struct Preferences {
    /// Rows of a block that a workgroup takes when training, from the best to the least.
    rows: &'static [usize],
    /// The same for evaluation; one number whatever the rows at hand, because the order of sums depends on it.
    evaluation_rows: &'static [usize],
    /// Workgroups that a batch should be spread over before a workgroup takes more rows.
    enough_groups: usize,
    /// Rows and columns of a thread's block, in quads.
    block: [usize; 2],
    /// The same for training on large batches with wide layers.
    large_block: [usize; 2],
    fewest_threads: usize,
}

/// Widest layer and batch from which a block is large.
const LARGE: [usize; 2] = [48, 256];

/// A thread's 4 × 4 block leaves registers for many workgroups.
const HARDWARE: Preferences = Preferences {
    rows: &[32, 16, 8, 4],
    evaluation_rows: &[16, 8, 4],
    enough_groups: 16,
    block: [1, 1],
    large_block: [1, 1],
    fewest_threads: 64,
};

/// A software adapter loads lane by lane, at some 30 cycles a number, so that operations for each load are what counts:
/// 8 × 8 blocks are 1.8 times as fast as 4 × 4, and 16 × 16 are 1.4 times as fast again. Those take ten seconds more to
/// compile, which a training of some size earns back.
const SOFTWARE: Preferences = Preferences {
    rows: &[32, 16, 8],
    evaluation_rows: &[32, 16, 8],
    enough_groups: 8,
    block: [2, 2],
    large_block: [4, 4],
    fewest_threads: 8,
};

fn widest(flow: &Flow) -> usize {
    flow.couplings().flat_map(|coupling| &coupling.conditioner.hidden).copied().max().unwrap_or_default()
}

/// Most hidden layers of any conditioner.
fn deepest(flow: &Flow) -> usize {
    flow.couplings().map(|coupling| coupling.conditioner.hidden.len()).max().unwrap_or_default()
}

impl Preferences {
    fn of(target: &Target) -> &'static Self {
        if target.software { &SOFTWARE } else { &HARDWARE }
    }
}

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
    /// Rows and columns of a thread's block, in quads.
    pub block: [usize; 2],
    /// Number of the activation.
    pub activation: u32,
    /// Number of the couplings' bijector.
    pub bijector: u32,
    /// Numbers of its θ.
    pub parameters: usize,
    /// Whether gradients at the networks' outputs are kept too.
    training: bool,
}

impl Shape {
    /// The shape for training on batches of `batch` rows.
    ///
    /// # Errors
    /// [`Error::Device`] names what does not fit, what is needed and what there is.
    pub fn training(flow: &Flow, target: &Target, batch: usize) -> Result<Self> {
        let Preferences { rows, enough_groups, block, large_block, .. } = Preferences::of(target);
        let least = rows.last().copied();
        let enough = |rows: usize| batch.div_ceil(rows) >= *enough_groups || Some(rows) == least;
        // A tile for every hidden layer; where an activation does not tell its slope, one more for activations.
        let slope_from_output = matches!(flow.activation, Activation::Relu | Activation::LeakyRelu);
        let hidden = deepest(flow);
        let tiles = if slope_from_output { hidden.max(2) } else { hidden + 1 };
        let large = [widest(flow), batch].iter().zip(LARGE).all(|(size, large)| *size >= large);
        let blocks: &[_] = if large { &[*large_block, *block] } else { &[*block] };
        let rows = blocks.iter().flat_map(|&block| {
            let whole = move |rows: &usize| rows.is_multiple_of(4 * block[0]);
            rows.iter()
                .copied()
                .filter(move |rows| whole(rows) && enough(*rows))
                .map(move |rows| (rows, block))
        });
        Self::largest(flow, target, rows, tiles, true)
    }

    /// The shape for evaluation.
    ///
    /// # Errors
    /// As [`Shape::training`].
    pub fn evaluation(flow: &Flow, target: &Target) -> Result<Self> {
        let &Preferences { evaluation_rows, block, .. } = Preferences::of(target);
        Self::largest(flow, target, evaluation_rows.iter().map(|&rows| (rows, block)), 2, false)
    }

    /// Checks that both training, on any batch, and evaluation have a shape.
    ///
    /// # Errors
    /// As [`Shape::training`].
    pub fn fit(flow: &Flow, target: &Target) -> Result<()> {
        Self::training(flow, target, 1)?;
        Self::evaluation(flow, target).map(drop)
    }

    fn largest(
        flow: &Flow,
        target: &Target,
        blocks: impl Iterator<Item = (usize, [usize; 2])>,
        tiles: usize,
        training: bool,
    ) -> Result<Self> {
        let refuse = |what: String| {
            let error = Error::Device(format!("the fused plan does not fit: {what}"));
            Err(error.advise(Remedy::LayeredPlan))
        };
        let width = widest(flow);
        if width > MOST_WIDTH {
            return refuse(format!("a hidden layer is {width} wide, at most {MOST_WIDTH} is supported"));
        }
        let hidden = deepest(flow);
        if hidden > MOST_HIDDEN {
            return refuse(format!("there are {hidden} hidden layers, at most {MOST_HIDDEN} are supported"));
        }
        if !Packing::holds(flow) {
            return refuse(format!(
                "at most {MOST_STEPS} transforms with few shapes of networks and one kind of bijector are supported, \
                 there are {} transforms",
                flow.transforms.len()
            ));
        }
        let storage = target.limits.max_storage_buffers_per_shader_stage;
        if storage < 8 {
            return refuse(format!(
                "it binds 8 storage buffers, the adapter allows {storage} (max_storage_buffers_per_shader_stage)"
            ));
        }
        let memory = target.limits.max_compute_workgroup_storage_size as usize;
        let mut least = 0;
        for (rows, block) in blocks {
            let shape = Self::with_rows(flow, target, [rows, tiles], block, training);
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

    fn with_rows(
        flow: &Flow,
        target: &Target,
        [rows, tiles]: [usize; 2],
        block: [usize; 2],
        training: bool,
    ) -> Self {
        let fewest_threads = Preferences::of(target).fewest_threads;
        let most_threads = MOST_THREADS.min(target.limits.max_compute_invocations_per_workgroup as usize);
        let quads = flow.features.div_ceil(4);
        let width = widest(flow).div_ceil(4);
        let [down, across] = block;
        let blocks = |quads: usize| rows / (4 * down) * quads.div_ceil(across);
        // A thread for each block of the widest layer.
        let threads = blocks(width).next_power_of_two().clamp(fewest_threads, most_threads);
        let slices = (threads / blocks(quads)).clamp(1, MOST_SLICES);
        let activation = flow.activation.code();
        let first = flow.couplings().next().map(|coupling| coupling.bijector);
        Self {
            rows,
            threads,
            quads,
            slices,
            width,
            tiles,
            block,
            activation,
            bijector: first.map_or(0, |bijector| bijector.code()),
            parameters: first.map_or(2, |bijector| bijector.parameters()),
            training,
        }
    }

    /// Quads of a block of rows.
    pub fn row_quads(&self) -> usize {
        self.rows * self.quads
    }

    /// Bytes of workgroup memory that the kernels declare.
    pub fn workgroup_bytes(&self) -> usize {
        let areas = 2 + self.parameters * self.slices + if self.training { self.parameters } else { 0 };
        16 * (areas * self.row_quads() + self.tiles * self.rows * self.width) + 4 * self.row_quads()
    }

    /// The constants of its kernels.
    pub fn constants(&self) -> Vec<Constant> {
        let values = [
            self.rows,
            self.threads,
            self.quads,
            self.slices,
            self.width,
            self.tiles,
            self.block[0],
            self.block[1],
        ];
        let names = ["ROWS", "THREADS", "QUADS", "SLICES", "WIDTH", "TILES", "ROW_BLOCKS", "COLUMN_BLOCKS"];
        let sizes = names.into_iter().zip(values.map(|value| value as u32));
        sizes.chain([("ACTIVATION", self.activation), ("BIJECTOR", self.bijector)]).collect()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = self.workgroup_bytes() as f64 / 1024.0;
        write!(f, "{} rows, {} threads, {kib:.1} KiB", self.rows, self.threads)
    }
}
