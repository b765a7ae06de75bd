//! `shaders/layered/density.wgsl` against `src/cpu/loss.rs`, then `src/cpu/reference/coupling.rs`.

use moonflow::cpu::Real;
use moonflow::cpu::loss::{negative_log_likelihood, negative_log_likelihood_backward};
use moonflow::cpu::reference::coupling::coupling_backward;
use moonflow::gpu::kernel::{LOG_DENSITY, LOG_DENSITY_BACKWARD, LOG_DETERMINANT};
use moonflow::gpu::plan::lanes;
use moonflow::gpu::uniforms;

use super::harness::{Call, Case, POISON, poisoned, random, real};
use super::layer::{Factor, order, pick};

/// Latent rows with log_det of every feature.
struct Setup {
    rows: usize,
    capacity: usize,
    features: usize,
    /// The last of them.
    context: usize,
    factor: Factor,
    z: Vec<f32>,
    log_dets: Vec<f32>,
}

impl Setup {
    /// Features that fill 2 to 32 lanes, in part or twice; a workgroup takes 8 rows of 33 features and 128 of 2.
    fn all() -> impl Iterator<Item = Self> {
        let sizes = [(3, 0), (2, 0), (5, 0), (12, 0), (33, 0), (5, 2), (33, 20)].into_iter().flat_map(
            |(features, context): (usize, usize)| {
                [(3, 5), (1, 1), (63, 64), (64, 64), (65, 70), (130, 133)]
                    .map(|(rows, capacity)| (features, context, rows, capacity))
            },
        );
        sizes.map(|(features, context, rows, capacity)| Self {
            rows,
            capacity,
            features,
            context,
            factor: Factor::Mean,
            z: random(rows * features, 4.0, (rows + features) as u64),
            // Mostly positive, so that their sum is no small difference.
            log_dets: random(rows * features, 9.0, (rows * features) as u64)
                .iter()
                .map(|x| x + 5.0)
                .collect(),
        })
    }

    fn mask(&self) -> Vec<bool> {
        (0..self.features).map(|feature| feature % 2 == self.rows % 2).collect()
    }

    fn uniform(&self) -> uniforms::Layer {
        uniforms::Layer {
            capacity: self.capacity as u32,
            features: self.features as u32,
            through: 4 * self.features as u32,
            through_bound: 1.5,
            lanes: lanes(self.features),
            modelled: (self.features - self.context) as u32,
            factors: (3 * self.capacity * self.features) as u32,
            ..Default::default()
        }
    }

    fn call(&self) -> Call {
        let Self { rows, capacity, features, .. } = self;
        let groups = [(capacity * lanes(*features) as usize).div_ceil(256) as u32, 1, 1];
        Call::new(format!("{rows} of {capacity} rows of {features}:"), &self.uniform(), groups)
            .record("extent", &uniforms::Extent { rows: *rows as u32, first: 9 })
            .values("source", &self.z, capacity * features)
            .values("log_dets", &self.log_dets, capacity * features)
    }

    fn log_det<R: Real>(&self) -> Vec<R> {
        let rows = self.log_dets.chunks_exact(self.features);
        rows.map(|row| real::<R>(row).into_iter().fold(R::zero(), |sum, log_det| sum + log_det)).collect()
    }

    fn log_prob<R: Real>(&self) -> Vec<R> {
        let mut nll = vec![R::nan(); self.rows];
        negative_log_likelihood(self.context, &real::<R>(&self.z), &self.log_det::<R>(), &mut nll);
        nll.iter().map(|&nll| -nll).collect()
    }

    fn expect_log_det(&self, call: Call) -> Call {
        call.bind("log_det", vec![POISON; self.capacity]).expect(
            "",
            0..self.rows,
            self.log_det(),
            &self.log_det(),
        )
    }

    fn expect_log_prob(&self, call: Call) -> Call {
        call.bind("log_prob", vec![POISON; self.capacity]).expect(
            "",
            0..self.rows,
            self.log_prob(),
            &self.log_prob(),
        )
    }

    fn raw(&self) -> Vec<f32> {
        let raw = random(self.rows * self.features, 3.0, 77 + self.rows as u64);
        raw.iter().map(|value| value + 1.0).collect()
    }

    /// What is carried on, d_raw and d_shift.
    fn backward<R: Real>(&self) -> [Vec<R>; 3] {
        let z = real::<R>(&self.z);
        let mut d_z = vec![R::nan(); z.len()];
        let factors = self.factor.of::<R>(self.rows);
        negative_log_likelihood_backward(self.context, &factors, &z, &mut d_z);
        let [mut d_x, mut d_log_scale, mut d_shift] = [d_z.clone(), d_z.clone(), d_z.clone()];
        coupling_backward(
            R::from_wide(1.5),
            &factors,
            &self.mask(),
            &d_z,
            &z,
            &real(&self.raw()),
            &mut d_log_scale,
            &mut d_shift,
            &mut d_x,
        );
        [d_x, d_log_scale, d_shift]
    }

    fn backward_call(&self) -> Call {
        let size = self.capacity * self.features;
        let transformed: Vec<bool> = self.mask().iter().map(|kept| !kept).collect();
        let every = vec![true; self.features];
        let mut raw = poisoned(&self.raw(), size);
        for (at, word) in raw.iter_mut().enumerate().filter(|(at, _)| !transformed[at % self.features]) {
            debug_assert!(at < size);
            *word = POISON;
        }
        let mut call = self
            .expect_log_prob(self.call())
            .constants(&[self.factor.constant()])
            .bind("order", order(&[&self.mask()]))
            .bind("saved", raw);
        let tail = self.factor.tail(self.rows, self.capacity);
        call = call.bind("d_coupling", [vec![POISON; 3 * size], tail].concat());
        let parts = self.backward::<f64>().into_iter().zip(self.backward::<f32>());
        for (plane, ((truth, single), used)) in parts.zip([&every, &transformed, &transformed]).enumerate() {
            let rows = 0..self.rows * self.features;
            let places: Vec<usize> =
                rows.filter(|at| used[at % self.features]).map(|at| plane * size + at).collect();
            call = call.expect(["", "raw", "shift"][plane], places, pick(&truth, used), &pick(&single, used));
        }
        call
    }
}

pub fn log_density() -> Case {
    Case {
        kernel: &LOG_DENSITY,
        factor: 4.0,
        calls: Setup::all().map(|setup| setup.expect_log_prob(setup.expect_log_det(setup.call()))).collect(),
        changes: &[
            ("0.9189385332046727", "0.91893"),
            ("- 0.5 * squares", "- squares"),
            ("return determinant - 0.5", "return -determinant - 0.5"),
            ("sum += z * z;", "sum += abs(z);"),
            ("var stride = lanes / 2u", "var stride = lanes / 4u"),
            ("- f32(layer.modelled) * HALF_LN_TAU", "- HALF_LN_TAU"),
            ("- f32(layer.modelled) * HALF_LN_TAU", "- f32(layer.features) * HALF_LN_TAU"),
            ("j < layer.modelled", "j < layer.features"),
            ("log_prob[row] = density(determinant, squares);\n    }\n}\n\n@compute", "}\n}\n@compute"),
            ("return group * (256u / layer.lanes)", "return group * (128u / layer.lanes)"),
        ],
    }
}

pub fn log_determinant() -> Case {
    Case {
        kernel: &LOG_DETERMINANT,
        factor: 4.0,
        calls: Setup::all().map(|setup| setup.expect_log_det(setup.call())).collect(),
        changes: &[
            ("sum += log_dets[row * layer.features + j];", "sum -= log_dets[row * layer.features + j];"),
            ("sum += log_dets[row * layer.features + j];", "sum = log_dets[row * layer.features + j];"),
            ("sum += log_dets[row * layer.features + j];", "sum += log_dets[row + j];"),
            ("var stride = lanes / 2u", "var stride = lanes / 4u"),
            (
                "    if lane == 0u && row < extent.rows {\n        log_det[row] = determinant;\n    }\n}",
                "    if lane == 0u {\n        log_det[row] = determinant;\n    }\n}",
            ),
        ],
    }
}

pub fn log_density_backward() -> Case {
    let of = |factor| {
        let setup = move |setup: Setup| Setup { factor, ..setup }.backward_call();
        Setup::all().map(setup)
    };
    let calls = [Factor::Mean, Factor::Weighted, Factor::Score].into_iter().flat_map(of);
    Case {
        kernel: &LOG_DENSITY_BACKWARD,
        factor: 4.0,
        calls: calls.collect(),
        changes: &[
            ("return determinant - 0.5", "return -determinant - 0.5"),
            ("return z / f32(extent.rows);", "return z / f32(layer.capacity);"),
            ("d_z, -row_factor(row)", "d_z, row_factor(row)"),
            ("return row_factor(row) * z;", "return z;"),
            ("if feature >= layer.modelled {", "if false {"),
            ("return d_coupling[layer.factors + row];", "return d_coupling[layer.factors];"),
            ("order[layer.through + layer.features + feature]", "order[layer.through + feature]"),
            ("= gradient.d_theta[k];", "= gradient.d_theta[0];"),
            ("d_coupling[(1u + k) * plane + index] = gradient", "d_coupling[plane + index] = gradient"),
            ("theta[k] = saved[k * plane + index];", ""),
            ("let plane = layer.capacity", "let plane = extent.rows"),
            ("pass_through(row, j, latent", "pass_through(row, lane, latent"),
        ],
    }
}
