//! Tables through CSV and back, and the toy densities against their own samples.

use std::f64::consts::{PI, TAU};

use moonflow::Error;
use moonflow::data::{Dataset, Table, Toy, ToyDensity};
use proptest::prelude::*;

fn parse(text: &str) -> Table {
    Table::from_csv("t.csv", text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// The message with which `text` is refused.
fn refusal(text: impl AsRef<[u8]>) -> String {
    Table::from_csv("t.csv", text.as_ref()).expect_err("must be refused").to_string()
}

#[test]
fn headers_quotes_line_ends_marks_and_blank_lines_read_alike() {
    let want = Table {
        name: "t.csv".into(),
        columns: vec!["a".into(), "b, too".into()],
        values: vec![1.0, -2.5, 3e-4, 4.0],
    };
    for text in [
        "a,\"b, too\"\n1,-2.5\n3e-4,4\n",
        "a,\"b, too\"\r\n1,-2.5\r\n3e-4,4",
        "\u{feff}a,\"b, too\"\n1,-2.5\n3e-4,4\n\n\n",
        " a , \"b, too\"\n\n1, -2.5\n   \n\"3e-4\",+4.\n \n".replace(", \"", ",\"").as_str(),
    ] {
        assert_eq!(parse(text), want, "{text:?}");
    }
}

#[test]
fn a_first_row_of_numbers_is_data() {
    let table = parse("1,2,3\n4,5,6\n");
    assert_eq!(table.columns, ["x0", "x1", "x2"]);
    assert_eq!((table.rows(), table.features()), (2, 3));
    assert_eq!(parse("7").values, [7.0]);
}

#[test]
fn refusals_name_file_line_and_column() {
    for (text, want) in [
        ("", "t.csv: is empty"),
        ("\n\r\n  \n", "t.csv: is empty"),
        ("a,b\n", "t.csv: has a header but no rows"),
        ("a,b\n1,2\n3\n", "t.csv: line 3: expected 2 fields, got 1"),
        ("a\n1,2\n", "t.csv: line 2: expected 1 field, got 2"),
        ("1,2\n3,4,5\n", "t.csv: line 2: expected 2 fields, got 3"),
        ("a,b\n1,2\n3,four\n", "t.csv: line 3, column 2 (`b`): `four` is not a number"),
        (
            "a,b\n1,2\n,4\n",
            "t.csv: 1 value missing, in 1 of 2 rows: line 3, column 1 (`a`); leave such rows out",
        ),
        ("a,b\n1,\"\"\n", "t.csv: 1 value missing, in 1 of 1 rows: line 2, column 2 (`b`)"),
        ("1,2\n3,NaN\n", "t.csv: 1 value missing, in 1 of 2 rows: line 2, column 2 (`x1`)"),
        ("1,inf\n", "t.csv: line 1, column 2 (`x1`): `inf` is not finite"),
        ("a,b\n-1e999,0\n", "t.csv: line 2, column 1 (`a`): `-1e999` is not finite"),
        (
            "a,b\n1.5,2\n\"3,5\",4\n",
            "line 3, column 1 (`a`): `3,5` is not a number; with a decimal comma it is one",
        ),
        (
            "a,b\n1,9007199254740993\n",
            "line 2, column 2 (`b`): `9007199254740993` is a whole number beyond 2^53",
        ),
        (
            "a,b\n1,2024-01-01\n2,3\n",
            "line 3, column 2 (`b`): `3` is a number, and those above are dates or times",
        ),
        ("a,b,a\n1,2,3\n", "t.csv: line 1: columns 1 and 3 are both named `a`"),
        (",a,b\n0,1,2\n", "t.csv: line 1: column 1 has no name"),
        ("a\n1\n\"x\ny\"\n", "t.csv: line 3, column 1 (`a`): `x\\ny` is not a number"),
    ] {
        let message = refusal(text);
        assert!(message.contains(want), "{text:?} gave {message:?}, want {want:?}");
    }
    assert!(refusal(b"a,b\n1,\xff\xfe\n").contains("line 2, column 2 (`b`): `\\xff\\xfe` is not a number"));
    assert!(refusal(b"a,\xff\n1,2\n").contains("column 2, `\\xff`, is not UTF-8"));
    let long = refusal(format!("a\n{}\n", "z".repeat(1000)));
    assert!(long.contains("zzz…` is not a number") && long.len() < 160, "{long}");
}

#[test]
fn lines_are_counted_as_an_editor_counts_them() {
    for text in [
        "a,b\r\n1,2\r\n3,4\r\n5,x\r\n",
        "a,b\n\n\n5,x\n",
        "a,b\r\n\r\n\r\n5,x\r\n",
        "\u{feff}\n\na,b\n5,x\n",
        "a,b\n1,2\n  \n5,x",
        "a,\"b\n\"\n1,2\n5,x\n",
        "a,b\r1,2\r3,4\r5,x\r",
    ] {
        assert!(refusal(text).contains("line 4, column 2 (`b`)"), "{text:?}: {}", refusal(text));
    }
}

#[test]
fn a_missing_file_and_a_folder_are_named() {
    let folder = tempfile::tempdir().expect("temporary folder");
    for path in [folder.path().join("absent.csv"), folder.path().to_path_buf()] {
        let error = Table::read(&path).expect_err("must fail");
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    let path = folder.path().join("a.csv");
    std::fs::write(&path, "a,b\n1,2\n").expect("writable");
    assert_eq!(Table::read(&path).expect("reads").values, [1.0, 2.0]);
}

#[test]
fn writing_refuses_broken_rows_and_reports_a_full_disk() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let columns = ["a".to_string(), "b".to_string()];
    for (columns, values) in [(&columns[..], &[1.0, 2.0, 3.0][..]), (&[], &[]), (&[], &[1.0])] {
        let error = Table::write_csv(columns, values, Vec::new()).expect_err("must fail");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
    let error = Table::write_csv(&columns, &[1.0, 2.0], Full).expect_err("must fail");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}

#[test]
fn f32_values_are_written_with_f32_digits() {
    let mut out = Vec::new();
    Table::write_csv(&["log_prob".into()], &[0.1f32, -1.0, 1e30], &mut out).expect("written");
    assert_eq!(String::from_utf8_lossy(&out), "log_prob\n0.1\n-1.0\n1e30\n");
}

proptest! {
    #[test]
    fn reading_arbitrary_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Table::from_csv("t.csv", &bytes[..]);
    }

    #[test]
    fn reading_almost_csv_never_panics_and_yields_whole_finite_rows(text in "[a-c0-9,.\"\r\n; \u{feff}eE+-]{0,120}") {
        if let Ok(table) = Table::from_csv("t.csv", text.as_bytes()) {
            prop_assert!(table.rows() > 0);
            prop_assert_eq!(table.values.len(), table.rows() * table.features());
            prop_assert!(table.values.iter().all(|value| value.is_finite()));
            let _ = Dataset::split(&table, 0.1, 1);
        }
    }

    #[test]
    fn reading_undoes_writing(
        names in prop::collection::hash_set("[a-z]([a-z \",;\r\n]{0,6}[a-z_])?", 1..5),
        rows in 1usize..6,
        bits in prop::collection::vec(any::<u64>(), 30),
    ) {
        // Words that Rust reads as numbers would make the header a row.
        let columns: Vec<String> = names.into_iter().map(|name| format!("{name}_")).collect();
        let values: Vec<f64> = bits
            .iter()
            .map(|&bits| f64::from_bits(bits))
            .map(|value| if value.is_finite() { value } else { -0.0 })
            .take(rows * columns.len())
            .collect();
        let mut out = Vec::new();
        Table::write_csv(&columns, &values, &mut out).expect("written");
        let back = Table::from_csv("t.csv", &out[..]).expect("reads");
        prop_assert_eq!(back.columns, columns);
        prop_assert!(back.values.iter().map(|v| v.to_bits()).eq(values.iter().map(|v| v.to_bits())));
    }
}

/// Every shape at its default noise, and moons and blobs at others.
fn densities() -> Vec<ToyDensity> {
    let mut densities: Vec<ToyDensity> =
        Toy::ALL.into_iter().map(|(_, kind)| ToyDensity::new(kind)).collect();
    for (kind, noise) in [(Toy::Moons, 0.2), (Toy::Circles, 0.1), (Toy::Blobs, 1.5), (Toy::Pinwheel, 0.4)] {
        densities.push(ToyDensity::new(kind).with_noise(noise).expect("valid"));
    }
    densities
}

/// A square centred on the origin that holds all but a sliver of the mass: half its side.
fn half_side(density: &ToyDensity) -> f64 {
    match density.kind() {
        Toy::Moons => 2.0 + 6.0 * density.noise(),
        Toy::Circles => 1.0 + 6.0 * density.noise(),
        Toy::Blobs => 4.0 + 6.0 * density.noise(),
        Toy::Pinwheel => 5.6,
        Toy::Checkerboard => 4.0,
        Toy::Spirals => 3.2 + 6.0 * density.noise(),
        Toy::SwissRoll => 14.2 + 6.0 * density.noise(),
        other => panic!("half a side of {other:?} is missing here"),
    }
}

/// Probabilities of `side` × `side` equal cells of the square, from the density at `fine`² midpoints in each.
fn cell_probabilities(density: &ToyDensity, side: usize, fine: usize) -> Vec<f64> {
    let half = half_side(density);
    let step = 2.0 * half / (side * fine) as f64;
    let mut cells = vec![0.0; side * side];
    for i in 0..side * fine {
        for j in 0..side * fine {
            let x = [i, j].map(|index| (index as f64 + 0.5) * step - half);
            let log_density = density.log_density(x).expect("known");
            cells[i / fine * side + j / fine] += log_density.exp() * step * step;
        }
    }
    cells
}

#[test]
fn total_mass_is_one_and_samples_fall_where_the_density_says() {
    const SIDE: usize = 16;
    const ROWS: usize = 20_000;
    for density in densities() {
        let name = format!("{} with noise {}", density.name(), density.noise());
        let cells = cell_probabilities(&density, SIDE, 16);
        let mass: f64 = cells.iter().sum();
        assert!((mass - 1.0).abs() < 1e-5, "{name}: total mass {mass}");

        let (half, mut counts) = (half_side(&density), vec![0f64; SIDE * SIDE]);
        for row in density.sample(ROWS, 7).chunks(2) {
            let [i, j] = [row[0], row[1]].map(|value| {
                (((value + half) / (2.0 * half) * SIDE as f64).floor().max(0.0) as usize).min(SIDE - 1)
            });
            counts[i * SIDE + j] += 1.0;
        }
        // Cells with fewer than 5 rows expected count as one.
        let (mut chi2, mut freedom, mut rest) = (0f64, 0f64, [0f64; 2]);
        for (count, probability) in counts.iter().zip(&cells) {
            let expected = probability * ROWS as f64;
            if expected >= 5.0 {
                chi2 += (count - expected).powi(2) / expected;
                freedom += 1.0;
            } else {
                rest = [rest[0] + count, rest[1] + expected];
            }
        }
        if rest[1] >= 5.0 {
            chi2 += (rest[0] - rest[1]).powi(2) / rest[1];
        } else {
            assert!(rest[0] < 25.0, "{name}: {} rows where {} are expected", rest[0], rest[1]);
            freedom -= 1.0;
        }
        // χ² has mean `freedom` and variance twice that: 4.5 deviations.
        let limit = freedom + 4.5 * (2.0 * freedom).sqrt();
        assert!(chi2 < limit, "{name}: χ² = {chi2} with {freedom} degrees of freedom");
    }
}

#[test]
fn mean_log_density_of_samples_is_minus_the_entropy() {
    const ROWS: usize = 20_000;
    for density in densities() {
        let surprise: Vec<f64> = density
            .sample(ROWS, 11)
            .chunks(2)
            .map(|row| -density.log_density([row[0], row[1]]).expect("known"))
            .collect();
        let mean = surprise.iter().sum::<f64>() / ROWS as f64;
        let variance = surprise.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / ROWS as f64;
        let error = 4.0 * (variance / ROWS as f64).sqrt() + 1e-9;
        let entropy = density.entropy().expect("known");
        let (name, noise) = (density.name(), density.noise());
        assert!(error < 0.05, "{name}: the comparison is too weak to fail, ± {error}");
        assert!(
            (mean - entropy).abs() < error,
            "{name} with noise {noise}: {mean}, entropy {entropy} ± {error}"
        );
    }
}

/// Floors found independently, by quadrature on a grid of the density written out.
#[test]
fn the_moons_have_their_known_entropies() {
    for (noise, want) in [(0.05, 0.289), (0.06, 0.477), (0.1, 1.008), (0.2, 1.678)] {
        let moons = ToyDensity::new(Toy::Moons).with_noise(noise).expect("valid");
        let got = moons.entropy().expect("known");
        assert!((got - want).abs() < 1e-3, "noise {noise}: {got}, want {want}");
    }
}

/// Simpson's rule on the definition, with so many nodes that its own relative error is below 10⁻¹⁰:
/// (step · 1400)⁴ / 180 where the integrand falls fastest, at (−1.1, −0.1) with noise 0.01.
fn moons_by_simpson(x: [f64; 2], noise: f64) -> f64 {
    const INTERVALS: usize = 400_000;
    let step = PI / INTERVALS as f64;
    let exponent =
        |centre: [f64; 2]| -((x[0] - centre[0]).powi(2) + (x[1] - centre[1]).powi(2)) / (2.0 * noise * noise);
    let terms: Vec<(f64, f64)> = (0..=INTERVALS)
        .flat_map(|index| {
            let (sin, cos) = (index as f64 * step).sin_cos();
            let weight = match index {
                0 | INTERVALS => 1.0,
                odd if odd % 2 == 1 => 4.0,
                _ => 2.0,
            };
            [(weight, exponent([cos, sin])), (weight, exponent([1.0 - cos, 0.5 - sin]))]
        })
        .collect();
    let largest = terms.iter().map(|term| term.1).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = terms.iter().map(|(weight, exponent)| weight * (exponent - largest).exp()).sum();
    // Step / 3 of Simpson, 1 / π of the uniform angle, ½ of each moon.
    largest + (sum * step / 3.0 / PI / 2.0).ln() - (TAU * noise * noise).ln()
}

#[test]
fn the_moons_density_is_the_integral_of_its_definition() {
    for noise in [0.01, 0.05, 0.2, 1.0] {
        let moons = ToyDensity::new(Toy::Moons).with_noise(noise).expect("valid");
        for x in [[0.0, 1.0], [1.0, 0.0], [0.5, 0.25], [-1.1, -0.1], [2.0, 0.5], [0.98, 0.21], [3.0, 3.0]] {
            let (got, want) = (moons.log_density(x).expect("known"), moons_by_simpson(x, noise));
            assert!(
                (got - want).abs() < 1e-9 * want.abs().max(1.0),
                "noise {noise} at {x:?}: {got}, want {want}"
            );
        }
    }
}

/// A blurred circle's density has a closed form, whose Bessel function is a mean over the circle:
/// exp(−(r − R)² / 2σ²) · mean of exp(−rR (1 − cos θ) / σ²) / 2πσ².
#[test]
fn the_circles_density_is_its_closed_form() {
    const ANGLES: usize = 4096;
    for noise in [0.01, 0.05, 0.3] {
        let circles = ToyDensity::new(Toy::Circles).with_noise(noise).expect("valid");
        for radius in [0.0, 0.3, 0.8, 0.9, 1.0, 1.2] {
            let variance = noise * noise;
            let log_ring = |centre: f64| {
                let sum: f64 = (0..ANGLES)
                    .map(|index| (TAU * index as f64 / ANGLES as f64).cos())
                    .map(|cos| (-radius * centre * (1.0 - cos) / variance).exp())
                    .sum();
                (sum / ANGLES as f64).ln()
                    - (radius - centre).powi(2) / (2.0 * variance)
                    - (TAU * variance).ln()
            };
            let (outer, inner) = (log_ring(1.0), log_ring(0.8));
            let want = outer.max(inner) + (0.5 * (1.0 + (-(outer - inner).abs()).exp())).ln();
            let got = circles.log_density([radius * 0.6, -radius * 0.8]).expect("known");
            assert!(
                (got - want).abs() < 1e-9 * want.abs().max(1.0),
                "noise {noise} at radius {radius}: {got}, want {want}"
            );
        }
    }
}
