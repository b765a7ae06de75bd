//! The LU layer z = L · (U · x) + bias, row by row: L unit lower triangular, U upper triangular with exp(log_diagonal) on its
//! diagonal (Kingma and Dhariwal, "Glow", 2018; Oliva et al., "Transformation Autoregressive Networks", 2018).
//!
//! Rows are [B, D], of which the first M features are transformed; entries of `lower` on and above the diagonal, and of `upper`
//! on and below it, are not read.

use super::super::Real;

/// Parameters of an LU layer.
#[derive(Clone, Copy, Debug)]
pub struct Lu<'a, R> {
    /// [M, M], row-major.
    pub lower: &'a [R],
    /// [M, M], row-major.
    pub upper: &'a [R],
    /// `[M]`
    pub log_diagonal: &'a [R],
    /// `[M]`
    pub bias: &'a [R],
}

impl<'a, R: Real> Lu<'a, R> {
    /// From the flat parameters of a layer over `modelled` features.
    pub fn new(flat: &'a [R], modelled: usize) -> Self {
        let (lower, rest) = flat.split_at(modelled * modelled);
        let (upper, rest) = rest.split_at(modelled * modelled);
        let (log_diagonal, bias) = rest.split_at(modelled);
        Self { lower, upper, log_diagonal, bias }
    }

    /// M.
    pub fn modelled(&self) -> usize {
        self.bias.len()
    }

    /// L[i, j].
    pub fn l(&self, i: usize, j: usize) -> R {
        match i.cmp(&j) {
            std::cmp::Ordering::Less => R::zero(),
            std::cmp::Ordering::Equal => R::one(),
            std::cmp::Ordering::Greater => self.lower[i * self.modelled() + j],
        }
    }

    /// U[i, j].
    pub fn u(&self, i: usize, j: usize) -> R {
        match i.cmp(&j) {
            std::cmp::Ordering::Less => self.upper[i * self.modelled() + j],
            std::cmp::Ordering::Equal => self.log_diagonal[i].exp(),
            std::cmp::Ordering::Greater => R::zero(),
        }
    }

    /// Data → latent of one row's modelled features, in place.
    pub fn forward(&self, x: &mut [R]) {
        let size = self.modelled();
        let sum = |i: usize, x: &[R], matrix: &dyn Fn(usize, usize) -> R| {
            (0..size).fold(R::zero(), |sum, j| sum + matrix(i, j) * x[j])
        };
        let y: Vec<R> = (0..size).map(|i| sum(i, x, &|i, j| self.u(i, j))).collect();
        for (i, x) in x.iter_mut().enumerate() {
            *x = sum(i, &y, &|i, j| self.l(i, j)) + self.bias[i];
        }
    }

    /// Latent → data of one row's modelled features, in place: by substitution.
    pub fn inverse(&self, z: &mut [R]) {
        let size = self.modelled();
        for i in 0..size {
            let known = (0..i).fold(R::zero(), |sum, j| sum + self.l(i, j) * z[j]);
            z[i] = z[i] - self.bias[i] - known;
        }
        for i in (0..size).rev() {
            let known = (i + 1..size).fold(R::zero(), |sum, j| sum + self.u(i, j) * z[j]);
            z[i] = (z[i] - known) / self.u(i, i);
        }
    }

    /// log |det dz/dx|.
    pub fn log_det(&self) -> R {
        self.log_diagonal.iter().fold(R::zero(), |sum, &value| sum + value)
    }

    /// Backward of [`Lu::forward`] at the row `x`: from its d_z, d_x in place, and the layer's gradient, in the order of the
    /// layout, added to `gradient`. `d_log_det` is the gradient at the row's log-determinant.
    pub fn backward(&self, x: &[R], d_log_det: R, d_z: &mut [R], gradient: &mut [R]) {
        let size = self.modelled();
        let y: Vec<R> =
            (0..size).map(|i| (0..size).fold(R::zero(), |sum, j| sum + self.u(i, j) * x[j])).collect();
        let d_y: Vec<R> =
            (0..size).map(|j| (0..size).fold(R::zero(), |sum, i| sum + self.l(i, j) * d_z[i])).collect();
        let (lower, rest) = gradient.split_at_mut(size * size);
        let (upper, rest) = rest.split_at_mut(size * size);
        let (log_diagonal, bias) = rest.split_at_mut(size);
        for i in 0..size {
            for j in 0..i {
                lower[i * size + j] += d_z[i] * y[j];
            }
            for j in i + 1..size {
                upper[i * size + j] += d_y[i] * x[j];
            }
            log_diagonal[i] += d_y[i] * x[i] * self.u(i, i) + d_log_det;
            bias[i] += d_z[i];
        }
        for (j, d) in d_z.iter_mut().enumerate() {
            *d = (0..size).fold(R::zero(), |sum, i| sum + self.u(i, j) * d_y[i]);
        }
    }
}
