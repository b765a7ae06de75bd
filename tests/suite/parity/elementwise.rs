//! `shaders/layered/elementwise.wgsl`, `elementwise_backward.wgsl` and the bijectors' texts against
//! `src/cpu/reference/coupling.rs` and `spline.rs`.

use moonflow::cpu::Real;
use moonflow::cpu::reference::coupling::{coupling_backward, coupling_forward, coupling_inverse};
use moonflow::cpu::reference::spline::{spline_backward, spline_forward, spline_inverse};
use moonflow::flow::Bijector;
use moonflow::gpu::kernel::{ELEMENTWISE_BACKWARD, ELEMENTWISE_FORWARD, ELEMENTWISE_INVERSE, Kernel};
use moonflow::gpu::plan::groups_of_256;
use moonflow::gpu::uniforms;

use super::harness::{Call, Case, POISON, bits, poisoned, random, real};
use super::layer::{Factor, order, pick};

/// (rows, capacity, features): one and several transformed features, and several workgroups.
const SIZES: [(usize, usize, usize); 5] = [(130, 133, 5), (3, 5, 2), (1, 1, 3), (64, 64, 33), (65, 70, 2)];

/// Each is a pipeline of its own. The largest number of bins, and the least.
const BIJECTORS: [Bijector; 4] = [
    Bijector::Affine { bound: 1.5 },
    Bijector::Spline { bins: 8, bound: 3.0 },
    Bijector::Spline { bins: 2, bound: 0.75 },
    Bijector::Spline { bins: 64, bound: 4.0 },
];

/// Rows, and θ for each of their transformed features.
struct Setup {
    bijector: Bijector,
    rows: usize,
    capacity: usize,
    features: usize,
    mask: Vec<bool>,
    begins: bool,
    factor: Factor,
    values: Vec<f32>,
    log_dets: Vec<f32>,
    /// [rows, T · P].
    theta: Vec<f32>,
    d_z: Vec<f32>,
}

impl Setup {
    fn all() -> impl Iterator<Item = Self> {
        BIJECTORS.into_iter().enumerate().flat_map(|(turn, bijector)| {
            SIZES.into_iter().enumerate().map(move |(at, size)| Self::new(at + turn, bijector, size))
        })
    }

    fn new(at: usize, bijector: Bijector, (rows, capacity, features): (usize, usize, usize)) -> Self {
        // Neighbours, so that places and features differ.
        let mask: Vec<bool> = (0..features).map(|feature| feature % 3 == at % 2).collect();
        let transformed = mask.iter().filter(|kept| !**kept).count();
        let numbers = rows * transformed * bijector.parameters();
        let seed = (rows + 7 * features + at) as u64;
        let affine = matches!(bijector, Bijector::Affine { .. });
        let mut theta = random(numbers, if affine { 3.0 } else { 1.0 }, 100 + seed);
        if affine {
            // Now and then far into saturation.
            theta.iter_mut().step_by(14).for_each(|value| *value *= 10.0);
        }
        Self {
            bijector,
            rows,
            capacity,
            features,
            mask,
            begins: at.is_multiple_of(2),
            factor: Factor::Mean,
            // Some of them beyond the bound.
            values: random(rows * features, 1.3 * f64::from(bijector.bound()), 200 + seed),
            log_dets: random(rows * features, 3.0, 300 + seed),
            theta,
            d_z: random(rows * features, 1.0, 400 + seed),
        }
    }

    fn transformed(&self) -> Vec<bool> {
        self.mask.iter().map(|kept| !kept).collect()
    }

    /// Places of transformed features, in the order of θ.
    fn places(&self) -> Vec<usize> {
        let all: Vec<usize> = (0..self.rows * self.features).collect();
        pick(&all, &self.transformed())
    }

    fn call(&self, groups: [u32; 3]) -> Call {
        let Self { rows, capacity, features, bijector, .. } = self;
        let uniform = uniforms::Layer {
            capacity: *capacity as u32,
            features: *features as u32,
            order: 4 * *features as u32,
            kept: self.mask.iter().filter(|kept| **kept).count() as u32,
            begins: u32::from(self.begins),
            bound: bijector.bound(),
            factors: (capacity * features) as u32,
            ..Default::default()
        };
        Call::new(format!("{bijector:?}, {rows} of {capacity} rows of {features}:"), &uniform, groups)
            .constants(&bijector.constants())
            .enlarging(roundings(*bijector))
            .record("extent", &uniforms::Extent { rows: *rows as u32, first: 9 })
            .bind("order", order(&[&self.mask]))
    }

    /// Values and log_dets at transformed features.
    fn results<R: Real>(&self, inverse: bool) -> [Vec<R>; 2] {
        let theta = real::<R>(&self.theta);
        let of = |(place, theta): (usize, &[R])| {
            let [value, before] =
                [&self.values, &self.log_dets].map(|values| R::from_wide(values[place].into()));
            let [result, log_det] = transform(self.bijector, inverse, value, theta);
            [result, if self.begins { log_det } else { before + log_det }]
        };
        let thetas = theta.chunks_exact(self.bijector.parameters());
        let results: Vec<[R; 2]> = self.places().into_iter().zip(thetas).map(of).collect();
        [0, 1].map(|which| results.iter().map(|result| result[which]).collect())
    }

    fn transforming(&self, inverse: bool) -> Call {
        let size = self.capacity * self.features;
        let all: Vec<usize> = (0..self.rows * self.features).collect();
        let kept = pick(&all, &self.mask);
        let [values, log_dets] = self.results::<f64>(inverse);
        let [values_single, log_dets_single] = self.results::<f32>(inverse);
        let before = if self.begins { vec![] } else { self.log_dets.clone() };
        let kept_log_dets =
            if self.begins { vec![0; kept.len()] } else { bits(&pick(&self.log_dets, &self.mask)) };
        self.call(groups_of_256(size))
            .values("rows", &self.values, size)
            .values("theta", &self.theta, self.theta.len() / self.rows * self.capacity)
            .bind("destination", vec![POISON; size])
            .expect("transformed", self.places(), values, &values_single)
            .expect_bits("kept", kept.clone(), bits(&pick(&self.values, &self.mask)))
            .values("log_dets", &before, size)
            .expect_logarithms("transformed", self.places(), log_dets, &log_dets_single)
            .expect_bits("kept", kept, kept_log_dets)
    }

    /// d_x and d_θ at transformed features.
    fn gradients<R: Real>(&self) -> [Vec<R>; 2] {
        let theta = real::<R>(&self.theta);
        let thetas = theta.chunks_exact(self.bijector.parameters());
        let (mut d_x, mut d_theta) = (Vec::new(), Vec::new());
        let factors = self.factor.of::<R>(self.rows);
        for (place, theta) in self.places().into_iter().zip(thetas) {
            let factor = factors[place / self.features];
            let [d_z, value] = [&self.d_z, &self.values].map(|values| R::from_wide(values[place].into()));
            let (x, numbers) = backward(self.bijector, factor, d_z, value, theta);
            d_x.push(x);
            d_theta.extend(numbers);
        }
        [d_x, d_theta]
    }

    fn backward_call(&self) -> Call {
        let size = self.capacity * self.features;
        let parameters = self.bijector.parameters();
        let numbers = self.theta.len() / self.rows * self.capacity;
        let mut theta = poisoned(&self.theta, numbers);
        if let Bijector::Affine { .. } = self.bijector {
            // The backward pass does not read the shift.
            theta.iter_mut().skip(1).step_by(parameters).for_each(|word| *word = POISON);
        }
        let [d_x, d_theta] = self.gradients::<f64>();
        let [d_x_single, d_theta_single] = self.gradients::<f32>();
        let mut call = self
            .call(groups_of_256(numbers / parameters))
            .values("source", &self.values, size)
            .bind("theta", theta)
            .constants(&[vec![self.factor.constant()], self.bijector.constants()].concat())
            .bind(
                "d_coupling",
                [poisoned(&self.d_z, size), self.factor.tail(self.rows, self.capacity)].concat(),
            )
            .expect("", self.places(), d_x, &d_x_single)
            .bind("d_theta", vec![POISON; numbers]);
        // Each kind of number on a scale of its own.
        let groups = match self.bijector {
            Bijector::Spline { bins, .. } => vec![0..bins, bins..2 * bins, 2 * bins..parameters],
            _ => (0..parameters).map(|number| number..number + 1).collect(),
        };
        for group in groups {
            let used: Vec<bool> = (0..parameters).map(|number| group.contains(&number)).collect();
            let places: Vec<usize> = (0..self.theta.len()).collect();
            call = call.expect(
                &format!("{group:?}"),
                pick(&places, &used),
                pick(&d_theta, &used),
                &pick(&d_theta_single, &used),
            );
        }
        call
    }
}

/// Roundings that add up in the result: a knot of a spline is a sum over bins.
fn roundings(bijector: Bijector) -> f64 {
    match bijector {
        Bijector::Spline { bins, .. } => bins as f64,
        _ => 1.0,
    }
}

/// A feature's result and log-determinant.
fn transform<R: Real>(bijector: Bijector, inverse: bool, value: R, theta: &[R]) -> [R; 2] {
    let bound = R::from_wide(bijector.bound().into());
    match bijector {
        Bijector::Spline { .. } if inverse => spline_inverse(value, theta, bound),
        Bijector::Spline { .. } => spline_forward(value, theta, bound),
        _ => {
            let twin = if inverse { coupling_inverse } else { coupling_forward };
            let (mut result, mut log_det) = ([R::nan()], [R::zero()]);
            twin(bound, &[false], &[value], &theta[..1], &theta[1..2], &mut result, &mut log_det);
            [result[0], log_det[0]]
        }
    }
}

/// d_x and d_θ of a feature; `value`: x or z, as the bijector reads it.
fn backward<R: Real>(bijector: Bijector, factor: R, d_z: R, value: R, theta: &[R]) -> (R, Vec<R>) {
    let bound = bijector.bound();
    if let Bijector::Spline { .. } = bijector {
        let theta: Vec<f64> = theta.iter().map(|number| number.wide()).collect();
        let d_log_det = -factor.wide();
        // A value off its place among the knots by what their sums are.
        let off = 0.125 * roundings(bijector) * R::epsilon().wide() * f64::from(bound);
        let x = value.wide() + off;
        let (d_x, d_theta) = spline_backward(d_z.wide(), d_log_det, x, &theta, bound.into());
        return (R::from_wide(d_x), d_theta.into_iter().map(R::from_wide).collect());
    }
    let [mut d_o, mut d_t, mut d_x] = [[R::nan()]; 3];
    coupling_backward(
        R::from_wide(bound.into()),
        &[factor],
        &[false],
        &[d_z],
        &[value],
        &theta[..1],
        &mut d_o,
        &mut d_t,
        &mut d_x,
    );
    (d_x[0], vec![d_o[0], d_t[0]])
}

fn transforming(
    kernel: &'static Kernel,
    inverse: bool,
    changes: &'static [(&'static str, &'static str)],
) -> Case {
    let calls = Setup::all().map(|setup| setup.transforming(inverse)).collect();
    Case { kernel, factor: 8.0, calls, changes }
}

pub fn elementwise_forward() -> Case {
    transforming(
        &ELEMENTWISE_FORWARD,
        false,
        &[
            ("(x - theta[1]) * exp_accurate(-s), -s)", "(x - theta[1]) * exp_accurate(-s), s)"),
            ("numbers[k] = theta[number * NUMBERS + k];", "numbers[k] = theta[number + k];"),
            ("number % transformed];", "number / layer.capacity];"),
            ("order[layer.order + layer.kept + number", "order[layer.order + number"),
            ("log_dets[index] = value;", "log_dets[index] += value;"),
            ("log_dets[index] += value;", "log_dets[index] = value;"),
            ("log_dets[index] = 0.0;", ""),
            ("destination[index] = rows[index];", ""),
            (
                "let row = number / transformed;\n    if row >= extent.rows {",
                "let row = number / transformed;\n    if row >= layer.capacity {",
            ),
            (
                "let row = number / layer.kept;\n    if row >= extent.rows {",
                "let row = number / layer.kept;\n    if row >= layer.capacity {",
            ),
            ("keep_feature(number - transformed);", "keep_feature(number);"),
            (
                "(LEAST + (1.0 - f32(BINS) * LEAST) * bin_fractions(theta, factors, k))",
                "bin_fractions(theta, factors, k)",
            ),
            ("select(corner.x, corner.y, inverse)", "corner.y"),
            ("const UNIT_SLOPE: f32 = 0.539742417;", "const UNIT_SLOPE: f32 = 0.54;"),
            ("1.0, end);", "1.001, end);"),
            ("return ln_accurate(ratio * ratio * piece.rise);", "return ln_accurate(ratio * piece.rise);"),
            ("bin.right = (*theta)[2u * BINS + k];", "bin.right = bin.left;"),
        ],
    )
}

pub fn elementwise_inverse() -> Case {
    transforming(
        &ELEMENTWISE_INVERSE,
        true,
        &[
            ("z * exp_accurate(s) + theta[1], s)", "z * exp_accurate(s) + theta[1], -s)"),
            ("if inverse {", "if !inverse {"),
            (
                "apply(thread_number(group, groups, local), true);",
                "apply(thread_number(group, groups, local), false);",
            ),
            ("select(corner.x, corner.y, inverse)", "corner.x"),
            ("if !(abs(z) < bound) {", "if false {"),
            ("let outer = left * rest - right * r;", "let outer = left * rest + right * r;"),
            ("-log_slope(piece_at(at", "log_slope(piece_at(at"),
        ],
    )
}

pub fn elementwise_backward() -> Case {
    let other = |factor| {
        let setup = move |setup: Setup| Setup { factor, ..setup }.backward_call();
        Setup::all().take(SIZES.len()).map(setup)
    };
    let all = Setup::all().map(|setup| setup.backward_call());
    // The largest number of bins, which takes longest to compile, comes last.
    let calls = [Factor::Weighted, Factor::Score].into_iter().flat_map(other).chain(all);
    Case {
        kernel: &ELEMENTWISE_BACKWARD,
        factor: 8.0,
        calls: calls.collect(),
        changes: &[
            ("-d_z * z - d_log_det", "-d_z * z + d_log_det"),
            ("return 1.0 / f32(extent.rows);", "return 1.0 / f32(layer.capacity);"),
            ("return d_coupling[layer.factors + row];", "return d_coupling[layer.factors];"),
            ("return -1.0;", "return 1.0;"),
            ("numbers[k] = theta[number * NUMBERS + k];", "numbers[k] = theta[number * SAVED + k];"),
            ("d_theta[number * NUMBERS + k] =", "d_theta[number + k * layer.capacity] ="),
            ("= gradient.d_theta[k];", "= gradient.d_theta[0];"),
            ("d_coupling[index] = gradient.d_x;", ""),
            ("order[layer.order + layer.kept + number", "order[layer.order + number"),
            ("if row >= extent.rows {", "if row >= layer.capacity {"),
            ("source[index], numbers", "source[number], numbers"),
            ("let d_rise = d_log_det / piece.rise;", "let d_rise = 0.0;"),
            ("2.0 * d_log_det / piece.steepness;", "d_log_det / piece.steepness;"),
            ("* (d - mean);", "* d;"),
            ("gradient.d_x = d_z;", "gradient.d_x = 0.0;"),
            ("vec2<f32>(-gradient.d_x, d_z)", "vec2<f32>(gradient.d_x, d_z)"),
            ("if k > number {", "if k >= number {"),
        ],
    }
}
