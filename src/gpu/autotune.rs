//! The search for the fastest tile of each matrix product of a plan, by running it.
//! It is made when asked for, once per adapter and shape; [`TileCache`](super::tile_cache::TileCache) remembers.

use std::collections::BTreeMap;
use std::time::Instant;

use super::adapter::Context;
use super::executor::Executor;
use super::kernel::{Access, KERNELS};
use super::plan::{Dispatch, Plan, Program, ProgramId};
use super::tile::{Product, Tile, Tiling};
use super::uniforms;
use crate::error::Result;

/// Samples of each tile, of which the median counts.
const SAMPLES: usize = 5;
/// Seconds that a sample takes at least, beside which one wait for the device weighs little.
const SAMPLE: f64 = 4e-3;
/// Most runs in a sample.
const MOST_RUNS: usize = 256;

/// What a search found for a product.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The product.
    pub product: Product,
    /// Its fastest tile.
    pub tile: Tile,
    /// Seconds of one dispatch with it.
    pub seconds: f64,
    /// Seconds of one dispatch with the default.
    pub default_seconds: f64,
}

/// Finds the fastest tile of every product in `plan` that `tiling` does not know, and adds it there. Not for the web,
/// where the standard library has no clock.
///
/// # Errors
/// Those of the device.
pub async fn autotune(
    context: &Context,
    plan: impl Fn(&Tiling) -> Plan,
    tiling: &mut Tiling,
) -> Result<Vec<Measured>> {
    let mut found = Vec::new();
    for (product, place) in products(&plan(tiling)) {
        if tiling.knows(&product) {
            continue;
        }
        let tiles = tiling.candidates(&product);
        let dispatches: Vec<Dispatch> = tiles
            .iter()
            .map(|&tile| plan(&Tiling::only(tile)).programs[place.0].dispatches[place.1].clone())
            .collect();
        let seconds = measure(context, &plan(tiling), &product, dispatches).await?;
        let fastest = (0..tiles.len()).min_by(|&a, &b| seconds[a].total_cmp(&seconds[b])).unwrap_or_default();
        tiling.insert(product.clone(), tiles[fastest]);
        found.push(Measured {
            product,
            tile: tiles[fastest],
            seconds: seconds[fastest],
            default_seconds: seconds[0],
        });
    }
    Ok(found)
}

/// Every product of a plan and the place of the dispatch that has the most work of it: program and dispatch.
fn products(plan: &Plan) -> BTreeMap<Product, (usize, usize)> {
    let mut places: BTreeMap<Product, (usize, usize)> = BTreeMap::new();
    for (at, program) in plan.programs.iter().enumerate() {
        for (number, dispatch) in program.dispatches.iter().enumerate() {
            let Some(product) = Product::of(dispatch) else { continue };
            let place = places.entry(product).or_insert((at, number));
            if plan.programs[place.0].dispatches[place.1].flops < dispatch.flops {
                *place = (at, number);
            }
        }
    }
    places
}

impl Product {
    /// The product that a dispatch makes, if it is tiled.
    fn of(dispatch: &Dispatch) -> Option<Self> {
        dispatch.constants.iter().find(|(name, _)| *name == "TILE_ROWS")?;
        let layer: uniforms::Layer = bytemuck::pod_read_unaligned(&dispatch.uniform);
        Some(Self {
            kernel: dispatch.kernel.name,
            rows: layer.capacity as usize,
            inputs: layer.inputs as usize,
            outputs: layer.outputs as usize,
        })
    }

    /// The name of a tiled kernel as the table has it; `None` for any other.
    pub(super) fn kernel_named(name: &str) -> Option<&'static str> {
        let tiled =
            KERNELS.iter().filter(|kernel| kernel.constants.iter().any(|(name, _)| *name == "TILE_ROWS"));
        tiled.map(|kernel| kernel.name).find(|known| *known == name)
    }
}

/// Seconds of each of `dispatches`, which differ in their tiles alone, on buffers of their own.
async fn measure(
    context: &Context,
    plan: &Plan,
    product: &Product,
    dispatches: Vec<Dispatch>,
) -> Result<Vec<f64>> {
    let (mut alone, _) = plan.alone(&dispatches[0]);
    let buffers = alone.programs[0].dispatches[0].buffers.clone();
    for dispatch in &dispatches[1..] {
        let dispatches = vec![Dispatch { buffers: buffers.clone(), ..dispatch.clone() }];
        alone.program(Program { name: dispatch.kernel.name, dispatches });
    }
    let executor = Executor::new(context, &alone)?;
    let mut storage =
        dispatches[0].kernel.bindings.iter().filter(|binding| binding.access != Access::Uniform);
    if let Some(extent) = storage.position(|binding| binding.name == "extent") {
        executor.write(buffers[extent], &[uniforms::Extent { rows: product.rows as u32, first: 0 }]);
    }
    let mut seconds = Vec::new();
    let mut runs = 1;
    for program in (0..alone.programs.len()).map(ProgramId) {
        // The first run pays for what a driver puts off until then.
        sample(&executor, program, 1).await?;
        while seconds.is_empty() && runs < MOST_RUNS && sample(&executor, program, runs).await? < SAMPLE {
            runs *= 2;
        }
        let mut samples = Vec::with_capacity(SAMPLES);
        for _ in 0..SAMPLES {
            samples.push(sample(&executor, program, runs).await? / runs as f64);
        }
        samples.sort_by(f64::total_cmp);
        seconds.push(samples[SAMPLES / 2]);
    }
    Ok(seconds)
}

/// Seconds from submitting so many runs to the end of the last.
async fn sample(executor: &Executor, program: ProgramId, runs: usize) -> Result<f64> {
    let start = Instant::now();
    let submission = executor.submit(std::iter::repeat_n(program, runs));
    executor.wait(submission).await?;
    Ok(start.elapsed().as_secs_f64())
}
