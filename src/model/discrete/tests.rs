use super::*;
use crate::random::{Stream, key, philox};

/// Rows of three variables with 2, 3 and 4 levels and one number. The third is decided by the first two together, mostly.
fn rows(count: u32, numbers: usize) -> DiscreteRows {
    let mut rows = DiscreteRows::default();
    for row in 0..count {
        let [a, b, noise, number] = philox([row, 0, 0, Stream::Data as u32], key(5));
        let number = f64::from(number) / f64::from(u32::MAX) * 6.0 - 3.0;
        let lean = if numbers > 0 && number > 0.5 { 1 } else { a % 5 / 3 };
        let (a, b) = (lean, b % 7 % 3);
        let c = if noise % 10 < 8 { (a + b) % 2 + 2 * (b / 2) } else { noise / 10 % 4 };
        rows.codes.extend([a, b, c]);
        rows.numbers.extend(std::iter::repeat_n(number, numbers));
    }
    rows
}

const LEVELS: [usize; 3] = [2, 3, 4];

/// Every combination of levels, beside the same given numbers.
fn all(numbers: &[f64]) -> DiscreteRows {
    let mut rows = DiscreteRows::default();
    for code in 0..24 {
        rows.codes.extend([code % 2, code / 2 % 3, code / 6]);
        rows.numbers.extend(numbers);
    }
    rows
}

/// Chains with and without a given number and given variables.
fn chains() -> Vec<(&'static str, Discrete)> {
    let fit = |modelled, numbers| {
        Discrete::fit(&LEVELS, modelled, numbers, &rows(700, numbers), None).expect("fits")
    };
    vec![("tables", fit(3, 0)), ("given a variable", fit(2, 0)), ("a number", fit(3, 1)), ("both", fit(1, 2))]
}

#[test]
fn probabilities_of_all_combinations_add_up_to_1() {
    for (name, chain) in chains() {
        for number in [-1e9, -2.0, 0.3, 7.0] {
            let all = all(&vec![number; chain.numbers()]);
            let log_prob = chain.log_prob(&all).expect("scores");
            let mut sums = std::collections::BTreeMap::new();
            for (codes, log_prob) in all.codes.chunks(3).zip(log_prob) {
                *sums.entry(codes[chain.modelled()..].to_vec()).or_insert(0.0) += log_prob.exp();
            }
            assert!(sums.values().all(|sum: &f64| (sum - 1.0).abs() < 1e-12), "{name}: {sums:?}");
        }
    }
}

#[test]
fn tables_see_what_two_variables_tell_together_and_smooth_what_was_never_seen() {
    let codes = (0..400u32).flat_map(|row| [row % 2, row / 2 % 2, (row ^ (row / 2)) % 2, 0]).collect();
    let rows = DiscreteRows { codes, numbers: Vec::new() };
    let chain = Discrete::fit(&[2, 2, 2, 3], 4, 0, &rows, None).expect("fits");
    let probability = |codes: [u32; 4]| {
        let row = DiscreteRows { codes: codes.into(), numbers: Vec::new() };
        chain.log_prob(&row).expect("scores")[0].exp()
    };
    assert!((probability([1, 0, 1, 0]) - 0.25).abs() < 0.01, "{}", probability([1, 0, 1, 0]));
    for never in [probability([1, 0, 0, 0]), probability([1, 0, 1, 2])] {
        assert!(never > 1e-7 && never < 2e-3, "{never}");
    }
}

type Draw = fn(u32) -> Vec<u32>;

/// A row of independent variables, of a chain, and of one whose third variable two others decide together, mostly.
const KINDS: [(&str, &[usize], Draw); 5] = [
    ("independent", &[2, 3, 4], |row| {
        vec![draw(row, 0, 5) / 3, draw(row, 1, 3), (draw(row, 2, 9) / 2).min(3)]
    }),
    ("chain", &[4, 4, 4, 3], |row| {
        let first = draw(row, 0, 4);
        let second = mostly(row, 1, first, 7, 4);
        vec![first, second, mostly(row, 3, second, 7, 4), draw(row, 5, 3)]
    }),
    ("together", &[2, 3, 4], |row| {
        let (a, b) = (draw(row, 0, 5) / 3, draw(row, 1, 3));
        vec![a, b, mostly(row, 2, (a + b) % 2 + 2 * (b / 2), 8, 4)]
    }),
    ("84 combinations", &[7, 4, 3], |row| {
        let a = draw(row, 0, 7);
        let b = mostly(row, 1, a * 3 % 4, 5, 4);
        vec![a, b, mostly(row, 3, (a + b) % 3, 6, 3)]
    }),
    ("sum", &[3, 3, 3, 3], |row| {
        let (a, b) = (draw(row, 0, 3), draw(row, 1, 3));
        let sum = mostly(row, 2, (a + b) % 3, 9, 3);
        vec![a, b, sum, mostly(row, 4, sum, 5, 3)]
    }),
];

/// One of `count` levels.
fn draw(row: u32, place: u32, count: u32) -> u32 {
    philox([row, place, 1, Stream::Data as u32], key(11))[0] % count
}

/// `level` in some tenths of the rows, else one of `count`.
fn mostly(row: u32, place: u32, level: u32, tenths: u32, count: u32) -> u32 {
    if draw(row, place, 10) < tenths { level } else { draw(row, place + 1, count) }
}

/// Mean log-probability of new rows under counts of whole rows, each counted once more than it came.
fn plus_one(levels: &[usize], few: &DiscreteRows, new: &DiscreteRows) -> f64 {
    let mut counts = std::collections::BTreeMap::new();
    let width = levels.len();
    few.codes.chunks(width).for_each(|row| *counts.entry(row).or_insert(0.0) += 1.0);
    let total = (few.codes.len() / width + levels.iter().product::<usize>()) as f64;
    let of = |row| ((counts.get(row).copied().unwrap_or(0.0) + 1.0) / total).ln();
    new.codes.chunks(width).map(of).sum::<f64>() / (new.codes.len() / width) as f64
}

/// The same under independent variables: the sum of what each makes of its own levels.
fn independent(levels: &[usize], few: &DiscreteRows, new: &DiscreteRows) -> f64 {
    let column = |rows: &DiscreteRows, place: usize| DiscreteRows {
        codes: rows.codes.iter().skip(place).step_by(levels.len()).copied().collect(),
        numbers: Vec::new(),
    };
    let of = |place: usize| plus_one(&levels[place..=place], &column(few, place), &column(new, place));
    (0..levels.len()).map(of).sum()
}

#[test]
fn few_and_many_rows_are_smoothed_at_least_about_as_well_as_by_counting() {
    const SEEDS: u32 = 8;
    let mut problems = Vec::new();
    // What the mean over the seeds may lose to the better of the two, and what one seed may.
    for (count, of_mean, of_one) in [(30, 0.02, 0.3), (60, 0.01, 0.1), (1000, 0.003, 0.01)] {
        for (name, levels, kind) in KINDS {
            let rows = |start: u32, count: u32| DiscreteRows {
                codes: (start..start + count).flat_map(kind).collect(),
                numbers: Vec::new(),
            };
            let new = rows(1 << 20, 4000);
            let (mut sum, mut counted, mut alone) = (0.0, 0.0, 0.0);
            for seed in 0..SEEDS {
                let few = rows(seed * 1000, count);
                let chain = Discrete::fit(levels, levels.len(), 0, &few, None).expect("fits");
                let own = chain.log_prob(&new).expect("scores").iter().sum::<f64>() / 4000.0;
                let others = (plus_one(levels, &few, &new), independent(levels, &few, &new));
                let best = others.0.max(others.1);
                if own < best - of_one {
                    problems.push(format!("{name}, {count} rows, seed {seed}: {own:.4}, counts {best:.4}"));
                }
                (sum, counted, alone) = (sum + own, counted + others.0, alone + others.1);
            }
            let lost = (counted.max(alone) - sum) / f64::from(SEEDS);
            if lost > of_mean {
                problems.push(format!("{name}, {count} rows: {lost:.4} nats worse than counts"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_regression_follows_its_number() {
    let chain = Discrete::fit(&LEVELS, 3, 1, &rows(2000, 1), None).expect("fits");
    let first = |number: f64| {
        let row = all(&[number]);
        let log_prob = chain.log_prob(&row).expect("scores");
        let pairs = row.codes.chunks(3).zip(log_prob);
        pairs.filter(|(codes, _)| codes[0] == 1).map(|(_, log_prob)| log_prob.exp()).sum::<f64>()
    };
    // 1 above 0.5, two fifths below.
    assert!(first(2.5) > 0.95 && (first(-2.0) - 0.4).abs() < 0.1, "{} {}", first(2.5), first(-2.0));
}

#[test]
fn samples_have_the_chains_probabilities_whatever_is_fixed() {
    const ROWS: u32 = 20_000;
    for (name, chain) in chains() {
        for fixed in [[None, None, None], [None, None, Some(1)], [None, Some(2), None], [Some(0), None, None]]
        {
            let fixed = &fixed[..chain.modelled()];
            let (given, numbers) = (&[3, 2, 1][..3 - chain.modelled()], vec![0.7; chain.numbers()]);
            let mut draws = chain.draws(fixed, 9).expect("levels that there are");
            let mut counts = std::collections::BTreeMap::new();
            for row in 0..ROWS {
                let levels = draws.row(row, given, &numbers).expect("likely enough");
                *counts.entry(levels).or_insert(0.0) += 1.0 / f64::from(ROWS);
            }
            let all = all(&numbers);
            let scored: Vec<(&[u32], f64)> =
                all.codes.chunks(3).zip(chain.log_prob(&all).expect("scores")).collect();
            let allowed = scored.iter().filter(|(codes, _)| {
                codes[chain.modelled()..] == *given
                    && codes.iter().zip(fixed).all(|(code, fixed)| fixed.is_none_or(|fixed| fixed == *code))
            });
            let total: f64 = allowed.clone().map(|(_, log_prob)| log_prob.exp()).sum();
            for (codes, log_prob) in allowed {
                let want = log_prob.exp() / total;
                let got = counts.get(&codes[..chain.modelled()]).copied().unwrap_or_default();
                let error = (want * (1.0 - want) / f64::from(ROWS)).sqrt();
                assert!((got - want).abs() < 5.0 * error + 1e-4, "{name} {fixed:?} {codes:?}: {got}, {want}");
            }
        }
    }
}

#[test]
fn tries_and_weighed_combinations_give_the_same_distribution() {
    let chain = Discrete::fit(&LEVELS, 3, 0, &rows(700, 0), None).expect("fits");
    let fixed = [None, None, Some(2)];
    let share = |mut draws: Draws<'_>| {
        let ones = (0..20_000).filter(|&row| draws.row(row, &[], &[]).expect("likely")[0] == 1).count();
        ones as f64 / 20_000.0
    };
    let weighed = share(chain.draws(&fixed, 3).expect("levels"));
    let mut many = chain.draws(&fixed, 3).expect("levels");
    many.combinations = usize::MAX;
    let tried = share(many);
    assert!((weighed - tried).abs() < 0.02, "{weighed} {tried}");
}

#[test]
fn weights_count_as_rows_and_their_scale_does_not() {
    let rows = rows(300, 0);
    let fit =
        |weights: Option<Vec<f64>>| Discrete::fit(&LEVELS, 3, 0, &rows, weights.as_deref()).expect("fits");
    assert_eq!(fit(None), fit(Some(vec![8.0; 300])));
    let mut weights = vec![1.0; 300];
    weights[..150].fill(0.0);
    let half = DiscreteRows { codes: rows.codes[450..].to_vec(), numbers: Vec::new() };
    let alone = Discrete::fit(&LEVELS, 3, 0, &half, None).expect("fits").log_prob(&rows).expect("scores");
    let weighted = fit(Some(weights)).log_prob(&rows).expect("scores");
    assert_eq!(alone, weighted, "rows without weight are as if they were not there");
}

#[test]
fn rows_that_do_not_belong_are_refused() {
    let bad = |codes: &[u32], numbers: &[f64]| DiscreteRows { codes: codes.into(), numbers: numbers.into() };
    assert!(Discrete::fit(&LEVELS, 3, 0, &bad(&[], &[]), None).is_err());
    assert!(Discrete::fit(&LEVELS, 0, 0, &rows(9, 0), None).is_err());
    assert!(Discrete::fit(&LEVELS, 3, 0, &rows(9, 0), Some(&[0.0; 9])).is_err());
    assert!(Discrete::fit(&LEVELS, 3, 0, &rows(9, 0), Some(&[1.0; 8])).is_err());
    let (_, chain) = chains().remove(0);
    for rows in [bad(&[0, 0], &[]), bad(&[0, 3, 0], &[]), bad(&[0, 0, 0], &[1.0])] {
        assert!(chain.log_prob(&rows).is_err(), "{rows:?}");
    }
    assert!(chain.draws(&[Some(2), None, None], 1).is_err() && chain.draws(&[None], 1).is_err());
}
