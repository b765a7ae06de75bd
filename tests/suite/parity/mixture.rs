//! The kernels of `shaders/layered/mixture.wgsl` against `src/cpu/reference/mixture.rs`.

use std::ops::Range;

use moonflow::cpu::Real;
use moonflow::cpu::reference::mixture::Mixture;
use moonflow::gpu::kernel::{
    MIXTURE_BACKWARD, MIXTURE_DENSITY, MIXTURE_NOISE, MIXTURE_RESPONSIBILITIES, MIXTURE_WHITEN,
};
use moonflow::gpu::plan::{grid, groups_of_256, lanes};
use moonflow::gpu::uniforms;
use moonflow::random::{self, NORMAL_TABLE};

use super::harness::{Call, Case, POISON, bits, poisoned, random, real};
use super::layer::{Before, Factor, order};

/// Parameters before the mixture's, and behind them.
const GAPS: (usize, usize) = (5, 3);

/// Latent rows, and a mixture among other parameters.
struct Setup {
    rows: usize,
    capacity: usize,
    features: usize,
    modelled: usize,
    components: usize,
    splits: usize,
    factor: Factor,
    z: Vec<f32>,
    log_dets: Vec<f32>,
    /// In the order of the layout; what `lower` has beside its triangles is not a number.
    parameters: Vec<f32>,
}

/// Features, context and components: fewer components than lanes, more, and more features than a workgroup has threads.
const SIZES: [[usize; 3]; 8] =
    [[2, 0, 1], [3, 0, 4], [3, 1, 5], [5, 2, 3], [1, 0, 2], [7, 0, 9], [2, 0, 40], [300, 3, 2]];

impl Setup {
    fn all() -> impl Iterator<Item = Self> {
        SIZES.into_iter().flat_map(|[features, context, components]| {
            let few = features > 200;
            let rows: &[_] = if few { &[(3, 5)] } else { &[(3, 5), (1, 1), (70, 75)] };
            rows.iter()
                .map(move |&(rows, capacity)| Self::new([features, context, components], rows, capacity))
        })
    }

    fn new([features, context, components]: [usize; 3], rows: usize, capacity: usize) -> Self {
        let modelled = features - context;
        let seed = (rows + 10 * features + 100 * components) as u64;
        let of = |count: usize, limit: f64, what: u64| random(count, limit, 1000 * what + seed);
        let mut lower = of(components * modelled * modelled, 2.0 / (2.0 + modelled as f64), 4);
        for (at, entry) in lower.iter_mut().enumerate() {
            if at % modelled >= at / modelled % modelled {
                *entry = f32::from_bits(POISON);
            }
        }
        let parts = [
            of(components, 1.0, 1),
            // Where there are many components, most of them have no part in a row.
            of(components * modelled, if components > 32 { 20.0 } else { 1.5 }, 2),
            of(components * modelled, 0.6, 3),
            lower,
        ];
        Self {
            rows,
            capacity,
            features,
            modelled,
            components,
            splits: if capacity > 70 { 3 } else { 1 },
            factor: Factor::Mean,
            z: of(rows * features, 2.0, 5),
            // Mostly negative, as the base's log-density is, so that log p is no small difference.
            log_dets: of(rows * features, 1.0, 6).iter().map(|value| value - 0.8).collect(),
            parameters: parts.concat(),
        }
    }

    fn total(&self) -> usize {
        GAPS.0 + self.parameters.len() + GAPS.1
    }

    fn rows_per_split(&self) -> usize {
        self.capacity.div_ceil(self.splits)
    }

    fn uniform(&self) -> uniforms::Layer {
        uniforms::Layer {
            weight: GAPS.0 as u32,
            parameters: self.total() as u32,
            capacity: self.capacity as u32,
            features: self.features as u32,
            rows_per_split: self.rows_per_split() as u32,
            lanes: lanes(self.features.max(self.components)),
            modelled: self.modelled as u32,
            factors: (3 * self.capacity * self.features) as u32,
            components: self.components as u32,
            ..Default::default()
        }
    }

    fn parameter_words(&self) -> Vec<u32> {
        let mut words = vec![POISON; GAPS.0];
        words.extend(bits(&self.parameters));
        words.extend([POISON; GAPS.1]);
        words
    }

    fn call(&self, uniform: &uniforms::Layer, groups: [u32; 3]) -> Call {
        let Self { rows, capacity, features, modelled, components, .. } = self;
        let label =
            format!("{rows} of {capacity} rows of {modelled} of {features}, {components} components:");
        Call::new(label, uniform, groups)
            .record("extent", &uniforms::Extent { rows: *rows as u32, first: 9 })
            .bind("parameters", self.parameter_words())
    }

    /// Calls `of` with the mixture in precision `R`.
    fn with_mixture<R: Real, T>(&self, of: impl FnOnce(&Mixture<R>) -> T) -> T {
        let parameters = real::<R>(&self.parameters);
        of(&Mixture::new(&parameters, self.components, self.modelled))
    }

    fn latent<R: Real>(&self) -> Vec<Vec<R>> {
        self.z.chunks_exact(self.features).map(|row| real(&row[..self.modelled])).collect()
    }

    /// y of each component, row and feature in turn [K, rows, M].
    fn whitened<R: Real>(&self) -> Vec<R> {
        let size = self.modelled;
        self.with_mixture(|mixture: &Mixture<R>| {
            let of = |k: usize, z: &[R], i: usize| {
                (0..=i).fold(R::zero(), |sum, j| {
                    sum + mixture.factor(k, i, j) * (z[j] - mixture.mean[k * size + j])
                })
            };
            let rows = self.latent::<R>();
            let each = (0..self.components).flat_map(|k| rows.iter().map(move |z| (k, z)));
            each.flat_map(|(k, z)| (0..size).map(move |i| of(k, z, i))).collect()
        })
    }

    /// Where these lie.
    fn whitened_places(&self) -> impl Iterator<Item = usize> {
        let plane = self.capacity * self.modelled;
        let used = self.rows * self.modelled;
        (0..self.components).flat_map(move |k| k * plane..k * plane + used)
    }

    fn responsibility_places(&self) -> impl Iterator<Item = usize> {
        let first = self.components * self.capacity * self.modelled;
        let (capacity, rows) = (self.capacity, self.rows);
        (0..self.components).flat_map(move |k| first + k * capacity..first + k * capacity + rows)
    }

    fn whitened_len(&self) -> usize {
        self.components * self.capacity * (self.modelled + 1)
    }

    /// Responsibilities of components for each row times the row's factor [K, rows].
    fn responsibilities<R: Real>(&self) -> Vec<R> {
        let factors = self.factor.of::<R>(self.rows);
        let responsibilities = self.with_mixture(|mixture: &Mixture<R>| {
            self.latent::<R>().iter().map(|z| mixture.log_density(z).1).collect::<Vec<_>>()
        });
        let each = (0..self.components).flat_map(|k| (0..self.rows).map(move |row| (k, row)));
        each.map(|(k, row)| factors[row] * responsibilities[row][k]).collect()
    }

    fn log_det<R: Real>(&self) -> Vec<R> {
        let rows = self.log_dets.chunks_exact(self.features);
        rows.map(|row| real::<R>(row).into_iter().fold(R::zero(), |sum, log_det| sum + log_det)).collect()
    }

    fn log_prob<R: Real>(&self) -> Vec<R> {
        self.with_mixture(|mixture: &Mixture<R>| {
            let rows = self.latent::<R>();
            rows.iter()
                .zip(self.log_det::<R>())
                .map(|(z, log_det)| mixture.log_density(z).0 + log_det)
                .collect()
        })
    }

    /// The buffer that holds y, and nothing else yet.
    fn whitened_words(&self) -> Vec<u32> {
        let mut words = vec![POISON; self.whitened_len()];
        for (place, y) in self.whitened_places().zip(self.whitened::<f64>()) {
            words[place] = (y as f32).to_bits();
        }
        words
    }

    fn whiten_call(&self) -> Call {
        let size = self.capacity * self.features;
        self.call(&self.uniform(), groups_of_256(self.components * self.capacity * self.modelled))
            .values("source", &self.z, size)
            .bind("whitened", vec![POISON; self.whitened_len()])
            .expect("", self.whitened_places(), self.whitened(), &self.whitened::<f32>())
    }

    fn density_call(&self) -> Call {
        let uniform = self.uniform();
        let groups = (self.capacity * uniform.lanes as usize).div_ceil(256);
        self.call(&uniform, [groups as u32, 1, 1])
            .values("log_dets", &self.log_dets, self.capacity * self.features)
            .bind("log_prob", vec![POISON; self.capacity])
            .expect("", 0..self.rows, self.log_prob(), &self.log_prob::<f32>())
            .bind("log_det", vec![POISON; self.capacity])
            .expect("", 0..self.rows, self.log_det(), &self.log_det::<f32>())
            .bind("whitened", self.whitened_words())
    }

    fn responsibilities_call(&self) -> Call {
        let planes = vec![POISON; 3 * self.capacity * self.features];
        let tail = self.factor.tail(self.rows, self.capacity);
        // Differences of log-densities, each a sum of squares.
        self.density_call()
            .enlarging(16.0)
            .constants(&[self.factor.constant()])
            .bind("d_coupling", [planes, tail].concat())
            .bind("whitened", self.whitened_words())
            .expect(
                "responsibilities",
                self.responsibility_places(),
                self.responsibilities(),
                &self.responsibilities::<f32>(),
            )
    }

    /// The gradient at rows, zero at the context, and that of the parameters, of some rows.
    fn gradients<R: Real>(&self, rows: Range<usize>) -> [Vec<R>; 2] {
        let factors = self.factor.of::<R>(self.rows);
        self.with_mixture(|mixture: &Mixture<R>| {
            let mut gradient = vec![R::zero(); self.parameters.len()];
            let mut d_rows = Vec::new();
            for row in rows {
                let mut d_z = vec![R::zero(); self.features];
                let z = &self.latent::<R>()[row];
                mixture.backward(factors[row], z, &mut d_z[..self.modelled], &mut gradient);
                d_rows.extend(d_z);
            }
            [d_rows, gradient]
        })
    }

    fn backward_call(&self, passes: bool) -> Call {
        let size = self.capacity * self.features;
        let mut before = Before::new(self.rows, self.features, self.modelled, 78);
        before.z.clone_from(&self.z);
        let before = Before { factor: self.factor, ..before };
        let uniforms::Layer { through, through_bound, .. } = before.uniform(self.capacity);
        let input_groups = size.div_ceil(256);
        let of_split = self.components + (self.components * self.modelled * self.modelled).div_ceil(256);
        let uniform =
            uniforms::Layer { through, through_bound, input_groups: input_groups as u32, ..self.uniform() };
        let mut whitened = self.whitened_words();
        for (place, responsibility) in self.responsibility_places().zip(self.responsibilities::<f64>()) {
            whitened[place] = (responsibility as f32).to_bits();
        }
        // Sums over rows cancel.
        let call = self
            .call(&uniform, grid(input_groups + self.splits * of_split))
            .enlarging(16.0)
            .constants(&[("THROUGH", u32::from(passes)), self.factor.constant()])
            .values("source", &self.z, size)
            .bind("order", order(&[&before.mask]))
            .bind("saved", if passes { poisoned(&before.raw, size) } else { vec![POISON; 4] })
            .bind("whitened", whitened);
        let [truth, _] = self.gradients::<f64>(0..self.rows);
        let [single, _] = self.gradients::<f32>(0..self.rows);
        let held = vec![POISON; size];
        let call = before.expect(call, passes, (self.capacity, self.features), held, (&truth, &single));
        self.expect_partials(call)
    }

    fn expect_partials(&self, call: Call) -> Call {
        let mut call = call.bind("partials", vec![POISON; self.splits * self.total()]);
        if self.factor == Factor::Score {
            return call;
        }
        let (count, numbers) = (self.components, self.components * self.modelled);
        let starts = [0, count, count + numbers, count + 2 * numbers, self.parameters.len()];
        for split in 0..self.splits {
            let rows = [split, split + 1].map(|split| (split * self.rows_per_split()).min(self.rows));
            let [_, truth] = self.gradients::<f64>(rows[0]..rows[1]);
            let [_, single] = self.gradients::<f32>(rows[0]..rows[1]);
            for (name, ends) in ["logits", "mean", "log_diagonal", "lower"].into_iter().zip(starts.windows(2))
            {
                // Entries of `lower` beside its triangles are not written.
                let used: Vec<usize> =
                    (ends[0]..ends[1]).filter(|&at| self.parameters[at].to_bits() != POISON).collect();
                let places = used.iter().map(|at| split * self.total() + GAPS.0 + at);
                call = call.expect(
                    &format!("{split} {name}"),
                    places,
                    used.iter().map(|&at| truth[at]).collect(),
                    &used.iter().map(|&at| single[at]).collect::<Vec<_>>(),
                );
            }
        }
        call
    }
}

pub fn mixture_whiten() -> Case {
    Case {
        kernel: &MIXTURE_WHITEN,
        factor: 4.0,
        calls: Setup::all().map(|setup| setup.whiten_call()).collect(),
        changes: &[
            ("factor_entry(k, i, i) * (source", "(source"),
            ("- parameters[mean_at(k, i)]", ""),
            ("- parameters[mean_at(k, j)]", "- parameters[mean_at(k, i)]"),
            ("parameters[lower_at(k, i, j)] * (source", "parameters[lower_at(k, i, 0u)] * (source"),
            ("j < i; j++", "j + 1u < i; j++"),
            ("row >= extent.rows || k", "k"),
            ("row >= extent.rows || k >= layer.components", "row >= extent.rows"),
            (
                "(k * layer.modelled + i) * layer.modelled + j",
                "(k * layer.modelled + j) * layer.modelled + i",
            ),
            ("mean_at(layer.components + k, i)", "mean_at(k, i)"),
        ],
    }
}

pub fn mixture_density() -> Case {
    Case {
        kernel: &MIXTURE_DENSITY,
        factor: 4.0,
        calls: Setup::all().map(|setup| setup.density_call()).collect(),
        changes: &[
            ("0.9189385332046727", "0.91893"),
            ("+ diagonal - 0.5 * squares", "- 0.5 * squares"),
            ("+ diagonal - 0.5 * squares", "+ diagonal - squares"),
            ("return logit(k) + diagonal", "return diagonal"),
            ("- log_weight_sum(layer.components)", ""),
            ("f32(layer.modelled) * HALF_LN_TAU", "f32(layer.features) * HALF_LN_TAU"),
            ("largest = max_lanes(local, layer.lanes, largest);", ""),
            ("spread_lanes(local, layer.lanes, sum_lanes(local, layer.lanes, sum))", "sum"),
            ("max(lane_sum[local], lane_sum[local + stride])", "lane_sum[local]"),
        ],
    }
}

pub fn mixture_responsibilities() -> Case {
    let of = |factor| Setup::all().map(move |setup| Setup { factor, ..setup }.responsibilities_call());
    Case {
        kernel: &MIXTURE_RESPONSIBILITIES,
        factor: 4.0,
        calls: [Factor::Mean, Factor::Weighted, Factor::Score].into_iter().flat_map(of).collect(),
        changes: &[
            ("= row_factor(row) * exp_or_zero(", "= exp_or_zero("),
            ("exp_or_zero(term(row, k) - log_sum)", "exp_or_zero(term(row, k))"),
            ("let first = lane_sum[local - local % lanes];", "let first = lane_sum[local];"),
            ("return d_coupling[layer.factors + row];", "return d_coupling[layer.factors];"),
            ("+ k * layer.capacity + row", "+ k + row * layer.components"),
            ("- f32(layer.modelled) * HALF_LN_TAU", ""),
        ],
    }
}

pub fn mixture_backward() -> Case {
    let of =
        |(factor, passes)| Setup::all().map(move |setup| Setup { factor, ..setup }.backward_call(passes));
    let modes =
        [(Factor::Mean, true), (Factor::Weighted, false), (Factor::Weighted, true), (Factor::Score, true)];
    Case {
        kernel: &MIXTURE_BACKWARD,
        factor: 4.0,
        calls: modes.into_iter().flat_map(of).collect(),
        changes: &[
            ("for (var i = feature; i", "for (var i = feature + 1u; i"),
            ("sum += factor_entry(k, i, feature) *", "sum = factor_entry(k, i, feature) *"),
            ("return whitened[responsibility_at(k, row)] * whitened", "return whitened"),
            ("pass_through(row, feature, sum);", "d_coupling[index] = sum;"),
            ("min(extent.rows, begin + layer.rows_per_split)", "extent.rows"),
            ("let begin = split * layer.rows_per_split;", "let begin = 0u;"),
            ("= -pulled;", "= pulled;"),
            ("pulled += factor_entry(k, i, j) *", "pulled +="),
            ("var i = max(first_i, j);", "var i = first_i;"),
            ("sums[i - first_i]", "sums[0]"),
            ("first_i = first_j; first_i < layer.modelled", "first_i = first_j; first_i < first_j + 1u"),
            ("row_factor(row) * weight - ", "weight - "),
            ("row_factor(row) * weight - whitened[responsibility_at(k, row)]", "row_factor(row) * weight"),
            ("- log_weight_sum(layer.components));", ");"),
            ("centred(k, row, i) * diagonal -", "centred(k, row, i) -"),
            ("* diagonal - whitened[responsibility_at(k, row)]", "* diagonal"),
            (
                "sum += weighted(k, row, i) * centred(k, row, j);",
                "sum += weighted(k, row, j) * centred(k, row, i);",
            ),
            ("- parameters[mean_at(k, j)];", ";"),
            ("k >= layer.components || j > i", "k >= layer.components"),
            ("let base = split * layer.parameters;", "let base = 0u;"),
            ("if FACTOR == SCORE {\n        return;", "if false {\n        return;"),
            ("let split = place % splits;", "let split = 0u;"),
        ],
    }
}

/// Rows of a mixture drawn from noise.
fn noise_call(sizes: [usize; 3], rows: usize, first_row: u32, seed: u64, temperature: f32) -> Call {
    let setup = Setup::new(sizes, rows, rows);
    let [key_low, key_high] = random::key(seed);
    let uniform = uniforms::Latent {
        rows: rows as u32,
        features: setup.features as u32,
        first_row,
        key_low,
        key_high,
        temperature,
        modelled: setup.modelled as u32,
        base: GAPS.0 as u32,
        components: setup.components as u32,
    };
    let places = (0..rows).flat_map(|row| row * setup.features..row * setup.features + setup.modelled);
    Call::new(format!("{rows} rows of {sizes:?} from row {first_row}:"), &uniform, grid(rows.div_ceil(64)))
        .bind("normal_table", NORMAL_TABLE.as_flattened().to_vec())
        .bind("parameters", setup.parameter_words())
        .bind("latent", vec![POISON; rows * setup.features + 8])
        .expect("", places, drawn(&setup, &uniform, seed), &drawn::<f32>(&setup, &uniform, seed))
}

fn drawn<R: Real>(setup: &Setup, request: &uniforms::Latent, seed: u64) -> Vec<R> {
    let row = |row: usize| {
        let number = request.first_row.wrapping_add(row as u32);
        let mut noise = vec![0.0; setup.modelled];
        random::normals(number, seed, &mut noise);
        let mut z: Vec<R> = noise.iter().map(|&z| R::from_wide((request.temperature * z).into())).collect();
        setup.with_mixture(|mixture: &Mixture<R>| {
            let k = mixture.choose(R::from_wide(random::component(number, seed).into()));
            mixture.place(k, &mut z);
        });
        z
    };
    (0..setup.rows).flat_map(row).collect()
}

pub fn mixture_noise() -> Case {
    let calls = [
        noise_call([2, 0, 1], 3, 5, 42, 1.0),
        noise_call([3, 0, 4], 130, 0, u64::MAX, 0.7),
        noise_call([3, 1, 5], 70, u32::MAX - 10, 7, 1.3),
        noise_call([7, 2, 9], 64, 9, 1 << 40, 1.0),
        noise_call([2, 0, 40], 65, 1000, 3, 1.0),
    ];
    Case {
        kernel: &MIXTURE_NOISE,
        factor: 4.0,
        calls: calls.into_iter().map(|call| call.enlarging(4.0)).collect(),
        changes: &[
            ("const STREAM_COMPONENT = 10u;", "const STREAM_COMPONENT = 9u;"),
            ("const STREAM_LATENT = 2u;", "const STREAM_LATENT = 1u;"),
            ("bits.x >> 8u", "bits.y >> 8u"),
            ("uniform >= before", "uniform > sum"),
            ("logit(k) - log_sum", "logit(k)"),
            ("words = words.zwxy;", ""),
            ("known += parameters[lower + i * size + j]", "known += parameters[lower + i * size]"),
            ("* exp_accurate(-parameters[log_diagonal + i])", "* exp_accurate(parameters[log_diagonal + i])"),
            ("latent[at + i] += parameters[mean + i];", ""),
            ("latent_args.temperature * normal", "normal"),
            ("row >= latent_args.rows", "row > latent_args.rows"),
            ("+ k * size * size;", ";"),
        ],
    }
}
