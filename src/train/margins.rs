//! Margins of a fitted flow: what its samples have of each column is brought to what the training rows have.
//! It stands between the last epoch and the self-check. The epoch that is kept is an early one, of a high rate, and its last
//! steps leave each margin a little off, by a distribution function of 0.01 to 0.03.

use crate::data::{CountedRows, Dataset, Knot, Margins, MonotoneCurve, Preprocessing};
use crate::engine::{Engine, Sampling, Training};
use crate::error::Result;
use crate::model::Model;
use crate::normal::cdf;

/// Normal scores of the quantiles that are compared. Between and beyond them a kernel density has the margin.
const SCORES: [f64; 9] = [-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0];
/// Samples for each training row, their number, and most values of them.
const OF_A_ROW: usize = 8;
const SAMPLES: [usize; 2] = [1 << 12, 1 << 16];
const VALUES: usize = 1 << 22;
/// Most rows of a side by which curves are judged, counted once for each column.
const JUDGED: usize = 1 << 16;
/// Nats by which all curves together may make the training rows, or the validation rows, less likely.
const GIVEN_AWAY: f64 = 0.01;

/// Puts curves behind the kernel densities of `model`, as its samples differ from the rows of `dataset` that it was trained on,
/// which `training` has in the engine's units. Returns how much likelier this makes training and validation rows, in nats.
///
/// A quantile's difference δ is taken back by δ³ / (δ² + ε²), where ε is the standard error of the training rows' quantile:
/// what may well be their chance stays. So does a column whose curve makes rows less likely, even where it goes half the way. The
/// flow knows an edge there, such as that of a spike, and a curve takes rows across it: nine columns of concrete would lose 0.6
/// nats.
///
/// # Errors
/// Those of the engine.
pub(super) async fn settle<E: Engine>(
    model: &mut Model,
    engine: &mut E,
    dataset: &Dataset,
    training: &Training,
) -> Result<[f64; 2]> {
    let mut gains = [0.0; 2];
    let preprocessing = model.preprocessing.clone();
    if preprocessing.margins() != Margins::Kernel || preprocessing.whitening.is_some() {
        return Ok(gains);
    }
    let [train, validation] = Side::both(&preprocessing, dataset, training);
    engine.set_parameters(&model.parameters)?;
    let Some(drawn) = Drawn::new(train.clone(), engine, model.record.recipe.seed).await? else {
        return Ok(gains);
    };
    let mut judged = [Judged::new(train, engine).await?, Judged::new(validation, engine).await?];
    for column in 0..preprocessing.modelled() {
        let Some(whole) = drawn.curve(column) else { continue };
        for curve in [whole.clone(), half(&whole)] {
            let [train, validation] = &judged;
            let bent =
                [train.bent(engine, column, &curve).await?, validation.bent(engine, column, &curve).await?];
            let so_far = [0, 1].map(|side| gains[side] + bent[side].1);
            if so_far.iter().all(|gain| *gain >= -GIVEN_AWAY) {
                gains = so_far;
                judged = bent.map(|(judged, _)| judged);
                model.preprocessing.bend(column, &curve);
                break;
            }
        }
    }
    Ok(gains)
}

/// The training rows or the validation rows.
#[derive(Clone)]
struct Side<'a> {
    preprocessing: &'a Preprocessing,
    rows: CountedRows<'a>,
    /// In the engine's units, row-major [N, D].
    mapped: &'a [f32],
}

impl<'a> Side<'a> {
    fn both(preprocessing: &'a Preprocessing, dataset: &'a Dataset, training: &'a Training) -> [Self; 2] {
        [(0, &training.train), (1, &training.validation)].map(|(side, mapped)| Self {
            preprocessing,
            rows: dataset.rows(side),
            mapped,
        })
    }

    fn features(&self) -> usize {
        self.preprocessing.domains.len()
    }

    /// Whether a row is at none of the column's atoms.
    fn is_open(&self, row: usize, column: usize) -> bool {
        let atoms = self.preprocessing.atoms.iter().find(|atoms| atoms.column == column);
        atoms.is_none_or(|atoms| atoms.at(self.rows.row(row)).is_none())
    }
}

/// Samples given the context of training rows.
struct Drawn<'a> {
    train: Side<'a>,
    /// The row whose context each sample has; a row is there as often as it weighs.
    rows: Vec<usize>,
    /// In the engine's units, row-major [S, D].
    samples: Vec<f32>,
}

impl<'a> Drawn<'a> {
    /// `None` where samples are not finite.
    async fn new<E: Engine>(train: Side<'a>, engine: &mut E, seed: u64) -> Result<Option<Self>> {
        let (features, modelled) = (train.features(), train.preprocessing.modelled());
        let all = &train.rows;
        let count = (OF_A_ROW * all.len()).clamp(SAMPLES[0], SAMPLES[1]).min((VALUES / features).max(1));
        let rows = evenly(all.len(), |row| all.weight(row), count);
        let given = |&row: &usize| &train.mapped[row * features + modelled..(row + 1) * features];
        let context: Vec<f32> = rows.iter().flat_map(given).copied().collect();
        // Not those that a person draws under the seed.
        let sampling = Sampling { rows: count, first: 0, seed: !seed, temperature: 1.0 };
        let samples = engine.sample_given(sampling, &context).await?;
        Ok(samples.iter().all(|value| value.is_finite()).then_some(Self { train, rows, samples }))
    }

    /// The curve of a column; `None` where too few rows or values have a part in it.
    fn curve(&self, column: usize) -> Option<MonotoneCurve> {
        let features = self.train.features();
        let open = |row: &usize| self.train.is_open(*row, column);
        let places = || self.rows.iter().enumerate().filter(|(_, row)| open(row));
        let at = |table: &[f32], row: usize| f64::from(table[row * features + column]);
        let rows = sorted(places().map(|(_, row)| at(self.train.mapped, *row)));
        let samples = sorted(places().map(|(place, _)| at(&self.samples, place)));
        let all = &self.train.rows;
        let weights = (0..all.len()).filter(open).map(|row| all.weight(row));
        curve(&rows, &samples, effective(weights))
    }
}

/// Rows by which curves are judged: the first ones of a side.
struct Judged<'a> {
    side: Side<'a>,
    /// In the engine's units and behind the curves so far, row-major [J, D], with log p of each.
    rows: Vec<f32>,
    log_prob: Vec<f32>,
}

impl<'a> Judged<'a> {
    async fn new<E: Engine>(side: Side<'a>, engine: &mut E) -> Result<Self> {
        let count = (JUDGED / side.preprocessing.modelled()).max(1).min(side.rows.len());
        let rows = side.mapped[..count * side.features()].to_vec();
        let log_prob = engine.log_prob(&rows).await?;
        Ok(Self { side, rows, log_prob })
    }

    /// The rows behind a `curve` of `column` too, and how much likelier they are so in the mean, in nats; 0 without rows.
    async fn bent<E: Engine>(
        &self,
        engine: &mut E,
        column: usize,
        curve: &MonotoneCurve,
    ) -> Result<(Self, f64)> {
        let side = &self.side;
        let mut rows = self.rows.clone();
        let mut log_slopes = vec![0.0; self.log_prob.len()];
        for (row, values) in rows.chunks_exact_mut(side.features()).enumerate() {
            if side.is_open(row, column) {
                let (value, log_slope) = curve.forward(values[column].into());
                (values[column], log_slopes[row]) = (value as f32, log_slope);
            }
        }
        let log_prob = engine.log_prob(&rows).await?;
        let [mut sum, mut total] = [0.0; 2];
        let weighted = log_slopes.into_iter().zip(side.rows.weights()).enumerate();
        for (row, (log_slope, weight)) in weighted.filter(|(_, (_, weight))| *weight > 0.0) {
            let gain = f64::from(log_prob[row]) - f64::from(self.log_prob[row]) + log_slope;
            sum += weight * gain;
            total += weight;
        }
        let mean = if total > 0.0 { sum / total } else { 0.0 };
        Ok((Self { side: side.clone(), rows, log_prob }, mean))
    }
}

/// `count` of so many rows, each as often as its weight says, in their order.
fn evenly(rows: usize, weight: impl Fn(usize) -> f64, count: usize) -> Vec<usize> {
    let sums = || {
        (0..rows).scan(0.0, |sum, row| {
            *sum += weight(row);
            Some(*sum)
        })
    };
    let total = sums().last().unwrap_or(0.0);
    let mut upto = sums().enumerate().peekable();
    let row_at = |place: usize| {
        let share = (place as f64 + 0.5) / count as f64;
        while upto.next_if(|(_, sum)| *sum <= share * total).is_some() {}
        upto.peek().map_or(rows - 1, |(row, _)| *row)
    };
    (0..count).map(row_at).collect()
}

/// Equal rows that say as much of a margin as those of these weights (Kish, "Survey sampling", 1965).
fn effective(weights: impl Iterator<Item = f64>) -> f64 {
    let [mut sum, mut squares] = [0.0; 2];
    for weight in weights {
        sum += weight;
        squares += weight * weight;
    }
    sum * sum / squares
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// The curve that takes the quantiles of a column's rows, as good as so many in number, towards those of its samples; both are
/// about normal and in order. `None` where they have no nine different ones.
fn curve(rows: &[f64], samples: &[f64], count: f64) -> Option<MonotoneCurve> {
    let knots = SCORES.map(|score| {
        let share = cdf(score);
        let at = |values: &[f64]| values.get((share * values.len() as f64) as usize).copied();
        let (place, other) = (at(rows)?, at(samples)?);
        let difference = other - place;
        let density = (-0.5 * score * score).exp() / std::f64::consts::TAU.sqrt();
        let variance = share * (1.0 - share) / (count * density * density);
        let square = difference * difference;
        Some((place, place + difference * square / (square + variance)))
    });
    let knots: Option<Vec<(f64, f64)>> = knots.into_iter().collect();
    let knots = knots?;
    let slope = |index: usize| match (index.checked_sub(1).map(|left| knots[left]), knots.get(index + 1)) {
        (Some(left), Some(right)) => (right.1 - left.1) / (right.0 - left.0),
        // Beyond the ends, all is moved by as much as they are.
        _ => 1.0,
    };
    let knot = |(index, &(place, score)): (usize, &(f64, f64))| Knot { place, score, slope: slope(index) };
    MonotoneCurve::from_knots(knots.iter().enumerate().map(knot).collect()).ok()
}

/// A curve that changes half as much as `curve`.
fn half(curve: &MonotoneCurve) -> MonotoneCurve {
    let knot = |&Knot { place, score, slope }: &Knot| Knot {
        place,
        score: 0.5 * (place + score),
        slope: 0.5 * (1.0 + slope),
    };
    MonotoneCurve::from_knots(curve.knots().iter().map(knot).collect())
        .expect("invariant: means of ascending curves ascend")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuEngine;
    use crate::data::{PreprocessingPlan, Table};
    use crate::flow::{Base, Flow};
    use crate::layout::Layout;
    use crate::model::{DataSource, Recipe, TrainingRecord};
    use crate::optimiser::State;
    use crate::random::normals;

    /// Deviation of the second column from the first in a fit of two columns that nearly agree.
    const NARROW: f64 = 0.05;
    /// By how much its means are too high.
    const HIGH: f64 = 0.5;

    /// 3,000 rows of two normal columns, nearly equal where `agree`, and a Gaussian that fits them but for its means.
    fn fit(agree: bool) -> (Model, CpuEngine<f32>, Dataset, Training) {
        let mut noise = [0.0f32; 2];
        let row = |row| {
            normals(row, 5, &mut noise);
            let [a, b] = noise.map(f64::from);
            if agree { [a, a + NARROW * b] } else { [a, b] }
        };
        let table = Table {
            name: "t".into(),
            columns: ["a", "b"].map(String::from).into(),
            values: (0..3000).flat_map(row).collect(),
        };
        let plan = PreprocessingPlan { margins: Margins::Kernel, ..PreprocessingPlan::default() };
        let dataset = Dataset::split_with(&table, 0.2, 0, &plan).expect("splits");
        let flow = Flow::new(2, 1, &[4]).expect("valid").with_base(Base::Mixture { components: 1 });
        let mut parameters = State::initial(&flow, 1).parameters;
        // A logit, means, logarithms of the diagonal, rows of a triangle.
        let [log_diagonal, lower] = if agree { [-NARROW.ln(), -1.0 / NARROW] } else { [0.0; 2] };
        let base = [0.0, HIGH, HIGH, 0.0, log_diagonal, 0.0, 0.0, lower, 0.0].map(|value| value as f32);
        parameters[Layout::new(&flow).base].copy_from_slice(&base);
        let recipe = Recipe::default();
        let of = |side: usize| dataset.preprocessing.forward_table(&dataset.rows(side)).0.into();
        let training = Training {
            train: of(0),
            validation: of(1),
            weights: None,
            batch: 1,
            adam: recipe.adam(),
            schedule: recipe.schedule(1).expect("short"),
            seed: 1,
        };
        let model = Model {
            flow: flow.clone(),
            parameters,
            preprocessing: dataset.preprocessing.clone(),
            columns: dataset.columns.clone(),
            record: TrainingRecord::begun(recipe, DataSource::table("t", 3000), "cpu".into()),
        };
        (model, CpuEngine::new(flow).expect("valid"), dataset, training)
    }

    /// Mean of each column of samples of `model` in training rows' deviations, less those rows' own.
    fn excess(model: &Model, engine: &mut CpuEngine<f32>, dataset: &Dataset) -> [f64; 2] {
        Engine::set_parameters(engine, &model.parameters).expect("fits");
        let sampling = Sampling { rows: 20_000, first: 0, seed: 9, temperature: 1.0 };
        let drawn = pollster::block_on(Engine::sample(engine, sampling)).expect("samples");
        let drawn = model.preprocessing.inverse(&drawn);
        let mean = |rows: &[f64], column: usize| {
            rows[column..].iter().step_by(2).sum::<f64>() / (rows.len() / 2) as f64
        };
        [0, 1].map(|column| mean(&drawn, column) - mean(&dataset.train, column))
    }

    fn settled(model: &mut Model, dataset: &Dataset, training: &Training) -> [f64; 2] {
        let mut engine = CpuEngine::<f32>::new(model.flow.clone()).expect("valid");
        pollster::block_on(settle(model, &mut engine, dataset, training)).expect("settles")
    }

    #[test]
    fn samples_get_the_margins_of_the_training_rows_and_rows_are_likelier() {
        let (mut model, mut engine, dataset, training) = fit(false);
        let mut loss = |model: &Model| -> f64 {
            let log_p = pollster::block_on(model.log_density(&mut engine, &dataset.train)).expect("rows");
            -log_p.iter().sum::<f64>() / log_p.len() as f64
        };
        let before = loss(&model);
        let gains = settled(&mut model, &dataset, &training);
        // Two columns.
        assert!(gains[0] > 0.8 * HIGH * HIGH, "{gains:?}");
        assert!((before - loss(&model) - gains[0]).abs() < 1e-4, "{before} {} {gains:?}", loss(&model));
        let after = excess(&model, &mut engine, &dataset);
        assert!(after.iter().all(|mean| mean.abs() < 0.03), "{after:?}");
    }

    #[test]
    fn columns_stay_where_rows_of_either_side_would_be_less_likely() {
        let stay = |mut model: Model, dataset: &Dataset, training: &Training| {
            let before = model.preprocessing.clone();
            let gains = settled(&mut model, dataset, training);
            assert_eq!((gains, &model.preprocessing), ([0.0; 2], &before));
        };
        // One column moved alone would leave the other. There are training rows alone.
        let (model, _, mut dataset, mut training) = fit(true);
        dataset.validation.clear();
        training.validation = Vec::new().into();
        stay(model, &dataset, &training);
        // The means are those of the validation rows.
        let (model, _, dataset, training) = fit_but_of_validation_rows(HIGH);
        stay(model, &dataset, &training);
    }

    /// A fit whose validation rows are higher than the training rows.
    fn fit_but_of_validation_rows(higher: f64) -> (Model, CpuEngine<f32>, Dataset, Training) {
        let (model, engine, dataset, mut training) = fit(false);
        let validation = training.validation.iter().map(|value| value + higher as f32);
        training.validation = validation.collect::<Vec<f32>>().into();
        (model, engine, dataset, training)
    }

    #[test]
    fn a_curve_that_goes_too_far_goes_half_the_way() {
        // The whole way takes 0.035 nats from the validation rows, and half of it gives them 0.014.
        let (mut model, mut engine, dataset, training) = fit_but_of_validation_rows(0.32);
        let gains = settled(&mut model, &dataset, &training);
        assert!(gains.iter().all(|gain| *gain > 0.0), "{gains:?}");
        let after = excess(&model, &mut engine, &dataset);
        assert!(after.iter().all(|mean| (mean - 0.5 * HIGH).abs() < 0.03), "{after:?}");
    }

    /// Numbers spread as a normal distribution.
    fn normal(count: usize, mean: f64, deviation: f64) -> Vec<f64> {
        let score = |row: usize| crate::normal::quantile((row as f64 + 0.5) / count as f64);
        (0..count).map(|row| mean + deviation * score(row)).collect()
    }

    #[test]
    fn a_difference_that_rows_show_is_taken_back_and_chance_stays() {
        let samples = normal(30_000, 0.08, 0.95);
        let curve_of =
            |rows: usize| curve(&normal(20_000, 0.0, 1.0), &samples, rows as f64).expect("a curve");
        for score in [-2.0, -0.7, 0.0, 1.3, 2.0] {
            let (want, change) = (0.08 + 0.95 * score, |rows| curve_of(rows).forward(score).0 - score);
            assert!((change(1_000_000) - (want - score)).abs() < 2e-3, "{score}: {}", change(1_000_000));
            assert!(change(20).abs() < 0.2 * (want - score).abs() + 1e-3, "{score}: {}", change(20));
        }
        assert_eq!(curve_of(1_000_000).forward(9.0).1, 0.0, "beyond the last quantile all move alike");
    }

    #[test]
    fn columns_of_few_values_or_none_keep_their_margin() {
        assert!(curve(&[0.0; 50], &normal(50, 0.0, 1.0), 50.0).is_none());
        assert!(curve(&[], &[], 0.0).is_none());
    }

    #[test]
    fn rows_are_drawn_as_often_as_they_weigh() {
        let of = |row: usize| [1.0, 0.0, 3.0][row];
        assert_eq!(evenly(3, |_| 1.0, 6), [0, 0, 1, 1, 2, 2]);
        assert_eq!(evenly(3, of, 4), [0, 2, 2, 2]);
        assert_eq!(effective((0..3).map(of)), 1.6);
        assert_eq!(effective([1.0; 5].into_iter()), 5.0);
    }
}
