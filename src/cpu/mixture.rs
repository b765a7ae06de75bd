//! The Gaussian mixture on a tile of rows, compared with its definition in [`super::reference::mixture`].
//!
//! Features lie in planes, row beside row, so that every sum over features is a loop over rows. Factors A_k and log-weights
//! are made of the parameters once a step.

use crate::flow::Flow;
use crate::random;

use super::Real;
use super::base::BaseDensity;
use super::buffer::Buffer;
use super::code::{Parameters, SegmentSize, Sum};
use super::reference::mixture::{Mixture, choose};
use super::sampling::{self, Noise};
use super::simd::{LANES, clear, each, lane_sum};

/// A mixture. Packed are for each component the logarithm of its weight and of the constant before its exponential `[K]`,
/// its weight `[K]`, mean [K, M] and A [K, M, M]. The packed gradient has sums over rows of each component's responsibility
/// `[K]`, of that times y = A · (z − mean) [K, M], and of that times (z − mean)ᵀ [K, M, M].
#[derive(Debug)]
pub(super) struct MixtureDensity {
    features: usize,
    modelled: usize,
    components: usize,
}

/// Planes for a tile, [`MixtureDensity::stride`] apart.
#[derive(Debug, Default)]
pub(super) struct MixtureScratch<R> {
    /// The modelled features, and the gradient at them `[M]`.
    z: Buffer<R>,
    d_z: Buffer<R>,
    /// z − mean_k, and A_k · (z − mean_k) `[M]`. The gradient then stands in place of the latter.
    centred: Buffer<R>,
    whitened: Buffer<R>,
    /// Logarithm of weight and density of each component; then its responsibility for the row, times the row's factor
    /// `[K]`.
    terms: Buffer<R>,
    /// log p without the log-determinant.
    log_density: Buffer<R>,
    /// A plane of its own, for a sum.
    sum: Buffer<R>,
}

/// The packed parameters.
struct Packed<'a, R> {
    constants: &'a [R],
    weights: &'a [R],
    means: &'a [R],
    factors: &'a [R],
}

impl MixtureDensity {
    pub fn new(flow: &Flow, components: usize) -> Self {
        Self { features: flow.features, modelled: flow.modelled(), components }
    }

    /// Distance between planes for `rows` rows.
    fn stride(rows: usize) -> usize {
        rows.next_multiple_of(LANES)
    }

    fn packed<'a, R>(&self, weights: &'a [Buffer<R>]) -> Packed<'a, R>
    where
        R: Real,
    {
        let (constants, rest) = weights[0].split_at(self.components);
        let (weights, rest) = rest.split_at(self.components);
        let (means, factors) = rest.split_at(self.components * self.modelled);
        Packed { constants, weights, means, factors }
    }

    /// Fills the planes of z. Rows that a plane has beyond those of the tile are zero.
    fn take<R: Real>(&self, rows: &[R], planes: &mut Buffer<R>) {
        let count = rows.len() / self.features;
        let stride = Self::stride(count);
        planes.resize(self.modelled * stride);
        for (feature, plane) in planes.chunks_exact_mut(stride.max(1)).enumerate() {
            let column = rows[feature..].iter().step_by(self.features);
            plane[..count].iter_mut().zip(column).for_each(|(to, &value)| *to = value);
            plane[count..].fill(R::zero());
        }
    }

    /// Fills the planes of component `k`: z − mean and A · (z − mean).
    #[inline(always)]
    fn whiten<R: Real>(
        &self,
        packed: &Packed<R>,
        k: usize,
        z: &[R],
        stride: usize,
        centred: &mut [R],
        whitened: &mut [R],
    ) {
        let size = self.modelled;
        let (means, factor) = (&packed.means[k * size..][..size], &packed.factors[k * size * size..]);
        for (feature, centred) in centred.chunks_exact_mut(stride).enumerate() {
            let mean = means[feature];
            each(centred, &z[feature * stride..], |centred, &z| *centred = z - mean);
        }
        for (i, whitened) in whitened.chunks_exact_mut(stride).enumerate() {
            clear(whitened);
            for (j, &entry) in factor[i * size..][..=i].iter().enumerate() {
                each(whitened, &centred[j * stride..], |sum, &value| *sum += entry * value);
            }
        }
    }

    /// log p without the log-determinant, and the terms of the components, from the planes of z.
    fn log_density<R: Real>(&self, packed: &Packed<R>, rows: usize, scratch: &mut MixtureScratch<R>) {
        let (size, stride) = (self.modelled, Self::stride(rows));
        let MixtureScratch { z, centred, whitened, terms, log_density, sum, .. } = scratch;
        centred.resize(size * stride);
        whitened.resize(size * stride);
        terms.resize(self.components * stride);
        log_density.resize(stride);
        sum.resize(stride);
        let half = R::from_wide(0.5);
        R::vectorised(
            #[inline(always)]
            || {
                for (k, terms) in terms.chunks_exact_mut(stride).enumerate() {
                    self.whiten(packed, k, z, stride, centred, whitened);
                    clear(terms);
                    for plane in whitened.chunks_exact(stride) {
                        each(terms, plane, |sum, &y| *sum += y * y);
                    }
                    let constant = packed.constants[k];
                    terms.iter_mut().for_each(|term| *term = constant - half * *term);
                }
                log_density.fill(R::neg_infinity());
                for terms in terms.chunks_exact(stride) {
                    each(log_density, terms, |largest, &term| {
                        *largest = if term > *largest { term } else { *largest }
                    });
                }
                // Where every term is −∞, so is log p; its difference from a term would be a NaN.
                let finite = R::min_value();
                clear(sum);
                for terms in terms.chunks_exact(stride) {
                    let (largest, sum) = (&log_density[..stride], &mut sum[..stride]);
                    for at in 0..stride {
                        let largest = if largest[at] < finite { finite } else { largest[at] };
                        sum[at] += (terms[at] - largest).exp_lane();
                    }
                }
                each(log_density, sum, |log_p, &sum| *log_p += sum.ln_lane());
            },
        );
    }

    /// The gradient that component `k` adds, at z and, packed, at its parameters. `responsibility`: for each row, times its
    /// factor.
    #[inline(always)]
    fn add_component<R: Real>(
        &self,
        packed: &Packed<R>,
        k: usize,
        (responsibility, stride): (&[R], usize),
        (centred, whitened, d_z): (&[R], &mut [R], &mut [R]),
        gradient: Option<&mut Sum<R>>,
    ) {
        let size = self.modelled;
        for plane in whitened.chunks_exact_mut(stride) {
            each(plane, responsibility, |y, &r| *y *= r);
        }
        let factor = &packed.factors[k * size * size..][..size * size];
        for (i, whitened) in whitened.chunks_exact(stride).enumerate() {
            for (j, &entry) in factor[i * size..][..=i].iter().enumerate() {
                each(&mut d_z[j * stride..], whitened, |d, &y| *d += entry * y);
            }
        }
        let Some(Sum { values, add }) = gradient else { return };
        let put = |to: &mut R, sum: R| *to = if *add { *to + sum } else { sum };
        let (totals, rest) = values.split_at_mut(self.components);
        let (sums, factors) = rest.split_at_mut(self.components * size);
        put(&mut totals[k], lane_sum(stride, |row| responsibility[row]));
        for (i, whitened) in whitened.chunks_exact(stride).enumerate() {
            put(&mut sums[k * size + i], lane_sum(stride, |row| whitened[row]));
            let factors = &mut factors[(k * size + i) * size..][..=i];
            for (j, to) in factors.iter_mut().enumerate() {
                let centred = &centred[j * stride..][..stride];
                put(to, lane_sum(stride, |row| whitened[row] * centred[row]));
            }
        }
    }
}

impl<R: Real> Parameters<R> for MixtureDensity {
    fn segments(&self) -> Vec<SegmentSize> {
        let (count, size) = (self.components, self.modelled);
        vec![SegmentSize {
            weights: count * (2 + size + size * size),
            gradient: count * (1 + size + size * size),
        }]
    }

    fn pack(&self, _segment: usize, flat: &[R], packed: &mut [R]) {
        let (count, size) = (self.components, self.modelled);
        let mixture = Mixture::new(flat, count, size);
        let largest = mixture.logits.iter().fold(R::neg_infinity(), |a, &b| a.max(b));
        let sum = mixture.logits.iter().fold(R::zero(), |sum, &logit| sum + (logit - largest).exp_lane());
        let constant = R::from_wide(0.5 * size as f64 * std::f64::consts::TAU.ln());
        let (constants, rest) = packed.split_at_mut(count);
        let (weights, rest) = rest.split_at_mut(count);
        let (means, factors) = rest.split_at_mut(count * size);
        for (k, &logit) in mixture.logits.iter().enumerate() {
            let diagonal = &mixture.log_diagonal[k * size..][..size];
            let volume = diagonal.iter().fold(R::zero(), |sum, &value| sum + value);
            weights[k] = (logit - largest).exp_lane() / sum;
            constants[k] = (logit - largest) - sum.ln_lane() + volume - constant;
            for i in 0..size {
                let row = (k * size + i) * size;
                factors[row..row + i].copy_from_slice(&mixture.lower[row..row + i]);
                factors[row + i] = diagonal[i].exp_lane();
            }
        }
        means.copy_from_slice(mixture.mean);
    }

    fn unpack(&self, _segment: usize, weights: &[R], packed: &[R], flat: &mut [R]) {
        let (count, size) = (self.components, self.modelled);
        let (weights, factors) = (&weights[count..2 * count], &weights[count * (2 + size)..]);
        let (sums, rest) = packed.split_at(count);
        let (pulled, d_factors) = rest.split_at(count * size);
        let total = sums.iter().fold(R::zero(), |sum, &value| sum + value);
        let (d_logits, rest) = flat.split_at_mut(count);
        let (d_means, rest) = rest.split_at_mut(count * size);
        let (d_diagonal, d_lower) = rest.split_at_mut(count * size);
        for k in 0..count {
            d_logits[k] = weights[k] * total - sums[k];
            for i in 0..size {
                let row = (k * size + i) * size;
                d_lower[row..row + i].copy_from_slice(&d_factors[row..row + i]);
                d_diagonal[k * size + i] = d_factors[row + i] * factors[row + i] - sums[k];
                d_means[k * size + i] = (i..size).fold(R::zero(), |sum, below| {
                    sum - factors[(k * size + below) * size + i] * pulled[k * size + below]
                });
            }
        }
    }
}

impl<R: Real> BaseDensity<R> for MixtureDensity {
    fn negative_log_likelihood(
        &self,
        weights: &[Buffer<R>],
        z: &[R],
        log_det: &[R],
        nll: &mut [R],
        scratch: &mut MixtureScratch<R>,
    ) {
        self.take(z, &mut scratch.z);
        self.log_density(&self.packed(weights), nll.len(), scratch);
        for ((nll, &log_density), &log_det) in nll.iter_mut().zip(&*scratch.log_density).zip(log_det) {
            *nll = -log_density - log_det;
        }
    }

    // Begins from what `negative_log_likelihood` left in `scratch` for the same rows.
    fn backward(
        &self,
        weights: &[Buffer<R>],
        factors: &[R],
        _z: &[R],
        d_z: &mut [R],
        mut gradient: Option<Sum<R>>,
        scratch: &mut MixtureScratch<R>,
    ) {
        let (size, packed) = (self.modelled, self.packed(weights));
        let stride = Self::stride(factors.len());
        let MixtureScratch { z, d_z: planes, centred, whitened, terms, log_density, .. } = scratch;
        planes.resize(size * stride);
        R::vectorised(
            #[inline(always)]
            || {
                clear(planes);
                for (k, responsibility) in terms.chunks_exact_mut(stride).enumerate() {
                    each(responsibility, log_density, |term, &log_density| {
                        *term = (*term - log_density).exp_lane()
                    });
                    let (counted, beyond) = responsibility.split_at_mut(factors.len());
                    each(counted, factors, |r, &factor| *r *= factor);
                    clear(beyond);
                    self.whiten(&packed, k, z, stride, centred, whitened);
                    let planes = (&**centred, &mut **whitened, &mut **planes);
                    self.add_component(&packed, k, (responsibility, stride), planes, gradient.as_mut());
                }
            },
        );
        for (row, d_z) in d_z.chunks_exact_mut(self.features).enumerate() {
            let (d_z, d_context) = d_z.split_at_mut(size);
            d_z.iter_mut().enumerate().for_each(|(feature, d)| *d = planes[feature * stride + row]);
            clear(d_context);
        }
    }

    // `Mixture::place` on packed parameters.
    fn draw(&self, weights: &[Buffer<R>], noise: Noise, z: &mut [R]) {
        let (size, packed) = (self.modelled, self.packed(weights));
        sampling::latent(self.features, self.features - size, noise, z);
        for (row, z) in z.chunks_exact_mut(self.features).enumerate() {
            let uniform = random::component(noise.first.wrapping_add(row as u32), noise.seed);
            let k = choose(packed.weights, R::from_wide(uniform.into()));
            let factor = &packed.factors[k * size * size..][..size * size];
            for i in 0..size {
                let known = (0..i).fold(R::zero(), |sum, j| sum + factor[i * size + j] * z[j]);
                z[i] = (z[i] - known) / factor[i * size + i];
            }
            z.iter_mut().zip(&packed.means[k * size..][..size]).for_each(|(z, &mean)| *z += mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuEngine;
    use crate::engine::Sampling;
    use crate::flow::{Base, Flow};
    use crate::layout::Layout;

    const COMPONENTS: usize = 3;

    /// A flow whose couplings are the identity, over 3 features given 1 other.
    fn flow() -> Flow {
        Flow::conditional(3, 1, 1, &[2]).expect("valid").with_base(Base::Mixture { components: COMPONENTS })
    }

    /// Numbers without pattern.
    fn numbers(count: usize, seed: f64) -> Vec<f64> {
        (0..count).map(|index| (seed + 1.7 * index as f64).sin()).collect()
    }

    /// Parameters of the base, and rows [T, 4] near and far.
    fn parameters() -> Vec<f64> {
        numbers(COMPONENTS * (1 + 3 + 3 + 9), 0.3)
    }

    fn rows(count: usize) -> Vec<f64> {
        numbers(4 * count, 4.1)
            .into_iter()
            .enumerate()
            .map(|(i, x)| if i % 11 == 0 { 20.0 * x } else { 2.0 * x })
            .collect()
    }

    /// Whatever the tile, the engine has the sums of the definition.
    #[test]
    fn tiles_have_the_values_and_gradients_of_the_definition() {
        let (flow, base) = (flow(), parameters());
        let layout = Layout::new(&flow);
        let mut all = vec![0.0; layout.total];
        all[layout.base.clone()].copy_from_slice(&base);
        let mut engine = CpuEngine::<f64>::new(flow).expect("valid");
        engine.set_parameters(&all).expect("fits");
        let mixture = Mixture::new(&base, COMPONENTS, 3);
        for count in [1, 31, 32, 33, 100, 300] {
            let x = rows(count);
            let factor = 1.0 / count as f64;
            let (mut loss, mut want, mut score) = (0.0, vec![0.0; base.len()], Vec::new());
            for row in x.chunks_exact(4) {
                loss -= factor * mixture.log_density(&row[..3]).0;
                let mut d_z = [0.0; 3];
                mixture.backward(factor, &row[..3], &mut d_z, &mut want);
                score.extend(d_z.map(|d| -d / factor));
                score.push(0.0);
            }
            let (got_loss, gradient) = engine.loss_and_gradient(&x).expect("rows");
            assert!((got_loss - loss).abs() < 1e-12 * loss.abs(), "{count}: {got_loss} for {loss}");
            for (index, (got, want)) in gradient[layout.base.clone()].iter().zip(&want).enumerate() {
                assert!((got - want).abs() < 1e-11, "{count} [{index}]: {got} for {want}");
            }
            for (got, want) in engine.score(&x).expect("rows").1.iter().zip(&score) {
                assert!((got - want).abs() < 1e-10 * want.abs().max(1.0), "{count}: {got} for {want}");
            }
        }
    }

    #[test]
    fn the_definition_agrees_with_finite_differences() {
        let (base, z, h) = (parameters(), [0.4, -1.2, 0.9], 1e-6);
        let density = |base: &[f64], z: &[f64; 3]| -Mixture::new(base, COMPONENTS, 3).log_density(z).0;
        let (mut d_z, mut gradient) = ([0.0; 3], vec![0.0; base.len()]);
        Mixture::new(&base, COMPONENTS, 3).backward(1.0, &z, &mut d_z, &mut gradient);
        for index in 0..base.len() {
            let moved = |by: f64| {
                let mut base = base.clone();
                base[index] += by;
                density(&base, &z)
            };
            let want = (moved(h) - moved(-h)) / (2.0 * h);
            assert!((gradient[index] - want).abs() < 1e-7, "[{index}]: {} for {want}", gradient[index]);
        }
        for index in 0..3 {
            let moved = |by: f64| {
                let mut z = z;
                z[index] += by;
                density(&base, &z)
            };
            let want = (moved(h) - moved(-h)) / (2.0 * h);
            assert!((d_z[index] - want).abs() < 1e-7, "z[{index}]: {} for {want}", d_z[index]);
        }
    }

    #[test]
    fn samples_have_the_weights_means_and_covariances_of_the_components() {
        let flow = flow();
        let layout = Layout::new(&flow);
        let mut all = vec![0.0f32; layout.total];
        let (logits, means) = ([0.0, 1.0, -1.0], [-20.0f32, 0.0, 20.0]);
        let base = &mut all[layout.base.clone()];
        base[..3].copy_from_slice(&logits);
        for (k, mean) in means.into_iter().enumerate() {
            base[3 + 3 * k] = mean;
            // A = [[2, 0, 0], [1, 1, 0], [0, 0, ½]]: the covariance of the first two features is [[¼, −¼], [−¼, 5/4]].
            base[12 + 3 * k] = 2f32.ln();
            base[12 + 3 * k + 2] = 0.5f32.ln();
            base[21 + 9 * k + 3] = 1.0;
        }
        let mut engine = CpuEngine::<f32>::new(flow).expect("valid");
        engine.set_parameters(&all).expect("fits");
        let rows = 60_000;
        let sampling = Sampling { rows, first: 0, seed: 3, temperature: 1.0 };
        let samples = engine.sample(sampling, &vec![7.0; rows]).expect("samples");
        let total: f64 = logits.iter().map(|logit: &f32| f64::from(*logit).exp()).sum();
        for (k, mean) in means.into_iter().enumerate() {
            let own: Vec<[f64; 3]> = samples
                .chunks_exact(4)
                .filter(|row| (row[0] - mean).abs() < 10.0 && row[3] == 7.0)
                .map(|row| [row[0] - mean, row[1], row[2]].map(f64::from))
                .collect();
            let weight = f64::from(logits[k]).exp() / total;
            assert!(
                (own.len() as f64 / rows as f64 - weight).abs() < 0.008,
                "{k}: {} of {weight}",
                own.len()
            );
            let second =
                |i: usize, j: usize| own.iter().map(|row| row[i] * row[j]).sum::<f64>() / own.len() as f64;
            for (i, j, want) in [(0, 0, 0.25), (0, 1, -0.25), (1, 1, 1.25), (2, 2, 4.0), (0, 2, 0.0)] {
                assert!((second(i, j) - want).abs() < 0.05 * (1.0 + want), "{k}: {i}, {j}: {}", second(i, j));
            }
        }
        let cold =
            engine.sample(Sampling { temperature: 0.0, ..sampling }, &vec![7.0; rows]).expect("samples");
        assert!(cold.chunks_exact(4).all(|row| means.contains(&row[0]) && row[1..3] == [0.0; 2]));
        let part = engine.sample(Sampling { rows: 5, first: 200, ..sampling }, &[7.0; 5]).expect("samples");
        assert_eq!(part, samples[800..820], "a sample is its own row's");
    }

    #[test]
    fn rows_that_no_component_reaches_have_a_density_of_zero() {
        let flow = flow();
        let engine = CpuEngine::<f32>::new(flow).expect("valid");
        let log_prob = engine.log_prob(&[1e30, 0.0, 0.0, 0.0, 1e4, 0.0, 0.0, 0.0]).expect("rows");
        assert_eq!(log_prob[0], f32::NEG_INFINITY);
        assert!((log_prob[1] / -5e7 - 1.0).abs() < 1e-5, "{log_prob:?}");
    }
}
