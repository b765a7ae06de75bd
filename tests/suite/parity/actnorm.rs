//! `shaders/layered/actnorm.wgsl` and `actnorm_backward.wgsl` against `src/cpu/actnorm.rs`.

use moonflow::cpu::Real;
use moonflow::cpu::actnorm::{
    actnorm_backward as cpu_backward, actnorm_forward as cpu_forward, actnorm_inverse as cpu_inverse,
};
use moonflow::cpu::reference::coupling::coupling_backward;
use moonflow::gpu::kernel::{ACTNORM_BACKWARD, ACTNORM_FORWARD, ACTNORM_INVERSE, Kernel};
use moonflow::gpu::plan::{groups_of_256, lanes};
use moonflow::gpu::uniforms;

use super::harness::{Call, Case, POISON, poisoned, random, real};
use super::layer::{Factor, order, pick};

/// Bound of the coupling before.
const BOUND: f32 = 1.5;
/// Parameters before the shifts, and between them and the log-scales.
const GAPS: (usize, usize) = (5, 2);

/// Rows, and an actnorm amid other parameters.
struct Setup {
    rows: usize,
    capacity: usize,
    features: usize,
    modelled: usize,
    splits: usize,
    factor: Factor,
    values: Vec<f32>,
    log_dets: Vec<f32>,
    shift: Vec<f32>,
    log_scale: Vec<f32>,
}

impl Setup {
    fn all() -> impl Iterator<Item = Self> {
        let sizes = [(3, 3, 1), (2, 2, 3), (5, 3, 2), (33, 33, 1), (70, 40, 2), (1, 1, 1)];
        sizes.into_iter().flat_map(|(features, modelled, splits)| {
            [(3, 5), (1, 1), (130, 133)].map(|(rows, capacity): (usize, usize)| {
                let seed = (rows + 3 * features) as u64;
                Self {
                    rows,
                    capacity,
                    features,
                    modelled,
                    splits: capacity.div_ceil(capacity.div_ceil(splits)),
                    factor: Factor::Mean,
                    values: random(rows * features, 3.0, seed),
                    log_dets: random(rows * features, 3.0, 100 + seed),
                    shift: random(modelled, 2.0, 200 + seed),
                    log_scale: random(modelled, 1.5, 300 + seed),
                }
            })
        })
    }

    fn total(&self) -> usize {
        GAPS.0 + 2 * self.modelled + GAPS.1 + 3
    }

    fn uniform(&self, begins: bool) -> uniforms::Layer {
        uniforms::Layer {
            weight: GAPS.0 as u32,
            bias: (GAPS.0 + self.modelled + GAPS.1) as u32,
            parameters: self.total() as u32,
            capacity: self.capacity as u32,
            features: self.features as u32,
            through: 4 * self.features as u32,
            through_bound: BOUND,
            rows_per_split: self.capacity.div_ceil(self.splits) as u32,
            begins: u32::from(begins),
            lanes: lanes(self.features),
            modelled: self.modelled as u32,
            factors: (3 * self.capacity * self.features) as u32,
            ..Default::default()
        }
    }

    fn call(&self, begins: bool, groups: [u32; 3]) -> Call {
        let mut parameters = vec![POISON; self.total()];
        for (values, start) in [(&self.shift, GAPS.0), (&self.log_scale, GAPS.0 + self.modelled + GAPS.1)] {
            for (to, value) in parameters[start..].iter_mut().zip(values) {
                *to = value.to_bits();
            }
        }
        let label = format!("{} of {} rows of {}:", self.rows, self.capacity, self.features);
        Call::new(label, &self.uniform(begins), groups)
            .record("extent", &uniforms::Extent { rows: self.rows as u32, first: 9 })
            .bind("parameters", parameters)
    }

    /// Values, and log_det of each feature.
    fn transformed<R: Real>(&self, twin: Twin<R>, begins: bool) -> [Vec<R>; 2] {
        let mut values = real::<R>(&self.values);
        let mut log_dets = if begins { vec![R::zero(); values.len()] } else { real(&self.log_dets) };
        twin(self.features, &real(&self.shift), &real(&self.log_scale), &mut values, &mut [R::zero()]);
        for feature in 0..self.modelled {
            // Of one feature alone, the log-determinant is that of the row.
            let mut log_det = [R::zero()];
            twin(
                1,
                &real(&self.shift[feature..][..1]),
                &real(&self.log_scale[feature..][..1]),
                &mut [],
                &mut log_det,
            );
            log_dets[feature..].iter_mut().step_by(self.features).for_each(|sum| *sum += log_det[0]);
        }
        [values, log_dets]
    }

    fn transforming(&self, begins: bool, truth: Twin<f64>, single: Twin<f32>) -> Call {
        let size = self.capacity * self.features;
        let [values, log_dets] = self.transformed(truth, begins);
        let [values_single, log_dets_single] = self.transformed(single, begins);
        let all = 0..self.rows * self.features;
        let before = if begins { vec![] } else { self.log_dets.clone() };
        self.call(begins, groups_of_256(size))
            .values("rows", &self.values, size)
            .bind("destination", vec![POISON; size])
            .expect("", all.clone(), values, &values_single)
            .values("log_dets", &before, size)
            .expect("", all, log_dets, &log_dets_single)
    }

    fn mask(&self) -> Vec<bool> {
        (0..self.features).map(|feature| feature % 2 == 0).collect()
    }

    fn d_z(&self) -> Vec<f32> {
        random(self.rows * self.features, 1.0, 77)
    }

    fn saved(&self) -> Vec<f32> {
        random(self.rows * self.features, 3.0, 78)
    }

    /// The gradient at the input, and for rows of a split those of the parameters: d_x, [shift, log-scale].
    fn backward<R: Real>(&self, rows: std::ops::Range<usize>) -> (Vec<R>, [Vec<R>; 2]) {
        let range = rows.start * self.features..rows.end * self.features;
        let mut z = real::<R>(&self.values[range.clone()]);
        let (shift, log_scale) = (real::<R>(&self.shift), real::<R>(&self.log_scale));
        cpu_forward(self.features, &shift, &log_scale, &mut z, &mut []);
        let mut d_x = real::<R>(&self.d_z()[range]);
        let [mut d_shift, mut d_log_scale] = [vec![R::nan(); self.modelled], vec![R::nan(); self.modelled]];
        let factors = self.factor.of::<R>(self.rows);
        let d_log_det: Vec<R> = factors[rows].iter().map(|&factor| -factor).collect();
        cpu_backward(&log_scale, &d_log_det, &z, &mut d_x, &mut d_shift, &mut d_log_scale, self.features);
        (d_x, [d_shift, d_log_scale])
    }

    /// The gradient through the coupling before: carried, of o and of t.
    fn through<R: Real>(&self) -> [Vec<R>; 3] {
        let (d_z, _) = self.backward::<R>(0..self.rows);
        let nan = || vec![R::nan(); d_z.len()];
        let [mut d_o, mut d_t, mut d_x] = [nan(), nan(), nan()];
        coupling_backward(
            R::from_wide(BOUND.into()),
            &self.factor.of(self.rows),
            &self.mask(),
            &d_z,
            &real(&self.values),
            &real(&self.saved()),
            &mut d_o,
            &mut d_t,
            &mut d_x,
        );
        [d_x, d_o, d_t]
    }

    fn backward_call(&self) -> Call {
        let size = self.capacity * self.features;
        let groups = [self.features.div_ceil(lanes(self.features) as usize) as u32, self.splits as u32, 1];
        let mut d_coupling = poisoned(&self.d_z(), size);
        d_coupling.resize(3 * size, POISON);
        d_coupling.extend(self.factor.tail(self.rows, self.capacity));
        let transformed: Vec<bool> = self.mask().iter().map(|kept| !kept).collect();
        let mut call = self
            .call(false, groups)
            .constants(&[self.factor.constant()])
            .values("source", &self.values, size)
            .bind("order", order(&[&self.mask()]))
            .values("saved", &self.saved(), size)
            .bind("d_coupling", d_coupling);
        let every = vec![true; self.features];
        let parts = self.through::<f64>().into_iter().zip(self.through::<f32>());
        for (plane, ((truth, single), used)) in parts.zip([&every, &transformed, &transformed]).enumerate() {
            let places: Vec<usize> = (0..self.rows * self.features)
                .filter(|at| used[at % self.features])
                .map(|at| plane * size + at)
                .collect();
            call = call.expect(["", "o", "t"][plane], places, pick(&truth, used), &pick(&single, used));
        }
        call = call.bind("partials", vec![POISON; self.splits * self.total()]);
        if self.factor == Factor::Score {
            return call;
        }
        let rows_per_split = self.capacity.div_ceil(self.splits);
        for split in 0..self.splits {
            let rows = (split * rows_per_split).min(self.rows)..((split + 1) * rows_per_split).min(self.rows);
            let (_, truth) = self.backward::<f64>(rows.clone());
            let (_, single) = self.backward::<f32>(rows);
            for (at, name) in ["shift", "log_scale"].into_iter().enumerate() {
                let start = split * self.total() + GAPS.0 + at * (self.modelled + GAPS.1);
                call = call.expect(
                    &format!("{split} {name}"),
                    start..start + self.modelled,
                    truth[at].clone(),
                    &single[at],
                );
            }
        }
        call
    }
}

/// [`cpu_forward`] or [`cpu_inverse`].
type Twin<R> = fn(usize, &[R], &[R], &mut [R], &mut [R]);

fn transforming(
    kernel: &'static Kernel,
    truth: Twin<f64>,
    single: Twin<f32>,
    changes: &'static [(&'static str, &'static str)],
) -> Case {
    let calls = Setup::all()
        .flat_map(|setup| [true, false].map(|begins| setup.transforming(begins, truth, single)))
        .collect();
    Case { kernel, factor: 4.0, calls, changes }
}

pub fn actnorm_forward() -> Case {
    transforming(
        &ACTNORM_FORWARD,
        cpu_forward,
        cpu_forward,
        &[
            ("value = (value - shift) * exp_accurate(-s);", "value = (value - shift) * exp_accurate(s);"),
            ("value = (value - shift) * exp_accurate(-s);", "value = value * exp_accurate(-s) - shift;"),
            ("log_det = -s;", "log_det = s;"),
            ("parameters[layer.bias + feature]", "parameters[layer.weight + feature]"),
            ("if feature < layer.modelled {", "if true {"),
            ("log_dets[index] += value;", "log_dets[index] = value;"),
            ("log_dets[index] = value;", "log_dets[index] += value;"),
            ("if row >= extent.rows {", "if row >= layer.capacity {"),
            ("normalise(group, groups, local, false);", "normalise(group, groups, local, true);"),
        ],
    )
}

pub fn actnorm_inverse() -> Case {
    transforming(
        &ACTNORM_INVERSE,
        cpu_inverse,
        cpu_inverse,
        &[
            ("value = value * exp_accurate(s) + shift;", "value = (value + shift) * exp_accurate(s);"),
            ("log_det = s;", "log_det = -s;"),
            ("normalise(group, groups, local, true);", "normalise(group, groups, local, false);"),
        ],
    )
}

pub fn actnorm_backward() -> Case {
    let of = |factor| {
        let setup = move |setup: Setup| Setup { factor, ..setup }.backward_call();
        Setup::all().map(setup)
    };
    let calls = [Factor::Mean, Factor::Weighted, Factor::Score].into_iter().flat_map(of);
    Case {
        kernel: &ACTNORM_BACKWARD,
        factor: 4.0,
        calls: calls.collect(),
        changes: &[
            ("vec2<f32>(-d_x, row", "vec2<f32>(d_x, row"),
            ("vec2<f32>(-d_x, row", "vec2<f32>(-d_z, row"),
            ("row_factor(row) - d_z * z", "-d_z * z"),
            ("return 1.0 / f32(extent.rows);", "return 1.0 / f32(layer.capacity);"),
            ("return d_coupling[layer.factors + row];", "return d_coupling[layer.factors];"),
            ("if FACTOR != SCORE && local", "if local"),
            ("let d_x = d_z * shrink;", "let d_x = d_z;"),
            ("(source[index] - shift) * shrink", "source[index] * shrink"),
            ("stride >= layer.lanes", "stride > layer.lanes"),
            ("partials[base + layer.bias + feature] = sums[local].y;", ""),
            ("let base = group.y * layer.parameters;", "let base = 0u;"),
            ("pass_through(row, feature, d_x);", "d_coupling[index] = d_x;"),
            ("group.x * layer.lanes + local % layer.lanes", "local % layer.lanes"),
            ("min(extent.rows, begin + layer.rows_per_split)", "extent.rows"),
        ],
    }
}
