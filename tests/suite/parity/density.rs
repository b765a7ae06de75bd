//! `shaders/density.wgsl` against `src/cpu/loss.rs`.

use moonflow::cpu::Real;
use moonflow::cpu::loss::negative_log_likelihood;
use moonflow::gpu::kernel::LOG_DENSITY;
use moonflow::gpu::plan::lanes;
use moonflow::gpu::uniforms;

use super::harness::{Call, Case, POISON, random, real};

fn log_prob<R: Real>(z: &[f32], log_det: &[f32]) -> Vec<R> {
    let mut nll = vec![R::nan(); log_det.len()];
    negative_log_likelihood(0, &real::<R>(z), &real::<R>(log_det), &mut nll);
    nll.iter().map(|&nll| -nll).collect()
}

pub fn log_density() -> Case {
    let sizes = [3, 2, 5, 12, 33].into_iter().flat_map(|features: usize| {
        [(3, 5), (1, 1), (63, 64), (64, 64), (65, 70), (130, 133)]
            .map(|(rows, capacity)| (features, rows, capacity))
    });
    let call = |(features, rows, capacity): (usize, usize, usize)| {
        let z = random(rows * features, 4.0, (rows + features) as u64);
        let log_det = random(rows, 9.0, (rows * features) as u64);
        let lanes = lanes(features);
        let uniform = uniforms::Density { features: features as u32, lanes, ..Default::default() };
        let groups = [(capacity * lanes as usize).div_ceil(256) as u32, 1, 1];
        Call::new(format!("{rows} of {capacity} rows of {features}:"), &uniform, groups)
            .record("extent", &uniforms::Extent { rows: rows as u32, first: 9 })
            .values("latent", &z, capacity * features)
            .values("log_det", &log_det, capacity)
            .bind("log_prob", vec![POISON; capacity])
            .expect("", 0..rows, log_prob(&z, &log_det), &log_prob(&z, &log_det))
    };
    Case {
        kernel: &LOG_DENSITY,
        factor: 4.0,
        calls: sizes.map(call).collect(),
        changes: &[
            ("0.9189385332046727", "0.91893"),
            ("- 0.5 * squares", "- squares"),
            ("log_det[row] - 0.5", "-log_det[row] - 0.5"),
            ("share += z * z;", "share += abs(z);"),
            ("j < density.features; j += density.lanes", "j < density.lanes; j += density.lanes"),
            ("var stride = lanes / 2u", "var stride = lanes / 4u"),
            ("lane == 0u && row < extent.rows", "lane == 0u && row < extent.rows + 1u"),
            ("- f32(density.features) * HALF_LN_TAU", "- HALF_LN_TAU"),
        ],
    }
}
