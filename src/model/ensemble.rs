//! The average of several fitted densities: what becomes of a few fits to one table, each with its own seed.
//! It stands beside a single [`Model`], which is an ensemble of one, and gives and takes the user's units as that does.

use super::held_out::summarise;
use super::{Finding, HeldOut, Model, Recipe, SelfCheck, TrainingRecord};
use crate::engine::{Engine, Sampling};
use crate::error::{Error, Result};
use crate::flow::Flow;
use crate::mixture::log_sum_exp;
use crate::random::{Permutation, Stream, key, philox};

/// Densities over the same columns, and their average p(x) = (p₁(x) + … + p_K(x)) / K.
///
/// On few rows fits differ from seed to seed, each wrong in other places; the average is then likelier on unseen rows than
/// they are on average, by Jensen's inequality.
#[derive(Clone, Debug, PartialEq)]
pub struct Ensemble {
    pub(super) members: Vec<Model>,
    /// The training of several members together.
    together: Option<Box<TrainingRecord>>,
}

impl From<Model> for Ensemble {
    fn from(model: Model) -> Self {
        Self { members: vec![model], together: None }
    }
}

/// Engines for the members of an ensemble, one for each flow that they have: members of one flow share theirs.
#[derive(Debug)]
pub struct Engines<E> {
    engines: Vec<E>,
    /// Place of each member's engine.
    of: Vec<usize>,
}

impl<E: Engine> Engines<E> {
    /// `engines`, one for each member in turn.
    pub fn of_each(engines: Vec<E>) -> Self {
        Self { of: (0..engines.len()).collect(), engines }
    }

    /// Engines for `ensemble`, made by `make`.
    ///
    /// # Errors
    /// Those of `make`.
    pub async fn new(ensemble: &Ensemble, mut make: impl AsyncFnMut(Flow) -> Result<E>) -> Result<Self> {
        let mut engines: Vec<E> = Vec::new();
        let mut of = Vec::with_capacity(ensemble.members.len());
        for Model { flow, .. } in &ensemble.members {
            let place = match engines.iter().position(|engine| engine.flow() == flow) {
                Some(place) => place,
                None => {
                    engines.push(make(flow.clone()).await?);
                    engines.len() - 1
                }
            };
            of.push(place);
        }
        Ok(Self { engines, of })
    }

    /// The engines.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, E> {
        self.engines.iter_mut()
    }

    /// The engine of member `member`.
    pub fn of(&mut self, member: usize) -> &mut E {
        &mut self.engines[self.of[member]]
    }
}

impl Ensemble {
    /// Most members.
    pub const MOST: usize = 64;

    /// The average of `members`, the fits of `recipe`'s ensemble that there are.
    ///
    /// Losses of its record are the means of theirs, on the rows that each was trained and validated on; numbers of epochs and
    /// steps are sums, and the self-check is the first's. A single member has its own record.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is none or more than [`Ensemble::MOST`], or when they are not densities of the same
    /// columns on the same domains, given the same ones.
    pub fn average(members: Vec<Model>, recipe: &Recipe) -> Result<Self> {
        let Some(first) = members.first() else {
            return Err(Error::Argument("an ensemble needs a member; there is none".into()));
        };
        let records = || members.iter().map(|member| &member.record);
        let mean = |loss: fn(&TrainingRecord) -> Option<f64>| {
            let losses: Option<Vec<f64>> = records().map(loss).collect();
            losses.map(|losses| losses.iter().sum::<f64>() / losses.len() as f64)
        };
        let median = mean(|record| record.check.as_ref().and_then(|check| check.validation_median));
        let of_average = |check| SelfCheck { validation_median: median, ..of_average(check) };
        let record = TrainingRecord {
            recipe: recipe.clone(),
            epochs: records().map(|record| record.epochs).sum(),
            best_epoch: None,
            train_nll: mean(|record| record.train_nll),
            validation_nll: mean(|record| record.validation_nll),
            skipped_steps: records().map(|record| record.skipped_steps).sum(),
            rollbacks: records().map(|record| record.rollbacks).sum(),
            held_out: None,
            test: None,
            check: first.record.check.clone().map(of_average),
            ..first.record.clone()
        };
        Self::with_record(members, record)
    }

    /// As [`Ensemble::average`], with the record that was made of their training together.
    pub(super) fn with_record(members: Vec<Model>, record: TrainingRecord) -> Result<Self> {
        let count = members.len();
        if !(1..=Self::MOST).contains(&count) {
            let most = Self::MOST;
            return Err(Error::Argument(format!(
                "an ensemble has between 1 and {most} members, got {count}"
            )));
        }
        let first = &members[0];
        let alike = |model: &Model| {
            model.columns == first.columns
                && model.flow.context == first.flow.context
                && model.preprocessing.domains == first.preprocessing.domains
                && model.preprocessing.atoms == first.preprocessing.atoms
        };
        if let Some(place) = members.iter().position(|member| !alike(member)) {
            return Err(Error::Argument(format!(
                "member {} of the ensemble is a density of other columns, bounds or context than the first",
                place + 1
            )));
        }
        let together = (count > 1).then(|| Box::new(record));
        Ok(Self { members, together })
    }

    /// The members, at least one.
    pub fn members(&self) -> &[Model] {
        &self.members
    }

    /// The member that speaks for all of what they have in common: columns, domains and context.
    pub fn first(&self) -> &Model {
        &self.members[0]
    }

    /// The training of all members together; of a single one, its own.
    pub fn record(&self) -> &TrainingRecord {
        self.together.as_deref().unwrap_or(&self.members[0].record)
    }

    /// The same, to be changed.
    pub fn record_mut(&mut self) -> &mut TrainingRecord {
        self.together.as_deref_mut().unwrap_or(&mut self.members[0].record)
    }

    /// log p(x) of each row `[B]`, as [`Model::log_prob`].
    ///
    /// # Errors
    /// Those of [`Model::log_prob`].
    pub async fn log_prob<E: Engine>(&self, engines: &mut Engines<E>, rows: &[f64]) -> Result<Vec<f64>> {
        let mut all = Vec::with_capacity(self.members.len());
        for (index, member) in self.members.iter().enumerate() {
            all.push(member.log_prob(engines.of(index), rows).await?);
        }
        Ok(log_mean_exp(all))
    }

    /// log p(x) of each row `[B]`, as [`Model::log_density`].
    ///
    /// # Errors
    /// Those of [`Model::log_density`].
    pub async fn log_density<E: Engine>(&self, engines: &mut Engines<E>, rows: &[f64]) -> Result<Vec<f64>> {
        let mut all = Vec::with_capacity(self.members.len());
        for (index, member) in self.members.iter().enumerate() {
            all.push(member.log_density(engines.of(index), rows).await?);
        }
        Ok(log_mean_exp(all))
    }

    /// The score function ∇ₓ log p at each row, row-major [B, D], as [`Model::score`]: the mean of the members' scores, each
    /// by its share of the density there.
    ///
    /// # Errors
    /// Those of [`Model::score`].
    pub async fn score<E: Engine>(&self, engines: &mut Engines<E>, rows: &[f64]) -> Result<Vec<f64>> {
        let [only] = self.members.as_slice() else { return self.mean_score(engines, rows).await };
        only.score(engines.of(0), rows).await
    }

    async fn mean_score<E: Engine>(&self, engines: &mut Engines<E>, rows: &[f64]) -> Result<Vec<f64>> {
        let features = self.first().flow.features;
        let (mut log_probs, mut scores) = (Vec::new(), Vec::new());
        for (index, member) in self.members.iter().enumerate() {
            scores.push(member.score(engines.of(index), rows).await?);
            log_probs.push(member.log_prob(engines.of(index), rows).await?);
        }
        let log_prob = log_mean_exp(log_probs.clone());
        let mut mean = vec![0.0; rows.len()];
        for (scores, log_probs) in scores.iter().zip(&log_probs) {
            let rows = mean.chunks_exact_mut(features).zip(scores.chunks_exact(features));
            for ((mean, score), (own, log_prob)) in rows.zip(log_probs.iter().zip(&log_prob)) {
                // NaN outside of the bounds, where no member has a density.
                let share = (own - log_prob).exp() / self.members.len() as f64;
                mean.iter_mut().zip(score).for_each(|(mean, score)| *mean += share * score);
            }
        }
        Ok(mean)
    }

    /// Latent z of each row, row-major [B, D], as [`Model::latent`], of the first member: an average of densities has no
    /// latent variable of its own.
    ///
    /// # Errors
    /// Those of [`Model::latent`].
    pub async fn latent<E: Engine>(&self, engines: &mut Engines<E>, rows: &[f64]) -> Result<Vec<f64>> {
        self.first().latent(engines.of(0), rows).await
    }

    /// Rows drawn from the ensemble, row-major [rows, D], as [`Model::sample`].
    ///
    /// Of any K rows from K·b on, each of K members yields one, in an order that the seed chooses.
    ///
    /// # Errors
    /// Those of [`Model::sample`].
    pub async fn sample<E: Engine>(&self, engines: &mut Engines<E>, sampling: Sampling) -> Result<Vec<f64>> {
        self.sample_given(engines, sampling, &[]).await
    }

    /// As [`Ensemble::sample`], row r given the context `context`\[r\], row-major [rows, C], as [`Model::sample_given`].
    ///
    /// # Errors
    /// Those of [`Model::sample_given`].
    pub async fn sample_given<E: Engine>(
        &self,
        engines: &mut Engines<E>,
        sampling: Sampling,
        context: &[f64],
    ) -> Result<Vec<f64>> {
        let count = self.members.len();
        let Flow { features, context: given, .. } = self.first().flow;
        if count == 1 || context.len() != sampling.rows * given {
            // A wrong context is refused there.
            return self.first().sample_given(engines.of(0), sampling, context).await;
        }
        let mut values = vec![0.0; sampling.rows * features];
        for (index, member) in self.members.iter().enumerate() {
            let Turns { first, rows } = turns(index, count, &sampling);
            let context: Vec<f64> =
                rows.iter().flat_map(|row| &context[row * given..(row + 1) * given]).copied().collect();
            let own =
                Sampling { rows: rows.len(), first, seed: member_seed(index, sampling.seed), ..sampling };
            let drawn = member.sample_given(engines.of(index), own, &context).await?;
            for (row, drawn) in rows.iter().zip(drawn.chunks_exact(features)) {
                values[row * features..(row + 1) * features].copy_from_slice(drawn);
            }
        }
        Ok(values)
    }

    /// The loss on `rows`, as [`Model::held_out`].
    ///
    /// # Errors
    /// Those of [`Model::held_out`].
    pub async fn held_out<E: Engine>(
        &self,
        engines: &mut Engines<E>,
        rows: &[f64],
        truth: impl Fn(&[f64]) -> Option<f64> + Sync,
    ) -> Result<HeldOut> {
        let log_prob = self.log_prob(engines, rows).await?;
        let Model { flow, preprocessing, .. } = self.first();
        let rows = rows.chunks_exact(flow.features);
        Ok(summarise(rows, |row| preprocessing.accepts(row), &log_prob, truth))
    }
}

/// The self-check of a member as one of the average: fits that each know their own rows too well are what an average is made
/// of, and mends.
fn of_average(mut check: SelfCheck) -> SelfCheck {
    // Records of earlier versions have sentences alone.
    if check.findings.len() == check.suspicious.len() {
        let by_heart = |finding: &Finding| matches!(finding, Finding::LearntByHeart { .. });
        let kept: Vec<bool> = check.findings.iter().map(|finding| !by_heart(finding)).collect();
        let mut sentences = kept.iter();
        check.suspicious.retain(|_| *sentences.next().unwrap_or(&true));
        check.findings.retain(|finding| !by_heart(finding));
    }
    check
}

/// The logarithm of the mean of densities, row by row, from the logarithms `[B]` of each.
fn log_mean_exp(mut all: Vec<Vec<f64>>) -> Vec<f64> {
    if all.len() == 1 {
        return all.remove(0);
    }
    let log_count = (all.len() as f64).ln();
    let mut terms = vec![0.0; all.len()];
    let rows = all.first().map_or(0, Vec::len);
    (0..rows)
        .map(|row| {
            terms.iter_mut().zip(&all).for_each(|(term, values)| *term = values[row]);
            log_sum_exp(&terms) - log_count
        })
        .collect()
}

/// The seed of a member's latent noise where samples have the seed `seed`.
fn member_seed(member: usize, seed: u64) -> u64 {
    let [low, high, ..] = philox([member as u32, 0, 1, Stream::Member as u32], key(seed));
    u64::from(high) << 32 | u64::from(low)
}

/// The rows of a sample that one member yields: which of its own rows is the first, and their places in the sample.
struct Turns {
    first: u32,
    rows: Vec<usize>,
}

/// The turns of member `member` of `count` within `sampling`. Rows count · b to count · b + count − 1 are row b of each
/// member, in an order that the seed chooses.
fn turns(member: usize, count: usize, sampling: &Sampling) -> Turns {
    let start = sampling.first as usize;
    let end = start + sampling.rows;
    let mut turns = Turns { first: 0, rows: Vec::with_capacity(sampling.rows / count + 1) };
    for block in start / count..end.div_ceil(count) {
        let order = Permutation::new(count as u32, sampling.seed, Stream::Member, block as u32);
        let row = block * count + order.place(member as u32) as usize;
        if (start..end).contains(&row) {
            if turns.rows.is_empty() {
                turns.first = block as u32;
            }
            turns.rows.push(row - start);
        }
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_one_members_and_the_same_however_a_sample_is_cut() {
        for count in [2, 3, 7] {
            let whole = Sampling { rows: 100, first: 0, seed: 5, temperature: 1.0 };
            let owners = |sampling: &Sampling| {
                let mut owner = vec![None; sampling.rows];
                for member in 0..count {
                    let Turns { first, rows } = turns(member, count, sampling);
                    for (own, row) in (first..).zip(rows) {
                        assert!(owner[row].replace((member, own)).is_none(), "row {row} has two owners");
                    }
                }
                owner
            };
            let all = owners(&whole);
            assert!(all.iter().all(Option::is_some));
            for (first, rows) in [(0, 13), (13, 1), (14, 0), (14, 86)] {
                let part = Sampling { rows, first, ..whole };
                assert_eq!(owners(&part), all[first as usize..first as usize + rows], "from row {first}");
            }
            assert_ne!(all, owners(&Sampling { seed: 6, ..whole }));
        }
    }

    #[test]
    fn seeds_of_members_differ_from_each_other_and_from_the_samples_own() {
        let mut seeds: Vec<u64> = (0..3).flat_map(|seed| (0..4).map(move |k| member_seed(k, seed))).collect();
        seeds.extend(0..3);
        let all = seeds.len();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), all);
    }

    #[test]
    fn an_average_is_not_blamed_for_members_that_know_their_rows_by_heart() {
        let sentences = ["learnt", "far"].map(String::from);
        let findings = vec![
            Finding::LearntByHeart { gap: 1.0, error: 0.1 },
            Finding::FarRows { validation: true, rows: 1, nats: 2.0 },
        ];
        let check = SelfCheck { findings, suspicious: sentences.to_vec(), ..SelfCheck::default() };
        let average = of_average(check);
        assert!(matches!(average.findings[..], [Finding::FarRows { .. }]));
        assert_eq!(average.suspicious, ["far"]);
    }

    #[test]
    fn the_mean_of_densities_survives_those_that_vanish() {
        let none = f64::NEG_INFINITY;
        let mean = log_mean_exp(vec![vec![0.0, none, -1e4, none], vec![2f64.ln(), 0.0, -1e4, none]]);
        let want = [1.5f64.ln(), -2f64.ln(), -1e4, none];
        for (got, want) in mean.iter().zip(want) {
            assert!(got == &want || (got - want).abs() < 1e-12, "{got} and {want}");
        }
    }
}
