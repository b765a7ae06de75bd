//! `shaders/layered/coupling.wgsl`, `shaders/layered/first_layer_backward.wgsl` and `shaders/shared/bijector/affine.wgsl` against
//! `src/cpu/reference/linear.rs`, then `src/cpu/reference/coupling.rs`.

use moonflow::cpu::Real;
use moonflow::cpu::reference::coupling::{
    coupling_backward as cpu_backward, coupling_forward as cpu_forward, coupling_input_backward,
    coupling_inverse as cpu_inverse,
};
use moonflow::flow::Activation;
use moonflow::gpu::kernel::{COUPLING_FORWARD, COUPLING_INVERSE, FIRST_LAYER_BACKWARD, Kernel};
use moonflow::gpu::plan::grid;
use moonflow::gpu::uniforms;

use super::harness::{Call, Case, POISON, bits, poisoned, random, real};
use super::layer::{Factor, Form, Place, Setup, TILES, order, pick};

/// (rows, capacity, hidden width, features): features that fill a thin tile in part, and ones that take several.
const SIZES: [(usize, usize, usize, usize); 9] = [
    (3, 5, 2, 3),
    (65, 70, 33, 12),
    (130, 133, 17, 33),
    (1, 1, 1, 2),
    (63, 64, 64, 5),
    (64, 64, 16, 2),
    (33, 40, 5, 150),
    (7, 64, 65, 9),
    (64, 65, 4, 8),
];

/// Activation and tile: those so thin that a thread can hold two of them, and one that is not. The pipelines that find
/// most mistakes soonest come first.
const PIPELINES: [(Activation, usize); 4] =
    [(Activation::Silu, 1), (Activation::Relu, 0), (Activation::Relu, 2), (Activation::Tanh, 3)];

/// The last layer of both networks with the coupling behind it.
struct Coupling {
    layer: Setup,
    /// Whether log_det begins with it.
    begins: bool,
    bound: f32,
    rows: Vec<f32>,
    log_dets: Vec<f32>,
}

impl Coupling {
    /// Every size with every pipeline; both parities and both ends in alternation.
    fn all() -> impl Iterator<Item = Self> {
        (0..PIPELINES.len())
            .flat_map(|turn| SIZES.into_iter().enumerate().map(move |(at, size)| Self::new(at, turn, size)))
    }

    fn new(at: usize, turn: usize, (rows, capacity, hidden, features): (usize, usize, usize, usize)) -> Self {
        let parity = (at + turn) % 2;
        let (activation, tile) = PIPELINES[turn];
        let mut layer = Setup::new(
            (rows, capacity, hidden, features),
            Form::separate(Place::Last),
            activation,
            parity,
            TILES[tile],
        );
        // Now and then the log-scale is exactly the bias, so that no rounding of its sum hides the bijector's own.
        let exact = at.is_multiple_of(3);
        for (network, weight) in layer.weight.iter_mut().enumerate() {
            weight
                .iter_mut()
                .for_each(|weight| *weight *= if exact && network == 0 { 0.0 } else { 1.0 / hidden as f32 });
        }
        // Mostly positive, so that log_det is no small difference of large sums, and some far into saturation.
        for (at, bias) in layer.bias[0].iter_mut().enumerate().filter(|(_, bias)| **bias != 0.0) {
            *bias = if at % 7 == 6 { 12.0 * *bias } else { *bias + 1.0 };
        }
        let seed = (rows + features + 2 * turn) as u64;
        Self {
            begins: (at + turn).is_multiple_of(3),
            bound: if turn.is_multiple_of(2) { 2.0 } else { 0.75 },
            rows: random(rows * features, 3.0, 3000 + seed),
            log_dets: random(rows * features, 3.0, 4000 + seed),
            layer,
        }
    }

    /// Values, log_det of each feature, and raw log-scales.
    fn transform<R: Real>(&self, twin: Transform<R>) -> [Vec<R>; 3] {
        let [log_scale, shift] = [0, 1].map(|network| self.layer.forward::<R>(network));
        let rows = real::<R>(&self.rows);
        let mut values = vec![R::nan(); rows.len()];
        let mut log_dets = if self.begins { vec![R::zero(); rows.len()] } else { real(&self.log_dets) };
        let features = self.layer.features();
        // A row of which one feature alone counts yields log_det of that feature.
        for (feature, kept) in self.layer.mask.iter().enumerate().filter(|(_, kept)| !**kept) {
            assert!(!kept);
            let column =
                |values: &[R]| values.iter().skip(feature).step_by(features).copied().collect::<Vec<_>>();
            let mut log_det = column(&log_dets);
            let mut value = log_det.clone();
            let bound = R::from_wide(self.bound.into());
            let [x, o, t] = [&rows, &log_scale, &shift].map(|values| column(values));
            twin(bound, &[false], &x, &o, &t, &mut value, &mut log_det);
            for row in 0..x.len() {
                values[row * features + feature] = value[row];
                log_dets[row * features + feature] = log_det[row];
            }
        }
        for (at, value) in values.iter_mut().enumerate().filter(|(at, _)| self.layer.mask[at % features]) {
            *value = rows[at];
        }
        [values, log_dets, log_scale]
    }

    fn call(&self, truth: Transform<f64>, single: Transform<f32>) -> Call {
        let layer = &self.layer;
        let features = layer.features();
        let size = layer.capacity * features;
        let uniform =
            uniforms::Layer { begins: u32::from(self.begins), bound: self.bound, ..layer.uniform() };
        let groups = layer.forward_groups(layer.kept().max(features - layer.kept()), 1);
        let [values, log_dets, raw] = self.transform(truth);
        let [values_single, log_dets_single, raw_single] = self.transform(single);
        let all = 0..layer.rows * features;
        let transformed = layer.used_outputs();
        let kept = &layer.mask;
        let before = if self.begins { vec![] } else { self.log_dets.clone() };
        layer
            .call(&uniform, groups)
            .values("rows", &self.rows, size)
            .bind("destination", vec![POISON; size])
            .expect(
                "transformed",
                layer.plane(0, features, &transformed),
                pick(&values, &transformed),
                &pick(&values_single, &transformed),
            )
            .expect_bits("kept", layer.plane(0, features, kept), bits(&pick(&self.rows, kept)))
            .values("log_dets", &before, size)
            .expect("", all, log_dets, &log_dets_single)
            .bind("saved", vec![POISON; size])
            .expect(
                "",
                layer.plane(0, features, &transformed),
                pick(&raw, &transformed),
                &pick(&raw_single, &transformed),
            )
    }
}

/// [`cpu_forward`] or [`cpu_inverse`].
type Transform<R> = fn(R, &[bool], &[R], &[R], &[R], &mut [R], &mut [R]);

fn forward_case(
    kernel: &'static Kernel,
    truth: Transform<f64>,
    single: Transform<f32>,
    changes: &'static [(&'static str, &'static str)],
) -> Case {
    let calls = Coupling::all().map(|coupling| coupling.call(truth, single)).collect();
    Case { kernel, factor: 4.0, calls, changes }
}

pub fn coupling_forward() -> Case {
    forward_case(
        &COUPLING_FORWARD,
        cpu_forward,
        cpu_forward,
        &[
            ("(x - theta[1]) * exp_accurate(-s), -s)", "(x - theta[1]) * exp_accurate(-s), s)"),
            ("(x - theta[1]) * exp_accurate(-s), -s)", "(x - theta[1]) * exp_accurate(s), -s)"),
            ("(x - theta[1]) * exp_accurate(-s), -s)", "x * exp_accurate(-s) - theta[1], -s)"),
            ("bound * tanh_stable(raw / bound)", "tanh_stable(raw)"),
            ("if a < 0.3 {", "if a < 0.7 {"),
            ("n * 0.693359375", "n * 0.69335"),
            ("order[layer.order + layer.kept + out /", "order[layer.order + out /"),
            ("order[layer.order + layer.kept + out /", "order[layer.kept + out /"),
            ("log_dets[index] = value;", "log_dets[index] += value;"),
            ("log_dets[index] += value;", "log_dets[index] = value;"),
            ("log_dets[index] = 0.0;", ""),
            ("index] = theta[k];", "index] = theta[1u];"),
            ("destination[index] = rows[index];", ""),
            ("row < extent.rows && out < layer.outputs", "row < layer.capacity && out < layer.outputs"),
            ("row < extent.rows && place < layer.kept", "row < layer.capacity && place < layer.kept"),
            ("row < extent.rows && place < layer.kept", "row < extent.rows && place < 4u"),
            ("parameters[bias_index(0u, out)]", "parameters[bias_index(1u, out)]"),
            ("+ parameters[bias_index(1u, out)],", ","),
            ("forward_product(local, 1u, first_row, first)", "forward_product(local, 0u, first_row, first)"),
            ("activate(ACTIVATION, h.z)", "h.z"),
            ("let first = group.x * TILE_COLUMNS;", "let first = 0u;"),
        ],
    )
}

pub fn coupling_inverse() -> Case {
    forward_case(
        &COUPLING_INVERSE,
        cpu_inverse,
        cpu_inverse,
        &[
            ("z * exp_accurate(s) + theta[1], s)", "z * exp_accurate(s) + theta[1], -s)"),
            ("z * exp_accurate(s) + theta[1], s)", "z * exp_accurate(-s) + theta[1], s)"),
            ("z * exp_accurate(s) + theta[1], s)", "(z + theta[1]) * exp_accurate(s), s)"),
            ("couple(group, local, true);", "couple(group, local, false);"),
            ("if inverse {", "if !inverse {"),
        ],
    )
}

/// The first layer of both networks backward, and the coupling before them.
struct Backward {
    layer: Setup,
    /// The mask of the coupling before.
    before: Vec<bool>,
    /// Whether there is a coupling before.
    passes: bool,
    /// Whether its bijector has no dispatch of its own.
    through: bool,
    factor: Factor,
    bound: f32,
    raw: Vec<f32>,
    carried: Vec<f32>,
}

impl Backward {
    fn all() -> impl Iterator<Item = Self> {
        (0..PIPELINES.len())
            .flat_map(|turn| SIZES.into_iter().enumerate().map(move |(at, size)| Self::new(at, turn, size)))
    }

    fn new(at: usize, turn: usize, (rows, capacity, hidden, features): (usize, usize, usize, usize)) -> Self {
        let parity = (at + turn) % 2;
        let size = (rows, capacity, features, hidden);
        let form = [Form::separate(Place::First), Form::joint(Place::First, 1)][usize::from(turn == 1)];
        let layer = Setup::new(size, form, Activation::Relu, parity, TILES[PIPELINES[turn].1]);
        let seed = (rows + features + 2 * turn) as u64;
        let mut raw: Vec<f32> =
            random(rows * features, 3.0, 5000 + seed).iter().map(|value| value + 2.0).collect();
        for value in raw.iter_mut().skip(6).step_by(7) {
            *value *= 12.0;
        }
        // The usual opposite, or a mask that has features in common with this one's.
        let before = |feature: usize| {
            if (turn + at / 2).is_multiple_of(2) { feature % 2 != parity } else { feature % 3 == 1 }
        };
        Self {
            layer: layer.split([1, 3][(at + turn) % 2]),
            before: (0..features).map(before).collect(),
            passes: at % 4 != 1 || turn % 2 == 1,
            through: turn != 1,
            factor: [Factor::Mean, Factor::Mean, Factor::Weighted, Factor::Score][turn],
            bound: if turn.is_multiple_of(2) { 2.0 } else { 0.75 },
            raw,
            carried: random(rows * features, 1.0, 6000 + seed),
        }
    }

    /// What is carried on, and through a bijector d_raw and d_shift.
    fn backward<R: Real>(&self) -> Vec<Vec<R>> {
        let layer = &self.layer;
        let mut d_z = real::<R>(&self.carried);
        for network in 0..layer.form.networks {
            coupling_input_backward(&layer.mask, &layer.backward_input::<R>(network), &mut d_z);
        }
        if !self.through {
            return vec![d_z];
        }
        let nan = || vec![R::nan(); d_z.len()];
        let (mut d_log_scale, mut d_shift, mut d_x) = (nan(), nan(), nan());
        cpu_backward(
            R::from_wide(self.bound.into()),
            &self.factor.of(layer.rows),
            &self.before,
            &d_z,
            &real(&layer.source[0]),
            &real(&self.raw),
            &mut d_log_scale,
            &mut d_shift,
            &mut d_x,
        );
        vec![d_x, d_log_scale, d_shift]
    }

    fn call(&self) -> Call {
        let layer = &self.layer;
        let features = layer.features();
        let size = layer.capacity * features;
        let tile = layer.tile;
        let others = if self.through { features - layer.kept() } else { 0 };
        let tiles = tile.across(layer.kept().max(others)) * tile.down(layer.capacity);
        let uniform = uniforms::Layer {
            through_bound: self.bound,
            through: 2 * features as u32,
            input_groups: if self.passes { tiles } else { 0 },
            factors: 3 * size as u32,
            ..layer.uniform()
        };
        let transformed: Vec<bool> = self.before.iter().map(|kept| !kept).collect();
        let every = vec![true; features];
        let mut d_coupling = poisoned(&self.carried, size);
        d_coupling.resize(3 * size, POISON);
        d_coupling.extend(self.factor.tail(layer.rows, layer.capacity));
        let mut constants = layer.constants();
        constants.extend([self.factor.constant(), ("THROUGH", u32::from(self.through))]);
        let mut call = layer
            .call(&uniform, grid((uniform.input_groups + layer.weight_groups()) as usize))
            .constants(&constants)
            .bind("order", order(&[&self.before, &layer.mask]))
            .bind("source", layer.planes(&layer.source[..1], features, &every))
            .bind("d_output", layer.results(&layer.d_output))
            .bind("saved", layer.planes(std::slice::from_ref(&self.raw), features, &transformed))
            .bind("d_coupling", d_coupling);
        if self.passes {
            let parts = self.backward::<f64>().into_iter().zip(self.backward::<f32>());
            // Without a bijector on the way, other gradients stay where they are.
            let carried = if self.through { &every } else { &layer.mask };
            for (plane, ((truth, single), used)) in
                parts.zip([carried, &transformed, &transformed]).enumerate()
            {
                let places = layer.plane(plane, features, used);
                call = call.expect(
                    ["", "raw", "shift"][plane],
                    places,
                    pick(&truth, used),
                    &pick(&single, used),
                );
            }
        }
        if self.factor == Factor::Score {
            return call.bind("partials", vec![POISON; layer.splits * layer.total]);
        }
        layer.expect_partials(call)
    }
}

pub fn first_layer_backward() -> Case {
    Case {
        kernel: &FIRST_LAYER_BACKWARD,
        factor: 4.0,
        calls: Backward::all().map(|backward| backward.call()).collect(),
        changes: &[
            ("-d_z * z - d_log_det", "-d_z * z + d_log_det"),
            ("-d_z * z - d_log_det", "d_z * z - d_log_det"),
            ("d_s * tanh_slope(theta[0] / bound), -d_x)", "d_s, -d_x)"),
            ("d_s * tanh_slope(theta[0] / bound), -d_x)", "d_s * tanh_slope(theta[0] / bound), d_x)"),
            ("exp_accurate(-log_scale(theta[0], bound))", "exp_accurate(log_scale(theta[0], bound))"),
            ("return 1.0 / f32(extent.rows);", "return 1.0 / f32(layer.capacity);"),
            ("return d_coupling[layer.factors + row];", "return 1.0 / f32(extent.rows);"),
            ("return -1.0;", "return 1.0;"),
            ("        return 0u;\n    }\n    let tiles_x", "    }\n    let tiles_x"),
            ("d_coupling[index] = d_z;", "d_coupling[index] = 0.0;"),
            ("= gradient.d_theta[k];", "= gradient.d_theta[0];"),
            ("d_coupling[(1u + k) * plane + index] = gradient", "d_coupling[plane + index] = gradient"),
            ("if THROUGH == 0u ||", "if THROUGH == 1u ||"),
            (
                "order[layer.through + layer.features + feature]",
                "order[layer.order + layer.features + feature]",
            ),
            ("order[layer.through + layer.features + feature] == 1u", "false"),
            ("tile = add_input_product(tile, local, 1u, first_row, first);", ""),
            ("add_input_product(tile, local, 1u,", "add_input_product(tile, local, 0u,"),
            ("if NETWORKS == 2u {", "if true {"),
            ("d_coupling[row * layer.features + feature] + values[j]", "values[j]"),
            ("order[layer.order + layer.kept + place]", "order[layer.order + place]"),
            ("row < extent.rows && place < transformed", "row < extent.rows && place < 4u"),
            ("max(layer.kept, transformed)", "layer.kept"),
            ("max(layer.kept, transformed)", "transformed"),
            ("row < extent.rows && column + j < layer.inputs", "column + j < layer.inputs"),
            ("return order[layer.order + k];", "return k;"),
            ("weight_gradient(local, number - layer.input_groups);", "weight_gradient(local, number);"),
        ],
    }
}
