//! Bijectors on the transformed features of a tile, side by side in memory.

mod affine;
mod spline;

use std::fmt::Debug;

use crate::flow::Bijector;

use super::Real;
use super::buffer::Buffer;
use super::product::padded;

use affine::Affine;
use spline::Spline;

/// Numbers for every transformed feature of every row: a plane for each number of θ, in the layout of the values.
#[derive(Debug, Default)]
pub(super) struct Planes<R> {
    values: Buffer<R>,
    /// Values of a plane, and how far the next one is.
    len: usize,
    stride: usize,
}

impl<R: Real> Planes<R> {
    /// Gives it `count` planes of `len` values, whatever they are.
    pub fn resize(&mut self, count: usize, len: usize) {
        (self.len, self.stride) = (len, padded::<R>(len));
        self.values.resize(count * self.stride);
    }

    #[inline(always)]
    pub fn plane(&self, index: usize) -> &[R] {
        &self.values[index * self.stride..][..self.len]
    }

    #[inline(always)]
    pub fn plane_mut(&mut self, index: usize) -> &mut [R] {
        &mut self.values[index * self.stride..][..self.len]
    }

    /// The first `N` planes at once.
    pub fn planes_mut<const N: usize>(&mut self) -> [&mut [R]; N] {
        let len = self.len;
        let mut planes = self.values.chunks_mut(self.stride.max(1));
        std::array::from_fn(|_| match planes.next() {
            Some(plane) => &mut plane[..len],
            None => &mut [],
        })
    }
}

/// What a forward pass leaves for the backward pass.
#[derive(Clone, Copy)]
pub(super) struct Traced<'a, R> {
    pub theta: &'a Planes<R>,
    /// The results z.
    pub z: &'a [R],
    /// What [`Elementwise::forward`] saved.
    pub saved: &'a Planes<R>,
}

/// An elementwise bijector. All slices and planes have the same length, one value for each transformed feature of each
/// row; those between rows, if any, are zeros with a θ of zero.
pub(super) trait Elementwise<R: Real>: Debug + Send + Sync {
    /// Planes that [`Elementwise::forward`] saves.
    fn saved(&self) -> usize;

    /// Data → latent. `values`: x, then z; `log_det`: log |dz/dx|, overwritten.
    fn forward(&self, theta: &Planes<R>, values: &mut [R], log_det: &mut [R], saved: &mut Planes<R>);

    /// Latent → data. `values`: z, then x; `log_det`: log |dx/dz|, overwritten.
    fn inverse(&self, theta: &Planes<R>, values: &mut [R], log_det: &mut [R]);

    /// Backward of [`Elementwise::forward`]. `d_log_det`: the gradient at each log-determinant; `values`: d_z, then
    /// d_x; `d_theta`: overwritten.
    fn backward(&self, traced: Traced<R>, d_log_det: &[R], values: &mut [R], d_theta: &mut Planes<R>);
}

/// The code of a bijector.
pub(super) fn elementwise<R: Real>(bijector: &Bijector) -> Box<dyn Elementwise<R>> {
    match *bijector {
        Bijector::Affine { bound } => Box::new(Affine { bound: R::from_decimal(bound) }),
        Bijector::Spline { bins, bound } => Box::new(Spline { bins, bound: R::from_decimal(bound) }),
    }
}
