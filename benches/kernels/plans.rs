//! The plans whose kernels are measured, with what their buffers hold, and each kernel's largest dispatch alone.

use moonflow::engine::TrainingShape;
use moonflow::flow::{Base, ConditionerForm, Flow, Transform};
use moonflow::gpu::evaluation::{EvaluationPlan, Upload};
use moonflow::gpu::kernel::{ACCUMULATE, KERNELS, Kernel, LATENT_NOISE, PERMUTE};
use moonflow::gpu::plan::{BufferId, Dispatch, Plan, Program, ProgramId, groups_of_256};
use moonflow::gpu::training::TrainingPlan;
use moonflow::gpu::{PlanKind, Target, fused, uniforms};
use moonflow::layout::Layout;
use moonflow::optimiser::{Adam, Decay, Schedule};
use moonflow::random::{NORMAL_TABLE, Stream};

use crate::support::{Cost, Shape, normal_rows, random_parameters};

/// Training rows, in batches.
pub const BATCHES: usize = 8;

pub const ADAM: Adam = Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, clip_norm: 5.0 };

/// Hardly any change, so that numbers stay what they are however often a kernel runs.
pub const SCHEDULE: Schedule =
    Schedule { decay: Decay::Constant, base: 1e-9, warmup_steps: 0, total_steps: u32::MAX };

/// All plans of a shape.
pub struct Plans {
    pub groups: Vec<Group>,
    /// Why there is no fused plan, where there is none.
    pub refusal: Option<String>,
}

/// Plans in all of which a kernel's largest dispatch is looked for: those of a kind.
pub struct Group {
    /// What the table calls the engine.
    pub engine: String,
    /// Of each flow, training before evaluation: a kernel is measured for the first flow that has it.
    plans: Vec<Prepared>,
}

/// A plan with what its buffers hold when a kernel begins.
struct Prepared {
    plan: Plan,
    /// Rows that a dispatch serves.
    rows: usize,
    /// What buffers hold; those that are not named are full of numbers in (0, 1].
    contents: Vec<(BufferId, Vec<u8>)>,
    /// The buffer with a [`uniforms::TrainState`], if there is one.
    state: Option<BufferId>,
}

/// The dispatch of a kernel that has the most work.
#[derive(Clone, Copy)]
pub struct Largest<'a> {
    of: &'a Prepared,
    dispatch: &'a Dispatch,
}

/// A dispatch and the buffers that it binds, as a plan of its own.
pub struct Alone {
    pub plan: Plan,
    pub program: ProgramId,
    /// The buffer with a [`uniforms::TrainState`], where one is bound.
    pub state: Option<BufferId>,
}

impl Plans {
    /// The plans of `shape` on `target`.
    ///
    /// # Panics
    /// Names the kernels that no plan dispatches, if both kinds of plan fit.
    pub fn new(shape: &Shape, target: &Target) -> Self {
        let flow = shape.flow();
        let reversal = Transform::Permutation { permutation: (0..shape.features).rev().collect() };
        // Then those that have kernels which the shape's own flow has not.
        let others = flow.clone().before_each_coupling(&[Transform::Actnorm, reversal, Transform::Lu]);
        let joint = flow.clone().with_conditioner(ConditionerForm::Joint);
        let mixture = flow.clone().with_base(Base::Mixture { components: 5 });
        let weights = Some([1.0; 2]);
        let flows = [(&flow, None), (&others, weights), (&joint, None), (&mixture, None)];
        let layered = flows.into_iter().flat_map(|(flow, weights)| {
            [training(shape, flow, None, weights), evaluation(shape, flow, None)]
        });
        let layered = layered.collect();
        let mut groups = vec![Group::new(format!("gpu {}", PlanKind::Layered), layered)];
        let blocks = fused::Shape::training(&flow, target, shape.batch)
            .and_then(|training| Ok([training, fused::Shape::evaluation(&flow, target)?]));
        let refusal = match blocks {
            Ok([of_training, block]) => {
                let fused = [
                    training(shape, &flow, Some([&of_training, &block]), None),
                    evaluation(shape, &flow, Some(&block)),
                ];
                groups.push(Group::new(format!("gpu {}", PlanKind::Fused), fused.into()));
                None
            }
            Err(error) => Some(error.to_string()),
        };
        groups.push(Group::new("gpu".into(), vec![permutation(BATCHES * shape.batch)]));
        let plans = Self { groups, refusal };
        let missing = plans.missing();
        assert!(
            plans.refusal.is_some() || missing.is_empty(),
            "no plan dispatches {}: add one that does to benches/kernels/plans.rs",
            missing.join(", ")
        );
        plans
    }

    /// The kernels that no plan dispatches.
    pub fn missing(&self) -> Vec<&'static str> {
        let missing = KERNELS.iter().filter(|kernel| self.cost(kernel.name).is_none());
        missing.map(|kernel| kernel.name).collect()
    }

    /// What the largest dispatch of `kernel` costs, in the first group that has one.
    pub fn cost(&self, kernel: &str) -> Option<Cost> {
        self.groups.iter().find_map(|group| group.largest(kernel)).map(|largest| largest.cost())
    }
}

impl Group {
    fn new(engine: String, plans: Vec<Prepared>) -> Self {
        Self { engine, plans }
    }

    /// Every kernel that the plans dispatch, in the order of the kernels' table.
    pub fn kernels(&self) -> impl Iterator<Item = Largest<'_>> {
        KERNELS.iter().filter_map(|kernel| self.largest(kernel.name))
    }

    fn largest(&self, kernel: &str) -> Option<Largest<'_>> {
        self.plans.chunks(2).find_map(|of_a_flow| {
            let programs =
                of_a_flow.iter().flat_map(|of| of.plan.programs.iter().map(move |program| (of, program)));
            let dispatches = programs.flat_map(|(of, program)| {
                program.dispatches.iter().map(move |dispatch| Largest { of, dispatch })
            });
            dispatches
                .filter(|largest| largest.dispatch.kernel.name == kernel)
                .max_by_key(|largest| (largest.dispatch.flops, largest.dispatch.bytes))
        })
    }
}

impl Largest<'_> {
    pub fn kernel(&self) -> &'static Kernel {
        self.dispatch.kernel
    }

    pub fn cost(&self) -> Cost {
        Cost { rows: self.of.rows, flops: self.dispatch.flops, bytes: self.dispatch.bytes }
    }

    pub fn alone(&self) -> Alone {
        let (mut plan, bound) = self.of.plan.alone(self.dispatch);
        plan.contents =
            bound.iter().enumerate().map(|(at, id)| (BufferId(at), self.of.content(*id))).collect();
        let place = |of: BufferId| bound.iter().position(|buffer| *buffer == of).map(BufferId);
        Alone { plan, program: ProgramId(0), state: self.of.state.and_then(place) }
    }
}

impl Prepared {
    /// What a buffer holds, as bytes. Zeros would be multiplied faster by some hardware, and a norm or a second moment
    /// must not be negative.
    fn content(&self, buffer: BufferId) -> Vec<u8> {
        let named = self.contents.iter().chain(&self.plan.contents).find(|(id, _)| *id == buffer);
        named.map_or_else(
            || numbers(self.plan.buffers[buffer.0].bytes as usize / 4),
            |(_, bytes)| bytes.clone(),
        )
    }
}

fn numbers(count: usize) -> Vec<u8> {
    let period: Vec<f32> = (1..=1021).map(|place| place as f32 / 1021.0).collect();
    bytes(&period.into_iter().cycle().take(count).collect::<Vec<f32>>())
}

fn bytes<T: bytemuck::NoUninit>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// The plan of training, fused for workgroups of these shapes or layered, at the end of an epoch that improved: `adam`
/// updates and `keep_best` copies.
fn training(
    shape: &Shape,
    flow: &Flow,
    blocks: Option<[&fused::Shape; 2]>,
    weights: Option<[f32; 2]>,
) -> Prepared {
    let layout = Layout::new(flow);
    let sizes = TrainingShape {
        train_rows: BATCHES * shape.batch,
        validation_rows: shape.batch,
        batch: shape.batch,
        adam: ADAM,
        schedule: SCHEDULE,
        seed: 1,
        weights,
    };
    let mut training = match blocks {
        Some(blocks) => TrainingPlan::fused(flow, &layout, &sizes, blocks),
        None => TrainingPlan::new(flow, &layout, &sizes),
    };
    // Tiles without end: after the last one there would be nothing more to accumulate.
    change_uniform(&mut training.plan, &ACCUMULATE, |rules: &mut uniforms::Rules| {
        rules.validation_rows = u32::MAX;
    });
    let state = uniforms::TrainState {
        rows: shape.batch as u32,
        improved: 1,
        bias_correction1: 0.1,
        bias_correction2: 0.001,
        learning_rate: SCHEDULE.base,
        clip: 1.0,
        best_nll: f32::MAX,
        ..Default::default()
    };
    let validation = uniforms::Validation { rows: training.validation_capacity as u32, ..Default::default() };
    let history_bytes = training.plan.buffers[training.history.0].bytes as usize;
    let parameters = random_parameters(flow);
    let mut contents = vec![
        (training.state, bytes(&[state])),
        (training.validation, bytes(&[validation])),
        (training.history, vec![0; history_bytes]),
        (training.parameters, bytes(&parameters)),
    ];
    for table in training.train.iter().chain(&training.validation_rows) {
        contents.push((table.buffer, bytes(&normal_rows(table.rows, shape.features))));
    }
    if let Some((packed, copies)) = &training.packed {
        contents.push((*packed, bytes(&copies.pack(&parameters))));
        contents.push((training.log_prob, [bytes(&[state]), numbers(shape.batch)].concat()));
    }
    Prepared { plan: training.plan, rows: shape.batch, contents, state: Some(training.state) }
}

/// The plan of evaluation, fused for workgroups of this shape or layered.
fn evaluation(shape: &Shape, flow: &Flow, block: Option<&fused::Shape>) -> Prepared {
    let layout = Layout::new(flow);
    let mut evaluation = match block {
        Some(block) => EvaluationPlan::fused(flow, &layout, shape.batch, block),
        None => EvaluationPlan::new(flow, &layout, shape.batch),
    };
    let rows = shape.batch as u32;
    let latent = uniforms::Latent {
        rows,
        features: shape.features as u32,
        modelled: shape.features as u32,
        temperature: 1.0,
        ..Default::default()
    };
    change_uniform(&mut evaluation.plan, &LATENT_NOISE, |uniform| *uniform = latent);
    let parameters = random_parameters(flow);
    let mut contents = vec![
        (evaluation.extent, bytes(&[uniforms::Extent { rows, first: 0 }])),
        (evaluation.normal_table, bytes(NORMAL_TABLE.as_flattened())),
        (evaluation.input, bytes(&normal_rows(shape.batch, shape.features))),
    ];
    match &evaluation.upload {
        Upload::Layered => contents.push((evaluation.parameters, bytes(&parameters))),
        Upload::Fused { copies, request } => {
            contents.push((evaluation.parameters, bytes(&copies.pack(&parameters))));
            contents.push((*request, bytes(&[latent])));
        }
    }
    Prepared { plan: evaluation.plan, rows: shape.batch, contents, state: None }
}

/// The epoch's order as a table, which no engine needs; `gather` and `fused_gradient` have it inside.
fn permutation(rows: usize) -> Prepared {
    let mut plan = Plan::default();
    let places = plan.buffer("places", rows);
    let uniform = uniforms::Permutation {
        n: rows as u32,
        stream: Stream::Epoch as u32,
        key_low: 1,
        ..Default::default()
    };
    let mut program = Program::new("permutation");
    program.dispatches.push(Dispatch {
        kernel: &PERMUTE,
        constants: Vec::new(),
        label: "order of an epoch".into(),
        uniform: bytes(&[uniform]),
        buffers: vec![places],
        workgroups: groups_of_256(rows),
        flops: 0,
        bytes: 4 * rows as u64,
    });
    plan.program(program);
    Prepared { plan, rows, contents: Vec::new(), state: None }
}

fn change_uniform<U: bytemuck::Pod>(plan: &mut Plan, kernel: &Kernel, change: impl Fn(&mut U)) {
    for dispatch in plan.programs.iter_mut().flat_map(|program| &mut program.dispatches) {
        if dispatch.kernel.name == kernel.name {
            let mut uniform = bytemuck::pod_read_unaligned(&dispatch.uniform);
            change(&mut uniform);
            dispatch.uniform = bytemuck::bytes_of(&uniform).to_vec();
        }
    }
}
