//! Whether the rows of a table fall into groups far apart from each other, and what base densities they ask for then.
//! It looks at a dataset before a recipe is decided.

use std::collections::HashMap;

use crate::data::{ColumnDomain, CountedRows, Dataset, Margins, SharedValues};
use crate::error::Result;
use crate::mixture::{self, Mixture};

/// Numbers of Gaussians that are tried.
const COMPONENTS: [usize; 4] = [5, 10, 20, 40];
/// Most training rows, and most validation rows, that are looked at: the first ones.
const ROWS: usize = 4096;
/// Nats above the lowest validation loss up to which a number of Gaussians serves.
const AS_GOOD: f64 = 0.05;
/// Numbers of Gaussians that are kept.
const KEPT: usize = 2;

/// Groups of rows between which there are next to none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// How many.
    pub count: usize,
    /// Numbers of Gaussians that fit them, for the fits of an ensemble in turns: one or two, ascending, all of them more
    /// than there are groups.
    pub bases: Vec<usize>,
}

impl Groups {
    /// The groups of `dataset`; `None` where there is one alone, where mixtures fit the rows better behind
    /// [`Margins::Kernel`], and where there are too few rows or no validation rows to tell; and where many rows
    /// share a value of a column, because these form groups that are no modes; and where there is one within each class of
    /// rows, because a flow is told the class. Of the context only the indicators of classes have a part in it.
    ///
    /// Margins map each column to a normal variable, which leaves no room between the modes of a column: a flow behind them
    /// has to tear apart what they have joined, and puts rows in between. Groups of rows are modes of a mixture, so they are
    /// best left where they are.
    ///
    /// # Errors
    /// Those of [`Dataset::with_margins`].
    pub fn of(dataset: &Dataset, seed: u64) -> Result<Option<Self>> {
        let [train, validation] = rows(dataset);
        let modelled = dataset.preprocessing.modelled();
        let allowed =
            COMPONENTS.iter().copied().filter(|&count| mixture::has_rows_for(count, train, modelled));
        let allowed: Vec<usize> = allowed.collect();
        // Five Gaussians would join some of many groups.
        let Some(&first) = allowed.iter().find(|&&count| count >= COMPONENTS[1]).or(allowed.last()) else {
            return Ok(None);
        };
        if validation == 0 {
            return Ok(None);
        }
        if !SharedValues::of_columns(&dataset.train, dataset.features(), modelled).is_empty() {
            return Ok(None);
        }
        let plain = Sample::new(dataset, Margins::None)?;
        let count = plain.fit(first, seed).groups();
        if count < 2 || plain.clone().within_classes().fit(first, seed).groups() < 2 {
            return Ok(None);
        }
        let losses = |sample: &Sample| -> Vec<f64> {
            allowed.iter().map(|&count| sample.loss(&sample.fit(count, seed))).collect()
        };
        let lowest = |losses: &[f64]| losses.iter().copied().fold(f64::INFINITY, f64::min);
        let as_they_are = losses(&plain);
        let best = lowest(&as_they_are);
        if lowest(&losses(&Sample::new(dataset, Margins::Kernel)?)) < best {
            return Ok(None);
        }
        let good = |&(components, loss): &(usize, f64)| components > count && loss <= best + AS_GOOD;
        let good = allowed.iter().copied().zip(as_they_are).filter(good).map(|(components, _)| components);
        let bases: Vec<usize> = good.take(KEPT).collect();
        Ok((!bases.is_empty()).then_some(Self { count, bases }))
    }
}

/// Training and validation rows of `dataset`.
fn rows(dataset: &Dataset) -> [usize; 2] {
    [&dataset.train, &dataset.validation].map(|rows| rows.len() / dataset.features())
}

/// The class of each of `rows`, counted from 0: rows of the same indicators are of one.
fn classes(rows: &CountedRows<'_>, domains: &[ColumnDomain]) -> Vec<usize> {
    let mut known = HashMap::new();
    let class = |row: &[f64]| {
        let indicators = row.iter().zip(domains).filter(|(_, domain)| domain.indicator);
        let key: Vec<u64> = indicators.map(|(value, _)| value.to_bits()).collect();
        let next = known.len();
        *known.entry(key).or_insert(next)
    };
    rows.iter().map(class).collect()
}

/// The first rows of both sides behind a preprocessing, in which the validation rows have no part.
#[derive(Clone)]
struct Sample {
    size: usize,
    /// Training and validation rows.
    rows: [Vec<f64>; 2],
    weights: Option<[Vec<f64>; 2]>,
    /// Of each training row.
    classes: Vec<usize>,
    /// Mean log-determinant over validation rows.
    log_det: f64,
}

impl Sample {
    fn new(dataset: &Dataset, margins: Margins) -> Result<Self> {
        let mut part = dataset.first_rows(ROWS);
        // Weights that are all zero among these rows say nothing of them.
        let counts = |side: &Vec<f64>| side.iter().any(|&weight| weight > 0.0);
        part.weights = part.weights.filter(|sides| sides.iter().all(counts));
        let part = part.with_margins(margins)?;
        let sides = [0, 1].map(|side| part.rows(side));
        let [(train, _), (validation, log_det)] =
            sides.each_ref().map(|rows| part.preprocessing.forward_table(rows));
        let weights = || sides.each_ref().map(|rows| rows.weights().collect());
        let (features, size) = (dataset.features(), dataset.preprocessing.modelled());
        let modelled = |rows: Vec<f32>| {
            rows.chunks_exact(features).flat_map(|row| &row[..size]).map(|&value| f64::from(value)).collect()
        };
        Ok(Self {
            size,
            rows: [modelled(train), modelled(validation)],
            weights: sides[0].are_weighted().then(weights),
            classes: classes(&sides[0], &part.preprocessing.domains),
            log_det,
        })
    }

    /// The same with each training row less the mean of the other rows of its class, or of all where the class has none: a mean
    /// with the row in it would hide the groups of a small class.
    fn within_classes(mut self) -> Self {
        let (size, classes) = (self.size, &self.classes);
        let all = classes.iter().max().map_or(0, |last| last + 1);
        let weight = |row: usize| self.weights.as_ref().map_or(1.0, |[train, _]| train[row]);
        let (mut sums, mut totals) = (vec![0.0; (all + 1) * size], vec![0.0; all + 1]);
        for (row, (values, &class)) in self.rows[0].chunks_exact(size).zip(classes).enumerate() {
            for class in [class, all] {
                totals[class] += weight(row);
                let sums = &mut sums[class * size..(class + 1) * size];
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight(row) * value);
            }
        }
        for (row, (values, &class)) in self.rows[0].chunks_exact_mut(size).zip(classes).enumerate() {
            let (class, own) = if totals[class] > weight(row) { (class, weight(row)) } else { (all, 0.0) };
            for (value, sum) in values.iter_mut().zip(&sums[class * size..]) {
                *value -= (sum - own * *value) / (totals[class] - own);
            }
        }
        self
    }

    fn weights(&self, side: usize) -> Option<&[f64]> {
        self.weights.as_ref().map(|weights| &weights[side][..])
    }

    fn fit(&self, components: usize, seed: u64) -> Mixture {
        mixture::fit(&self.rows[0], self.weights(0), self.size, components, seed)
    }

    /// Validation loss of `mixture`, but for a constant.
    fn loss(&self, mixture: &Mixture) -> f64 {
        -mixture.mean_log_density(&self.rows[1], self.weights(1)) - self.log_det
    }
}
