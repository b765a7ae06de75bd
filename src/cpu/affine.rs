//! The affine bijector, elementwise: what a raw log-scale o and a shift t do to a transformed feature.
//! Twin of `shaders/bijector/affine.wgsl`. Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017.
//!
//! All slices have the same length, one value for each transformed feature of each row. The log-scale is bounded
//! softly, s = c · tanh(o / c).

use super::Real;
use super::simd::vectorised;

/// What a conditioner yields for the transformed features.
#[derive(Clone, Copy)]
pub(super) struct Theta<'a, R> {
    /// c.
    pub bound: R,
    /// o.
    pub raw: &'a [R],
    /// t.
    pub shift: &'a [R],
}

/// Data → latent: z = (x − t) · e⁻ˢ.
///
/// `values`: x, then z; `log_scale`: s, of which −Σ is the log-determinant; `shrink`: e⁻ˢ.
pub(super) fn forward<R: Real>(theta: Theta<R>, values: &mut [R], log_scale: &mut [R], shrink: &mut [R]) {
    let Theta { bound, raw, shift } = theta;
    vectorised(
        #[inline(always)]
        || {
            let results = values.iter_mut().zip(log_scale).zip(shrink);
            for (((x, s), shrink), (&o, &t)) in results.zip(raw.iter().zip(shift)) {
                *s = bound * (o / bound).tanh_lane();
                *shrink = (-*s).exp_lane();
                *x = (*x - t) * *shrink;
            }
        },
    );
}

/// Latent → data: x = z · eˢ + t.
///
/// `values`: z, then x; `log_scale`: s, of which Σ is the log-determinant.
pub(super) fn inverse<R: Real>(theta: Theta<R>, values: &mut [R], log_scale: &mut [R]) {
    let Theta { bound, raw, shift } = theta;
    vectorised(
        #[inline(always)]
        || {
            for ((z, s), (&o, &t)) in values.iter_mut().zip(log_scale).zip(raw.iter().zip(shift)) {
                *s = bound * (o / bound).tanh_lane();
                *z = *z * s.exp_lane() + t;
            }
        },
    );
}

/// What [`forward`] computed.
#[derive(Clone, Copy)]
pub(super) struct Traced<'a, R> {
    pub z: &'a [R],
    pub shrink: &'a [R],
}

/// Backward of [`forward`] under the loss (1 / rows) Σ −log p, of which `weight` is 1 / rows.
///
/// `values`: d_z, then d_x = d_z · e⁻ˢ. The gradients at o and t are d_o = (1 / rows − d_z · z) · (1 − tanh²(o / c)) and
/// d_t = −d_x.
pub(super) fn backward<R: Real>(
    theta: Theta<R>,
    weight: R,
    traced: Traced<R>,
    values: &mut [R],
    d_raw: &mut [R],
    d_shift: &mut [R],
) {
    let Theta { bound, raw, .. } = theta;
    vectorised(
        #[inline(always)]
        || {
            let traced = traced.z.iter().zip(traced.shrink).zip(raw);
            let results = values.iter_mut().zip(d_raw).zip(d_shift);
            for (((d, d_raw), d_shift), ((&z, &shrink), &o)) in results.zip(traced) {
                *d_raw = (weight - *d * z) * (o / bound).tanh_slope_lane();
                *d *= shrink;
                *d_shift = -*d;
            }
        },
    );
}
