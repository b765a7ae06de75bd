//! The picture of a fitted flow: every panel drawn, the same bytes each time, and no input that makes it fail.

use std::f64::consts::PI;

use image::RgbImage;
use moonflow::Error;
use moonflow::random::{Philox, Stream};
use moonflow::report::{DensityGrid, Figure, LossCurves, limits};
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
fn history(epochs: u32, floor: f64) -> LossCurves {
    let mut random = Philox::new(3, Stream::Data, 0);
    let mut history = LossCurves::default();
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
    history: LossCurves,
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
            subtitle:
                "held-out NLL 0.3104 ± 0.0062 nats, 0.013 above the entropy floor · CPU, 2 threads · 11.8 s"
                    .to_owned(),
            columns: &self.columns,
            context: 0,
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

/// Share of the pixels of a rectangle (left, top, right, bottom) whose luminance is below `darkness`.
fn inked(picture: &RgbImage, [left, top, right, bottom]: [u32; 4], darkness: f64) -> f64 {
    let pixels = (top..bottom).flat_map(|y| (left..right).map(move |x| (x, y)));
    let luminance = |x, y| {
        let [red, green, blue] = picture.get_pixel(x, y).0.map(f64::from);
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    };
    let dark = pixels.filter(|&(x, y)| luminance(x, y) < darkness).count();
    dark as f64 / f64::from((right - left) * (bottom - top))
}

/// A drawing whose XML is well formed and whose numbers are all finite.
fn assert_sound(svg: &str) {
    let document = usvg::roxmltree::Document::parse(svg).expect("the drawing is XML");
    usvg::Tree::from_str(svg, &usvg::Options::default()).expect("the drawing is SVG");
    for attribute in document.descendants().flat_map(|node| node.attributes()) {
        let value = attribute.value();
        let text = !matches!(attribute.name(), "href" | "font-family");
        assert!(
            !(text && (value.contains("NaN") || value.contains("inf"))),
            "{} = {value}",
            attribute.name()
        );
    }
}

#[test]
fn picture_has_the_asked_width_and_ink_in_every_panel() {
    let fit = Fit::moons(10_000);
    let png = fit.full_figure().png(1600).unwrap();
    keep("figure.png", &png);
    let picture = decode(&png);
    assert_eq!(picture.width(), 1600);
    assert!((900..1200).contains(&picture.height()), "height {}", picture.height());
    assert!(png.len() < 1_000_000, "{} bytes", png.len());
    for (panel, rectangle, least, most) in [
        ("title", [100, 35, 620, 75], 0.1, 0.4),
        ("subtitle", [100, 84, 880, 106], 0.04, 0.4),
        ("data", [103, 176, 507, 435], 0.05, 0.5),
        ("samples", [573, 176, 977, 435], 0.05, 0.5),
        ("density", [1043, 176, 1447, 435], 0.15, 0.6),
        ("colour bar", [1468, 176, 1484, 435], 0.5, 0.95),
        ("latent", [103, 580, 507, 970], 0.03, 0.5),
        ("loss", [573, 580, 1557, 970], 0.004, 0.2),
    ] {
        let share = inked(&picture, rectangle, 190.0);
        assert!((least..most).contains(&share), "{panel}: {share:.4} of its pixels are dark");
    }
}

/// The headline is set in the embedded font: letters that it has not leave no ink, and neither does a font that is
/// not found.
#[test]
fn headline_is_drawn_without_any_system_font() {
    let fit = Fit::moons(50);
    let headline = [50, 15, 450, 55];
    let with = decode(&fit.figure().png(800).unwrap());
    let blank = Figure { title: String::new(), subtitle: String::new(), ..fit.figure() };
    let without = decode(&blank.png(800).unwrap());
    assert!(inked(&with, headline, 128.0) > 0.03);
    assert_eq!(inked(&without, headline, 128.0), 0.0);
}

#[test]
fn same_input_gives_the_same_bytes() {
    let fit = Fit::moons(700);
    assert_eq!(fit.full_figure().svg().unwrap(), fit.full_figure().svg().unwrap());
    let png = fit.full_figure().png(333).unwrap();
    assert_eq!(decode(&png).width(), 333);
    assert_eq!(png, fit.full_figure().png(333).unwrap());
}

/// Points and densities in the upper right of their plane are in the upper right of their panels.
#[test]
fn panels_are_neither_mirrored_nor_transposed() {
    // Corners that fix the limits, often enough to be no outliers, then a cluster towards high x and high y.
    let mut rows = [0.0, 0.0, 4.0, 3.0].repeat(9);
    rows.extend(
        (0..500).flat_map(|i| [3.0 + 0.2 * f64::from(i % 23) / 23.0, 2.0 + 0.2 * f64::from(i % 19) / 19.0]),
    );
    let fit = Fit { data: rows.clone(), samples: rows.clone(), latent: rows, ..Fit::moons(10) };
    let mut figure = fit.figure();
    let [x, y] = figure.limits();
    let log_density = DensityGrid::centres(x, y, 90, 60)
        .chunks_exact(2)
        .map(|p| -8.0 * ((p[0] - 3.1).powi(2) + (p[1] - 2.1).powi(2)))
        .collect();
    figure.density = Some(DensityGrid { x, y, columns: 90, rows: 60, log_density });
    let picture = decode(&figure.png(1600).unwrap());
    for (panel, left) in [("data", 100), ("samples", 570), ("density", 1040)] {
        let quarter = |column: u32, row: u32| {
            let (left, top) = (left + 4 + column * 203, 176 + row * 150);
            inked(&picture, [left, top, left + 200, top + 148], 160.0)
        };
        let upper_right = quarter(1, 0);
        assert!(upper_right > 0.01, "{panel}: {upper_right}");
        for other in [quarter(0, 0), quarter(0, 1), quarter(1, 1)] {
            assert!(other < 0.2 * upper_right, "{panel}: {other} against {upper_right}");
        }
    }
}

#[test]
fn centres_run_along_x_first_from_the_lower_left() {
    let centres = DensityGrid::centres((0.0, 3.0), (10.0, 14.0), 3, 2);
    assert_eq!(centres, [0.5, 11.0, 1.5, 11.0, 2.5, 11.0, 0.5, 13.0, 1.5, 13.0, 2.5, 13.0]);
}

#[test]
fn figure_shows_the_grid_when_there_is_one_and_else_data_and_samples() {
    let fit = Fit::moons(300);
    let mut figure = fit.figure();
    assert_eq!(figure.limits(), limits(&fit.data, &fit.samples));
    figure.density = Some(density([(-2.0, 3.0), (-2.0, 2.0)], 20, 16));
    assert_eq!(figure.limits(), [(-2.0, 3.0), (-2.0, 2.0)]);
}

#[test]
fn a_grid_made_for_the_limits_fills_the_panel() {
    for fit in [Fit::moons(300), Fit { data: vec![0.0, 0.0, 1e5, 2.0, 3e4, 1.0], ..Fit::moons(3) }] {
        let mut figure = fit.figure();
        let before = figure.limits();
        let [x, y] = before;
        figure.density = Some(DensityGrid { x, y, columns: 2, rows: 2, log_density: vec![0.0; 4] });
        for (a, b) in before.into_iter().zip(figure.limits()) {
            assert!((a.0 - b.0).abs() + (a.1 - b.1).abs() <= 1e-9 * (a.1 - a.0), "{a:?} became {b:?}");
        }
    }
}

#[test]
fn wide_tables_show_pairs_of_features() {
    for features in [3, 5, 7] {
        let fit = Fit::table(2000, features);
        let figure = Figure { title: format!("A table of {features} features"), ..fit.figure() };
        assert_sound(&figure.svg().unwrap());
        if features == 7 {
            let png = figure.png(1600).unwrap();
            keep("corner.png", &png);
            let picture = decode(&png);
            assert!(png.len() < 1_000_000, "{} bytes", png.len());
            for (panel, rectangle) in [
                ("data", [103, 850, 250, 965]),
                ("samples", [750, 180, 895, 320]),
                ("radius", [1015, 180, 1555, 500]),
                ("loss", [1015, 700, 1555, 965]),
            ] {
                let share = inked(&picture, rectangle, 200.0);
                assert!((0.004..0.7).contains(&share), "{panel}: {share:.4} of its pixels are dark");
            }
        }
    }
}

#[test]
fn names_and_titles_may_hold_any_characters() {
    let mut fit = Fit::moons(50);
    fit.columns =
        names(&["a<b & \"c\"", "年齢 \u{1}\u{fffe} and a very long name that no axis could ever hold"]);
    let figure =
        Figure { title: "<script>&amp;\u{0}".repeat(40), subtitle: "\t\n".to_owned(), ..fit.figure() };
    let svg = figure.svg().unwrap();
    assert_sound(&svg);
    assert!(svg.contains("a&lt;b &amp; \"c\"") && svg.contains('…'));
}

#[test]
fn sparse_constant_and_broken_inputs_still_make_a_picture() {
    let base = Fit::moons(40);
    let ok = base.full_figure();
    let outliers: Vec<f64> =
        base.samples.iter().enumerate().map(|(i, v)| if i % 9 == 0 { 1e30 } else { *v }).collect();
    let not_numbers = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0, f64::MAX, f64::MIN_POSITIVE];
    let constant = vec![2.5; 40];
    let one = LossCurves { epoch: vec![1], train_nll: vec![0.7], validation_nll: vec![f64::NAN] };
    let level =
        LossCurves { epoch: (1..=40).collect(), train_nll: vec![0.5; 40], validation_nll: vec![0.5; 40] };
    let burst = LossCurves {
        epoch: (1..=40).collect(),
        train_nll: (0..40).map(|i| if i < 2 { 1e12 } else { 1.0 / f64::from(i) }).collect(),
        validation_nll: (0..40).map(|i| if i % 5 == 0 { f64::NAN } else { f64::INFINITY }).collect(),
    };
    let empty = LossCurves::default();
    let [x, y] = ok.limits();
    let grid = |log_density: Vec<f64>| Some(DensityGrid { x, y, columns: 3, rows: 2, log_density });
    let figures = [
        ("no rows", Figure { data: &[], samples: &[], latent: &[], density: None, ..ok.clone() }),
        ("no samples", Figure { samples: &[], density: None, ..ok.clone() }),
        ("outliers", Figure { samples: &outliers, latent: &outliers, density: None, ..ok.clone() }),
        (
            "constant",
            Figure { data: &constant, samples: &constant, latent: &constant, density: None, ..ok.clone() },
        ),
        (
            "not numbers",
            Figure { data: &not_numbers, samples: &not_numbers, latent: &not_numbers, ..ok.clone() },
        ),
        (
            "empty grid",
            Figure {
                density: Some(DensityGrid { x, y, columns: 0, rows: 0, log_density: vec![] }),
                ..ok.clone()
            },
        ),
        ("grid of NaN", Figure { density: grid(vec![f64::NAN; 6]), ..ok.clone() }),
        ("grid of −∞", Figure { density: grid(vec![f64::NEG_INFINITY; 6]), ..ok.clone() }),
        ("mixed grid", Figure { density: grid(not_numbers.to_vec()), ..ok.clone() }),
        ("flat grid", Figure { density: grid(vec![-1.0; 6]), ..ok.clone() }),
        (
            "reversed grid",
            Figure { density: Some(density([(1.0, -1.0), (0.0, f64::NAN)], 4, 3)), ..ok.clone() },
        ),
        ("no history", Figure { history: None, ..ok.clone() }),
        ("empty history", Figure { history: Some(&empty), ..ok.clone() }),
        ("one epoch", Figure { history: Some(&one), ..ok.clone() }),
        ("level losses", Figure { history: Some(&level), floor: Some(0.5), ..ok.clone() }),
        ("burst", Figure { history: Some(&burst), floor: Some(f64::NAN), ..ok.clone() }),
    ];
    for (name, figure) in figures {
        let svg = figure.svg().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_sound(&svg);
        // One of each kind of trouble is taken to pixels as well.
        if matches!(name, "outliers" | "mixed grid" | "burst") {
            keep(&format!("{}.png", name.replace(' ', "-")), &figure.png(400).unwrap());
        }
    }
}

#[test]
fn a_single_column_is_drawn_as_histograms() {
    let mut fit = Fit::moons(400);
    fit.columns.truncate(1);
    let figure = Figure { density: None, ..fit.full_figure() };
    let svg = figure.svg().expect("drawn");
    assert!(svg.contains("Features") && svg.contains("Latent radius") && !svg.contains("NaN"));
}

#[test]
fn lengths_that_do_not_fit_are_refused_with_both_numbers() {
    let fit = Fit::moons(10);
    let ok = fit.full_figure();
    let short = LossCurves { epoch: vec![1, 2], train_nll: vec![1.0], validation_nll: vec![1.0, 1.0] };
    let [x, y] = ok.limits();
    for (figure, message) in [
        (Figure { data: &fit.data[1..], ..ok.clone() }, "data: got 19 values, expected 20"),
        (Figure { samples: &fit.data[..3], ..ok.clone() }, "samples: got 3 values, expected 4"),
        (Figure { latent: &fit.data[..1], ..ok.clone() }, "latent: got 1 values, expected 2"),
        (
            Figure {
                density: Some(DensityGrid { x, y, columns: 4, rows: 3, log_density: vec![0.0] }),
                ..ok.clone()
            },
            "density grid: got 1 values, expected 12",
        ),
        (Figure { history: Some(&short), ..ok.clone() }, "training losses: got 1 values, expected 2"),
        (
            Figure { context: 2, ..ok.clone() },
            "picture: got 2 columns, 2 of them context; expected one that is modelled",
        ),
    ] {
        assert_eq!(figure.svg().unwrap_err().to_string(), message);
    }
    for width in [0, 15, 16_385, u32::MAX] {
        assert!(
            matches!(ok.png(width), Err(Error::Argument(message)) if message.contains(&width.to_string()))
        );
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    /// Any bits are drawn or left out, never a panic and never a number that is not one.
    #[test]
    fn any_floats_make_a_sound_drawing(
        bits in proptest::collection::vec(proptest::num::f64::ANY, 12..60),
        features in 2usize..5,
        scale in -150i32..150,
    ) {
        let rows = bits.len() / features * features;
        let scaled: Vec<f64> = bits[..rows].iter().map(|value| value.signum() * 10f64.powi(scale)).collect();
        let columns: Vec<String> = (0..features).map(|feature| feature.to_string()).collect();
        let history = LossCurves {
            epoch: (1..=rows as u32).collect(),
            train_nll: bits[..rows].to_vec(),
            validation_nll: scaled.clone(),
        };
        let figure = Figure {
            title: String::new(),
            subtitle: String::new(),
            columns: &columns,
            context: 0,
            data: &bits[..rows],
            samples: &scaled,
            latent: &bits[..rows],
            density: Some(DensityGrid {
                x: (bits[0], bits[1]),
                y: (-1.0, 1.0),
                columns: 3,
                rows: 4,
                log_density: bits[..12].to_vec(),
            }),
            history: Some(&history),
            floor: Some(bits[2]),
        };
        assert_sound(&figure.svg().unwrap());
        assert_sound(&Figure { data: &scaled, density: None, ..figure }.svg().unwrap());
    }
}
