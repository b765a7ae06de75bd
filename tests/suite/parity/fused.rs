//! The fused kernels against the CPU engine, of which each is a stretch: `src/cpu/pass.rs`, `src/cpu/adam.rs`.

use moonflow::cpu::adam::{AdamState, Rule, adam as cpu_adam};
use moonflow::cpu::{CpuEngine, Real};
use moonflow::engine::Sampling;
use moonflow::flow::{Activation, Base, Bijector, ConditionerForm, Flow, Masking, Transform};
use moonflow::gpu::Target;
use moonflow::gpu::fused::{FusedLayout, Shape};
use moonflow::gpu::kernel::{
    FUSED_ADAM, FUSED_FORWARD, FUSED_GRADIENT, FUSED_INVERSE, FUSED_SAMPLE, FUSED_SUM, Kernel,
};
use moonflow::gpu::plan::NOWHERE;
use moonflow::gpu::uniforms::{Extent, Latent, Rules, TrainState};
use moonflow::layout::Layout;
use moonflow::random::{self, NORMAL_TABLE, Stream};

use super::adam::{ADAM, Situation, USUAL};
use super::harness::{Call, Case, POISON, bits, poisoned, random as numbers, real, words};
use crate::common::{from_wide, random_parameters, wide};

/// A flow with all that its kernels read.
struct Subject {
    flow: Flow,
    fused_layout: FusedLayout,
    parameters: Vec<f32>,
    target: Target,
}

impl Subject {
    fn new(
        [features, context]: [usize; 2],
        layers: usize,
        hidden: &[usize],
        activation: Activation,
        software: bool,
    ) -> Self {
        let flow = Flow::conditional(features, context, layers, hidden).expect("valid");
        let flow = flow.with_activation(activation).with_masking(Masking::HalfSplit);
        let layout = Layout::new(&flow);
        Self {
            fused_layout: FusedLayout::new(&flow, &layout),
            parameters: from_wide(&random_parameters(&flow, 5)),
            flow,
            target: Target { software, ..Target::default() },
        }
    }

    /// Ragged in every width. The first has most of what the kernels know, so changes of a shader are looked for there
    /// first. A software adapter takes seconds to compile a kernel, so each of the others has to add something.
    fn all() -> [Self; 5] {
        [
            Self::of_every_kind(),
            // Two teams of threads with a spare tile, slopes that are read from activations, and several blocks of a weight
            // gradient for a thread. Without a triangle, whose slots have gradients that are not read, an actnorm's padding
            // is seen to be zero.
            Self::new([5, 0], 2, &[50, 18], Activation::Relu, false).with(&[Transform::Actnorm]),
            // Gradients that take the place of a single network's outputs.
            Self::new([4, 0], 1, &[7], Activation::LeakyRelu, false)
                .splines()
                .of(ConditionerForm::Joint)
                .with(&[Transform::Lu, Transform::Actnorm]),
            // A software adapter's blocks, with more components than rows have quads.
            Self::new([3, 0], 3, &[9, 21], Activation::Silu, true).of_mixture(6),
            // Two teams without a spare tile, and more context than features.
            Self::new([3, 4], 2, &[5], Activation::Tanh, false).with(&[
                Transform::Actnorm,
                Transform::Permutation { permutation: vec![2, 0, 1] },
                Transform::Lu,
            ]),
        ]
    }

    /// Those that a sample takes another way through than the inverse: by the base density, the context and the blocks.
    fn sampled() -> impl Iterator<Item = Self> {
        Self::all()
            .into_iter()
            .enumerate()
            .filter(|(place, _)| ![1, 2].contains(place))
            .map(|(_, subject)| subject)
    }

    /// Conditioners of every form in one flow, all other transforms between them, and a mixture.
    fn of_every_kind() -> Self {
        let one = |hidden: &[usize], form| {
            let subject = Self::new([5, 1], 1, hidden, Activation::Silu, false);
            subject.of(form)
        };
        let mut subject = one(&[17, 6], ConditionerForm::Joint);
        for (hidden, form) in [([9, 9], ConditionerForm::Residual), ([6, 17], ConditionerForm::Separate)] {
            subject.flow.transforms.extend(one(&hidden, form).flow.transforms);
        }
        // Memory for blocks of four rows: drivers unroll loops over rows, and this kernel takes longest of all to compile.
        subject.target.limits.max_compute_workgroup_storage_size = 4096;
        subject.of_mixture(3).with(&[
            Transform::Actnorm,
            Transform::Permutation { permutation: vec![3, 0, 4, 1, 2] },
            Transform::Lu,
        ])
    }

    /// The same with a mixture of so many components as base density.
    fn of_mixture(self, components: usize) -> Self {
        Self { flow: self.flow.with_base(Base::Mixture { components }), ..self }.with(&[])
    }

    /// The same with splines that end amid the rows.
    fn splines(self) -> Self {
        Self { flow: self.flow.with_bijector(Bijector::Spline { bins: 5, bound: 1.8 }), ..self }
    }

    /// The same with conditioners of another form.
    fn of(self, form: ConditionerForm) -> Self {
        Self { flow: self.flow.with_conditioner(form), ..self }.with(&[])
    }

    /// The same with these transforms before each coupling.
    fn with(self, added: &[Transform]) -> Self {
        let flow = self.flow.before_each_coupling(added);
        Self {
            fused_layout: FusedLayout::new(&flow, &Layout::new(&flow)),
            parameters: from_wide(&random_parameters(&flow, 5)),
            flow,
            target: self.target,
        }
    }

    fn engine<R: Real>(&self) -> CpuEngine<R> {
        let mut engine = CpuEngine::<R>::new(self.flow.clone()).expect("valid");
        engine.set_parameters(&real::<R>(&self.parameters)).expect("as many parameters as the flow has");
        engine
    }

    fn evaluation(&self) -> Shape {
        Shape::evaluation(&self.flow, &self.target).expect("a narrow flow")
    }

    /// A call of an evaluating kernel on `capacity` rows.
    fn call(&self, label: &str, capacity: usize) -> Call {
        let shape = self.evaluation();
        let uniform = self.fused_layout.uniform(&self.flow, Rules::default(), 0);
        let groups = capacity.div_ceil(shape.rows) as u32;
        let call = Call::new(format!("D {} {label}:", self.flow.features), &uniform, [groups, 1, 1]);
        self.weights(call.constants(&shape.constants()))
    }

    fn weights(&self, call: Call) -> Call {
        call.bind("roles", self.fused_layout.roles().to_vec())
            .bind("packed", bits(&self.fused_layout.pack(&self.parameters)))
    }
}

/// Rows that hold data, the first of them in the table, and rows that there is room for.
const ROWS: [(usize, usize, usize); 2] = [(21, 3, 35), (1, 0, 4)];

fn evaluating(
    kernel: &'static Kernel,
    inverse: bool,
    changes: &'static [(&'static str, &'static str)],
) -> Case {
    let mut calls = Vec::new();
    for subject in Subject::all() {
        let features = subject.flow.features;
        for (rows, first, capacity) in ROWS {
            let table = numbers((first + rows) * features, 2.0, 7);
            let x = &table[first * features..];
            let (exact, single) = (subject.engine::<f64>(), subject.engine::<f32>());
            let (truth, own) = if inverse {
                (exact.inverse(&wide(x)).expect("rows"), single.inverse(x).expect("rows"))
            } else {
                (exact.forward(&wide(x)).expect("rows"), single.forward(x).expect("rows"))
            };
            let mut source = vec![POISON; first * features];
            source.extend(poisoned(x, capacity * features));
            let mut call = subject
                .call(&format!("{rows} of {capacity} rows"), capacity)
                .record("extent", &Extent { rows: rows as u32, first: first as u32 })
                .bind("source", source)
                .bind("destination", vec![POISON; capacity * features])
                .expect("", 0..rows * features, truth.0, &own.0)
                .bind("log_det", vec![POISON; capacity])
                .expect("", 0..rows, truth.1, &own.1);
            if !inverse {
                let (truth, own) =
                    (exact.log_prob(&wide(x)).expect("rows"), single.log_prob(x).expect("rows"));
                call = call.bind("log_prob", vec![POISON; capacity]).expect("", 0..rows, truth, &own);
            }
            calls.push(call);
        }
    }
    Case { kernel, factor: 16.0, calls, changes }
}

pub fn fused_forward() -> Case {
    evaluating(
        &FUSED_FORWARD,
        false,
        &[
            ("quad_at(extent.first + row, quad % QUADS)", "quad_at(row, quad % QUADS)"),
            ("log_dets[quad] += (log_det.x", "log_dets[quad] = (log_det.x"),
            ("log_det - 0.5 * squares", "log_det - squares"),
            ("+ diagonal - 0.5 * squares", "- 0.5 * squares"),
            ("factor_diagonal(k, quad) * centred_quad(k, row, quad)", "centred_quad(k, row, quad)"),
            ("dot(packed[lower + 3u * QUADS + place], value)", "dot(packed[lower + QUADS + place], value)"),
            ("place <= quad", "place < quad"),
            ("return modelled_part(sum, quad);", "return sum;"),
            ("- log_weight_sum(COMPONENTS)", ""),
            ("item / COMPONENTS, item % COMPONENTS", "item / COMPONENTS, 0u"),
            ("(value - shift) * exp_quad(-s)", "value * exp_quad(-s) - shift"),
            ("log_dets[quad] -= sum;", "log_dets[quad] += sum;"),
            ("log_dets[quad] += lu_log_det(transform, quad);", ""),
            ("lu_diagonal(transform, quad) * memory[AT_KEPT", "memory[AT_KEPT"),
            ("sum_of_slices(AT_THETA, quad) + bias", "sum_of_slices(AT_THETA, quad)"),
            ("sources.w % 4u]", "sources.w / 4u]"),
            ("feature < vec4<u32>(fused.modelled)", "feature < vec4<u32>(fused.features)"),
            ("f32(fused.modelled) * HALF_LN_TAU", "f32(fused.features) * HALF_LN_TAU"),
            ("kept_part(transform, quad, memory[AT_ROWS + quad])", "memory[AT_ROWS + quad]"),
            (
                "let base = transform.weights + network * transform.weights_stride",
                "let base = transform.weights",
            ),
            ("task.source + row * task.depth + begin", "task.source + row * task.depth"),
            ("start = bias_strip(task.bias + quad, columns);", ""),
            ("transform_rows(local, index, false)", "transform_rows(local, index, true)"),
            ("= output_quad(transform, k, at.row", "= output_quad(transform, 0u, at.row"),
            ("at.place * PLACE_QUADS + quad);", "quad);"),
            ("(*theta)[4u * quad + lane] = numbers[lane];", "(*theta)[4u * quad + lane] = numbers[0];"),
            ("sum += memory[at + slice * ROWS", "sum = memory[at + slice * ROWS"),
            ("if RESIDUAL == 1u &&", "if RESIDUAL == 0u &&"),
            ("!ACTIVE_TILES && fused.spans", "ACTIVE_TILES && fused.spans"),
        ],
    )
}

pub fn fused_inverse() -> Case {
    evaluating(
        &FUSED_INVERSE,
        true,
        &[
            (
                "transform_rows(local, fused.transform_count - 1u - place, true)",
                "transform_rows(local, place, true)",
            ),
            ("log_det[first + row] = log_det_of(row);", "log_det[first + row] = -log_det_of(row);"),
            ("value * exp_quad(s) + shift", "(value + shift) * exp_quad(s)"),
            ("select(0u, QUADS, inverse)", "0u"),
            ("log_dets[quad] -= lu_log_det", "log_dets[quad] += lu_log_det"),
            (" / lu_diagonal(transform, j / 4u)[j % 4u]", ""),
            ("row, 0u, j / 4u + 1u)", "row, 0u, j / 4u)"),
            ("row, j / 4u, QUADS)", "row, j / 4u, j / 4u + 1u)"),
        ],
    )
}

pub fn fused_sample() -> Case {
    let mut calls = Vec::new();
    for subject in Subject::sampled() {
        let features = subject.flow.features;
        for (rows, first, capacity) in ROWS {
            let sampling = Sampling { rows, first: first as u32 + 40, seed: 9, temperature: 0.8 };
            let [key_low, key_high] = random::key(sampling.seed);
            let request = Latent {
                rows: rows as u32,
                features: features as u32,
                modelled: subject.flow.modelled() as u32,
                first_row: sampling.first,
                key_low,
                key_high,
                temperature: sampling.temperature,
                ..Default::default()
            };
            let rows_given = numbers(rows * features, 2.0, 8);
            let context: Vec<f32> = rows_given
                .chunks_exact(features)
                .flat_map(|row| &row[subject.flow.modelled()..])
                .copied()
                .collect();
            let truth = subject.engine::<f64>().sample(sampling, &wide(&context)).expect("samples");
            let own = subject.engine::<f32>().sample(sampling, &context).expect("samples");
            calls.push(
                subject
                    .call(&format!("{rows} of {capacity} samples"), capacity)
                    .record("request", &request)
                    .bind("normal_table", NORMAL_TABLE.as_flattened().to_vec())
                    .bind("destination", vec![POISON; capacity * features])
                    .expect("", 0..rows * features, truth, &own)
                    .values("source", &rows_given, capacity * features),
            );
        }
    }
    Case {
        kernel: &FUSED_SAMPLE,
        factor: 16.0,
        calls,
        changes: &[
            ("request.first_row + row, 2u * quad + 1u,", "request.first_row + row, 2u * quad,"),
            ("request.temperature * vec4<f32>(", "vec4<f32>("),
            ("normal(low.z, low.w)", "normal(low.z, low.y)"),
            ("if row < request.rows {\n            let at", "if row <= request.rows {\n            let at"),
            ("source[row * fused.features + feature];", "source[row * fused.modelled + feature];"),
            ("max(4u * quad, fused.modelled)", "4u * quad"),
            ("known += dot(packed[component", "known -= dot(packed[component"),
            ("* exp_accurate(-s);\n    }\n    for (var quad", ";\n    }\n    for (var quad"),
            ("memory[at + quad] += packed[component + quad];", ""),
            ("const STREAM_COMPONENT = 10u;", "const STREAM_COMPONENT = 9u;"),
            ("draw_row(row, request.first_row + first + row);", "draw_row(row, request.first_row + row);"),
        ],
    }
}

/// Gradient `[P]` of Σ factor · (−log p) over these rows.
fn gradient_of<R: Real>(subject: &Subject, rows: &[f32], factors: &[f32]) -> Vec<f64> {
    let sum: f64 = factors.iter().map(|&factor| f64::from(factor)).sum();
    if sum == 0.0 {
        return vec![0.0; subject.parameters.len()];
    }
    let mut engine = subject.engine::<R>();
    let (_, gradient) =
        engine.weighted_loss_and_gradient(&real::<R>(rows), &real::<R>(factors)).expect("whole rows");
    gradient.iter().map(|value| sum * value.wide()).collect()
}

/// Training rows, rows of the batch, the first of them, workgroups.
type Batch = (usize, usize, usize, usize);

/// A call of `fused_gradient`; rows count alike, or every fourth of them not at all.
fn gradient_call(subject: &Subject, (train_rows, rows, first, groups): Batch, weighted: bool) -> Call {
    let (seed, epoch, features) = (3, 2, subject.flow.features);
    let data = numbers(train_rows * features, 2.0, 4);
    let weight = |(row, value): (usize, f32)| if row % 4 == 2 { 0.0 } else { 1.5 + value };
    let weights: Vec<f32> = match weighted {
        true => numbers(train_rows, 1.0, 6).into_iter().enumerate().map(weight).collect(),
        false => vec![1.0; train_rows],
    };
    let order: Vec<usize> = (first..first + rows)
        .map(|place| random::permute(place as u32, train_rows as u32, seed, Stream::Epoch, epoch) as usize)
        .collect();
    let batch: Vec<f32> =
        order.iter().flat_map(|row| &data[row * features..(row + 1) * features]).copied().collect();
    let of_batch: Vec<f32> = order.iter().map(|&row| weights[row]).collect();
    let shape = Shape::training(&subject.flow, &subject.target, rows).expect("a narrow flow");
    assert_eq!(shape.block == [4, 4], rows == 261, "{shape}");
    let [key_low, key_high] = random::key(seed);
    let train_weight = weights.iter().sum::<f32>();
    let rules = Rules {
        train_rows: train_rows as u32,
        batch: rows as u32 + 5,
        parameters: subject.parameters.len() as u32,
        key_low,
        key_high,
        train_weight,
        ..Default::default()
    };
    let state = TrainState { rows: rows as u32, first: first as u32, epoch, clip: 0.5, ..Default::default() };
    let uniform = subject.fused_layout.uniform(&subject.flow, rules, groups);
    let saved = subject.fused_layout.saved() * groups * 4 * shape.rows;
    let which = if weighted { "weighted " } else { "" };
    let label = format!("D {features}, {rows} {which}rows in {groups} groups of {}:", shape.rows);
    let mut constants = shape.constants();
    constants.push(("WEIGHTED", weighted.into()));
    let call = Call::new(label, &uniform, [groups as u32, 1, 1]).constants(&constants);
    let call = subject
        .weights(call)
        .record("state", &state)
        .values("data", &data, data.len() + 9)
        .values("row_weights", &weights, weights.len() + 9)
        .bind("saved", vec![POISON; saved])
        .unchecked(0..saved);
    let unit = train_rows as f32 / train_weight / rows as f32;
    let factors: Vec<f32> = of_batch.iter().map(|weight| weight * unit).collect();
    let call = expect_partials(call, subject, &shape, groups, &batch, &factors);
    let before = words(&state);
    let counted = |log_prob: f64, weight: &f32| f64::from(*weight) * log_prob;
    let truth = subject.engine::<f64>().log_prob(&wide(&batch)).expect("rows");
    let truth =
        truth.into_iter().zip(&of_batch).map(|(log_prob, weight)| counted(log_prob, weight)).collect();
    let own = subject.engine::<f32>().log_prob(&batch).expect("rows");
    let own: Vec<f32> = own.iter().zip(&of_batch).map(|(log_prob, weight)| weight * log_prob).collect();
    let end = before.len();
    let call = call
        .bind("report", vec![POISON; end + 2 * (rows + 5)])
        .expect_bits("before", 0..end, before)
        .expect("log_prob", end..end + rows, truth, &own);
    let first = end + rows + 5;
    if weighted { call.expect_bits("weights", first..first + rows, bits(&of_batch)) } else { call }
}

/// What each workgroup leaves in its slot.
fn expect_partials(
    call: Call,
    subject: &Subject,
    shape: &Shape,
    groups: usize,
    batch: &[f32],
    factors: &[f32],
) -> Call {
    let (slot, features) = (subject.fused_layout.slot(), subject.flow.features);
    let mut call = call.bind("partials", vec![POISON; groups * slot]);
    for group in 0..groups {
        let taken = |values: &[f32], width: usize| -> Vec<f32> {
            values.chunks(shape.rows * width).skip(group).step_by(groups).flatten().copied().collect()
        };
        let (rows, factors) = (taken(batch, features), taken(factors, 1));
        let (truth, own) =
            (gradient_of::<f64>(subject, &rows, &factors), gradient_of::<f32>(subject, &rows, &factors));
        let mut padding = vec![true; slot];
        for tensor in &Layout::new(&subject.flow).tensors {
            let (packed, nowhere): (Vec<usize>, Vec<usize>) =
                tensor.range().partition(|&p| subject.fused_layout.slot_places()[p] != NOWHERE);
            assert!(nowhere.iter().all(|&p| truth[p] == 0.0), "{}", tensor.name);
            let places: Vec<usize> = packed
                .iter()
                .map(|&p| {
                    let place = subject.fused_layout.slot_places()[p] as usize;
                    padding[place] = false;
                    group * slot + place
                })
                .collect();
            let of = |values: &[f64]| packed.iter().map(|&p| values[p]).collect::<Vec<_>>();
            let own = from_wide::<f32>(&of(&own));
            call = call.expect(&format!("{group} {}", tensor.name), places, of(&truth), &own);
        }
        let zeros: Vec<usize> = (0..slot).filter(|&at| padding[at]).map(|at| group * slot + at).collect();
        // An LU layer and a mixture leave gradients beside their triangles, which are not read.
        let triangles =
            subject.flow.transforms.contains(&Transform::Lu) || subject.flow.base != Base::StandardNormal;
        call = if triangles {
            call.unchecked(zeros)
        } else {
            let count = zeros.len();
            call.expect_bits("padding", zeros, vec![0; count])
        };
    }
    call
}

pub fn fused_gradient() -> Case {
    let batches = [(60, 21, 13, 2), (45, 7, 38, 3), (1, 1, 0, 1)];
    let small = Subject::all();
    // Wide and long enough for large blocks.
    let large = Subject::new([5, 1], 1, &[50, 18], Activation::LeakyRelu, true);
    // Rows of the first, which has every kind of transform with parameters, have weights of their own.
    let calls: Vec<Call> = small
        .iter()
        .enumerate()
        .flat_map(|(at, subject)| batches.map(|batch| gradient_call(subject, batch, at == 0)))
        .chain([gradient_call(&large, (300, 261, 20, 4), false)])
        .collect();
    Case {
        kernel: &FUSED_GRADIENT,
        factor: 64.0,
        calls,
        changes: &[
            ("permute(state.first + row,", "permute(row,"),
            ("EPOCH_STREAM, state.epoch)", "EPOCH_STREAM, 0u)"),
            ("return 1.0 / f32(state.rows);", "return 1.0 / 20.0;"),
            (" * weight_unit(fused.rules, state.rows);", ";"),
            ("= row_weights[found];", "= row_weights[row];"),
            ("log_prob = select(weight * log_prob", "log_prob = select(log_prob"),
            ("-factor, ", "-1.0 / f32(state.rows), "),
            ("if counts {", "if true {"),
            ("all += sum_of_slices", "all = sum_of_slices"),
            ("sum += memory[at + slice * ROW_QUADS", "sum = memory[at + slice * ROW_QUADS"),
            ("kept_part(transform, quad, all)", "all"),
            ("QUADS + at.feature / 4u][at.feature % 4u] =", "QUADS][at.feature % 4u] ="),
            ("numbers[lane] = d_theta[4u * quad + lane];", "numbers[lane] = d_theta[lane];"),
            ("at.row * transform.transformed + at.place", "at.row * transform.transformed"),
            ("memory[AT_D_THETA + network * ROW_QUADS + quad] = vec4<f32>();", ""),
            ("task.finish.added = tile_of(network, layer + 1u) - task.destination;", ""),
            ("before = partials[at];", ""),
            ("% TEAMS * (TILES * TILE_SIZE)", "% 1u * (TILES * TILE_SIZE)"),
            ("slope_quad(memory[at - TO_ACTIVE])", "slope_quad(memory[at])"),
            ("first + local / TEAM_THREADS < count", "true"),
            ("transform.kind == COUPLING && transform.networks <= TEAMS", "transform.kind == COUPLING"),
            ("result = value * slope_quad(memory[at - TO_ACTIVE]);", "result = value;"),
            ("sum[1] + inputs * outputs.y", "sum[1] + inputs * outputs.x"),
            ("quads.q3 = memory[at + 3u];", "quads.q3 = memory[at + 2u];"),
            ("saved[input_at(next, group, quad)]", "saved[input_at(next, group, quad ^ 1u)]"),
            (
                "saved[place] = theta_quad(transform, at, numbers);",
                "saved[place] = theta_quad(transform, at, 0u).yxwz;",
            ),
            (
                "= output_quad(transform, k, quad / QUADS, quad % QUADS);",
                "= output_quad(transform, k, quad / QUADS, 0u);",
            ),
            ("sum += memory[source + row", "sum = memory[source + row"),
            ("vec4<f32>(row_factor(first + quad / QUADS)) - d_z * z", "-d_z * z"),
            ("d_z * shrink", "d_z"),
            ("lu_diagonal(transform, quad) - row_factor(row)", "lu_diagonal(transform, quad)"),
            ("select(delta, AT_LU, transform.kind == LU && layer == 0u)", "delta"),
            ("memory[AT_ROWS + quad] * lu_diagonal(transform, quad)", "memory[AT_ROWS + quad]"),
            ("let d_y = memory[AT_ROWS + quad] +", "let d_y ="),
            ("case PERMUTATION: { permute_rows(local, transform, true); }", ""),
            (
                "modelled_part(d_s, quad % QUADS), row < state.rows)",
                "modelled_part(d_s, quad % QUADS), true)",
            ),
            ("= modelled_part(d_s, quad % QUADS);", "= d_s;"),
            ("sum -= memory[AT_PULLED", "sum += memory[AT_PULLED"),
            ("memory[AT_D_Z + quad] += pulled;", "memory[AT_D_Z + quad] = pulled;"),
            ("counted_factor(first + row) * weight - memory", "weight - memory"),
            ("* centred_quad(k, row, quad) * diagonal;", "* centred_quad(k, row, quad);"),
            ("sum += along - memory[AT_TERMS + row * COMPONENTS + k];", "sum += along;"),
            ("for (var i = 4u * quad; i", "for (var i = 4u * quad + 4u; i"),
            ("let at = slot + component_at(k);", "let at = slot + component_at(0u);"),
            ("memory[AT_ROWS + quad] = memory[AT_D_Z + quad];", ""),
            ("select(0.0, row_factor(row), row < state.rows)", "row_factor(row)"),
            ("item / QUADS, item % QUADS), add)", "item / QUADS, item / QUADS), add)"),
        ],
    }
}

pub fn fused_sum() -> Case {
    let mut calls = Vec::new();
    let cases = [(3, 2, None), (2, 1, Some(1.5)), (1, 1, None), (5, 1, None), (2, 2, Some(0.0))];
    for (subject, (groups, norm_groups, weight)) in Subject::all().iter().zip(cases) {
        let (total, slot) = (subject.parameters.len(), subject.fused_layout.slot());
        let mut partials = vec![POISON; groups * slot];
        let partial = |group: usize| -> Vec<f32> {
            let places = subject.fused_layout.slot_places().iter();
            let partial = numbers(total, 1.0, 20 + group as u64);
            // What no slot has a place for is zero.
            places.zip(partial).map(|(&place, value)| if place == NOWHERE { 0.0 } else { value }).collect()
        };
        let gradients: Vec<Vec<f32>> = (0..groups).map(partial).collect();
        for (group, partial) in gradients.iter().enumerate() {
            for (&place, value) in subject.fused_layout.slot_places().iter().zip(partial) {
                if place != NOWHERE {
                    partials[group * slot + place as usize] = value.to_bits();
                }
            }
        }
        fn sums<R: Real>(gradients: &[Vec<f32>], norm_groups: usize, scale: f64) -> [Vec<R>; 2] {
            let mut gradient = vec![R::zero(); gradients[0].len()];
            let mut norms = vec![R::zero(); norm_groups];
            for (p, sum) in gradient.iter_mut().enumerate() {
                for partial in gradients {
                    *sum += R::from_wide(partial[p].into());
                }
                *sum *= R::from_wide(scale);
                norms[p / 256 % norm_groups] += *sum * *sum;
            }
            [gradient, norms]
        }
        // 300 rows of this weight, of all training rows with a mean weight of 1.25; none where no row counts.
        let (rows, batch) = (300, 305);
        let sum = rows as f64 * weight.unwrap_or(0.0);
        let scale = match weight {
            None => 1.0,
            Some(_) if sum > 0.0 => 1.25 * rows as f64 / sum,
            Some(_) => 0.0,
        };
        let truth = sums::<f64>(&gradients, norm_groups, scale);
        let own = sums::<f32>(&gradients, norm_groups, scale);
        let [gradient, norms] = truth;
        let rules = Rules {
            parameters: total as u32,
            norm_groups: norm_groups as u32,
            train_rows: 400,
            train_weight: 500.0,
            batch,
            ..Default::default()
        };
        let mut report = words(&TrainState { rows, ..Default::default() });
        report.resize(report.len() + batch as usize, POISON);
        report.extend(poisoned(&vec![weight.unwrap_or(0.0) as f32; rows as usize], batch as usize));
        let uniform = subject.fused_layout.uniform(&subject.flow, rules, groups);
        calls.push(
            Call::new(format!("{groups} slots of {total}:"), &uniform, [norm_groups as u32, 1, 1])
                .constants(&[("WEIGHTED", weight.is_some().into())])
                .bind("report", report)
                .bind("slot_places", subject.fused_layout.slot_places().to_vec())
                .bind("partials", partials)
                .bind("gradient", vec![POISON; total + norm_groups + 9])
                .expect("", 0..total, gradient, &own[0])
                .expect("norms", total..total + norm_groups, norms, &own[1]),
        );
    }
    Case {
        kernel: &FUSED_SUM,
        factor: 8.0,
        calls,
        changes: &[
            ("partial < fused.groups", "partial + 1u < fused.groups"),
            ("squares += sum * sum;", "squares += sum;"),
            ("let at = slot_places[p];", "let at = p;"),
            ("at != NOWHERE && partial", "partial"),
            ("sum *= scale;", ""),
            ("row < report.before.rows; row", "row < 256u; row"),
            ("* total), total > 0.0)", "* total), true)"),
            (
                "gradient[fused.rules.parameters + group.x] = total;",
                "gradient[fused.rules.parameters] = total;",
            ),
            ("let slot = 4u * fused.slot_quads;", "let slot = fused.slot_quads;"),
        ],
    }
}

/// Parameters and both moments after the update that follows a situation.
fn updated<R: Real>(situation: &Situation, [gradient, parameters, m, v]: &[Vec<f32>; 4]) -> [Vec<R>; 3] {
    let ([correction1, correction2, learning_rate, clip, ..], halted) = situation.advance::<R>();
    let progress = AdamState { step: 0, correction1, correction2, learning_rate, clip, halted };
    let mut result = [real(parameters), real(m), real(v)];
    let [parameters, m, v] = &mut result;
    cpu_adam(&Rule::new(&ADAM), &progress, &real(gradient), parameters, m, v);
    result
}

pub fn fused_adam() -> Case {
    let situations = [
        USUAL,
        Situation { label: "300 rows", rows: 300, train_rows: 700, batch: 300, first: 0, ..USUAL },
        Situation { label: "a gradient that is not clipped", squares: 0.1, step: 3, ..USUAL },
        Situation { label: "halted before", halted: true, ..USUAL },
        Situation { label: "a NaN loss", bad_row: Some(f32::NAN), ..USUAL },
        Situation { label: "an infinite gradient", bad_square: Some(f32::INFINITY), ..USUAL },
    ];
    let mut calls = Vec::new();
    let subjects = Subject::all();
    for (at, situation) in situations.iter().enumerate() {
        let subject = &subjects[at % subjects.len()];
        let total = subject.parameters.len();
        let of = |what: u64, limit| numbers(total, limit, what + at as u64);
        let squares = of(30, 1.0).iter().map(|value| value * value).collect();
        let values = [of(40, 2.0), of(50, 1.0), of(60, 0.5), squares];
        let (truth, own) = (updated::<f64>(situation, &values), updated::<f32>(situation, &values));
        let rules = Rules { parameters: total as u32, ..situation.rules() };
        let uniform = subject.fused_layout.uniform(&subject.flow, rules, 1);
        let mut outcome = words(&situation.before());
        outcome.extend(poisoned(&situation.log_prob(), situation.rows + 300));
        let norms = situation.norms();
        let places = subject.fused_layout.places();
        let gradient = [&values[0][..], &norms].concat();
        let call = Call::new(format!("{}:", situation.label), &uniform, [2, 1, 1])
            .bind("report", outcome)
            .bind("places", places.as_flattened().to_vec())
            .values("gradient", &gradient, gradient.len() + 300)
            .bind("state", words(&situation.before()));
        let mut call = situation.expect_state(call);
        for (at, name) in ["parameters", "moment1", "moment2"].into_iter().enumerate() {
            call = call.values(name, &values[at + 1], total + 300).expect(
                "",
                0..total,
                truth[at].clone(),
                &own[at],
            );
        }
        call = call.bind("packed", vec![POISON; subject.fused_layout.len()]);
        if !situation.advance::<f64>().1 {
            let packed: Vec<usize> = (0..total).filter(|&p| places[p][0] != NOWHERE).collect();
            // A bias has one copy.
            let weights = packed.iter().copied().filter(|&p| places[p][0] != places[p][1]).collect();
            for (copy, (name, which)) in
                [("natural", packed), ("transposed", weights)].into_iter().enumerate()
            {
                call = call.expect(
                    name,
                    which.iter().map(|&p| places[p][copy] as usize),
                    which.iter().map(|&p| truth[0][p]).collect(),
                    &which.iter().map(|&p| own[0][p]).collect::<Vec<_>>(),
                );
            }
        }
        calls.push(call);
    }
    Case {
        kernel: &FUSED_ADAM,
        factor: 4.0,
        calls,
        changes: &[
            ("i < rules.norm_groups; i += 256u", "i + 1u < rules.norm_groups; i += 256u"),
            ("i < report.before.rows; i += 256u", "i < min(report.before.rows, 256u); i += 256u"),
            ("let nll = -sum_workgroup", "let nll = sum_workgroup"),
            ("if update.halted == 1u {", "if false {"),
            ("packed[at.y] = updated.x;", ""),
            ("if at.x != NOWHERE {", "{ let at = min(at, vec2<u32>(1u));"),
            ("packed[at.x] = updated.x;", ""),
            ("let at = places[p];", "let at = places[0];"),
            ("squares += gradient[rules.parameters + i];", "squares += gradient[i];"),
            (
                "advanced(rules, report.before, squared_norm, nll)",
                "advanced(rules, report.before, nll, squared_norm)",
            ),
        ],
    }
}
