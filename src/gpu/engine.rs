//! The GPU as an [`Engine`]: uploads, replays plans and reads back; all computing is in the kernels. How the epochs of a
//! training are submitted is in [`epochs`](super::epochs).

use std::collections::VecDeque;
use std::ops::Range;

use super::adapter::{Adapter, Context};
use super::autotune::{Measured, autotune};
use super::choice::Instead;
use super::epochs::{run_epochs, write_state};
use super::evaluation::EvaluationPlan;
use super::executor::Executor;
use super::fused::Shape;
use super::pace::Pace;
use super::plan::{BufferId, Plan, PlanKind, ProgramId};
use super::score::ScorePlan;
use super::tile::Tiling;
use super::training::{HISTORY, Shard, TrainingPlan, shard_rows};
use super::uniforms;
use crate::engine::{
    DeviceInfo, Engine, EpochRecord, RowWeights, Sampling, Training, TrainingShape, Transformed, whole_rows,
};
use crate::error::{Error, Result, expect_length};
use crate::flow::Flow;
use crate::layout::Layout;
use crate::optimiser::{Adam, Best, State};
use crate::random::{self, NORMAL_TABLE, Permutation, Stream};

/// Fewest and most rows that an evaluation takes at a time.
const TILE_ROWS: (usize, usize) = (64, 65_536);
/// Bytes that an evaluation's buffers may take together before its tile is made smaller.
const TILE_BYTES: u64 = 256 << 20;
/// Tiles of an evaluation that are under way at once.
const IN_FLIGHT: usize = 3;
/// A buffer that an evaluation leaves its results in, and how many values it holds for each row.
type Output = (fn(&EvaluationPlan) -> BufferId, usize);

/// A flow on a GPU.
pub struct GpuEngine {
    context: Context,
    flow: Flow,
    layout: Layout,
    kind: PlanKind,
    /// Whether that plan was asked for, so that a training takes it too.
    asked: bool,
    parameters: Vec<f32>,
    evaluation: Option<(Executor, EvaluationPlan)>,
    training: Option<(Executor, TrainingPlan)>,
    /// The plan of the score function, and the most rows that it may be made for.
    scoring: Option<(Executor, ScorePlan, usize)>,
    /// What the training's plan was made for and its tables are.
    loaded: Option<Training>,
    /// Rows that the first epoch of the training leaves out, because steps have been taken on them before.
    first_row: u32,
    pace: Pace,
    tiling: Tiling,
    most_shard_rows: usize,
}

impl GpuEngine {
    /// Opens `adapter` for `flow`, whose parameters start as zeros.
    ///
    /// # Errors
    /// [`Error::Flow`] for an invalid flow, [`Error::Device`] when the adapter cannot be opened.
    pub async fn new(flow: Flow, adapter: &Adapter) -> Result<Self> {
        Self::on(flow, adapter.open().await?)
    }

    /// An engine on a device that is open already; compiled kernels are shared. The plan is the fused one where the
    /// flow fits it, else the layered one; a training takes the layered one where that is faster.
    ///
    /// # Errors
    /// [`Error::Flow`] for an invalid flow.
    pub fn on(flow: Flow, context: Context) -> Result<Self> {
        let kind = PlanKind::choose(&flow, &context.target());
        Ok(Self { asked: false, ..Self::with_plan(flow, context, kind)? })
    }

    /// An engine that executes `flow` and its trainings by the plan asked for.
    ///
    /// # Errors
    /// [`Error::Flow`] for an invalid flow, [`Error::Device`] where the flow does not fit the fused plan.
    pub fn with_plan(flow: Flow, context: Context, kind: PlanKind) -> Result<Self> {
        flow.validate()?;
        if kind == PlanKind::Fused {
            Shape::fit(&flow, &context.target())?;
        }
        let layout = Layout::new(&flow);
        let parameters = vec![0.0; layout.total];
        let tiling = Tiling::on(&context.target());
        Ok(Self {
            context,
            flow,
            layout,
            kind,
            asked: true,
            parameters,
            evaluation: None,
            training: None,
            scoring: None,
            loaded: None,
            first_row: 0,
            pace: Pace::default(),
            tiling,
            most_shard_rows: usize::MAX,
        })
    }

    /// The plan that it executes.
    pub fn plan_kind(&self) -> PlanKind {
        self.kind
    }

    fn evaluation_plan(&self, capacity: usize) -> Result<EvaluationPlan> {
        Ok(match self.kind {
            PlanKind::Layered => EvaluationPlan::tiled(&self.flow, &self.layout, capacity, &self.tiling),
            PlanKind::Fused => {
                let shape = Shape::evaluation(&self.flow, &self.context.target())?;
                EvaluationPlan::fused(&self.flow, &self.layout, capacity, &shape)
            }
        })
    }

    /// Rows of a table that a buffer holds.
    fn shard_rows(&self) -> usize {
        shard_rows(self.flow.features, &self.context.limits()).min(self.most_shard_rows)
    }

    /// Why a training of this shape executes another plan than that of the engine, if it does: the layered one.
    pub fn trains_by(&self, shape: &TrainingShape) -> Option<Instead> {
        let kind = (self.kind, self.asked);
        Instead::of(&self.flow, &self.context.target(), kind, shape, self.shard_rows())
    }

    /// The plan that a training of this shape executes.
    fn training_kind(&self, shape: &TrainingShape) -> PlanKind {
        self.trains_by(shape).map_or(self.kind, |_| PlanKind::Layered)
    }

    /// The plan of a training of this shape, as data.
    ///
    /// # Errors
    /// As [`TrainingPlan::on`].
    pub fn training_plan(&self, shape: &TrainingShape) -> Result<TrainingPlan> {
        let flow = (&self.flow, &self.layout);
        let plan = (self.training_kind(shape), &self.tiling);
        TrainingPlan::on(&self.context.target(), flow, shape, plan, self.shard_rows())
    }

    /// Cuts tables into buffers of at most `rows` rows from the next training on, where the device would take more: as it
    /// cuts those that are larger than its limits.
    pub fn limit_shards(&mut self, rows: usize) {
        self.most_shard_rows = rows;
    }

    /// Makes the plan of a training and takes its tables to the device.
    fn load(&mut self, shape: &TrainingShape, training: &Training) -> Result<()> {
        let features = self.flow.features;
        // What there was makes room first.
        (self.training, self.loaded) = (None, None);
        let plan = self.training_plan(shape)?;
        let executor = Executor::new(&self.context, &plan.plan)?;
        for (shards, table) in [(&plan.train, &training.train), (&plan.validation_rows, &training.validation)]
        {
            for &Shard { buffer, first, rows } in shards {
                executor.write(buffer, &table[first * features..(first + rows) * features]);
            }
        }
        if let (Some(buffers), Some(RowWeights { train, validation })) = (plan.weights, &training.weights) {
            executor.write(buffers[0], train);
            executor.write(buffers[1], validation);
        }
        self.training = Some((executor, plan));
        Ok(())
    }

    /// The device that it computes on.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The training that was begun, as it lies on the device: for benches. Whoever runs its programs moves it on.
    pub fn training_at_hand(&self) -> Option<(&Executor, &TrainingPlan)> {
        self.training.as_ref().map(|(executor, plan)| (executor, plan))
    }

    /// The evaluation that scoring or sampling last prepared, as it lies on the device: for benches.
    pub fn evaluation_at_hand(&self) -> Option<(&Executor, &EvaluationPlan)> {
        self.evaluation.as_ref().map(|(executor, plan)| (executor, plan))
    }

    /// Takes the tiles of `tiling` from the next training and evaluation on.
    pub fn set_tiling(&mut self, tiling: Tiling) {
        self.tiling = tiling;
        (self.evaluation, self.scoring) = (None, None);
    }

    /// Measures which tiles are fastest for the products of a training of this shape, except for those known, and
    /// takes them from the next training on. The fused plan has none.
    ///
    /// # Errors
    /// Those of the device.
    pub async fn tune_training(&mut self, shape: &TrainingShape) -> Result<Vec<Measured>> {
        if self.training_kind(shape) == PlanKind::Fused {
            return Ok(Vec::new());
        }
        let Self { context, flow, layout, tiling, .. } = self;
        let plan = |tiling: &Tiling| TrainingPlan::tiled(flow, layout, shape, tiling).plan;
        autotune(context, plan, tiling).await
    }

    /// The same for an evaluation of `rows`.
    ///
    /// # Errors
    /// Those of the device.
    pub async fn tune_evaluation(&mut self, rows: usize) -> Result<Vec<Measured>> {
        if self.kind == PlanKind::Fused {
            return Ok(Vec::new());
        }
        self.prepare(rows)?;
        let capacity = self.evaluation.take().map_or(TILE_ROWS.0, |(_, plan)| plan.capacity);
        let Self { context, flow, layout, tiling, .. } = self;
        let plan = |tiling: &Tiling| EvaluationPlan::tiled(flow, layout, capacity, tiling).plan;
        autotune(context, plan, tiling).await
    }

    /// Mean of −log p over the rows of `x` [B, D], and its gradient with respect to the parameters `[P]`. Ends a
    /// training that was begun. For tests and self-checks.
    ///
    /// # Errors
    /// As [`Engine::begin_training`].
    pub async fn loss_and_gradient(&mut self, x: &[f32]) -> Result<(f64, Vec<f32>)> {
        let rows = whole_rows("x", x, self.flow.features)?;
        let gradient = self.gradient_of(x, None).await?;
        let (executor, plan) = self.training.as_ref().ok_or_else(not_training)?;
        let first = plan.log_prob_at;
        let [log_prob] = executor.read([(plan.log_prob, first + rows)]).await?;
        (self.training, self.loaded) = (None, None);
        let loss = -log_prob[first..].iter().map(|&value: &f32| f64::from(value)).sum::<f64>() / rows as f64;
        Ok((loss, gradient))
    }

    /// The same for Σ w · (−log p) / Σ w, with weights w `[B]`.
    ///
    /// # Errors
    /// As [`Engine::begin_training`].
    pub async fn weighted_loss_and_gradient(
        &mut self,
        x: &[f32],
        weights: &[f32],
    ) -> Result<(f64, Vec<f32>)> {
        let train = weights.to_vec().into();
        let weights = RowWeights { train, validation: Vec::new().into() };
        let total: f64 = weights.train.iter().map(|&weight| f64::from(weight)).sum();
        let gradient = self.gradient_of(x, Some(weights)).await?;
        let (executor, plan) = self.training.as_ref().ok_or_else(not_training)?;
        let [state] = executor.read::<uniforms::TrainState, 1>([(plan.state, 1)]).await?;
        (self.training, self.loaded) = (None, None);
        Ok((f64::from(state[0].nll_sum) / total, gradient))
    }

    /// The gradient of a step on all rows of `x`, which changes no parameter.
    async fn gradient_of(&mut self, x: &[f32], weights: Option<RowWeights>) -> Result<Vec<f32>> {
        let rows = whole_rows("x", x, self.flow.features)?;
        let training = Training {
            weights,
            train: x.to_vec().into(),
            validation: Vec::new().into(),
            batch: rows as u32,
            adam: Adam::default(),
            schedule: crate::optimiser::Schedule {
                decay: crate::optimiser::Decay::Constant,
                base: 0.0,
                warmup_steps: 0,
                total_steps: 1,
            },
            seed: 0,
        };
        let state = State::from_parameters(self.parameters.clone());
        self.begin_training(training, state)?;
        let (executor, plan) = self.training.as_ref().ok_or_else(not_training)?;
        executor.submit([plan.step]);
        let [gradient] = executor.read([(plan.gradient, self.layout.total)]).await?;
        Ok(gradient)
    }

    /// The fraction of the weight of an epoch's rows that is in these rows of its order; `epoch` counts from 1.
    fn weight_fraction(&self, rows: Range<u32>, epoch: u32) -> f64 {
        let Some(training) = &self.loaded else { return 0.0 };
        let all = (training.train.len() / self.flow.features) as u32;
        let Some(weights) = training.weights.as_ref().filter(|_| rows != (0..all)) else {
            return f64::from(rows.end.saturating_sub(rows.start)) / f64::from(all);
        };
        let order = Permutation::new(all, training.seed, Stream::Epoch, epoch.saturating_sub(1));
        let taken = rows.map(|row| f64::from(weights.train[order.place(row) as usize])).sum::<f64>();
        taken / weights.train.iter().map(|&weight| f64::from(weight)).sum::<f64>()
    }

    /// The evaluation plan, made or made larger so that `rows` take few tiles.
    fn prepare(&mut self, rows: usize) -> Result<()> {
        let wanted = rows.next_power_of_two().clamp(TILE_ROWS.0, TILE_ROWS.1);
        if self.evaluation.as_ref().is_some_and(|(_, plan)| plan.capacity >= wanted || plan.capacity_limited)
        {
            return Ok(());
        }
        let mut plan = self.fitting(wanted, |capacity| self.evaluation_plan(capacity), |plan| &plan.plan)?;
        plan.capacity_limited = plan.capacity < wanted;
        let executor = Executor::new(&self.context, &plan.plan)?;
        executor.write(plan.normal_table, NORMAL_TABLE.as_flattened());
        plan.write_parameters(&executor, &self.parameters);
        self.evaluation = Some((executor, plan));
        Ok(())
    }

    /// The plan of the score function, likewise.
    fn prepare_score(&mut self, rows: usize) -> Result<()> {
        let wanted = rows.next_power_of_two().clamp(TILE_ROWS.0, TILE_ROWS.1);
        if self.scoring.as_ref().is_some_and(|(_, plan, largest)| plan.capacity >= wanted.min(*largest)) {
            return Ok(());
        }
        let make = |capacity| Ok(ScorePlan::tiled(&self.flow, &self.layout, capacity, &self.tiling));
        let plan = self.fitting(wanted, make, |plan| &plan.plan)?;
        let largest = if plan.capacity < wanted { plan.capacity } else { TILE_ROWS.1 };
        let executor = Executor::new(&self.context, &plan.plan)?;
        executor.write(plan.parameters, &self.parameters);
        self.scoring = Some((executor, plan, largest));
        Ok(())
    }

    /// The plan that `make` yields for `wanted` rows at a time, or for as many as limits and memory allow.
    fn fitting<P>(
        &self,
        wanted: usize,
        make: impl Fn(usize) -> Result<P>,
        plan_of: impl Fn(&P) -> &Plan,
    ) -> Result<P> {
        let limits = self.context.limits();
        let mut capacity = wanted;
        loop {
            let made = make(capacity)?;
            let plan = plan_of(&made);
            if capacity <= TILE_ROWS.0 || (plan.bytes() <= TILE_BYTES && plan.check(&limits).is_ok()) {
                return Ok(made);
            }
            capacity /= 2;
        }
    }

    /// Runs a program over `count` rows tile by tile. `feed` puts a tile's rows on the device.
    async fn evaluate<const N: usize>(
        &mut self,
        count: usize,
        program: fn(&EvaluationPlan) -> ProgramId,
        feed: impl Fn(&Executor, &EvaluationPlan, Range<usize>),
        outputs: [Output; N],
    ) -> Result<[Vec<f32>; N]> {
        let mut results = outputs.map(|(_, per_row)| Vec::with_capacity(count * per_row));
        if count == 0 {
            return Ok(results);
        }
        self.prepare(count)?;
        let (executor, plan) = self.evaluation.as_ref().expect("invariant: prepare made a plan");
        // A tile is on its way to the device while the one before is computed and the one before that comes back.
        let mut in_flight = VecDeque::new();
        let mut tiles = (0..count).step_by(plan.capacity);
        loop {
            let next = tiles.next();
            if let Some(first) = next {
                let rows = plan.capacity.min(count - first);
                executor.write(plan.extent, &[uniforms::Extent { rows: rows as u32, first: 0 }]);
                feed(executor, plan, first..first + rows);
                let wanted = outputs.map(|(buffer, per_row)| (buffer(plan), 4 * rows * per_row));
                in_flight.push_back(executor.submit_reading([program(plan)], &wanted).1);
            }
            if next.is_none() || in_flight.len() == IN_FLIGHT {
                let Some(oldest) = in_flight.pop_front() else { return Ok(results) };
                for (result, values) in results.iter_mut().zip(executor.collect::<f32>(oldest).await?) {
                    result.extend(values);
                }
            }
        }
    }

    /// Either direction, with its log-determinant.
    async fn transform(
        &mut self,
        what: &'static str,
        rows: &[f32],
        program: fn(&EvaluationPlan) -> ProgramId,
    ) -> Result<Transformed> {
        let (count, features) = (whole_rows(what, rows, self.flow.features)?, self.flow.features);
        let outputs: [Output; 2] = [(|plan| plan.output, features), (|plan| plan.log_det, 1)];
        let [values, log_det] = self.evaluate(count, program, feed(rows, features), outputs).await?;
        Ok(Transformed { values, log_det })
    }
}

/// Puts a tile of `rows` into the evaluation's input.
fn feed(rows: &[f32], features: usize) -> impl Fn(&Executor, &EvaluationPlan, Range<usize>) {
    move |executor, plan, tile| executor.write(plan.input, &rows[tile.start * features..tile.end * features])
}

fn not_training() -> Error {
    Error::Argument("no training was begun on this engine: call begin_training first".into())
}

impl Engine for GpuEngine {
    fn device(&self) -> &DeviceInfo {
        self.context.info()
    }

    fn flow(&self) -> &Flow {
        &self.flow
    }

    fn set_parameters(&mut self, parameters: &[f32]) -> Result<()> {
        expect_length("parameters", parameters.len(), self.layout.total)?;
        let same = |(new, old): (&f32, &f32)| new.to_bits() == old.to_bits();
        // What is on the device already is not packed and taken there again, chunk after chunk of a table.
        if !parameters.iter().zip(&self.parameters).all(same) {
            self.parameters.copy_from_slice(parameters);
            if let Some((executor, plan)) = &self.evaluation {
                plan.write_parameters(executor, parameters);
            }
            if let Some((executor, plan, _)) = &self.scoring {
                executor.write(plan.parameters, parameters);
            }
        }
        self.context.health()
    }

    async fn forward(&mut self, x: &[f32]) -> Result<Transformed> {
        self.transform("x", x, |plan| plan.forward).await
    }

    async fn inverse(&mut self, z: &[f32]) -> Result<Transformed> {
        self.transform("z", z, |plan| plan.inverse).await
    }

    async fn log_prob(&mut self, x: &[f32]) -> Result<Vec<f32>> {
        let (count, features) = (whole_rows("x", x, self.flow.features)?, self.flow.features);
        let outputs: [Output; 1] = [(|plan| plan.log_prob, 1)];
        let [log_prob] = self.evaluate(count, |plan| plan.forward, feed(x, features), outputs).await?;
        Ok(log_prob)
    }

    async fn score(&mut self, x: &[f32]) -> Result<Vec<f32>> {
        let (count, features) = (whole_rows("x", x, self.flow.features)?, self.flow.features);
        let mut score = Vec::with_capacity(x.len());
        if count == 0 {
            return Ok(score);
        }
        self.prepare_score(count)?;
        let (executor, plan, _) = self.scoring.as_ref().expect("invariant: prepare_score made a plan");
        for rows in x.chunks(plan.capacity * features) {
            executor
                .write(plan.extent, &[uniforms::Extent { rows: (rows.len() / features) as u32, first: 0 }]);
            executor.write(plan.input, rows);
            executor.submit([plan.program]);
            let [values] = executor.read::<f32, 1>([(plan.score, rows.len())]).await?;
            score.extend(values);
        }
        Ok(score)
    }

    async fn sample_given(&mut self, sampling: Sampling, context: &[f32]) -> Result<Vec<f32>> {
        let Flow { features, context: given, .. } = self.flow;
        let modelled = self.flow.modelled();
        let base = self.layout.base.start as u32;
        let components = self.flow.base.components() as u32;
        expect_length("context", context.len(), sampling.rows * given)?;
        let [key_low, key_high] = random::key(sampling.seed);
        let request = |executor: &Executor, plan: &EvaluationPlan, tile: Range<usize>| {
            let request = uniforms::Latent {
                rows: tile.len() as u32,
                features: features as u32,
                modelled: modelled as u32,
                first_row: sampling.first.wrapping_add(tile.start as u32),
                key_low,
                key_high,
                temperature: sampling.temperature,
                base,
                components,
            };
            if given > 0 {
                // Whole rows, whose features the device makes.
                let mut rows = vec![0.0; tile.len() * features];
                let context = context[tile.start * given..].chunks_exact(given);
                for (row, context) in rows.chunks_exact_mut(features).zip(context) {
                    row[modelled..].copy_from_slice(context);
                }
                executor.write(plan.input, &rows);
            }
            plan.write_request(executor, &request);
        };
        let outputs: [Output; 1] = [(|plan| plan.output, features)];
        let [samples] = self.evaluate(sampling.rows, |plan| plan.sample, request, outputs).await?;
        Ok(samples)
    }

    fn begin_training(&mut self, training: Training, state: State) -> Result<()> {
        let features = self.flow.features;
        training.validate(&state, features, self.layout.total)?;
        let shape = TrainingShape::new(&training, features);
        if !self.loaded.as_ref().is_some_and(|loaded| loaded.is_same(&training)) {
            self.load(&shape, &training)?;
            self.loaded = Some(training);
        }
        let (executor, plan) = self.training.as_ref().ok_or_else(not_training)?;
        write_state(executor, plan, &shape, &state);
        self.first_row = state.row;
        Ok(())
    }

    async fn train(&mut self, epochs: u32) -> Result<Vec<EpochRecord>> {
        let (executor, plan) = self.training.as_ref().ok_or_else(not_training)?;
        let mut records = Vec::with_capacity(epochs as usize);
        let mut left = epochs;
        while left > 0 {
            let stretch = left.min(HISTORY as u32);
            let history = run_epochs(executor, plan, stretch, self.first_row, &mut self.pace).await?;
            for record in &history {
                let halted = record.halted == 1;
                let first = std::mem::take(&mut self.first_row);
                let end = if halted {
                    let [state] = executor.read::<uniforms::TrainState, 1>([(plan.state, 1)]).await?;
                    // A training that has halted stands where it is: it begins there if it is asked to go on.
                    self.first_row = state[0].first;
                    state[0].first
                } else {
                    plan.train_rows
                };
                // The device divides by all rows of the epoch.
                let taken = end > first;
                let fraction = self.weight_fraction(first..end, record.epoch);
                records.push(EpochRecord {
                    epoch: record.epoch,
                    train_nll: f64::from(record.train_nll) / fraction,
                    validation_nll: (plan.validation_tiles > 0).then_some(f64::from(record.validation_nll)),
                    learning_rate: f64::from(record.learning_rate),
                    grad_norm: if taken { f64::from(record.grad_norm) } else { f64::NAN },
                    improved: record.improved == 1,
                    halted,
                });
                if halted {
                    return Ok(records);
                }
            }
            left -= stretch;
        }
        Ok(records)
    }

    async fn training_state(&mut self) -> Result<State> {
        let (executor, plan) = self.training.as_ref().ok_or_else(not_training)?;
        let total = self.layout.total;
        let [parameters, moment1, moment2] =
            executor.read([(plan.parameters, total), (plan.moment1, total), (plan.moment2, total)]).await?;
        let [state] = executor.read::<uniforms::TrainState, 1>([(plan.state, 1)]).await?;
        let state = state[0];
        let best = if state.best_nll < f32::MAX {
            let [parameters] = executor.read([(plan.best, total)]).await?;
            Some(Best { nll: f64::from(state.best_nll), parameters })
        } else {
            None
        };
        Ok(State {
            parameters,
            moment1,
            moment2,
            step: state.step,
            epoch: state.epoch,
            row: state.first,
            corrections: [state.bias_correction1, state.bias_correction2].map(f64::from),
            best,
        })
    }

    async fn best_parameters(&mut self) -> Result<Vec<f32>> {
        let (executor, plan) = self.training.as_ref().ok_or_else(not_training)?;
        let [state] = executor.read::<uniforms::TrainState, 1>([(plan.state, 1)]).await?;
        let best = if state[0].best_nll < f32::MAX { plan.best } else { plan.parameters };
        let [parameters] = executor.read([(best, self.layout.total)]).await?;
        Ok(parameters)
    }
}
