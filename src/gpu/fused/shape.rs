//! How much a workgroup of the fused plan takes on, from the flow and the device's limits: the constants that its
//! kernels are compiled with.

use std::fmt;

use super::super::kernel::Constant;
use super::super::target::Target;
use super::super::uniforms::MOST_TRANSFORMS;
use super::FusedLayout;
use super::layout::output_quads;
use crate::error::{Error, Remedy, Result};
use crate::flow::{Activation, Base, Bijector, ConditionerForm, Flow};
use crate::layout::Layout;

/// Widest hidden layer: beyond it, a tiled matrix product over the whole batch makes better use of a GPU.
pub const MOST_WIDTH: usize = 128;
/// Most hidden layers of a network.
const MOST_HIDDEN: usize = 7;
/// Most threads of a workgroup.
const MOST_THREADS: usize = 256;
/// Most slices into which the depth of a thin product is cut.
const MOST_SLICES: usize = 4;

/// Most workgroups that share a batch; each has a partial gradient as large as the parameters.
const MOST_GROUPS: usize = 256;
/// Bytes of partial gradients from which workgroups take several blocks of rows instead: as much as every WebGPU adapter
/// binds at once.
const PARTIAL_BYTES: usize = 128 << 20;

/// Most workgroups that share a batch, where the partial gradient of each has so many `values`.
pub(super) fn most_groups(values: usize) -> usize {
    (PARTIAL_BYTES / (4 * values.max(1))).clamp(1, MOST_GROUPS)
}

/// What suits a kind of device.
struct Preferences {
    /// Rows of a block that a workgroup takes when training, from the least to the most.
    rows: &'static [usize],
    /// Rows of networks that it takes at least, where they fit: a coupling's networks count each.
    least_work: usize,
    /// Workgroups that a batch may be spread over before a workgroup takes more rows.
    most_groups: usize,
    /// Rows of a block for evaluation, from the best to the least; one number whatever the number of rows, because the order
    /// of sums depends on it.
    evaluation_rows: &'static [usize],
    /// Rows and columns of a thread's block, in quads.
    block: [usize; 2],
    /// The same for training on batches of fewer than [`SMALL`] rows.
    small_block: [usize; 2],
    /// The same for training on large batches with wide layers.
    large_block: [usize; 2],
    fewest_threads: usize,
    /// Threads for each block of the widest product in training, where each coupling has a single network.
    lone_threads: usize,
    /// How the threads and tiles of a workgroup are arranged, from the best to what takes the least memory.
    arrangements: &'static [Arrangement],
    /// Quads of the depth of a product whose weights a thread loads before it multiplies, 1 or 4.
    unrolled: usize,
}

/// Teams of a workgroup, each of which takes a network at a time; and whether they have a tile more than hidden layers, so
/// that a layer's gradients and the product that follows need no barrier between them. Neither changes the order of a sum.
#[derive(Clone, Copy)]
struct Arrangement {
    teams: usize,
    spare_tile: bool,
}

/// Rows of a batch from which a block is not small.
const SMALL: usize = 128;
/// Widest layer and batch from which a block is large.
const LARGE: [usize; 2] = [48, 256];

/// What a workgroup of a hardware GPU waits for are its barriers, about a microsecond each on an H100: two teams have half
/// as many. More threads than a product has blocks are no gain for two teams; the weight gradients of a single network,
/// which have more blocks than products, take 4 to 8 % less time.
///
/// A workgroup with more rows loads weights and adds partial gradients less often for each row, but takes longer. An H200
/// has 132 cores: 128 workgroups work at once, and more take turns as soon as their memory, or that of two of them, exceeds
/// a core's (`benches/runs/2026-11-27-h200-rows`). Then blocks with more rows are up to twice as fast.
///
/// A thread's 4 × 4 block leaves registers for the weights of four quads, which come from the cache together: a few threads
/// have little else to do while they wait.
const HARDWARE: Preferences = Preferences {
    rows: &[4, 8, 16, 32, 64],
    least_work: 16,
    most_groups: 128,
    evaluation_rows: &[16, 8, 4],
    block: [1, 1],
    small_block: [1, 1],
    large_block: [1, 1],
    fewest_threads: 64,
    lone_threads: 2,
    arrangements: &[
        Arrangement { teams: 2, spare_tile: true },
        Arrangement { teams: 2, spare_tile: false },
        Arrangement { teams: 1, spare_tile: true },
        Arrangement { teams: 1, spare_tile: false },
    ],
    unrolled: 4,
};

/// A software adapter loads lane by lane, at some 30 cycles a number, so that operations for each load are what counts:
/// 8 × 8 blocks are 1.8 times as fast as 4 × 4, and 16 × 16 are 1.4 times as fast again. Those take ten seconds more to
/// compile, which a training of some size earns back; 8 × 8 take one or two more than 4 × 4, which a small one does not.
const SOFTWARE: Preferences = Preferences {
    rows: &[8, 16, 32],
    least_work: 8,
    most_groups: 14,
    evaluation_rows: &[32, 16, 8],
    block: [2, 2],
    small_block: [1, 1],
    large_block: [4, 4],
    fewest_threads: 8,
    lone_threads: 1,
    arrangements: &[Arrangement { teams: 1, spare_tile: false }],
    unrolled: 1,
};

/// Width of the widest hidden layer.
pub(in crate::gpu) fn widest(flow: &Flow) -> usize {
    flow.couplings().flat_map(|coupling| &coupling.conditioner.hidden).copied().max().unwrap_or_default()
}

/// Most linear layers before the last one of any network.
fn deepest(flow: &Flow) -> usize {
    let networks = flow.couplings().flat_map(|coupling| coupling.networks(flow.features));
    networks.map(|network| network.layers.len() - 1).max().unwrap_or_default()
}

/// Whether any network has residual blocks.
fn residual(flow: &Flow) -> bool {
    flow.couplings().any(|coupling| coupling.conditioner.form == ConditionerForm::Residual)
}

/// Whether hidden activations tell the slope of the nonlinearity, so that nothing else need be kept of them.
fn slope_from_output(flow: &Flow) -> bool {
    matches!(flow.activation, Activation::Relu | Activation::LeakyRelu) && !residual(flow)
}

/// Rows of a block that a workgroup may take when training on batches of `batch` rows, from the least to the best: as few as
/// keep it busy and leave no other waiting.
fn training_rows(flow: &Flow, target: &Target, batch: usize) -> &'static [usize] {
    let &Preferences { rows, least_work, most_groups: preferred, .. } = Preferences::of(target);
    let networks = flow.couplings().map(|coupling| coupling.networks(flow.features).len()).min().unwrap_or(1);
    let most = preferred.min(most_groups(Layout::new(flow).total));
    let best = rows.iter().position(|rows| rows * networks >= least_work && batch.div_ceil(*rows) <= most);
    best.map_or(rows, |best| &rows[..=best])
}

fn most_threads(target: &Target) -> usize {
    MOST_THREADS.min(target.limits.max_compute_invocations_per_workgroup as usize)
}

impl Preferences {
    fn of(target: &Target) -> &'static Self {
        if target.software { &SOFTWARE } else { &HARDWARE }
    }
}

/// What kernels are compiled with where a flow has no coupling.
const NO_BIJECTOR: Bijector = Bijector::Affine { bound: 1.0 };

/// The sizes of a workgroup.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Rows of a block.
    pub rows: usize,
    /// Threads of a workgroup.
    pub threads: usize,
    /// Teams of them, each of which takes a network at a time.
    pub teams: usize,
    /// Quads of four features in a row.
    pub quads: usize,
    /// Slices into which the depth of a product is cut that is as wide as the features.
    pub slices: usize,
    /// The same of a product that is as wide as the widest output of a network.
    pub output_slices: usize,
    /// Quads of a row of all slices of the networks' outputs, and of those of the gradients of their inputs.
    pub theta: usize,
    /// Quads of a row of the gradients at the networks' outputs; none where they take the place of the outputs, as those
    /// of single networks do.
    pub d_theta: usize,
    /// Quads of the widest hidden layer.
    pub width: usize,
    /// Activation tiles of a team.
    pub tiles: usize,
    /// Whether one of them is more than there are hidden layers.
    pub spare_tile: bool,
    /// Whether networks have residual blocks.
    pub residual: bool,
    /// Rows and columns of a thread's block, in quads.
    pub block: [usize; 2],
    /// Quads of the depth whose weights a thread loads at once.
    pub unrolled: usize,
    /// Nonlinearity of the networks.
    pub activation: Activation,
    /// The bijector of all couplings, but for its bound.
    pub bijector: Bijector,
    /// The base density.
    pub base: Base,
    /// Whether gradients at the networks' outputs are kept too.
    training: bool,
}

impl Shape {
    /// The shape for training on batches of `batch` rows.
    ///
    /// # Errors
    /// [`Error::Device`] names what does not fit, what is needed and what there is.
    pub fn training(flow: &Flow, target: &Target, batch: usize) -> Result<Self> {
        let Preferences { block, small_block, large_block, .. } = Preferences::of(target);
        let rows = training_rows(flow, target, batch);
        // A tile for every hidden layer; where an activation does not tell its slope, one more for activations.
        let hidden = deepest(flow);
        let tiles = if slope_from_output(flow) { hidden.max(2) } else { hidden + 1 };
        let large = [widest(flow), batch].iter().zip(LARGE).all(|(size, large)| *size >= large);
        let block = if batch < SMALL { small_block } else { block };
        let blocks: &[_] = if large { &[*large_block, *block] } else { &[*block] };
        let rows = blocks.iter().flat_map(|&block| {
            let whole = move |rows: &usize| rows.is_multiple_of(4 * block[0]);
            rows.iter().rev().copied().filter(whole).map(move |rows| (rows, block))
        });
        Self::largest(flow, target, rows, tiles, true)
    }

    /// The shape for evaluation.
    ///
    /// # Errors
    /// As [`Shape::training`].
    pub fn evaluation(flow: &Flow, target: &Target) -> Result<Self> {
        let &Preferences { evaluation_rows, block, .. } = Preferences::of(target);
        // Two to take turns; in residual networks a block's input outlasts its activations.
        let tiles = if residual(flow) { 3 } else { 2 };
        Self::largest(flow, target, evaluation_rows.iter().map(|&rows| (rows, block)), tiles, false)
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
        if !FusedLayout::holds(flow) {
            return refuse(format!(
                "at most {MOST_TRANSFORMS} transforms with few shapes of networks and one kind of bijector are supported, \
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
        // Rows come first: they decide how often weights are loaded, and the order of sums.
        for (rows, block) in blocks {
            for &arrangement in Preferences::of(target).arrangements {
                let shape = Self::with_rows(flow, target, [rows, tiles], block, training);
                let Some(shape) = shape.arranged(flow, target, arrangement) else { continue };
                least = shape.workgroup_bytes();
                if least <= memory {
                    return Ok(shape);
                }
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
        let &Preferences { fewest_threads, lone_threads, unrolled, .. } = Preferences::of(target);
        let most_threads = most_threads(target);
        let quads = flow.features.div_ceil(4);
        let width = widest(flow).div_ceil(4);
        let [down, across] = block;
        let blocks = |quads: usize| rows / (4 * down) * quads.div_ceil(across);
        // Networks, and quads of a row of what each gives out.
        let outputs: Vec<[usize; 2]> = flow
            .couplings()
            .map(|coupling| [coupling.networks(flow.features).len(), output_quads(flow, coupling)])
            .collect();
        let alone = outputs.iter().all(|[networks, _]| *networks == 1);
        // Threads for each block of the widest layer.
        let each = if training && alone { lone_threads } else { 1 };
        let threads = (each * blocks(width)).next_power_of_two().clamp(fewest_threads, most_threads);
        let slices_of = |quads: usize| (threads / blocks(quads)).clamp(1, MOST_SLICES);
        let slices = slices_of(quads);
        let output_slices = slices_of(outputs.iter().map(|[_, quads]| *quads).max().unwrap_or(quads));
        // Actnorms, LU layers and the base density use the same areas.
        let of_base = match flow.base {
            Base::StandardNormal => 0,
            Base::Mixture { components } => 2 * quads + components,
        };
        let most = |least: usize, area: &dyn Fn(usize) -> usize| {
            outputs.iter().map(|&[networks, outputs]| networks * area(outputs)).fold(least, usize::max)
        };
        Self {
            rows,
            threads,
            teams: 1,
            quads,
            slices,
            output_slices,
            theta: most(of_base.max((slices + 1) * quads), &|outputs| {
                (output_slices * outputs).max(slices * quads)
            }),
            d_theta: if alone { 0 } else { most(2 * quads, &|outputs| outputs) },
            width,
            tiles,
            spare_tile: false,
            residual: residual(flow),
            block,
            unrolled,
            activation: flow.activation,
            bijector: flow.couplings().next().map_or(NO_BIJECTOR, |coupling| coupling.bijector),
            base: flow.base,
            training,
        }
    }

    /// The same with more teams and a spare tile, where the flow and the device have use for them.
    ///
    /// Slices stay those of a single team of so many threads as products need, so that sums do.
    fn arranged(mut self, flow: &Flow, target: &Target, arrangement: Arrangement) -> Option<Self> {
        let Arrangement { teams, spare_tile } = arrangement;
        let mut networks = flow.couplings().map(|coupling| coupling.networks(flow.features).len());
        let most = most_threads(target);
        let useful = teams == 1 || flow.couplings().next().is_some() && networks.all(|count| count == teams);
        // Tiles hold activations themselves, where gradients have no tile of their own yet.
        let in_place = self.training && slope_from_output(flow);
        if !useful || teams * self.threads > most || spare_tile && !in_place {
            return None;
        }
        self.threads *= teams;
        self.teams = teams;
        self.spare_tile = spare_tile;
        if spare_tile {
            self.tiles = self.tiles.max(deepest(flow) + 1);
        }
        Some(self)
    }

    /// Quads of a block of rows.
    pub fn row_quads(&self) -> usize {
        self.rows * self.quads
    }

    /// Bytes of workgroup memory that the kernels declare.
    pub fn workgroup_bytes(&self) -> usize {
        let own = if self.training { self.d_theta } else { 0 };
        let quads = 2 * self.quads + self.theta + self.teams * self.tiles * self.width + own;
        16 * self.rows * quads + 4 * self.row_quads()
    }

    /// The constants of its kernels.
    pub fn constants(&self) -> Vec<Constant> {
        let sizes = [
            ("ROWS", self.rows),
            ("THREADS", self.threads),
            ("QUADS", self.quads),
            ("SLICES", self.slices),
            ("OUTPUT_SLICES", self.output_slices),
            ("THETA", self.theta),
            ("D_THETA", self.d_theta),
            ("WIDTH", self.width),
            ("TILES", self.tiles),
            ("TEAMS", self.teams),
            ("SPARE_TILE", self.spare_tile.into()),
            ("RESIDUAL", self.residual.into()),
            ("UNROLLED", self.unrolled),
            ("ROW_BLOCKS", self.block[0]),
            ("COLUMN_BLOCKS", self.block[1]),
        ];
        let sizes = sizes.map(|(name, size)| (name, size as u32));
        let mut constants = vec![("ACTIVATION", self.activation.code())];
        constants.extend(sizes);
        constants.extend(self.bijector.constants());
        constants.extend(self.base.constants());
        constants
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = self.workgroup_bytes() as f64 / 1024.0;
        write!(f, "{} rows, {} threads, {kib:.1} KiB", self.rows, self.threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows, teams, spare tile and threads of a training step.
    type Arranged = (usize, usize, bool, usize);

    fn arranged(flow: &Flow, software: bool, kib: u32, batch: usize) -> Arranged {
        let mut target = Target { software, ..Target::default() };
        target.limits.max_compute_workgroup_storage_size = kib << 10;
        let shape = Shape::training(flow, &target, batch).expect("a narrow flow");
        (shape.rows, shape.teams, shape.spare_tile, shape.threads)
    }

    fn narrow(form: ConditionerForm) -> Flow {
        Flow::new(2, 4, &[64, 64]).expect("valid").with_conditioner(form)
    }

    #[test]
    fn two_networks_go_side_by_side_where_their_tiles_fit() {
        use ConditionerForm::{Joint, Separate};
        let of = |form, software, kib| arranged(&narrow(form), software, kib, 2048);
        assert_eq!(of(Separate, false, 48), (16, 2, true, 128));
        assert_eq!(of(Separate, false, 20), (16, 2, false, 128));
        assert_eq!(of(Separate, false, 16), (16, 1, true, 64));
        assert_eq!(of(Separate, false, 12), (16, 1, false, 64));
        assert_eq!(of(Joint, false, 48), (16, 1, true, 128));
        assert_eq!(of(Separate, true, 48), (32, 1, false, 8));
    }

    #[test]
    fn a_block_has_more_rows_where_the_batch_would_have_more_blocks_than_there_are_cores() {
        use ConditionerForm::{Joint, Separate};
        let rows = |flow: &Flow, software, batch| arranged(flow, software, 48, batch).0;
        let of = |flow: &Flow, batches: &[usize]| -> Vec<usize> {
            batches.iter().map(|batch| rows(flow, false, *batch)).collect()
        };
        let batches = [1, 256, 1024, 1025, 2048, 4096, 8192, 65536];
        assert_eq!(of(&narrow(Separate), &batches), [8, 8, 8, 16, 16, 32, 64, 64]);
        assert_eq!(of(&narrow(Joint), &batches), [16, 16, 16, 16, 16, 32, 64, 64]);
        // Of 112 partial gradients, and what fits a workgroup's memory.
        let wide = Flow::new(8, 8, &[128, 128]).expect("valid");
        assert_eq!(of(&wide, &[512, 896, 897, 1792, 1793, 65536]), [8, 8, 16, 16, 32, 32]);
        let software = [1, 112, 113, 224, 225, 65536].map(|batch| rows(&narrow(Separate), true, batch));
        assert_eq!(software, [8, 8, 16, 16, 32, 32]);
    }
}
