//! The CPU engine: reference for the GPU, and default where there is no GPU. Generic over `f32` and `f64`.
//!
//! Rows are cut into tiles whose size depends on the number of rows alone. Each tile goes through the whole flow
//! on one thread and leaves its gradient in a slot of its own; the slots are added in order. So the result is
//! the same in every bit for any number of threads.
//!
//! The functions in [`linear`], [`coupling`], [`loss`], [`adam`](mod@adam), [`batch`] and [`sampling`] are the
//! twins of the shaders' entry points of the same names.

pub mod adam;
pub mod batch;
pub mod coupling;
mod engine;
pub mod linear;
pub mod loss;
mod pass;
mod real;
pub mod sampling;
mod simd;
mod thin;
mod training;
#[cfg(test)]
mod training_tests;

use std::sync::Mutex;

use rayon::prelude::*;

use crate::engine::{DeviceInfo, Sampling, whole_rows};
use crate::error::{Error, Result, expect_length};
use crate::flow::Flow;
use crate::layout::Layout;

pub use real::Real;
pub use training::{Optimiser, StepRecord};

use pass::{Weights, Workspace};
use training::Run;

/// Rows that go through the flow together in scoring and sampling: long enough for the matrix product, short
/// enough for a core's cache. No tile is smaller.
const SCORING_TILE: usize = 128;
/// Fewest rows in a tile of a training batch: below, the matrix product loses more than another thread gains.
const TRAINING_TILE: usize = 32;
/// Most tiles in a training batch: each costs a gradient's size in memory and in the sum over tiles.
const TRAINING_TILES: usize = 16;
/// Values of a gradient or of parameters that one task sums or updates.
const STRETCH: usize = 4096;

/// Executes a flow on the CPU in precision `R`, on the threads of the current rayon pool.
///
/// The methods here are synchronous and exist in both precisions; [`crate::engine::Engine`] is implemented on
/// top of them for `f32`. All slices are row-major [B, D] in standardised units, log-densities in nats.
#[derive(Debug)]
pub struct CpuEngine<R: Real> {
    device: DeviceInfo,
    flow: Flow,
    layout: Layout,
    parameters: Vec<R>,
    workspaces: Pool<R>,
    /// Gradient of each tile `[tiles, P]`.
    slots: Vec<Vec<R>>,
    /// Sum of the slots `[P]`.
    gradient: Vec<R>,
    /// −log p per row of the batch `[B]`.
    nll: Vec<R>,
    run: Option<Run<R>>,
}

impl<R: Real> CpuEngine<R> {
    /// An engine for `flow` with all parameters zero, which makes it the identity.
    ///
    /// # Errors
    /// [`Error::Flow`] when the flow breaks a rule.
    pub fn new(flow: Flow) -> Result<Self> {
        flow.validate()?;
        let layout = Layout::new(&flow);
        let zeros = vec![R::zero(); layout.total];
        let threads = rayon::current_num_threads();
        let plural = if threads == 1 { "" } else { "s" };
        Ok(Self {
            device: DeviceInfo {
                name: format!("CPU, {threads} thread{plural}"),
                backend: "cpu".into(),
                software: false,
            },
            parameters: zeros.clone(),
            gradient: zeros,
            workspaces: Pool::default(),
            slots: Vec::new(),
            nll: Vec::new(),
            run: None,
            flow,
            layout,
        })
    }

    /// Parameters `[P]`, in the order of [`Layout`].
    pub fn parameters(&self) -> &[R] {
        &self.parameters
    }

    /// Replaces the parameters `[P]`.
    ///
    /// # Errors
    /// [`Error::Length`] when there are not exactly P.
    pub fn set_parameters(&mut self, parameters: &[R]) -> Result<()> {
        expect_length("parameters", parameters.len(), self.layout.total)?;
        self.parameters.copy_from_slice(parameters);
        Ok(())
    }

    /// Data x [B, D] → latent z [B, D] and log |det ∂z/∂x| `[B]`.
    ///
    /// # Errors
    /// [`Error::Length`] when `x` is not whole rows.
    pub fn forward(&self, x: &[R]) -> Result<(Vec<R>, Vec<R>)> {
        self.transform("x", x.to_vec(), Workspace::forward)
    }

    /// Latent z [B, D] → data x [B, D] and log |det ∂x/∂z| `[B]`.
    ///
    /// # Errors
    /// [`Error::Length`] when `z` is not whole rows.
    pub fn inverse(&self, z: &[R]) -> Result<(Vec<R>, Vec<R>)> {
        self.transform("z", z.to_vec(), Workspace::inverse)
    }

    /// log p(x) per row `[B]`.
    ///
    /// # Errors
    /// [`Error::Length`] when `x` is not whole rows.
    pub fn log_prob(&self, x: &[R]) -> Result<Vec<R>> {
        let (z, log_det) = self.forward(x)?;
        let mut log_prob = vec![R::zero(); log_det.len()];
        loss::negative_log_likelihood(&z, &log_det, &mut log_prob);
        for value in &mut log_prob {
            *value = -*value;
        }
        Ok(log_prob)
    }

    /// Samples: latent noise carried through the inverse pass, x [rows, D].
    ///
    /// # Errors
    /// Never so far; a GPU has reasons to fail.
    pub fn sample(&self, sampling: Sampling) -> Result<Vec<R>> {
        let Sampling { rows, first, seed, temperature } = sampling;
        let features = self.flow.features;
        let mut z = vec![R::zero(); rows * features];
        z.par_chunks_mut(SCORING_TILE * features).enumerate().for_each(|(tile, z)| {
            let first = first.wrapping_add((tile * SCORING_TILE) as u32);
            sampling::latent(features, first, seed, temperature, z);
        });
        Ok(self.transform("z", z, Workspace::inverse)?.0)
    }

    /// Mean of −log p over the rows of `x` [B, D], and its gradient with respect to the parameters `[P]`.
    ///
    /// # Errors
    /// [`Error::Length`] when `x` is not whole rows, [`Error::Argument`] when it has none.
    pub fn loss_and_gradient(&mut self, x: &[R]) -> Result<(R, Vec<R>)> {
        let loss = self.differentiate(x)?;
        Ok((R::from_wide(loss), self.gradient.clone()))
    }

    /// Computes the mean of −log p over `x` and leaves its gradient in `self.gradient`.
    fn differentiate(&mut self, x: &[R]) -> Result<f64> {
        let rows = self.rows("x", x)?;
        if rows == 0 {
            return Err(Error::Argument(
                "a loss is a mean over rows; got 0 rows, expected at least 1".into(),
            ));
        }
        let tile = rows.div_ceil(TRAINING_TILES).max(TRAINING_TILE);
        let tiles = rows.div_ceil(tile);
        if self.slots.len() < tiles {
            self.slots.resize_with(tiles, || vec![R::zero(); self.layout.total]);
        }
        resize(&mut self.nll, rows);
        let weights = Weights { flow: &self.flow, layout: &self.layout, values: &self.parameters };
        let slots = &mut self.slots[..tiles];
        (slots.par_iter_mut(), self.nll.par_chunks_mut(tile), x.par_chunks(tile * self.flow.features))
            .into_par_iter()
            .for_each(|(slot, nll, x)| {
                self.workspaces.with(|workspace| workspace.loss_and_gradient(weights, rows, x, nll, slot));
            });
        sum_slots(slots, &mut self.gradient);
        Ok(mean(&self.nll))
    }

    /// Carries the rows in `values` through `pass`, tile by tile: transformed rows and log-determinants.
    ///
    /// The last tile is filled up with zeros: the matrix product sums in another order for another number of
    /// rows, and a row's result should not depend on the rows beside it.
    fn transform(&self, what: &'static str, mut values: Vec<R>, pass: Pass<R>) -> Result<(Vec<R>, Vec<R>)> {
        let features = self.flow.features;
        let rows = self.rows(what, &values)?;
        let padded = rows.next_multiple_of(SCORING_TILE);
        values.resize(padded * features, R::zero());
        let mut log_det = vec![R::zero(); padded];
        let weights = self.weights();
        let tiles = values.par_chunks_exact_mut(SCORING_TILE * features);
        tiles.zip(log_det.par_chunks_exact_mut(SCORING_TILE)).for_each(|(values, log_det)| {
            self.workspaces.with(|workspace| pass(workspace, weights, values, log_det));
        });
        values.truncate(rows * features);
        log_det.truncate(rows);
        Ok((values, log_det))
    }

    fn weights(&self) -> Weights<'_, R> {
        Weights { flow: &self.flow, layout: &self.layout, values: &self.parameters }
    }

    /// Number of rows in `values`, which must be whole.
    fn rows(&self, what: &'static str, values: &[R]) -> Result<usize> {
        whole_rows(what, values, self.flow.features)
    }
}

/// [`Workspace::forward`] or [`Workspace::inverse`].
type Pass<R> = fn(&mut Workspace<R>, Weights<R>, &mut [R], &mut [R]);

/// Workspaces that are not in use: as many as tiles ever were under way at once.
#[derive(Debug, Default)]
struct Pool<R>(Mutex<Vec<Workspace<R>>>);

impl<R: Real> Pool<R> {
    fn with<T>(&self, work: impl FnOnce(&mut Workspace<R>) -> T) -> T {
        let free = || self.0.lock().expect("invariant: no panic while the pool is locked");
        let mut workspace = free().pop().unwrap_or_default();
        let result = work(&mut workspace);
        free().push(workspace);
        result
    }
}

/// gradient = Σ slots, in the order of the slots.
fn sum_slots<R: Real>(slots: &[Vec<R>], gradient: &mut [R]) {
    gradient.par_chunks_mut(STRETCH).enumerate().for_each(|(stretch, gradient)| {
        let from = stretch * STRETCH;
        let range = from..from + gradient.len();
        gradient.copy_from_slice(&slots[0][range.clone()]);
        for slot in &slots[1..] {
            simd::vectorised(
                #[inline(always)]
                || {
                    for (sum, &value) in gradient.iter_mut().zip(&slot[range.clone()]) {
                        *sum += value;
                    }
                },
            );
        }
    });
}

/// Mean in double precision, in the order of the values.
fn mean<R: Real>(values: &[R]) -> f64 {
    values.iter().map(|value| value.wide()).sum::<f64>() / values.len() as f64
}

/// Gives `buffer` exactly `len` values, whatever they are.
fn resize<R: Real>(buffer: &mut Vec<R>, len: usize) {
    buffer.resize(len, R::zero());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimiser::State;

    /// An engine whose last layers are not zero.
    fn engine() -> CpuEngine<f32> {
        let flow = Flow::new(3, 2, &[700, 33]).expect("valid");
        let mut engine = CpuEngine::new(flow.clone()).expect("valid");
        let hidden = State::initial(&flow, 1).parameters;
        let parameters: Vec<f32> = hidden.iter().rev().zip(&hidden).map(|(a, b)| a - 0.5 * b).collect();
        engine.set_parameters(&parameters).expect("fits");
        engine
    }

    #[test]
    fn no_rows_give_empty_results() {
        let mut engine = engine();
        assert_eq!(engine.forward(&[]).expect("no rows"), (vec![], vec![]));
        assert_eq!(engine.inverse(&[]).expect("no rows"), (vec![], vec![]));
        assert_eq!(engine.log_prob(&[]).expect("no rows"), [0.0f32; 0]);
        let none = Sampling { rows: 0, first: 0, seed: 1, temperature: 1.0 };
        assert_eq!(engine.sample(none).expect("no rows"), [0.0f32; 0]);
        assert!(engine.loss_and_gradient(&[]).is_err(), "a mean over nothing");
    }

    #[test]
    fn wrong_lengths_are_refused_with_both_numbers() {
        let mut engine = engine();
        let messages = [
            engine.forward(&[0.0; 4]).expect_err("4 is not 3 or 6").to_string(),
            engine.inverse(&[0.0; 7]).expect_err("7 is not 6 or 9").to_string(),
            engine.log_prob(&[0.0; 1]).expect_err("1 is not 3").to_string(),
            engine.loss_and_gradient(&[0.0; 2]).expect_err("2 is not 3").to_string(),
            engine.set_parameters(&[0.0; 5]).expect_err("5 is not P").to_string(),
        ];
        let total = engine.parameters().len();
        for (message, want) in messages.iter().zip([
            "x: got 4 values, expected 6".to_owned(),
            "z: got 7 values, expected 9".to_owned(),
            "x: got 1 values, expected 3".to_owned(),
            "x: got 2 values, expected 3".to_owned(),
            format!("parameters: got 5 values, expected {total}"),
        ]) {
            assert_eq!(*message, want);
        }
    }

    #[test]
    fn an_untrained_flow_is_the_identity() {
        let flow = Flow::new(2, 3, &[4]).expect("valid");
        let mut engine = CpuEngine::new(flow.clone()).expect("valid");
        engine.set_parameters(&State::initial(&flow, 1).parameters).expect("fits");
        assert_eq!(engine.forward(&[1.5, -2.0]).expect("a row"), (vec![1.5, -2.0], vec![0.0]));
    }

    #[test]
    fn a_row_has_the_same_bits_whatever_rows_are_beside_it() {
        let engine = engine();
        let sampling = Sampling { rows: 300, first: 20, seed: 6, temperature: 0.8 };
        let whole = engine.sample(sampling).expect("samples");
        let scores = engine.log_prob(&whole).expect("whole rows");
        for (from, rows) in [(0, 1), (1, 2), (5, 128), (130, 170), (299, 1)] {
            let cut = Sampling { rows, first: 20 + from as u32, ..sampling };
            let part = engine.sample(cut).expect("samples");
            assert_eq!(part, whole[3 * from..3 * (from + rows)], "{cut:?}");
            assert_eq!(engine.log_prob(&part).expect("whole rows"), scores[from..from + rows], "{cut:?}");
        }
    }
}
