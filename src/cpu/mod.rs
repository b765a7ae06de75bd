//! The CPU engine: reference for the GPU, and default where there is no GPU. Generic over `f32` and `f64`.
//!
//! Rows are cut into tiles whose size depends on sizes alone. Each tile goes through the whole flow on one thread and
//! leaves its gradient in a slot; `splits` decides how many slots are needed, and in which order all is added. So the result
//! is the same in every bit for any number of threads.
//!
//! The functions in [`loss`], [`adam`](mod@adam), [`batch`] and [`sampling`] are those that shaders are compared with, and the
//! engine runs them. Linear layers and couplings have their definitions in [`mod@reference`], which no engine runs: here they
//! are computed on packed weights, in a register-blocked product, over the features that a mask lets through.

#[doc(hidden)]
pub mod activation;
#[doc(hidden)]
pub mod actnorm;
#[doc(hidden)]
pub mod adam;
mod base;
#[doc(hidden)]
pub mod batch;
mod bijector;
mod buffer;
mod code;
mod conditioner;
mod coupling;
mod engine;
#[doc(hidden)]
pub mod loss;
mod lu;
mod mixture;
mod packed;
mod pass;
mod permutation;
mod product;
mod real;
#[doc(hidden)]
pub mod reference;
#[doc(hidden)]
pub mod sampling;
mod simd;
mod splits;

mod team;
mod training;
#[cfg(test)]
mod training_tests;

use std::ops::Range;
use std::sync::Mutex;

use crate::engine::{DeviceInfo, Sampling, whole_rows};
use crate::error::{Error, Result, expect_length};
use crate::flow::Flow;
use crate::layout::Layout;

pub use real::Real;
pub use training::{Optimiser, StepRecord};

use buffer::Buffer;
use code::{FlowCode, Segment, Sum};
use pass::{PackedFlow, Workspace};
use splits::Splits;
use team::Team;
use training::LoadedTraining;

/// Rows that go through the flow together in scoring and sampling: enough to make a panel of weights worth fetching, few
/// enough for a core's cache.
const SCORING_TILE: usize = 128;
/// Rows of a training batch that go through together, at least and at most.
const TRAINING_TILE: (usize, usize) = (64, 128);
/// Most slots for the gradient of a training batch: each costs a gradient's size in memory and in the sum over slots.
const SLOTS: usize = 16;
/// Bytes of a slot up to which several splits are added to it one after the other.
const CACHED: usize = 2 << 20;
/// Parameters from which there are half as many slots: then their memory is no longer in a cache.
const MANY_PARAMETERS: usize = 1 << 19;

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
    code: FlowCode<R>,
    /// `parameters` as the code reads them, segment by segment.
    packed: Vec<Buffer<R>>,
    workspaces: Pool<R>,
    /// Packed gradients.
    slots: Vec<Buffer<R>>,
    /// Sum of the slots, packed and segment by segment; and flat `[P]`.
    sums: Vec<Buffer<R>>,
    gradient: Vec<R>,
    /// Σ g² of each segment.
    squares: Vec<R>,
    /// −log p per row of the batch, and its factor in the loss `[B]`.
    nll: Vec<R>,
    factors: Vec<R>,
    training: Option<LoadedTraining<R>>,
}

impl<R: Real> CpuEngine<R> {
    /// An engine for `flow` with all parameters zero, which makes it the identity.
    ///
    /// # Errors
    /// [`Error::Flow`] when the flow breaks a rule.
    pub fn new(flow: Flow) -> Result<Self> {
        flow.validate()?;
        let layout = Layout::new(&flow);
        let code = R::flow_code(&flow, &layout);
        let zeros = vec![R::zero(); layout.total];
        let threads = rayon::current_num_threads();
        let plural = if threads == 1 { "" } else { "s" };
        let mut engine = Self {
            device: DeviceInfo {
                name: format!("CPU, {threads} thread{plural}"),
                backend: "cpu".into(),
                software: false,
            },
            parameters: zeros.clone(),
            packed: of_segments(&code, |segment| segment.weights),
            sums: of_segments(&code, |segment| segment.gradient.len()),
            squares: vec![R::zero(); code.segments.len()],
            code,
            gradient: zeros,
            workspaces: Pool::default(),
            slots: Vec::new(),
            nll: Vec::new(),
            factors: Vec::new(),
            training: None,
            flow,
            layout,
        };
        // Zeros do not pack to zeros: a logarithm of 0 is a factor of 1.
        engine.pack();
        Ok(engine)
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
        let same = |(new, old): (&R, &R)| new.wide().to_bits() == old.wide().to_bits();
        // Packing again what is packed would cost a table scored in chunks more than the comparison.
        if !parameters.iter().zip(&self.parameters).all(same) {
            self.parameters.copy_from_slice(parameters);
            self.pack();
        }
        Ok(())
    }

    /// Brings the packed weights to where the parameters are.
    fn pack(&mut self) {
        for (segment, (packed, range)) in self.packed.iter_mut().zip(self.code.ranges()).enumerate() {
            self.code.pack(segment, &self.parameters[range], packed);
        }
    }

    /// Data x [B, D] → latent z [B, D] and log |det ∂z/∂x| `[B]`.
    ///
    /// # Errors
    /// [`Error::Length`] when `x` is not whole rows.
    pub fn forward(&self, x: &[R]) -> Result<(Vec<R>, Vec<R>)> {
        self.each_row("x", x, Workspace::forward)
    }

    /// Latent z [B, D] → data x [B, D] and log |det ∂x/∂z| `[B]`.
    ///
    /// # Errors
    /// [`Error::Length`] when `z` is not whole rows.
    pub fn inverse(&self, z: &[R]) -> Result<(Vec<R>, Vec<R>)> {
        self.each_row("z", z, Workspace::inverse)
    }

    /// log p(x) per row `[B]`.
    ///
    /// # Errors
    /// [`Error::Length`] when `x` is not whole rows.
    pub fn log_prob(&self, x: &[R]) -> Result<Vec<R>> {
        self.rows("x", x)?;
        Ok(Team::gather(|team| self.log_prob_by(team, x)))
    }

    fn log_prob_by(&self, team: &Team, x: &[R]) -> Vec<R> {
        let features = self.flow.features;
        let mut log_prob = vec![R::zero(); x.len() / features];
        let tiles = x.chunks(SCORING_TILE * features).zip(log_prob.chunks_mut(SCORING_TILE));
        team.each(tiles, |(x, log_prob)| {
            self.workspaces.with(|workspace| workspace.log_prob(self.weights(), x, log_prob));
        });
        log_prob
    }

    /// Samples: latent noise carried through the inverse pass, x [rows, D]. Row r of a conditional flow follows row r
    /// of `context` [rows, C], which stands at its end.
    ///
    /// # Errors
    /// [`Error::Length`] when `context` is not as many rows of what the flow is conditioned on.
    pub fn sample(&self, sampling: Sampling, context: &[R]) -> Result<Vec<R>> {
        let Sampling { rows, first, seed, temperature } = sampling;
        let (features, given) = (self.flow.features, self.flow.context);
        expect_length("context", context.len(), rows * given)?;
        let mut values = vec![R::zero(); rows * features];
        let base = &self.code.base;
        let draw = |tile: usize, z: &mut [R]| {
            let row = tile * SCORING_TILE;
            let noise = sampling::Noise { first: first.wrapping_add(row as u32), seed, temperature };
            base.code.draw(base.weights(&self.packed), noise, z);
            if given > 0 {
                for (z, context) in
                    z.chunks_exact_mut(features).zip(context[row * given..].chunks_exact(given))
                {
                    z[features - given..].copy_from_slice(context);
                }
            }
        };
        Team::gather(|team| {
            self.transform(team, &mut values, &mut vec![R::zero(); rows], draw, Workspace::inverse)
        });
        Ok(values)
    }

    /// log p `[B]` of rows `x` [B, D], and its gradient with respect to them [B, D], the context included: the score
    /// function ∇ₓ log p.
    ///
    /// # Errors
    /// [`Error::Length`] when `x` is not whole rows.
    pub fn score(&self, x: &[R]) -> Result<(Vec<R>, Vec<R>)> {
        let features = self.flow.features;
        let (mut log_prob, mut score) = (vec![R::zero(); self.rows("x", x)?], vec![R::zero(); x.len()]);
        let tile = TRAINING_TILE.1;
        let results = log_prob.chunks_mut(tile).zip(score.chunks_mut(tile * features));
        Team::gather(|team| {
            team.each(x.chunks(tile * features).zip(results), |(x, (log_prob, score))| {
                self.workspaces.with(|workspace| workspace.score(self.weights(), x, log_prob, score));
            });
        });
        Ok((log_prob, score))
    }

    /// Mean of −log p over the rows of `x` [B, D], and its gradient with respect to the parameters `[P]`.
    ///
    /// # Errors
    /// [`Error::Length`] when `x` is not whole rows, [`Error::Argument`] when it has none.
    pub fn loss_and_gradient(&mut self, x: &[R]) -> Result<(R, Vec<R>)> {
        let rows = self.rows_of_a_batch(x)?;
        self.gradient_of(x, BatchWeights::even(rows))
    }

    /// Σ w · (−log p) / Σ w over the rows of `x` [B, D] with `weights` w `[B]`, and its gradient with respect to the parameters
    /// `[P]`.
    ///
    /// # Errors
    /// [`Error::Length`] when `x` is not whole rows or there is not a weight for each, [`Error::Argument`] when it has none.
    pub fn weighted_loss_and_gradient(&mut self, x: &[R], weights: &[R]) -> Result<(R, Vec<R>)> {
        expect_length("weights", weights.len(), self.rows_of_a_batch(x)?)?;
        self.gradient_of(x, BatchWeights::new(weights.to_vec()))
    }

    fn gradient_of(&mut self, x: &[R], weights: BatchWeights<R>) -> Result<(R, Vec<R>)> {
        let features = self.flow.features;
        let fill = |first: usize, to: &mut [R]| copy_rows(x, features, first, to);
        let (loss, _) = Team::gather(|team| self.differentiate(team, weights, fill));
        Ok((R::from_wide(loss), self.gradient.clone()))
    }

    /// Computes the weighted mean of −log p over a batch and the squared norm of its gradient, which it leaves in
    /// `self.gradient`. `fill` puts rows from the one given into [T, D].
    fn differentiate(
        &mut self,
        team: &Team,
        batch: BatchWeights<R>,
        fill: impl Fn(usize, &mut [R]) + Sync,
    ) -> (f64, R) {
        let rows = batch.rows;
        let most = if self.layout.total < MANY_PARAMETERS { SLOTS } else { SLOTS / 2 };
        let slot_rows = rows.div_ceil(most).max(TRAINING_TILE.0);
        let tile = slot_rows.div_ceil(slot_rows.div_ceil(TRAINING_TILE.1));
        let slots = rows.div_ceil(slot_rows);
        if self.slots.len() < slots {
            self.slots.resize_with(slots, || Buffer::zeros(self.code.gradient));
        }
        resize(&mut self.nll, rows);
        batch.factors(&mut self.factors);
        let factors = &self.factors[..];
        let weights = PackedFlow { code: &self.code, segments: &self.packed };
        let slots = &mut self.slots[..slots];
        // A slot that no cache holds is written faster than it is added to.
        let merge = slot_rows == tile && self.code.gradient * size_of::<R>() <= CACHED;
        let splits = Splits::new(slot_rows, &mut self.nll, slots);
        team.run(&|| {
            self.workspaces.with(|workspace| {
                splits.work(merge, |first, nll, gradient, add| {
                    for (place, nll) in nll.chunks_mut(tile).enumerate() {
                        let first = first + place * tile;
                        let factors = &factors[first..first + nll.len()];
                        let sum = Sum { values: &mut *gradient, add: add || place > 0 };
                        workspace.loss_and_gradient(weights, |x| fill(first, x), factors, nll, sum);
                    }
                });
            });
        });
        let merged = splits.merged();
        let flat = cut(&mut self.gradient, self.code.ranges());
        let segments = self.sums.iter_mut().zip(flat).zip(&mut self.squares).enumerate();
        team.each(segments, |(segment, ((sum, flat), squares))| {
            merged.add_up(slots, self.code.segments[segment].gradient.clone(), sum);
            self.code.unpack(segment, &self.packed[segment], sum, flat);
            *squares = adam::squared_norm(flat);
        });
        let squared_norm = self.squares.iter().fold(R::zero(), |sum, &squares| sum + squares);
        (batch.mean(&self.nll), squared_norm)
    }

    /// Carries rows [B, D] through `pass`: transformed rows and log-determinants.
    fn each_row(&self, what: &'static str, rows: &[R], pass: Pass<R>) -> Result<(Vec<R>, Vec<R>)> {
        let mut log_det = vec![R::zero(); self.rows(what, rows)?];
        let mut values = rows.to_vec();
        Team::gather(|team| self.transform(team, &mut values, &mut log_det, |_, _| {}, pass));
        Ok((values, log_det))
    }

    /// Carries the rows in `values` through `pass` tile by tile, after `prepare` has filled each tile.
    fn transform(
        &self,
        team: &Team,
        values: &mut [R],
        log_det: &mut [R],
        prepare: impl Fn(usize, &mut [R]) + Sync,
        pass: Pass<R>,
    ) {
        let tiles = values.chunks_mut(SCORING_TILE * self.flow.features);
        team.each(tiles.zip(log_det.chunks_mut(SCORING_TILE)).enumerate(), |(tile, (values, log_det))| {
            prepare(tile, values);
            self.workspaces.with(|workspace| pass(workspace, self.weights(), values, log_det));
        });
    }

    fn weights(&self) -> PackedFlow<'_, R> {
        PackedFlow { code: &self.code, segments: &self.packed }
    }

    /// Number of rows in a batch to take a loss over: at least one.
    fn rows_of_a_batch(&self, x: &[R]) -> Result<usize> {
        match self.rows("x", x)? {
            0 => Err(Error::Argument("a loss is a mean over rows; got 0 rows, expected at least 1".into())),
            rows => Ok(rows),
        }
    }

    /// Number of rows in `values`, which must be whole.
    fn rows(&self, what: &'static str, values: &[R]) -> Result<usize> {
        whole_rows(what, values, self.flow.features)
    }
}

/// How much each row of a batch counts in its loss.
struct BatchWeights<R> {
    rows: usize,
    /// `[rows]`; `None` where all count alike.
    weights: Option<Vec<R>>,
}

impl<R: Real> BatchWeights<R> {
    fn even(rows: usize) -> Self {
        Self { rows, weights: None }
    }

    fn new(weights: Vec<R>) -> Self {
        Self { rows: weights.len(), weights: Some(weights) }
    }

    /// Σ w, or the number of rows where all count alike.
    fn total(&self) -> f64 {
        match &self.weights {
            None => self.rows as f64,
            Some(weights) => weights.iter().map(|weight| weight.wide()).sum(),
        }
    }

    /// Fills in each row's factor, w / Σ w.
    fn factors(&self, factors: &mut Vec<R>) {
        factors.clear();
        match &self.weights {
            None => factors.resize(self.rows, R::from_wide(1.0 / self.rows as f64)),
            Some(weights) => {
                let total = self.total();
                // A batch of rows that do not count has no gradient.
                let each = if total > 0.0 { 1.0 / total } else { 0.0 };
                factors.extend(weights.iter().map(|weight| R::from_wide(weight.wide() * each)));
            }
        }
    }

    /// Weighted mean in double precision, in the order of the values.
    fn mean(&self, values: &[R]) -> f64 {
        self.weights.as_ref().map_or_else(|| mean(values), |weights| weighted_mean(values, weights))
    }
}

/// [`Workspace::forward`] or [`Workspace::inverse`].
type Pass<R> = fn(&mut Workspace<R>, PackedFlow<R>, &mut [R], &mut [R]);

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

/// Rows of `from` [B, D], from row `first` on, into `to` [T, D].
fn copy_rows<R: Copy>(from: &[R], features: usize, first: usize, to: &mut [R]) {
    to.copy_from_slice(&from[first * features..][..to.len()]);
}

/// A buffer for each segment.
fn of_segments<R: Real>(code: &FlowCode<R>, size: impl Fn(&Segment) -> usize) -> Vec<Buffer<R>> {
    code.segments.iter().map(|segment| Buffer::zeros(size(segment))).collect()
}

/// `values` cut into ranges that tile them.
fn cut<R>(
    mut values: &mut [R],
    ranges: impl Iterator<Item = Range<usize>>,
) -> impl Iterator<Item = &mut [R]> {
    ranges.map_while(move |range| values.split_off_mut(..range.len()))
}

/// Mean in double precision, in the order of the values.
fn mean<R: Real>(values: &[R]) -> f64 {
    values.iter().map(|value| value.wide()).sum::<f64>() / values.len() as f64
}

/// Σ w · value / Σ w in double precision, in the order of the values, of which those with a weight of 0 do not count; 0 where
/// all are 0.
fn weighted_mean<R: Real>(values: &[R], weights: &[R]) -> f64 {
    let counted =
        || weights.iter().map(|weight| weight.wide()).zip(values).filter(|(weight, _)| *weight != 0.0);
    let total: f64 = counted().map(|(weight, _)| weight).sum();
    if total == 0.0 {
        0.0
    } else {
        counted().map(|(weight, value)| weight * value.wide()).sum::<f64>() / total
    }
}

/// Gives `buffer` exactly `len` values, whatever they are.
fn resize<R: Real>(buffer: &mut Vec<R>, len: usize) {
    buffer.resize(len, R::zero());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Base, Transform};
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
        assert_eq!(engine.sample(none, &[]).expect("no rows"), [0.0f32; 0]);
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
    fn a_new_engine_has_its_zeros_packed() {
        let mut flow = Flow::new(2, 1, &[4]).expect("valid");
        flow.transforms.extend([Transform::Lu, Transform::Actnorm]);
        flow.base = Base::Mixture { components: 2 };
        let engine = CpuEngine::<f64>::new(flow).expect("valid");
        assert_eq!(engine.forward(&[1.5, -2.0]).expect("a row"), (vec![1.5, -2.0], vec![0.0]));
        let log_prob = engine.log_prob(&[1.5, -2.0]).expect("a row")[0];
        assert!((log_prob + std::f64::consts::TAU.ln() + 0.5 * (2.25 + 4.0)).abs() < 1e-12, "{log_prob}");
    }

    #[test]
    fn a_row_has_the_same_bits_whatever_rows_are_beside_it() {
        let engine = engine();
        let sampling = Sampling { rows: 300, first: 20, seed: 6, temperature: 0.8 };
        let whole = engine.sample(sampling, &[]).expect("samples");
        let scores = engine.log_prob(&whole).expect("whole rows");
        for (from, rows) in [(0, 1), (1, 2), (5, 128), (130, 170), (299, 1)] {
            let cut = Sampling { rows, first: 20 + from as u32, ..sampling };
            let part = engine.sample(cut, &[]).expect("samples");
            assert_eq!(part, whole[3 * from..3 * (from + rows)], "{cut:?}");
            assert_eq!(engine.log_prob(&part).expect("whole rows"), scores[from..from + rows], "{cut:?}");
        }
    }
}
