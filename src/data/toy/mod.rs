//! Toy densities in the plane: samplers by name that know their true density.
//! A [`ToyDensity`] stands where a user's table would, and its entropy is the floor of any model's NLL on it.
//!
//! Moons, circles and swiss roll have the law of scikit-learn's `make_moons`, `make_circles` (factor 0.8) and
//! `make_swiss_roll` (its first and third coordinate). Rows here are independent and identically distributed, so
//! a row equals one of scikit-learn's in law; scikit-learn lays the rows of one call of the first two on a regular
//! grid along the arcs instead. The others follow the toy data of FFJORD (Grathwohl et al. 2019); where a constant
//! or a detail differs, [`Toy`] says so.

mod curve;
mod gaussians;
mod grid;
mod tube;

use std::sync::OnceLock;

use rand::RngExt;
use rand_distr::StandardNormal;

use crate::data::Table;
use crate::error::{Error, Result};
use crate::random::{Philox, Stream};
use curve::Curve;
use gaussians::Gaussian;
use grid::LogDensity;
use tube::Tube;

/// The shape of a toy density. Noise is Gaussian with standard deviation σ in each coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Toy {
    /// Two interleaved half circles of radius 1: (cos t, sin t) and (1 − cos t, ½ − sin t), t uniform on [0, π].
    Moons,
    /// Circles of radius 1 and 0.8 about the origin.
    Circles,
    /// Eight Gaussians with deviation σ, evenly on a circle of radius 4 (FFJORD's before its division by √2).
    Blobs,
    /// Five Gaussian arms at radius 2, deviation 0.6 along and σ across, wound clockwise by exp(r / 2) / 4 at
    /// distance r from the origin. (FFJORD winds by the coordinate along the arm rather than by r; with r the map
    /// keeps areas, so the density has a closed form.)
    Pinwheel,
    /// Uniform on eight squares of side 2 of a chess board over [−4, 4)²; without noise unless asked for.
    Checkerboard,
    /// Two arms ±(−cos t, sin t) · t / 3, t = 3π√u with u uniform on [0, 1] (FFJORD's without its uniform jitter).
    Spirals,
    /// (t cos t, t sin t), t uniform on [1.5π, 4.5π].
    SwissRoll,
}

impl Toy {
    /// Every shape, with the name that the command line uses.
    pub const ALL: [(&'static str, Self); 7] = [
        ("moons", Self::Moons),
        ("circles", Self::Circles),
        ("blobs", Self::Blobs),
        ("pinwheel", Self::Pinwheel),
        ("checkerboard", Self::Checkerboard),
        ("spirals", Self::Spirals),
        ("swiss-roll", Self::SwissRoll),
    ];

    /// The noise σ that [`ToyDensity::new`] sets.
    pub fn default_noise(self) -> f64 {
        match self {
            Self::Moons | Self::Circles => 0.05,
            Self::Blobs => 0.5,
            Self::Pinwheel => 0.2,
            Self::Checkerboard => 0.0,
            Self::Spirals => 0.1,
            Self::SwissRoll => 1.0,
        }
    }

    /// The curves that noise is added to, each drawn equally often; none for the other shapes.
    fn curves(self) -> &'static [Curve] {
        match self {
            Self::Moons => &curve::MOONS,
            Self::Circles => &curve::CIRCLES,
            Self::Spirals => &curve::SPIRALS,
            Self::SwissRoll => &curve::SWISS_ROLL,
            Self::Blobs | Self::Pinwheel | Self::Checkerboard => &[],
        }
    }
}

/// A toy density in the plane: a shape and its noise.
///
/// # Examples
/// ```
/// use moonflow::data::{Toy, ToyDensity};
///
/// let moons = ToyDensity::new(Toy::Moons);
/// let rows = moons.sample(1000, 7); // row-major [1000, 2]
/// let mean = rows.chunks(2).filter_map(|row| moons.log_density([row[0], row[1]])).sum::<f64>() / 1000.0;
/// // The mean of −log p of its own rows is about its entropy.
/// assert!(moons.entropy().is_some_and(|entropy| (entropy + mean).abs() < 0.1));
/// ```
#[derive(Clone, Debug)]
pub struct ToyDensity {
    kind: Toy,
    noise: f64,
    /// Made by the first request for the density; `None` inside where it is not known.
    density: OnceLock<Option<Law>>,
    /// The same of the entropy.
    entropy: OnceLock<Option<f64>>,
}

/// What evaluates the true density.
#[derive(Clone, Debug)]
enum Law {
    Tube(Tube),
    Gaussians(Vec<Gaussian>),
    Pinwheel(Vec<Gaussian>),
    Checkerboard,
}

/// Side of the checkerboard's squares; the board is four squares wide and centred on the origin.
const SQUARE: f64 = 2.0;

impl ToyDensity {
    /// The names that [`ToyDensity::parse`] knows.
    pub const NAMES: [&'static str; Toy::ALL.len()] = {
        let mut names = [""; Toy::ALL.len()];
        let mut index = 0;
        while index < names.len() {
            names[index] = Toy::ALL[index].0;
            index += 1;
        }
        names
    };

    /// Its columns.
    pub const FEATURES: usize = 2;

    /// The largest noise σ: every shape is long lost in it.
    pub const MAX_NOISE: f64 = 1e6;

    /// `kind` with its default noise.
    pub fn new(kind: Toy) -> Self {
        Self { kind, noise: kind.default_noise(), density: OnceLock::new(), entropy: OnceLock::new() }
    }

    /// The density called `name`, with its default noise; `None` when there is none.
    pub fn parse(name: &str) -> Option<Self> {
        Toy::ALL.iter().find(|(known, _)| *known == name).map(|&(_, kind)| Self::new(kind))
    }

    /// The same shape with noise σ = `noise`.
    ///
    /// # Errors
    /// [`Error::Argument`] when it is negative, NaN or above [`ToyDensity::MAX_NOISE`].
    pub fn with_noise(self, noise: f64) -> Result<Self> {
        if (0.0..=Self::MAX_NOISE).contains(&noise) {
            Ok(Self { noise, ..Self::new(self.kind) })
        } else {
            Err(Error::Argument(format!(
                "the noise must lie between 0 and {}, got {noise}; try {} for {}",
                Self::MAX_NOISE,
                self.kind.default_noise(),
                self.name()
            )))
        }
    }

    /// The shape.
    pub fn kind(&self) -> Toy {
        self.kind
    }

    /// The noise σ.
    pub fn noise(&self) -> f64 {
        self.noise
    }

    /// The shape's name.
    pub fn name(&self) -> &'static str {
        Self::NAMES[self.kind as usize]
    }

    /// `rows` independent rows, row-major [`rows`, 2]. Row r depends on nothing but the density, `seed` and r, which
    /// counts modulo 2³².
    pub fn sample(&self, rows: usize, seed: u64) -> Vec<f64> {
        let gaussians = match self.kind {
            Toy::Blobs => gaussians::blobs(self.noise),
            Toy::Pinwheel => gaussians::pinwheel(self.noise),
            _ => Vec::new(),
        };
        let draw = |row: usize| {
            let mut rng = Philox::new(seed, Stream::Data, row as u32);
            let [x, y] = match self.kind {
                Toy::Blobs => return gaussians::draw(&gaussians, &mut rng),
                Toy::Pinwheel => return gaussians::twist(gaussians::draw(&gaussians, &mut rng), 1.0),
                Toy::Checkerboard => {
                    let column = rng.random_range(0..4);
                    let square = 2 * rng.random_range(0..2) + column % 2;
                    [column, square].map(|index| SQUARE * (f64::from(index - 2) + rng.random::<f64>()))
                }
                Toy::Moons | Toy::Circles | Toy::Spirals | Toy::SwissRoll => {
                    let curves = self.kind.curves();
                    curves[rng.random_range(0..curves.len())].draw(&mut rng)
                }
            };
            let mut noise = || self.noise * rng.sample::<f64, _>(StandardNormal);
            [x + noise(), y + noise()]
        };
        (0..rows).flat_map(draw).collect()
    }

    /// [`ToyDensity::sample`] as a table with columns x0 and x1.
    pub fn table(&self, rows: usize, seed: u64) -> Table {
        Table {
            name: self.name().into(),
            columns: vec!["x0".into(), "x1".into()],
            values: self.sample(rows, seed),
        }
    }

    /// The true log-density at `x` in nats, or `None` where it is not known: a noise of zero leaves moons, circles,
    /// spirals, roll, blobs and pinwheel without one, a noise below about 10⁻⁵ of the curves' length is too narrow
    /// to integrate, and a blurred checkerboard is not implemented. Whether it is known does not depend on `x`.
    ///
    /// Its error is below 10⁻⁹, absolute or relative to the logarithm, for `x` within a few times the shape's size.
    /// The first call prepares tables; later ones take some microseconds.
    pub fn log_density(&self, x: [f64; 2]) -> Option<f64> {
        self.law().map(|law| match x {
            [a, b] if a.is_nan() || b.is_nan() => f64::NAN,
            [a, b] if a.is_infinite() || b.is_infinite() => f64::NEG_INFINITY,
            finite => law.log_density(finite),
        })
    }

    /// The differential entropy −∫ p ln p in nats: no model's expected NLL on fresh rows is lower. Integrated over a
    /// grid to 10⁻⁶, in less than 0.1 s at the default noise, by the first call. `None` where the density is not known, or is
    /// so narrow that a grid cannot resolve it.
    pub fn entropy(&self) -> Option<f64> {
        let integral = || match self.law()? {
            Law::Tube(tube) => grid::entropy(tube),
            // The twist keeps areas, and with them the entropy.
            Law::Gaussians(gaussians) | Law::Pinwheel(gaussians) => grid::entropy(&gaussians[..]),
            Law::Checkerboard => Some((8.0 * SQUARE * SQUARE).ln()),
        };
        *self.entropy.get_or_init(integral)
    }

    fn law(&self) -> Option<&Law> {
        let make = || match self.kind {
            Toy::Checkerboard => (self.noise == 0.0).then_some(Law::Checkerboard),
            _ if self.noise == 0.0 => None,
            Toy::Blobs => Some(Law::Gaussians(gaussians::blobs(self.noise))),
            Toy::Pinwheel => Some(Law::Pinwheel(gaussians::pinwheel(self.noise))),
            Toy::Moons | Toy::Circles | Toy::Spirals | Toy::SwissRoll => {
                Tube::new(self.kind.curves(), self.noise).map(Law::Tube)
            }
        };
        self.density.get_or_init(make).as_ref()
    }
}

impl Law {
    fn log_density(&self, x: [f64; 2]) -> f64 {
        match self {
            Self::Tube(tube) => tube.log_density(x),
            Self::Gaussians(gaussians) => gaussians.log_density(x),
            Self::Pinwheel(gaussians) => gaussians.log_density(gaussians::twist(x, -1.0)),
            Self::Checkerboard => {
                let [column, row] = x.map(|value| (value / SQUARE).floor());
                let on_board = [column, row].iter().all(|index| (-2.0..2.0).contains(index));
                if on_board && (column + row) % 2.0 == 0.0 {
                    -(8.0 * SQUARE * SQUARE).ln()
                } else {
                    f64::NEG_INFINITY
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_kinds_agree() {
        for (index, (name, kind)) in Toy::ALL.into_iter().enumerate() {
            let density = ToyDensity::parse(ToyDensity::NAMES[index]).expect("known");
            assert_eq!((density.kind(), density.name()), (kind, name));
        }
        assert!(ToyDensity::parse("moon").is_none());
    }

    #[test]
    fn noise_must_lie_in_its_range() {
        for noise in [-0.1, f64::NAN, f64::INFINITY, 1.1e6] {
            let error = ToyDensity::new(Toy::Moons).with_noise(noise).expect_err("must be refused");
            assert!(error.to_string().contains(&format!("between 0 and 1000000, got {noise}")), "{error}");
        }
        assert_eq!(ToyDensity::new(Toy::Moons).with_noise(0.2).expect("valid").noise(), 0.2);
        for (name, kind) in Toy::ALL {
            let blurred = ToyDensity::new(kind).with_noise(ToyDensity::MAX_NOISE).expect("valid");
            let round = 1.0 + (std::f64::consts::TAU * blurred.noise().powi(2)).ln();
            match kind {
                // One of its deviations does not follow the noise.
                Toy::Pinwheel | Toy::Checkerboard => {}
                _ => assert!((blurred.entropy().expect("known") - round).abs() < 1e-6, "{name}"),
            }
        }
    }

    #[test]
    fn a_row_depends_on_seed_and_row_number_only() {
        for (name, kind) in Toy::ALL {
            let density = ToyDensity::new(kind);
            let rows = density.sample(50, 9);
            assert_eq!(rows[..20], density.sample(10, 9), "{name}");
            assert_ne!(rows[..20], density.sample(10, 10), "{name}");
        }
    }

    #[test]
    fn without_noise_moons_circles_and_roll_lie_on_their_curves() {
        type OnCurve = fn([f64; 2]) -> bool;
        let on_curve: [(Toy, OnCurve); 3] = [
            (Toy::Moons, |[x, y]| {
                let outer = (x.hypot(y) - 1.0).abs() < 1e-12 && y >= 0.0;
                let inner = ((1.0 - x).hypot(0.5 - y) - 1.0).abs() < 1e-12 && y <= 0.5;
                outer || inner
            }),
            (Toy::Circles, |[x, y]| (x.hypot(y) - 1.0).abs() < 1e-12 || (x.hypot(y) - 0.8).abs() < 1e-12),
            (Toy::SwissRoll, |[x, y]| {
                let t = x.hypot(y);
                (4.71..14.14).contains(&t) && (t.cos() * t - x).hypot(t.sin() * t - y) < 1e-10
            }),
        ];
        for (kind, holds) in on_curve {
            let density = ToyDensity::new(kind).with_noise(0.0).expect("valid");
            let rows = density.sample(1000, 1);
            assert!(rows.chunks(2).all(|row| holds([row[0], row[1]])), "{kind:?}");
            assert_eq!(density.log_density([0.0, 1.0]), None, "a curve has no density");
            assert_eq!(density.entropy(), None);
        }
    }

    #[test]
    fn without_noise_spirals_and_squares_follow_their_definitions() {
        let rows = ToyDensity::new(Toy::Spirals).with_noise(0.0).expect("valid").sample(1000, 1);
        let mut squares = 0.0;
        for row in rows.chunks(2) {
            let t = 3.0 * row[0].hypot(row[1]);
            let arm = [-t.cos() * t / 3.0, t.sin() * t / 3.0];
            let apart =
                (arm[0] - row[0]).hypot(arm[1] - row[1]).min((arm[0] + row[0]).hypot(arm[1] + row[1]));
            assert!(apart < 1e-12, "{row:?}");
            squares += (t / (3.0 * std::f64::consts::PI)).powi(2) / 1000.0;
        }
        // t² / (3π)² is uniform: its mean has a deviation of 0.009.
        assert!((squares - 0.5).abs() < 0.04, "{squares}");

        let rows = ToyDensity::new(Toy::Checkerboard).sample(1000, 1);
        for row in rows.chunks(2) {
            let [column, square] = [row[0], row[1]].map(|value| (value / 2.0).floor() as i32);
            assert!((column + square) % 2 == 0 && row.iter().all(|value| value.abs() <= 4.0), "{row:?}");
        }
    }

    #[test]
    fn blobs_and_pinwheel_peak_where_their_definitions_say() {
        let peak = |kind, [x, y]: [f64; 2], count: f64, area: f64| {
            let got = ToyDensity::new(kind).log_density([x, y]).expect("known");
            let want = -(count * std::f64::consts::TAU * area).ln();
            assert!((got - want).abs() < 1e-6, "{kind:?}: {got}, want {want}");
        };
        peak(Toy::Blobs, [0.0, 4.0], 8.0, 0.5 * 0.5);
        peak(Toy::Blobs, [-8f64.sqrt(), 8f64.sqrt()], 8.0, 0.5 * 0.5);
        // The arm that starts along x is wound clockwise by e¹ / 4 at r = 2.
        let (sin, cos) = (0.25 * std::f64::consts::E).sin_cos();
        peak(Toy::Pinwheel, [2.0 * cos, -2.0 * sin], 5.0, 0.6 * 0.2);
    }

    #[test]
    fn far_points_and_nan_are_neither_dropped_nor_made_up() {
        for (name, kind) in Toy::ALL {
            let density = ToyDensity::new(kind);
            assert!(density.log_density([f64::NAN, 0.0]).expect("known").is_nan(), "{name}");
            for x in [[50.0, -70.0], [1e4, 1e4], [1e200, 1.0], [f64::INFINITY, f64::NEG_INFINITY]] {
                let value = density.log_density(x).expect("known");
                assert!(value < -100.0, "{name} at {x:?}: {value}");
                assert!(
                    value.is_finite() == (x[0] < 1e100 && kind != Toy::Checkerboard),
                    "{name} at {x:?}: {value}"
                );
            }
        }
    }

    #[test]
    fn vanishing_noise_is_refused_without_work() {
        for (name, kind) in Toy::ALL {
            for noise in [1e-9, 1e-300, f64::MIN_POSITIVE] {
                let density = ToyDensity::new(kind).with_noise(noise).expect("valid");
                assert_eq!(density.entropy(), None, "{name} at {noise}");
            }
        }
    }
}
