//! The picture of a fitted flow: every panel drawn, the same bytes each time, and no input that makes it fail.

use std::f64::consts::PI;

use image::RgbImage;
use moonflow::Error;
use moonflow::random::{Philox, Stream};
use moonflow::report::{DensityGrid, Figure, History, limits};
use rand_distr::{Distribution, StandardNormal};
use resvg::usvg;

/// Standard deviation of the moons' noise.
const NOISE: f64 = 0.06;

/// A point of the two half circles, `part` of the way along.
fn arc(upper: bool, part: f64) -> [f64; 2] {
    let (sin, cos) = (PI * part).sin_cos();
    if upper { [cos, sin] } else { [1.0 - cos, 0.5 - sin] }
}

fn normal(random: &mut Philox) -> f64 {
    StandardNormal.sample(random)
}

/// `n` rows of two moons, first all of the upper one: sorted tables must not show only their beginning.
fn moons(n: usize, noise: f64, seed: u64) -> Vec<f64> {
    let mut random = Philox::new(seed, Stream::Data, 0);
    (0..n)
        .flat_map(|row| {
            let point = arc(2 * row < n, (2 * row % n) as f64 / n as f64);
            point.map(|value| value + noise * normal(&mut random))
        })
        .collect()
}

/// A density like that of a fitted flow: the moons, a thread of probability between them and a wide haze.
fn density([x, y]: [(f64, f64); 2], columns: usize, rows: usize) -> DensityGrid {
    let gaussian = |p: &[f64], at: [f64; 2], sigma: f64| {
        let square = (p[0] - at[0]).powi(2) + (p[1] - at[1]).powi(2);
        (-0.5 * square / sigma.powi(2)).exp() / (2.0 * PI * sigma.powi(2))
    };
    let log_density = DensityGrid::centres(x, y, columns, rows)
        .chunks_exact(2)
        .map(|p| {
            let along = (0..60).map(|index| (f64::from(index) + 0.5) / 60.0);
            let arcs = along.clone().map(|part| {
                gaussian(p, arc(true, part), 1.1 * NOISE) + gaussian(p, arc(false, part), 1.1 * NOISE)
            });
            let thread = along.map(|part| gaussian(p, [1.0 - part, 0.5 * part], 0.05));
            let haze = 2e-3 * gaussian(p, [0.5, 0.25], 0.8);
            (0.994 * arcs.sum::<f64>() / 120.0 + 4e-3 * thread.sum::<f64>() / 60.0 + haze).ln()
        })
        .collect();
    DensityGrid { x, y, columns, rows, log_density }
}

/// Falling losses that level out a little above `floor`, with a validation loss in every epoch.
fn history(epochs: u32, floor: f64) -> History {
    let mut random = Philox::new(3, Stream::Data, 0);
    let mut history = History::default();
    for epoch in 1..=epochs {
        let time = f64::from(epoch);
        let loss = floor + 0.008 + 1.9 * (-time / 6.0).exp() + 0.35 * (-time / 45.0).exp();
        let wobble = 0.012 * (1.2 - time / f64::from(epochs));
        history.epoch.push(epoch);
        history.train_nll.push(loss + wobble * normal(&mut random).abs());
        history.validation_nll.push(loss + 0.004 + wobble * normal(&mut random).abs());
    }
    history
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Everything that a figure borrows.
struct Fit {
    columns: Vec<String>,
    data: Vec<f64>,
    samples: Vec<f64>,
    latent: Vec<f64>,
    history: History,
}

impl Fit {
    fn moons(rows: usize) -> Self {
        let mut random = Philox::new(9, Stream::Data, 0);
        Self {
            columns: names(&["x", "y"]),
            data: moons(rows, NOISE, 1),
            samples: moons(rows, 1.1 * NOISE, 2),
            latent: (0..2 * rows).map(|_| normal(&mut random)).collect(),
            history: history(120, 0.2974),
        }
    }

    /// A table of `features` features, each of another kind, and a model that misses some of it.
    fn table(rows: usize, features: usize) -> Self {
        let mut random = Philox::new(5, Stream::Data, 0);
        let mut draw = |spread: f64| -> Vec<f64> {
            (0..rows)
                .flat_map(|row| {
                    let base = normal(&mut random);
                    let noise: Vec<f64> = (0..features).map(|_| normal(&mut random)).collect();
                    (0..features).map(move |feature| match feature % 3 {
                        0 => 300.0 + 40.0 * (base + 0.3 * noise[feature]),
                        1 => spread * (0.5 * base + 0.4 * noise[feature]).exp(),
                        _ => (row % 2) as f64 * 3.0 + 0.4 * noise[feature],
                    })
                })
                .collect()
        };
        Self {
            columns: (0..features).map(|feature| format!("feature {}", feature + 1)).collect(),
            data: draw(1.0),
            samples: draw(1.15),
            latent: (0..features * rows).map(|_| normal(&mut random)).collect(),
            history: history(60, 2.0),
        }
    }

    fn figure(&self) -> Figure<'_> {
        Figure {
            title: "Two moons, 8 couplings of 64 × 64".to_owned(),
            subtitle: "held-out NLL 0.3104 ± 0.0062 nats, 0.013 above the entropy floor · CPU, 2 threads · 11.8 s"
                .to_owned(),
            columns: &self.columns,
            data: &self.data,
            samples: &self.samples,
            latent: &self.latent,
            density: None,
            history: Some(&self.history),
            floor: None,
        }
    }

    fn full_figure(&self) -> Figure<'_> {
        let mut figure = self.figure();
        figure.density = Some(density(figure.limits(), 220, 150));
        figure.floor = Some(0.2974);
        figure
    }
}

fn decode(png: &[u8]) -> RgbImage {
    image::load_from_memory(png).expect("the bytes are a PNG").into_rgb8()
}

/// Kept so that a person can look at it.
fn keep(name: &str, png: &[u8]) {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(path, png).expect("the folder of test outputs is writable");
}

/// Share of the pixels of a rectangle (left, top, right, bottom) that are not white.
fn inked(picture: &RgbImage, [left, top, right, bottom]: [u32; 4]) -> f64 {
    let pixels = (top..bottom).flat_map(|y| (left..right).map(move |x| (x, y)));
    let dark = pixels.filter(|&(x, y)| picture.get_pixel(x, y).0.iter().any(|&channel| channel < 200)).count();
    dark as f64 / f64::from((right - left) * (bottom - top))
}

#[test]
fn picture_has_the_asked_width_and_ink_in_every_panel() {
    let fit = Fit::moons(10_000);
    let png = fit.full_figure().png(1600).unwrap();
    keep("figure.png", &png);
    let picture = decode(&png);
    assert_eq!(picture.width(), 1600);
    assert!((900..1300).contains(&picture.height()), "height {}", picture.height());
    assert!(png.len() < 1_000_000, "{} bytes", png.len());
}

#[test]
fn wide_tables_show_pairs_of_features() {
    let fit = Fit::table(3000, 7);
    let png = fit.figure().png(1600).unwrap();
    keep("corner.png", &png);
}
