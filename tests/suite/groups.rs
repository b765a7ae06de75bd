//! Tables whose rows fall into groups far apart, and tables that only look as if.

use moonflow::data::{ColumnDomain, Dataset, Margins, PreprocessingPlan, Table};
use moonflow::random::normals;
use moonflow::train::Groups;

/// 1,200 rows of two normal columns, with the row's number shown to `change`, and an indicator.
fn dataset(change: impl Fn(u32, [f64; 2]) -> [f64; 2], indicator: impl Fn(u32) -> bool) -> Dataset {
    let mut noise = [0.0f32; 2];
    let row = |row| {
        normals(row, 3, &mut noise);
        let [a, b] = change(row, noise.map(f64::from));
        [a, b, f64::from(u8::from(indicator(row)))]
    };
    let values = (0..1200).flat_map(row).collect();
    let table = Table { name: "t".into(), columns: ["a", "b", "class"].map(String::from).into(), values };
    let number = ColumnDomain::default();
    let plan = PreprocessingPlan {
        domains: vec![number, number, ColumnDomain::indicator()],
        context: 1,
        margins: Margins::Kernel,
        ..PreprocessingPlan::default()
    };
    Dataset::split_with(&table, 0.2, 0, &plan).expect("splits")
}

/// The groups where all rows are of one class.
fn groups(change: impl Fn(u32, [f64; 2]) -> [f64; 2]) -> Option<Groups> {
    groups_given(|_| false, change)
}

fn groups_given(
    indicator: impl Fn(u32) -> bool,
    change: impl Fn(u32, [f64; 2]) -> [f64; 2],
) -> Option<Groups> {
    Groups::of(&dataset(change, indicator), 0).expect("finite rows")
}

#[test]
fn modes_far_apart_are_groups() {
    let two = groups(|row, [a, b]| if row % 4 == 0 { [a + 16.0, b] } else { [a, b] }).expect("two");
    assert_eq!((two.count, two.bases[0]), (2, 5));
    let six = groups(|row, [a, b]| [a + 14.0 * f64::from(row % 3), b - 14.0 * f64::from(row % 2)]);
    let six = six.expect("six");
    assert_eq!(six.count, 6);
    assert!(six.bases.iter().all(|&count| count > 6), "{six:?}");
}

#[test]
fn groups_that_are_classes_are_told_to_the_flow() {
    let two = |row: u32, [a, b]: [f64; 2]| [a + 16.0 * f64::from(row % 2), b];
    assert_eq!(groups_given(|row| row % 2 == 0, two), None);
    assert!(groups_given(|row| row % 3 == 0, two).is_some(), "classes of both groups");
    let four =
        |row: u32, [a, b]: [f64; 2]| [a + 14.0 * f64::from(row % 2), b + 14.0 * f64::from(row / 2 % 2)];
    assert!(groups_given(|row| row % 2 == 0, four).is_some(), "two groups in each class");
}

#[test]
fn classes_of_few_rows_do_not_hide_groups() {
    let two = |row: u32, [a, b]: [f64; 2]| [a + 16.0 * f64::from(row % 2), b];
    for rows_of_a_class in [1, 2] {
        let mut data = dataset(two, |_| false);
        let rows = data.train.chunks_exact_mut(3).enumerate();
        rows.for_each(|(row, values)| values[2] = (row / rows_of_a_class) as f64);
        assert!(Groups::of(&data, 0).expect("finite rows").is_some(), "{rows_of_a_class}");
    }
}

#[test]
fn rows_without_gaps_are_one_group() {
    assert_eq!(groups(|_, row| row), None);
    assert_eq!(groups(|_, [a, b]| [a, a * a + 0.3 * b]), None, "bent");
    assert_eq!(groups(|row, [a, b]| [a + 3.0 * f64::from(row % 2), b]), None, "modes that touch");
    assert_eq!(groups(|_, [a, b]| [a.exp(), b.powi(3)]), None, "heavy tails");
}

#[test]
fn groups_that_margins_fit_better_are_left_to_them() {
    let atom =
        |row: u32, [a, b]: [f64; 2]| if row.is_multiple_of(2) { [0.0, b] } else { [20.0 + a.exp(), b] };
    assert_eq!(groups(atom), None);
}

#[test]
fn values_that_rows_share_are_no_modes() {
    let whole = |row: u32, [a, _]: [f64; 2]| [a + 16.0 * f64::from(row % 2), f64::from(row % 5)];
    assert_eq!(groups(whole), None);
}
