//! `shaders/coupling.wgsl` and `shaders/bijector/affine.wgsl` against `src/cpu/coupling.rs`.

use moonflow::cpu::Real;
use moonflow::cpu::coupling::{
    coupling_backward as cpu_backward, coupling_forward as cpu_forward, coupling_inverse as cpu_inverse,
};
use moonflow::cpu::loss::negative_log_likelihood_backward;
use moonflow::gpu::kernel::{COUPLING_BACKWARD, COUPLING_FORWARD, COUPLING_INVERSE};
use moonflow::gpu::plan::{groups_of_256, lanes};
use moonflow::gpu::uniforms;

use super::harness::{Call, Case, POISON, poisoned, random, real};

/// Features that fill 2 to 32 lanes, in part or twice.
const FEATURES: [usize; 5] = [3, 2, 5, 12, 33];
/// (rows, capacity): a workgroup takes 8 rows of 33 features and 128 of 2.
const ROWS: [(usize, usize); 6] = [(3, 5), (1, 1), (63, 64), (64, 64), (65, 70), (130, 133)];

/// A coupling of which no two values are alike; log-scales far into saturation among them.
struct Setup {
    rows: usize,
    capacity: usize,
    features: usize,
    /// Keeps the features whose index has this parity.
    parity: usize,
    /// Whether log_det starts at zero; in the backward direction, whether the output is the latent variable.
    end: bool,
    bound: f32,
    /// Raw log-scale and shift.
    raw: [Vec<f32>; 2],
    source: Vec<f32>,
    /// log_det before, or the carried d_z and both networks' parts of it.
    log_det: Vec<f32>,
    d_z: [Vec<f32>; 3],
}

impl Setup {
    /// Every number of features with every number of rows, both parities and both ends.
    fn all() -> impl Iterator<Item = Self> {
        let sizes =
            FEATURES.into_iter().flat_map(|features| ROWS.map(|(rows, capacity)| (features, rows, capacity)));
        sizes.flat_map(|(features, rows, capacity)| {
            [(0, false), (1, false), (0, true), (1, true)].map(|(parity, end)| {
                let seed = (features + rows + parity) as u64;
                let of = |what: u64, limit| random(rows * features, limit, 1000 * what + seed);
                // Mostly positive, so that log_det is no small difference of large sums.
                let mut log_scale: Vec<f32> = of(1, 3.0).iter().map(|value| value + 2.0).collect();
                for value in log_scale.iter_mut().skip(6).step_by(7) {
                    *value *= 12.0;
                }
                Self {
                    rows,
                    capacity,
                    features,
                    parity,
                    end,
                    bound: if parity == 0 { 2.0 } else { 0.75 },
                    raw: [log_scale, of(2, 2.0)],
                    source: of(3, 3.0),
                    log_det: random(rows, 3.0, 4000 + seed),
                    d_z: [of(5, 1.0), of(6, 1.0), of(7, 1.0)],
                }
            })
        })
    }

    fn mask(&self) -> Vec<bool> {
        (0..self.features).map(|feature| feature % 2 == self.parity).collect()
    }

    fn places(&self) -> std::ops::Range<usize> {
        0..self.rows * self.features
    }

    fn call(&self, groups: [u32; 3]) -> Call {
        let Self { rows, capacity, features, parity, end, .. } = self;
        let uniform = uniforms::Coupling {
            features: *features as u32,
            mask: *features as u32,
            capacity: *capacity as u32,
            lanes: lanes(*features),
            bound: self.bound,
            first: u32::from(*end),
            last: u32::from(*end),
            padding: 0,
        };
        // The first of two couplings has another mask.
        let mut masks: Vec<f32> = self.mask().iter().map(|&kept| f32::from(u8::from(!kept))).collect();
        masks.extend(self.mask().iter().map(|&kept| f32::from(u8::from(kept))));
        let size = capacity * features;
        let raw = self.raw.iter().flat_map(|plane| poisoned(plane, size)).collect();
        Call::new(
            format!("{rows} of {capacity} rows of {features}, parity {parity}, end {end}:"),
            &uniform,
            groups,
        )
        .record("extent", &uniforms::Extent { rows: *rows as u32, first: 9 })
        .values("masks", &masks, masks.len())
        .bind("raw", raw)
        .values("source", &self.source, size)
    }

    fn row_groups(&self) -> [u32; 3] {
        [(self.capacity * lanes(self.features) as usize).div_ceil(256) as u32, 1, 1]
    }

    fn transform<R: Real>(&self, twin: Transform<R>) -> [Vec<R>; 2] {
        let mut values = vec![R::nan(); self.rows * self.features];
        let mut log_det = if self.end { vec![R::zero(); self.rows] } else { real(&self.log_det) };
        let [log_scale, shift] = [0, 1].map(|plane| real::<R>(&self.raw[plane]));
        let bound = R::from_wide(self.bound.into());
        twin(bound, &self.mask(), &real(&self.source), &log_scale, &shift, &mut values, &mut log_det);
        [values, log_det]
    }

    fn transform_call(&self, truth: Transform<f64>, single: Transform<f32>) -> Call {
        let [values, log_det] = self.transform(truth);
        let [values_single, log_det_single] = self.transform(single);
        let before = if self.end { vec![] } else { self.log_det.clone() };
        self.call(self.row_groups())
            .bind("destination", vec![POISON; self.capacity * self.features])
            .expect("", self.places(), values, &values_single)
            .values("log_det", &before, self.capacity)
            .expect("", 0..self.rows, log_det, &log_det_single)
    }

    /// d_raw and d_x.
    fn backward<R: Real>(&self) -> [Vec<R>; 3] {
        let nan = || vec![R::nan(); self.rows * self.features];
        let (mut d_log_scale, mut d_shift, mut d_x, mut d_z) = (nan(), nan(), nan(), nan());
        let z = real::<R>(&self.source);
        if self.end {
            negative_log_likelihood_backward(self.rows, &z, &mut d_z);
        } else {
            let [carried, scale, translate] = [0, 1, 2].map(|part| real::<R>(&self.d_z[part]));
            for (at, d_z) in d_z.iter_mut().enumerate() {
                *d_z = carried[at] + scale[at] + translate[at];
            }
        }
        let bound = R::from_wide(self.bound.into());
        cpu_backward(
            bound,
            self.rows,
            &self.mask(),
            &d_z,
            &z,
            &real(&self.raw[0]),
            &mut d_log_scale,
            &mut d_shift,
            &mut d_x,
        );
        [d_log_scale, d_shift, d_x]
    }
}

/// [`cpu_forward`] or [`cpu_inverse`].
type Transform<R> = fn(R, &[bool], &[R], &[R], &[R], &mut [R], &mut [R]);

pub fn coupling_forward() -> Case {
    Case {
        kernel: &COUPLING_FORWARD,
        factor: 4.0,
        calls: Setup::all().map(|setup| setup.transform_call(cpu_forward, cpu_forward)).collect(),
        changes: &[
            ("(x - shift) * exp_accurate(-s), -s)", "(x - shift) * exp_accurate(-s), s)"),
            ("(x - shift) * exp_accurate(-s), -s)", "(x - shift) * exp_accurate(s), -s)"),
            ("(x - shift) * exp_accurate(-s), -s)", "x * exp_accurate(-s) - shift, -s)"),
            ("bound * tanh_stable(raw / bound)", "tanh_stable(raw)"),
            ("if a < 0.3 {", "if a < 0.5 {"),
            ("masks[coupling.mask + j] == 1.0", "masks[coupling.mask + j] != 1.0"),
            ("masks[coupling.mask + j] == 1.0", "masks[j] == 1.0"),
            ("coupling.first == 1u", "true"),
            ("coupling.first == 1u", "false"),
            ("log_det[row] += total;", "log_det[row] -= total;"),
            ("if row < extent.rows {", "if row < coupling.capacity {"),
            ("lane == 0u && row < extent.rows", "lane == 0u && row < coupling.capacity"),
            ("group * (256u / coupling.lanes)", "group * (128u / coupling.lanes)"),
            ("var stride = lanes / 2u", "var stride = lanes / 4u"),
            ("j < coupling.features; j += coupling.lanes", "j < coupling.lanes; j += coupling.lanes"),
            (
                "let plane = coupling.capacity * coupling.features;\n    var",
                "let plane = extent.rows * coupling.features;\n    var",
            ),
            ("n * 0.693359375", "n * 0.69335"),
        ],
    }
}

pub fn coupling_inverse() -> Case {
    Case {
        kernel: &COUPLING_INVERSE,
        factor: 4.0,
        calls: Setup::all().map(|setup| setup.transform_call(cpu_inverse, cpu_inverse)).collect(),
        changes: &[
            ("z * exp_accurate(s) + shift, s)", "z * exp_accurate(s) + shift, -s)"),
            ("z * exp_accurate(s) + shift, s)", "z * exp_accurate(-s) + shift, s)"),
            ("z * exp_accurate(s) + shift, s)", "(z + shift) * exp_accurate(s), s)"),
            ("transform_row(group.x, local, true);", "transform_row(group.x, local, false);"),
            ("if inverse {", "if !inverse {"),
            ("group * (256u / coupling.lanes)", "group * 256u / (2u * coupling.lanes)"),
        ],
    }
}

pub fn coupling_backward() -> Case {
    let call = |setup: Setup| {
        let size = setup.capacity * setup.features;
        let truth = setup.backward::<f64>();
        let single = setup.backward::<f32>();
        let [d_log_scale, d_shift, d_x] = truth;
        let places = setup.places();
        let beyond = places.start + size..places.end + size;
        let (carried, d_network) = match setup.end {
            true => (vec![POISON; size], vec![POISON; 2 * size]),
            false => (
                poisoned(&setup.d_z[0], size),
                setup.d_z[1..].iter().flat_map(|plane| poisoned(plane, size)).collect(),
            ),
        };
        setup
            .call(groups_of_256(size))
            .bind("d_network", d_network)
            .bind("destination", carried)
            .expect("", places.clone(), d_x, &single[2])
            .bind("d_raw", vec![POISON; 2 * size])
            .expect("log-scale", places, d_log_scale, &single[0])
            .expect("shift", beyond, d_shift, &single[1])
    };
    Case {
        kernel: &COUPLING_BACKWARD,
        factor: 4.0,
        calls: Setup::all().map(call).collect(),
        changes: &[
            ("-d_z * z - d_log_det", "-d_z * z + d_log_det"),
            ("-d_z * z - d_log_det", "d_z * z - d_log_det"),
            ("d_s * tanh_slope(raw / bound), -d_x)", "d_s, -d_x)"),
            ("d_s * tanh_slope(raw / bound), -d_x)", "d_s * tanh_slope(raw / bound), d_x)"),
            ("d_z * exp_accurate(-log_scale(raw, bound))", "d_z * exp_accurate(log_scale(raw, bound))"),
            ("let per_row = 1.0 / f32(extent.rows);", "let per_row = 1.0 / f32(coupling.capacity);"),
            ("coupling.last == 0u", "true"),
            ("coupling.last == 0u", "false"),
            ("+ d_network[plane + index]", ""),
            ("+ d_network[index]", "+ d_network[plane + index]"),
            ("destination[index] = d_z;", "destination[index] = 0.0;"),
            ("d_raw[index] = 0.0;", ""),
            ("d_raw[plane + index] = 0.0;", ""),
            ("d_raw[index] = gradient.y;", "d_raw[index] = gradient.z;"),
            (
                "masks[coupling.mask + index % coupling.features]",
                "masks[coupling.mask + index % coupling.capacity]",
            ),
            ("index >= extent.rows * coupling.features", "index >= coupling.capacity * coupling.features"),
        ],
    }
}
