//! The shift and scale of columns by the category of a row: where the levels of a category differ in place and spread alone,
//! rows of all levels together then show one shape, which few rows are enough to learn.
//! It stands between the domains of columns and the standardiser. Which columns are mapped is decided by the likelihood of
//! rows left out.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::CountedRows;
use super::atoms::indicated;
use super::kernel::left_out_log_density;
use super::stage::Stage;
use super::{Atoms, ColumnDomain, Preprocessing, StageKind};
use crate::error::{Error, Result};
use crate::random::{Permutation, Stream};
use crate::shown::shown;

/// Rows of the whole that a level's moments begin with.
const PRIOR_ROWS: f64 = 3.0;
/// Deviations about the median, by the median absolute deviation, beyond which a row has no part in moments.
const NEAR: f64 = 6.0;
/// Median absolute deviation of a normal variable in deviations.
const NORMAL_DEVIATION: f64 = 0.6745;
/// Rows from which a flow learns what a category tells, so that none is told: the mean of the gains is small then, and single
/// levels come out of a flow with better margins where they are its own.
const MANY: usize = 3000;
/// Most rows by which columns are chosen.
const ROWS: usize = 1000;
/// Rows of a level below which it has no part in the choice.
const LEAST_ROWS: usize = 8;
/// What shapes of their own may be worth in levels that look alike: a part of the gain, and nats over all rows that are looked
/// at.
const PART: f64 = 0.15;
const NATS: f64 = 30.0;

/// Mean and deviation of a column for each level of a category, or which column and category these are to be of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelMoments {
    /// The column, from 0.
    pub column: usize,
    /// Column of the second level's indicator; those of further levels follow. The first level has none.
    pub indicator: usize,
    /// Mean and deviation of each level's rows on the real line `[L]`; 0 and 1 before they are fitted.
    pub levels: Vec<[f64; 2]>,
}

impl LevelMoments {
    /// Those of `column` by the category with these `indicators`, before they are fitted.
    fn unfitted(column: usize, indicators: &[usize; 2]) -> Self {
        let [indicator, count] = *indicators;
        Self { column, indicator, levels: vec![[0.0, 1.0]; count + 1] }
    }

    /// Mean and deviation of the level of `row` `[D]`.
    pub(super) fn of_row(&self, row: &[f64]) -> [f64; 2] {
        self.levels[self.level(row)]
    }

    /// The level of `row` `[D]`.
    fn level(&self, row: &[f64]) -> usize {
        indicated(row, self.indicator, self.levels.len() - 1).map_or(0, |place| place + 1)
    }

    /// The values of the column, which `value` has of a row `[D]`, among `rows`, level by level.
    fn values<'a>(
        &self,
        rows: impl Iterator<Item = &'a [f64]>,
        value: impl Fn(&[f64]) -> f64,
    ) -> Vec<Vec<f64>> {
        let mut levels = vec![Vec::new(); self.levels.len()];
        rows.for_each(|row| levels[self.level(row)].push(value(row)));
        levels
    }
}

/// Mean and deviation of each of `levels`, of rows far from the others none: nearer to those of all rows together the fewer
/// there are. A level without rows has those of all, and so has each where rows of one level do not vary.
fn moments(levels: &[Vec<f64>]) -> Vec<[f64; 2]> {
    let of_levels: Vec<(f64, f64, f64)> = levels.iter().map(|level| near_moments(level)).collect();
    let (_, centre, variance) = near_moments(&levels.concat());
    let of_all = [centre, if variance.is_normal() { variance.sqrt() } else { 1.0 }];
    let rows = of_levels.iter().map(|(rows, ..)| rows).sum::<f64>().max(1.0);
    let mean = of_levels.iter().map(|(rows, mean, _)| rows * mean).sum::<f64>() / rows;
    let within = of_levels.iter().map(|(rows, _, variance)| rows * variance).sum::<f64>() / rows;
    if !within.is_normal() {
        return vec![of_all; levels.len()];
    }
    let shrunk = |&(rows, own, variance): &(f64, f64, f64)| {
        if rows == 0.0 {
            return of_all;
        }
        let towards = |own: f64, all: f64| (rows * own + PRIOR_ROWS * all) / (rows + PRIOR_ROWS);
        [towards(own, mean), towards(variance, within).sqrt()]
    };
    of_levels.iter().map(shrunk).collect()
}

/// Number, mean and variance of `values` but for those far from the others.
fn near_moments(values: &[f64]) -> (f64, f64, f64) {
    let centre = median(values.to_vec());
    let deviation = median(values.iter().map(|value| (value - centre).abs()).collect());
    let reach = NEAR * deviation / NORMAL_DEVIATION;
    let near = || values.iter().filter(move |value| reach == 0.0 || (*value - centre).abs() <= reach);
    let rows = near().count() as f64;
    let mean = near().sum::<f64>() / rows.max(1.0);
    let variance = near().map(|value| (value - mean).powi(2)).sum::<f64>() / rows.max(1.0);
    (rows, mean, variance)
}

fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(middle, f64::total_cmp).1 }
}

/// Columns that are shifted and scaled by a category each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CategoryMoments {
    /// A column stands there once at most.
    pub columns: Vec<LevelMoments>,
}

impl CategoryMoments {
    /// The same columns and categories with the moments of `rows`, as the stages of `fitted` leave them, which has no moments
    /// yet.
    pub(super) fn fit(&self, rows: &CountedRows<'_>, fitted: &Preprocessing) -> Self {
        let fit = |column: &LevelMoments| {
            let values = column.values(rows.iter(), |row| fitted.column_forward(column.column, row));
            LevelMoments { levels: moments(&values), ..column.clone() }
        };
        Self { columns: self.columns.par_iter().map(fit).collect() }
    }

    /// Checks that columns of `columns` `[D]` are modelled, neither on a grid nor with `atoms`, by levels whose indicators are
    /// among the context, and that they can be mapped. `domains` `[D]` are empty where all are the default.
    ///
    /// # Errors
    /// [`Error::Argument`] that names the column.
    pub(crate) fn validate(
        &self,
        domains: &[ColumnDomain],
        atoms: &[Atoms],
        columns: &[String],
        context: usize,
    ) -> Result<()> {
        let modelled = columns.len() - context;
        let domain = |column: usize| domains.get(column).copied().unwrap_or_default();
        for (place, LevelMoments { column, indicator, levels }) in self.columns.iter().enumerate() {
            let fail = |problem: &str| {
                let name = columns.get(*column).map_or("?", String::as_str);
                Err(Error::Argument(format!("the moments by category of column `{}` {problem}", shown(name))))
            };
            if *column >= modelled || self.columns[..place].iter().any(|other| other.column == *column) {
                return fail("must be those of a modelled column, named once");
            }
            if domain(*column).grid.is_some() || atoms.iter().any(|atoms| atoms.column == *column) {
                return fail("must be those of a column that is neither on a grid nor has atoms");
            }
            let end = indicator.saturating_add(levels.len().saturating_sub(1));
            let among_context = *indicator >= modelled && end <= columns.len();
            if levels.len() < 2 || !among_context || !(*indicator..end).all(|column| domain(column).indicator)
            {
                return fail("must have indicators among the context");
            }
            if levels.iter().any(|[mean, std]| !(mean.is_finite() && *std > 0.0 && std.is_normal())) {
                return fail("must be finite, with positive deviations");
            }
        }
        Ok(())
    }

    /// The moments of `column`, where it has some.
    pub fn of(&self, column: usize) -> Option<&LevelMoments> {
        self.columns.iter().find(|moments| moments.column == column)
    }
}

impl Preprocessing {
    /// Which columns of `rows`, row-major [N, D] in the user's units, are to be shifted and scaled, by which category each: by
    /// the one that tells most of it, where rows left out are likelier so than under one density for all levels, and than under
    /// a density for each. Of each category `categories` has the column of its first indicator and how many there are.
    ///
    /// One density for all levels keeps an edge or a spike that levels share where it is, and a density for each has whatever
    /// shape its rows have: shift and scale are for levels that look alike. Columns on a grid and with atoms are left as
    /// they are, and so are all columns of many rows.
    ///
    /// # Errors
    /// [`Error::Argument`] where a category's indicators are no columns.
    pub(in crate::data) fn choose_category_moments(
        &self,
        rows: &[f64],
        categories: &[[usize; 2]],
    ) -> Result<CategoryMoments> {
        let features = self.domains.len();
        for [first, count] in categories {
            if first.checked_add(*count).is_none_or(|end| end > features) {
                let message =
                    format!("{count} indicators from column {first} on are not among {features} columns");
                return Err(Error::Argument(message));
            }
        }
        let count = rows.len() / features;
        if count >= MANY {
            return Ok(CategoryMoments::default());
        }
        let domains = self.stage(StageKind::Domains);
        // Rows may follow each other in the order of their levels.
        let order = Permutation::new(count as u32, 0, Stream::Split, 0);
        let mapped = |place: usize| {
            let row = order.place(place as u32) as usize;
            let mut row = rows[row * features..(row + 1) * features].to_vec();
            domains.iter().for_each(|stage| stage.forward(&mut row, features, &mut 0.0));
            row
        };
        let rows: Vec<Vec<f64>> = (0..count.min(ROWS)).map(mapped).collect();
        let choice = |column: usize| {
            let candidates = categories.iter().map(|indicators| LevelMoments::unfitted(column, indicators));
            let told = candidates.filter_map(|candidate| {
                let mut levels = candidate.values(rows.iter().map(Vec::as_slice), |row| row[column]);
                levels.retain(|level| level.len() >= LEAST_ROWS);
                Some((worth(&levels)?, candidate, levels))
            });
            let (_, chosen, levels) = told.max_by(|a, b| a.0.total_cmp(&b.0))?;
            look_alike(&levels).then_some(chosen)
        };
        let columns = 0..self.modelled();
        let on_line = |column: usize| {
            self.domains[column].grid.is_none() && self.atoms.iter().all(|atoms| atoms.column != column)
        };
        let columns = columns.filter(|&column| on_line(column));
        let columns: Vec<usize> = columns.collect();
        let chosen: Vec<Option<LevelMoments>> = columns.into_par_iter().map(choice).collect();
        Ok(CategoryMoments { columns: chosen.into_iter().flatten().collect() })
    }
}

/// Nats that shift and scale by level gain over all rows together under a normal density, less what so many numbers gain where
/// levels are alike (Schwarz, "Estimating the dimension of a model", 1978); `None` where they gain nothing.
fn worth(levels: &[Vec<f64>]) -> Option<f64> {
    if levels.len() < 2 {
        return None;
    }
    let all: Vec<f64> = levels.concat();
    let (_, _, together) = near_moments(&all);
    let rows = all.len() as f64;
    let own = levels.iter().zip(moments(levels)).map(|(level, [_, std])| level.len() as f64 * std.ln());
    let gain = 0.5 * rows * together.ln() - own.sum::<f64>() - (levels.len() - 1) as f64 * rows.ln();
    (gain > 0.0).then_some(gain)
}

/// Whether levels look alike: rows left out are likelier when the levels are shifted and scaled and have one density than
/// when they have one density as they are, and what one each would gain beyond that is little.
fn look_alike(levels: &[Vec<f64>]) -> bool {
    let moments = moments(levels);
    let mapped = levels
        .iter()
        .zip(&moments)
        .map(|(level, [mean, std])| level.iter().map(|value| (value - mean) / std).collect::<Vec<f64>>());
    let mapped: Vec<f64> = mapped.flatten().collect();
    let slopes = levels.iter().zip(&moments).flat_map(|(level, [_, std])| vec![std.ln(); level.len()]);
    let apart = levels.iter().map(|level| left_out_log_density(level)).collect::<Option<Vec<_>>>();
    let densities = [
        left_out_log_density(&mapped),
        left_out_log_density(&levels.concat()),
        apart.map(|apart| apart.concat()),
    ];
    let [Some(mut alike), Some(together), Some(apart)] = densities else { return false };
    alike.iter_mut().zip(slopes).for_each(|(density, slope)| *density -= slope);
    let mean_above = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).sum::<f64>() / a.len() as f64;
    let (gain, lost) = (mean_above(&alike, &together), mean_above(&apart, &alike));
    gain > 0.0 && lost < (PART * gain).min(NATS / alike.len() as f64)
}

/// Rows are mapped by the level that their indicators tell.
impl Stage for CategoryMoments {
    fn forward(&self, row: &mut [f64], _modelled: usize, log_det: &mut f64) {
        for moments in &self.columns {
            let [mean, std] = moments.of_row(row);
            let value = &mut row[moments.column];
            *value = (*value - mean) / std;
            *log_det -= std.ln();
        }
    }

    fn inverse(&self, row: &mut [f64], _modelled: usize) {
        for moments in &self.columns {
            let [mean, std] = moments.of_row(row);
            let value = &mut row[moments.column];
            *value = *value * std + mean;
        }
    }

    fn backward(&self, row: &[f64], _modelled: usize, gradient: &mut [f64]) {
        for moments in &self.columns {
            gradient[moments.column] /= moments.of_row(row)[1];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Grid, PreprocessingPlan, Table};
    use crate::random::normals;

    /// Rows of one number and the indicators of a category of three levels, by `value` of the row's level and three standard
    /// normal numbers.
    fn table(rows: u32, value: impl Fn(usize, [f64; 3]) -> f64) -> Table {
        let mut noise = [0.0f32; 3];
        let mut values = Vec::new();
        for row in 0..rows {
            normals(row, 5, &mut noise);
            let level = (row % 3) as usize;
            let indicator = |other: usize| f64::from(u8::from(level == other));
            values.extend([value(level, noise.map(f64::from)), indicator(1), indicator(2)]);
        }
        Table { name: "t".into(), columns: ["x", "c=1", "c=2"].map(String::from).into(), values }
    }

    fn plan() -> PreprocessingPlan {
        let indicator = ColumnDomain::indicator();
        PreprocessingPlan {
            domains: vec![ColumnDomain::default(), indicator, indicator],
            context: 2,
            ..PreprocessingPlan::default()
        }
    }

    /// The moments of `x` in a dataset of these rows, by the levels of its category.
    fn chosen(rows: u32, value: impl Fn(usize, [f64; 3]) -> f64) -> Option<Vec<[f64; 2]>> {
        let dataset = Dataset::split_with(&table(rows, value), 0.0, 0, &plan()).expect("splits");
        let dataset = dataset.with_category_moments(&[[1, 2]]).expect("indicators");
        dataset.preprocessing.category_moments.of(0).map(|moments| moments.levels.clone())
    }

    #[test]
    fn levels_of_one_shape_are_shifted_and_scaled_and_others_left_as_they_are() {
        let scale = [1.0, 0.2, 3.0];
        for rows in [90, 900] {
            assert!(
                chosen(rows, |level, [a, ..]| scale[level] * a + 5.0 * level as f64).is_some(),
                "{rows} normal"
            );
            let skewed =
                |level: usize, [a, ..]: [f64; 3]| scale[level] * (0.4 * a).exp() - 2.0 * level as f64;
            assert!(rows < 900 || chosen(rows, skewed).is_some(), "{rows} of one skewed shape");
            assert_eq!(chosen(rows, |_, [a, ..]| a), None, "{rows} rows that the category tells nothing of");
            let many = rows + 2900;
            assert_eq!(
                chosen(many, |level, [a, ..]| a + 5.0 * level as f64).is_some(),
                many < 3000,
                "{many} rows"
            );
        }
        // Levels share an edge, and differ in shape.
        let edge = |level: usize, noise: [f64; 3]| noise.iter().take(1 + level).map(|a| a * a).sum::<f64>();
        assert_eq!(chosen(1500, edge), None, "shapes of their own");
        let bimodal = |level: usize, [a, b, _]: [f64; 3]| match level {
            0 => a - 6.0,
            _ => 0.1 * a + b.signum() + 3.0 * level as f64,
        };
        assert_eq!(chosen(1500, bimodal), None, "two modes in two of the levels, far from the other");
        // Half of each level is the same narrow spike.
        let spike = |level: usize, [a, b, c]: [f64; 3]| if c > 0.0 { 1e-3 * a } else { b + level as f64 };
        assert_eq!(chosen(900, spike), None, "a spike that levels share");
    }

    #[test]
    fn levels_that_are_the_same_gain_nothing() {
        let mut noise = [0.0f32; 1];
        let mut level = |first: u32| -> Vec<f64> {
            let draw = |row| {
                normals(row, 9, &mut noise);
                f64::from(noise[0])
            };
            (first..first + 60).map(draw).collect()
        };
        assert!(!look_alike(&[level(0), level(60), level(120)]));
    }

    #[test]
    fn the_category_that_tells_most_is_taken_and_columns_with_atoms_are_not_mapped() {
        // Two categories, of which the second tells more of the number; and a number with an atom.
        let (mut values, mut noise) = (Vec::new(), [0.0f32; 2]);
        for row in 0..600 {
            let (first, second) = (f64::from(row % 2), f64::from(row / 2 % 2));
            normals(row, 5, &mut noise);
            let [a, b] = noise.map(f64::from);
            let atom = f64::from(u8::from(row % 5 == 0));
            let price = (1.0 - atom) * (b + 4.0 * second + 9.0);
            values.extend([a + 8.0 * second + 3.0 * first, price, first, second, atom]);
        }
        let columns = ["x", "y", "a=1", "b=1", "y=0"].map(String::from);
        let table = Table { name: "t".into(), columns: columns.into(), values };
        let mut whole = table.clone();
        whole.values.iter_mut().step_by(5).for_each(|value| *value = value.round());
        let indicator = ColumnDomain::indicator();
        let number = ColumnDomain::default();
        let plan = PreprocessingPlan {
            domains: vec![number, number, indicator, indicator, indicator],
            context: 3,
            atoms: vec![Atoms { column: 1, values: vec![0.0], indicator: 4 }],
            ..PreprocessingPlan::default()
        };
        let dataset = Dataset::split_with(&table, 0.1, 0, &plan).expect("splits");
        let fitted = dataset.clone().with_category_moments(&[[2, 1], [3, 1], [4, 1]]).expect("indicators");
        let columns = &fitted.preprocessing.category_moments.columns;
        let places: Vec<[usize; 2]> =
            columns.iter().map(|moments| [moments.column, moments.indicator]).collect();
        assert_eq!(places, [[0, 3]]);
        // Another split fits them anew, and without a category that tells anything there are none.
        let again = fitted.clone().resplit(0.3, 5).expect("splits").preprocessing.category_moments;
        assert!(again.columns[0].indicator == 3 && again.columns != *columns);
        assert_eq!(fitted.with_category_moments(&[[4, 1]]).expect("indicators"), dataset);
        let mut counted = plan;
        counted.domains[0].grid = Some(Grid::WHOLE);
        let counted = Dataset::split_with(&whole, 0.1, 0, &counted).expect("splits");
        let counted = counted.with_category_moments(&[[3, 1]]).expect("indicators");
        assert!(counted.preprocessing.category_moments.columns.is_empty(), "a column on a grid");
        let error = dataset.with_category_moments(&[[4, 2]]).expect_err("beyond the columns");
        assert!(
            error.to_string().contains("2 indicators from column 4 on are not among 5 columns"),
            "{error}"
        );
    }

    #[test]
    fn few_rows_come_near_to_all_and_a_row_far_out_moves_nothing() {
        let level = |count: usize, mean: f64, std: f64| -> Vec<f64> {
            (0..count).map(|row| mean + std * (row as f64 * 0.7).sin() * 2f64.sqrt()).collect()
        };
        let (many, few) = (level(900, 4.0, 0.5), level(2, -6.0, 0.01));
        let fitted = moments(&[many.clone(), few, Vec::new()]);
        assert!((fitted[0][0] - 4.0).abs() < 0.1 && (fitted[0][1] - 0.5).abs() < 0.02, "{fitted:?}");
        // Two rows of their own beside three of the whole.
        assert!((fitted[1][0] - 0.0).abs() < 0.1 && (fitted[1][1] - 0.387).abs() < 0.02, "{fitted:?}");
        assert!((fitted[2][0] - 4.0).abs() < 0.1 && fitted[2][1] < 0.6, "{fitted:?}");
        let far: Vec<f64> = many.iter().copied().chain([1e12]).collect();
        assert_eq!(moments(&[far, level(300, 0.0, 1.0)]), moments(&[many, level(300, 0.0, 1.0)]));
        // A constant level is no spike without end, and a constant column keeps its units.
        let constant = moments(&[vec![1.0; 9000], level(300, 0.0, 1.0)]);
        assert!(constant[0][1] > 1e-4, "{constant:?}");
        assert_eq!(moments(&[vec![1.0; 5], vec![3.0; 5]]), [[2.0, 1.0]; 2]);
        assert_eq!(moments(&[vec![1.0; 5], vec![1.0; 5]]), [[1.0, 1.0]; 2]);
    }

    #[test]
    fn impossible_moments_are_refused_with_their_column() {
        let columns = ["x", "y", "n", "c=1", "d"].map(String::from);
        let number = ColumnDomain::default();
        let whole = ColumnDomain { grid: Some(Grid::WHOLE), ..number };
        let domains = [number, number, whole, ColumnDomain::indicator(), number];
        let moments = |column, indicator, levels: &[[f64; 2]]| LevelMoments {
            column,
            indicator,
            levels: levels.into(),
        };
        let good = [[0.0, 1.0], [2.0, 0.5]];
        let validate_beside = |atoms: &[Atoms], of_columns: Vec<LevelMoments>| {
            let moments = CategoryMoments { columns: of_columns };
            moments.validate(&domains, atoms, &columns, 2).map_err(|error| error.to_string())
        };
        let validate = |of_columns| validate_beside(&[], of_columns);
        assert_eq!(validate(vec![moments(0, 3, &good), moments(1, 3, &good)]), Ok(()));
        let atoms = [Atoms { column: 1, values: vec![0.0], indicator: 3 }];
        let message = validate_beside(&atoms, vec![moments(1, 3, &good)]).expect_err("an atom");
        assert!(
            message.contains("`y` must be those of a column that is neither on a grid nor has atoms"),
            "{message}"
        );
        for (columns, want) in [
            (vec![moments(3, 3, &good)], "`c=1` must be those of a modelled column"),
            (
                vec![moments(0, 3, &good), moments(0, 3, &good)],
                "`x` must be those of a modelled column, named once",
            ),
            (vec![moments(2, 3, &good)], "`n` must be those of a column that is neither"),
            (vec![moments(0, 4, &good)], "must have indicators among the context"),
            (vec![moments(0, 2, &good)], "must have indicators among the context"),
            (vec![moments(0, 3, &good[..1])], "must have indicators among the context"),
            (vec![moments(0, 3, &[good, good].concat())], "must have indicators among the context"),
            (vec![moments(0, usize::MAX, &good)], "must have indicators among the context"),
            (vec![moments(1, 3, &[[0.0, 1.0], [f64::NAN, 1.0]])], "column `y` must be finite"),
            (vec![moments(1, 3, &[[0.0, 0.0], [0.0, 1.0]])], "with positive deviations"),
            (vec![moments(1, 3, &[[0.0, f64::INFINITY], [0.0, 1.0]])], "with positive deviations"),
        ] {
            let message = validate(columns).expect_err(want);
            assert!(message.contains(want), "{message}");
        }
    }
}
