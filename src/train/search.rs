//! A search for the recipe of a table: which recipes to try, in which order, and which to go on with.
//! It stands before the training of the recipe that it chooses, and leaves the fits to whoever has the engines.

use std::time::Duration;

use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::flow::{BaseKind, BijectorKind, Mixing};
use crate::mixture;
use crate::model::Recipe;
use crate::random::{Stream, key, philox};

/// Successive halving (Jamieson and Talwalkar 2016): many recipes are trained for a part of their epochs, and the best of
/// them go on to the next round, which is longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// Its place among [`Round::ALL`].
    pub number: usize,
    /// The divisor of a recipe's epochs.
    pub divisor: u32,
}

impl Round {
    /// All rounds in order; in the last one, recipes have all of their epochs.
    pub const ALL: [Self; 3] =
        [Self { number: 0, divisor: 9 }, Self { number: 1, divisor: 3 }, Self { number: 2, divisor: 1 }];

    /// `recipe` with the epochs of this round.
    pub fn part_of(self, recipe: &Recipe) -> Recipe {
        let epochs = recipe.epochs.div_ceil(self.divisor);
        Recipe { epochs, warmup: recipe.warmup.min(epochs - 1), ..recipe.clone() }
    }

    /// Of `tried` recipes with their losses, those that go on to the next round: a third of them, the best first.
    pub fn best<T>(mut tried: Vec<(T, f64)>) -> Vec<T> {
        tried.retain(|(_, loss)| loss.is_finite());
        tried.sort_by(|a, b| a.1.total_cmp(&b.1));
        let kept = tried.len().div_ceil(3);
        tried.into_iter().take(kept).map(|(recipe, _)| recipe).collect()
    }
}

/// Recipe `index` to try beside `usual` on a table of `rows` rows and `columns` modelled columns. The first one is the
/// first fit of `usual`; the others have shape, base, mixing, rate and epochs drawn by its seed.
pub fn candidate(usual: &Recipe, index: u32, rows: usize, columns: usize) -> Recipe {
    let usual = usual.of_member(0);
    if index == 0 {
        return usual;
    }
    let draws = [0, 1].map(|block| philox([index, block, 0, Stream::Search as u32], key(usual.seed)));
    let mut draws = draws.into_iter().flatten();
    let mut one_of = |count: usize| (draws.next().unwrap_or_default() as usize) % count;
    let allowed = |&count: &usize| mixture::has_rows_for(count, rows, columns);
    let components: Vec<usize> = [0, 1, 5, 10, 20].into_iter().filter(allowed).collect();
    let components = components[one_of(components.len())];
    let width = [32, 64, 96, 128][one_of(4)];
    let epochs = [usual.epochs.div_ceil(2), usual.epochs, usual.epochs.saturating_mul(2)][one_of(3)];
    Recipe {
        layers: [4, 6, 8, 12][one_of(4)],
        hidden: vec![width; usual.hidden.len()],
        bins: if usual.bijector == BijectorKind::Spline { [8, 16][one_of(2)] } else { usual.bins },
        mixing: Mixing::ALL[one_of(Mixing::ALL.len())].1,
        learning_rate: [1e-3, 2e-3, 3e-3, 5e-3][one_of(4)],
        epochs: epochs.min(Recipe::MAX_EPOCHS),
        base: if components == 0 { BaseKind::Normal } else { BaseKind::Mixture },
        components: components.max(1),
        ..usual
    }
}

/// The averages of fits of `best` to try at last: with its own base, and with those that `usual` has in turns. They have as
/// many fits as [`fits_within`] leaves them.
pub fn averages(best: &Recipe, usual: &Recipe) -> Vec<Recipe> {
    let ensemble = usual.ensemble.max(4);
    let own = Recipe { ensemble, ..best.clone() };
    // The base of the best one would stand in the record beside those in turns, and flags would not bring it back.
    let turns = (!usual.bases.is_empty()).then(|| Recipe {
        base: usual.base,
        components: usual.components,
        bases: usual.bases.clone(),
        ..own.clone()
    });
    std::iter::once(own).chain(turns).collect()
}

/// The part of `left` that rounds leave to averages: as much as each round has, or the time of the usual recipe's average.
pub fn reserve_for_averages(usual: Duration, left: Duration) -> Duration {
    usual.max(left / (Round::ALL.len() as u32 + 1))
}

/// How many of `wanted` fits of `each` there is time for in `left`; `None` where that is no average.
pub fn fits_within(wanted: usize, each: Duration, left: Duration) -> Option<usize> {
    // Fits of one recipe differ in time, and the last one must not be cut.
    const MARGIN: f64 = 1.1;
    let most = left.as_secs_f64() / (MARGIN * each.as_secs_f64()).max(f64::MIN_POSITIVE);
    Some(wanted.min(most as usize)).filter(|&fits| fits > 1)
}

/// The training rows of `dataset` alone, split anew: for recipes that are judged by its validation rows, which none of their
/// fits has seen.
///
/// # Errors
/// [`Error::Argument`] where `dataset` has no validation rows; those of [`Dataset::resplit`].
pub fn training_rows(dataset: &Dataset, validation_fraction: f64) -> Result<Dataset> {
    if dataset.validation.is_empty() {
        return Err(Error::Argument(
            "a search needs validation rows to judge by; the validation share is 0".into(),
        ));
    }
    let weights = dataset.weights.as_ref().map(|[train, _]| [train.clone(), Vec::new()]);
    let far_out = [dataset.far_out[0].clone(), Vec::new()];
    let rows = Dataset { validation: Vec::new(), weights, far_out, ..dataset.clone() };
    rows.resplit(validation_fraction, dataset.seed)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::data::Table;

    #[test]
    fn candidates_are_valid_repeat_with_the_seed_and_begin_with_the_usual_one() {
        for (rows, columns) in [(30, 10), (500, 4), (100_000, 3)] {
            let usual = Recipe { seed: 3, ..Recipe::for_table(rows, columns) };
            assert_eq!(candidate(&usual, 0, rows, columns), usual.of_member(0));
            let all: Vec<Recipe> = (1..60).map(|index| candidate(&usual, index, rows, columns)).collect();
            for (recipe, index) in all.iter().zip(1..) {
                recipe.validate().expect("valid");
                assert_eq!((recipe.ensemble, recipe), (1, &candidate(&usual, index, rows, columns)));
                assert!(recipe.components == 1 || rows / columns >= 5 * recipe.components, "{recipe:?}");
            }
            let different: HashSet<String> = all.iter().map(|recipe| format!("{recipe:?}")).collect();
            assert!(different.len() > 50, "{}", different.len());
            let other = Recipe { seed: 4, ..usual.clone() };
            assert_ne!(candidate(&other, 1, rows, columns).hidden.len(), 0);
            assert!((1..9).any(
                |index| candidate(&other, index, rows, columns).layers != all[index as usize - 1].layers
            ));
        }
        let affine = Recipe::preset("realnvp").expect("known");
        assert!((0..20).all(|index| candidate(&affine, index, 1000, 2).bins == affine.bins));
    }

    #[test]
    fn a_third_goes_on_best_first_and_losses_that_are_not_finite_do_not() {
        let tried =
            vec![("a", 3.0), ("b", f64::NAN), ("c", 1.0), ("d", 2.0), ("e", 5.0), ("f", f64::INFINITY)];
        assert_eq!(Round::best(tried), ["c", "d"]);
        assert_eq!(Round::best(vec![("a", 3.0)]), ["a"]);
        assert!(Round::best(Vec::<(u8, f64)>::new()).is_empty());
    }

    #[test]
    fn rounds_end_with_all_epochs() {
        let recipe = Recipe { epochs: 40, warmup: 5, ..Recipe::default() };
        let parts = Round::ALL.map(|round| round.part_of(&recipe));
        assert_eq!(parts.each_ref().map(|part| (part.epochs, part.warmup)), [(5, 4), (14, 5), (40, 5)]);
        assert_eq!(parts[2], recipe);
    }

    #[test]
    fn averages_have_the_bases_of_both() {
        let usual = Recipe::for_table(1000, 5);
        let best = Recipe { layers: 3, base: BaseKind::Mixture, components: 20, ..usual.of_member(0) };
        let [own, turns] = &averages(&best, &usual)[..] else { panic!("two") };
        assert_eq!((own.of_member(1).components, own.ensemble, own.layers), (20, 8, 3));
        assert_eq!(turns.of_member(1).components, 1);
        let flags = Recipe { layers: 3, ..usual.clone() };
        assert_eq!(turns, &flags, "what the flags of `best` and those of the bases make");
        assert_eq!(averages(&best, &Recipe::default()).len(), 1);
    }

    #[test]
    fn an_average_has_as_many_fits_as_there_is_time_for() {
        let seconds = Duration::from_secs;
        assert_eq!(reserve_for_averages(seconds(3), seconds(40)), seconds(10));
        assert_eq!(reserve_for_averages(seconds(30), seconds(40)), seconds(30));
        for (left, want) in [(100, Some(8)), (9, Some(4)), (5, Some(2)), (4, None), (0, None)] {
            assert_eq!(fits_within(8, seconds(2), seconds(left)), want, "{left} s left");
        }
        assert_eq!(fits_within(8, Duration::ZERO, seconds(1)), Some(8));
        assert_eq!(fits_within(1, seconds(1), seconds(100)), None);
    }

    #[test]
    fn judges_are_rows_that_no_fit_sees() {
        let values: Vec<f64> = (0..200).map(|i| f64::from(i * i % 97) + f64::from(i) / 1024.0).collect();
        let table = Table { name: "t".into(), columns: vec!["a".into(), "b".into()], values };
        let dataset = Dataset::split(&table, 0.1, 3).expect("splits");
        let weights = (0..100).map(f64::from).collect();
        let dataset = dataset.with_weights(weights).expect("weights");
        let inner = training_rows(&dataset, 0.1).expect("splits");
        assert_eq!((inner.train.len(), inner.validation.len()), (2 * 81, 2 * 9));
        let seen: HashSet<u64> =
            inner.train.iter().chain(&inner.validation).map(|value| value.to_bits()).collect();
        assert!(dataset.validation.iter().all(|value| !seen.contains(&value.to_bits())));
        assert!(dataset.train.iter().all(|value| seen.contains(&value.to_bits())));
        let none = Dataset::split(&table, 0.0, 3).expect("splits");
        assert!(training_rows(&none, 0.1).expect_err("refused").to_string().contains("validation rows"));
    }
}
