//! The curves that some toy densities blur.
//! A sampler draws a point on one and adds noise; [`super::tube`] integrates the noise along them.

use std::f64::consts::PI;

use rand::{Rng, RngExt};

/// A curve in the plane with a probability along it, both as functions of s in [0, 1].
#[derive(Debug)]
pub(super) struct Curve {
    /// The point at s; smooth.
    pub point: fn(f64) -> [f64; 2],
    /// How s is distributed.
    pub spread: Spread,
}

/// The law of the place s on a curve.
#[derive(Clone, Copy, Debug)]
pub(super) enum Spread {
    /// Uniform.
    Uniform,
    /// Density 2s: the square root of a uniform number. It spreads points evenly along a spiral.
    Linear,
}

impl Spread {
    /// The density at s.
    pub fn density(self, s: f64) -> f64 {
        match self {
            Self::Uniform => 1.0,
            Self::Linear => 2.0 * s,
        }
    }

    /// The s below which a share `u` of the probability lies.
    fn quantile(self, u: f64) -> f64 {
        match self {
            Self::Uniform => u,
            Self::Linear => u.sqrt(),
        }
    }
}

impl Curve {
    const fn uniform(point: fn(f64) -> [f64; 2]) -> Self {
        Self { point, spread: Spread::Uniform }
    }

    /// A random point on the curve.
    pub fn draw(&self, rng: &mut impl Rng) -> [f64; 2] {
        (self.point)(self.spread.quantile(rng.random()))
    }
}

/// Upper arc, then lower.
pub(super) static MOONS: [Curve; 2] = [
    Curve::uniform(|s| polar(1.0, PI * s)),
    Curve::uniform(|s| {
        let [x, y] = polar(1.0, PI * s);
        [1.0 - x, 0.5 - y]
    }),
];

/// Outer circle, then inner.
pub(super) static CIRCLES: [Curve; 2] =
    [Curve::uniform(|s| polar(1.0, 2.0 * PI * s)), Curve::uniform(|s| polar(0.8, 2.0 * PI * s))];

/// Two arms, each the other's half turn.
pub(super) static SPIRALS: [Curve; 2] = [
    Curve { point: arm, spread: Spread::Linear },
    Curve { point: |s| arm(s).map(|value| -value), spread: Spread::Linear },
];

/// One and a half turns.
pub(super) static SWISS_ROLL: [Curve; 1] = [Curve::uniform(|s| {
    let t = 1.5 * PI * (1.0 + 2.0 * s);
    polar(t, t)
})];

fn polar(radius: f64, angle: f64) -> [f64; 2] {
    let (sin, cos) = angle.sin_cos();
    [radius * cos, radius * sin]
}

fn arm(s: f64) -> [f64; 2] {
    let t = 3.0 * PI * s;
    polar(t / 3.0, PI - t)
}
