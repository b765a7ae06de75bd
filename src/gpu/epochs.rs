//! Epochs of a training on the device: puts a state there, submits the programs of its plan epoch by epoch, and reads what
//! they recorded. What a step computes is in the plan ([`TrainingPlan`]), and what changes from step to step on the device.

use std::collections::VecDeque;

use super::executor::{Executor, Submission};
use super::pace::Pace;
use super::training::TrainingPlan;
use super::uniforms;
use crate::engine::TrainingShape;
use crate::error::Result;
use crate::optimiser::State;

/// Submissions in flight before the host waits for the oldest.
const IN_FLIGHT: usize = 3;

/// Sets everything that steps change to where `state` stands.
pub(super) fn write_state(executor: &Executor, plan: &TrainingPlan, shape: &TrainingShape, state: &State) {
    if let Some((packed, copies)) = &plan.packed {
        executor.write(*packed, &copies.pack(&state.parameters));
    }
    executor.write(plan.parameters, &state.parameters);
    executor.write(plan.best, state.best.as_ref().map_or(&state.parameters, |best| &best.parameters));
    executor.write(plan.moment1, &state.moment1);
    executor.write(plan.moment2, &state.moment2);
    let [bias_correction1, bias_correction2] = state.corrections.map(|correction| correction as f32);
    // The first step of an epoch is prepared by the last of the one before: where no rows are left, by this.
    let left = shape.train_rows as u32 - state.row;
    let (first, epoch) = if left == 0 { (0, state.epoch + 1) } else { (state.row, state.epoch) };
    executor.write(
        plan.state,
        &[uniforms::TrainState {
            rows: (shape.batch as u32).min(shape.train_rows as u32 - first),
            first,
            step: state.step,
            epoch,
            bias_correction1,
            bias_correction2,
            best_nll: state.best.as_ref().map_or(f32::MAX, |best| best.nll as f32),
            ..Default::default()
        }],
    );
    executor.write(
        plan.validation,
        &[uniforms::Validation {
            rows: plan.validation_capacity.min(shape.validation_rows) as u32,
            ..Default::default()
        }],
    );
}

/// Submits `epochs` epochs, the first from row `first_row` on, and reads their records. Submissions take what `pace` has
/// learned to be a tenth of a second; the host waits for none of them but the oldest of [`IN_FLIGHT`], so that the device
/// always has the next one queued, and the last one reads the records.
pub(super) async fn run_epochs(
    executor: &Executor,
    plan: &TrainingPlan,
    epochs: u32,
    first_row: u32,
    pace: &mut Pace,
) -> Result<Vec<uniforms::Record>> {
    // Records are counted from zero again; the field's place is the only thing the host writes in between.
    executor.write_at(plan.state, std::mem::offset_of!(uniforms::TrainState, records), &[0u32]);
    // (program, dispatches, FLOPs, runs) in the order of an epoch.
    let parts = [(plan.step, plan.steps_per_epoch), (plan.validate, plan.validation_tiles), (plan.close, 1)]
        .map(|(id, runs)| {
            let program = &plan.plan.programs[id.0];
            (id, program.dispatches.len(), program.flops(), runs)
        });
    let steps_before = first_row.div_ceil(plan.batch.max(1)) as usize;
    let runs = (0..epochs).flat_map(|_| parts).flat_map(|(id, dispatches, flops, runs)| {
        std::iter::repeat_n((id, dispatches, flops), runs as usize)
    });
    let mut in_flight: VecDeque<(Submission, f64)> = VecDeque::new();
    let mut chunk = Vec::new();
    let (mut dispatches, mut flops, mut last_done) = (0, 0, 0.0f64);
    // Steps come first in an epoch.
    for (program, its_dispatches, its_flops) in runs.skip(steps_before) {
        let units = Pace::units(dispatches, flops);
        if !chunk.is_empty() && pace.is_full(units) {
            in_flight.push_back((executor.submit(chunk.drain(..)), units));
            (dispatches, flops) = (0, 0);
            if in_flight.len() >= IN_FLIGHT
                && let Some((oldest, units)) = in_flight.pop_front()
            {
                let [submitted, done] = executor.wait(oldest).await?;
                // It began when it was submitted, or when the one before it was done.
                pace.learn(units, done - submitted.max(last_done));
                last_done = done;
            }
        }
        chunk.push(program);
        dispatches += its_dispatches;
        flops += its_flops;
    }
    let bytes = epochs as usize * size_of::<uniforms::Record>();
    let (_, reading) = executor.submit_reading(chunk, &[(plan.history, bytes)]);
    Ok(executor.collect(reading).await?.into_iter().flatten().collect())
}
