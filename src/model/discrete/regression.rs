//! A multinomial logistic regression of one discrete variable on others and on numbers.
//!
//! Its inputs are a 1, each other variable as one-hot indicators, and each number, standardised and cut off, with its square.
//! A ridge keeps weights finite. They rise to the maximum of the penalised likelihood under a fixed bound on the Hessian
//! (Böhning, "Multinomial logistic regression algorithm", 1992), so that no step can fail.

use super::{Discrete, DiscreteRows};
use crate::data::factorise;
use crate::error::{Error, Result, expect_length};
use crate::mixture::log_sum_exp;

/// P(variable | others, numbers) = softmax(W · inputs).
#[derive(Clone, Debug, PartialEq)]
pub struct Regression {
    /// Mean of each number `[C]`.
    pub(in crate::model) mean: Vec<f64>,
    /// Deviation of each number `[C]`, positive.
    pub(in crate::model) std: Vec<f64>,
    /// W, row-major [levels, inputs].
    pub(in crate::model) weights: Vec<f64>,
}

/// Precision of the normal prior of each weight.
const RIDGE: f64 = 1.0;
/// Deviations beyond which a number counts as this far: the square of one far out would decide everything.
const CUT: f64 = 5.0;
/// Steps of a fit, and the gain of a step for each row in nats at which it ends.
const STEPS: usize = 300;
const LEAST_GAIN: f64 = 1e-9;
/// Rows that a fit is made to, at most.
const ROWS: usize = 1 << 15;

/// Inputs of the regression of `variable` in `chain`.
pub(in crate::model) fn inputs(levels: &[usize], modelled: usize, numbers: usize, variable: usize) -> usize {
    let before = (0..variable).chain(modelled..levels.len());
    1 + before.map(|place| levels[place] - 1).sum::<usize>() + 2 * numbers
}

impl Regression {
    pub(super) fn fit(chain: &Discrete, variable: usize, rows: &DiscreteRows, weights: &[f64]) -> Self {
        let (width, numbers) = (chain.levels.len(), chain.numbers);
        let step = weights.len().div_ceil(ROWS).max(1);
        let (mean, std) = moments(&rows.numbers, numbers, weights);
        let size = inputs(&chain.levels, chain.modelled, numbers, variable);
        let count = chain.levels[variable];
        let empty = Self { mean, std, weights: vec![0.0; count * size] };
        let mut sample = Sample { size, count, inputs: Vec::new(), targets: Vec::new(), weights: Vec::new() };
        for (row, weight) in weights.iter().enumerate().step_by(step).filter(|(_, weight)| **weight > 0.0) {
            let codes = &rows.codes[row * width..(row + 1) * width];
            let given = &rows.numbers[row * numbers..(row + 1) * numbers];
            empty.push_inputs(chain, variable, codes, given, &mut sample.inputs);
            sample.targets.push(codes[variable] as usize);
            sample.weights.push(*weight);
        }
        Self { weights: sample.maximum(), ..empty }
    }

    /// Appends the inputs of a row with `codes` `[V + G]` and `numbers` `[C]`.
    fn push_inputs(
        &self,
        chain: &Discrete,
        variable: usize,
        codes: &[u32],
        numbers: &[f64],
        into: &mut Vec<f64>,
    ) {
        into.push(1.0);
        for place in chain.before(variable) {
            into.extend(
                (1..chain.levels[place]).map(|level| f64::from(u8::from(codes[place] as usize == level))),
            );
        }
        for (number, (mean, std)) in numbers.iter().zip(self.mean.iter().zip(&self.std)) {
            let standardised = ((number - mean) / std).clamp(-CUT, CUT);
            into.extend([standardised, standardised * standardised - 1.0]);
        }
    }

    /// Appends the probability of each level.
    pub(super) fn probabilities(
        &self,
        chain: &Discrete,
        variable: usize,
        codes: &[u32],
        numbers: &[f64],
        into: &mut Vec<f64>,
    ) {
        let mut inputs = Vec::with_capacity(self.weights.len() / chain.levels[variable]);
        self.push_inputs(chain, variable, codes, numbers, &mut inputs);
        softmax(&self.weights, &inputs, into);
    }

    /// That it is a regression of `variable` in `chain`.
    pub(super) fn validate(&self, chain: &Discrete, variable: usize) -> Result<()> {
        let Discrete { levels, modelled, numbers, .. } = chain;
        let size = levels[variable] * inputs(levels, *modelled, *numbers, variable);
        expect_length("weights of a discrete variable", self.weights.len(), size)?;
        expect_length("means of given numbers", self.mean.len(), *numbers)?;
        expect_length("deviations of given numbers", self.std.len(), *numbers)?;
        if self.std.iter().all(|std| *std > 0.0 && std.is_normal()) {
            return Ok(());
        }
        Err(Error::Argument("deviations of given numbers must be positive".into()))
    }
}

/// Appends the probability of each level, which are never 0.
fn softmax(weights: &[f64], inputs: &[f64], into: &mut Vec<f64>) {
    let scores = weights.chunks_exact(inputs.len()).map(|weights| dot(weights, inputs));
    let start = into.len();
    into.extend(scores);
    let total = log_sum_exp(&into[start..]);
    into[start..].iter_mut().for_each(|score| *score = (*score - total).exp().max(f64::MIN_POSITIVE));
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Mean and deviation of each number, 1 where that is nothing.
fn moments(numbers: &[f64], count: usize, weights: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let total: f64 = weights.iter().sum();
    let of = |place: usize| {
        let column = || numbers.iter().skip(place).step_by(count).zip(weights);
        let mean = column().map(|(number, weight)| number * (weight / total)).sum::<f64>();
        let variance =
            column().map(|(number, weight)| (number - mean).powi(2) * (weight / total)).sum::<f64>();
        let std = variance.sqrt();
        (mean, if std.is_normal() { std } else { 1.0 })
    };
    (0..count).map(of).unzip()
}

/// Rows that a regression is fitted to.
struct Sample {
    /// Inputs of a row, and levels.
    size: usize,
    count: usize,
    inputs: Vec<f64>,
    targets: Vec<usize>,
    weights: Vec<f64>,
}

impl Sample {
    fn rows(&self) -> impl Iterator<Item = (&[f64], usize, f64)> {
        let others = self.targets.iter().zip(&self.weights);
        self.inputs
            .chunks_exact(self.size)
            .zip(others)
            .map(|(inputs, (&target, &weight))| (inputs, target, weight))
    }

    /// The weights with the largest penalised likelihood, row-major [levels, inputs].
    fn maximum(&self) -> Vec<f64> {
        let Self { size, count, .. } = *self;
        let mut bound = vec![0.0; size * size];
        for (inputs, _, weight) in self.rows() {
            for i in 0..size {
                for j in 0..=i {
                    bound[i * size + j] += 0.5 * weight * inputs[i] * inputs[j];
                }
            }
        }
        (0..size).for_each(|i| bound[i * size + i] += RIDGE);
        let mut weights = vec![0.0; count * size];
        if factorise(&mut bound, size).is_none() {
            // Numbers that are not finite are refused before.
            return weights;
        }
        let mut last = f64::NEG_INFINITY;
        for _ in 0..STEPS {
            let (value, mut gradient) = self.slope(&weights);
            if value - last < LEAST_GAIN * self.targets.len() as f64 {
                break;
            }
            last = value;
            for (weights, gradient) in weights.chunks_exact_mut(size).zip(gradient.chunks_exact_mut(size)) {
                solve(&bound, gradient);
                weights.iter_mut().zip(gradient).for_each(|(weight, step)| *weight += *step);
            }
        }
        weights
    }

    /// The penalised log-likelihood and its gradient.
    fn slope(&self, weights: &[f64]) -> (f64, Vec<f64>) {
        let size = self.size;
        let mut value = -0.5 * RIDGE * dot(weights, weights);
        let mut gradient: Vec<f64> = weights.iter().map(|weight| -RIDGE * weight).collect();
        let mut probabilities = Vec::new();
        for (inputs, target, weight) in self.rows() {
            probabilities.clear();
            softmax(weights, inputs, &mut probabilities);
            value += weight * probabilities[target].ln();
            for (level, probability) in probabilities.iter().enumerate() {
                let error = weight * (f64::from(u8::from(level == target)) - probability);
                let gradient = &mut gradient[level * size..(level + 1) * size];
                gradient.iter_mut().zip(inputs).for_each(|(gradient, input)| *gradient += error * input);
            }
        }
        (value, gradient)
    }
}

/// Solves L·Lᵀ x = b in place, with the lower triangle of `factor`.
fn solve(factor: &[f64], b: &mut [f64]) {
    let size = b.len();
    for i in 0..size {
        let known = dot(&factor[i * size..i * size + i], &b[..i]);
        b[i] = (b[i] - known) / factor[i * size + i];
    }
    for i in (0..size).rev() {
        let known: f64 = (i + 1..size).map(|j| factor[j * size + i] * b[j]).sum();
        b[i] = (b[i] - known) / factor[i * size + i];
    }
}
