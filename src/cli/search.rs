//! `moonflow train --search SECONDS`: tries recipes within a budget of seconds, says how each does, and leaves the best to
//! be trained as if its flags had been given.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use moonflow::flow::{BaseKind, BijectorKind, Mixing};
use moonflow::model::{DataSource, Engines, Ensemble, Recipe};
use moonflow::train::search::{Round, averages, candidate, fits_within, reserve_for_averages, training_rows};
use moonflow::train::{Epoch, Members, Observer, Options, fit_with};
use moonflow::{Dataset, Error, Result};
use serde_json::json;

use super::free_memory::available;
use super::memory::Need;
use super::output::{self, grouped, note};
use super::progress::{LogFormat, duration};
use super::signals;
use super::train::{TrainArgs, shape};

/// A search under way.
struct Search<'a> {
    args: &'a TrainArgs,
    /// What is trained without a search.
    usual: &'a Recipe,
    /// Its validation rows are the judges.
    dataset: &'a Dataset,
    /// Its training rows, for the recipes.
    rows: Dataset,
    record: DataSource,
    ends: Instant,
    stop: Arc<AtomicBool>,
    /// Bytes that are free, where the operating system says.
    free: fn() -> Option<f64>,
    /// The best recipe with all of its epochs so far, and its loss.
    best: (Recipe, f64),
}

/// Ends a fit when it is set.
struct Watch(Arc<AtomicBool>);

impl Observer for Watch {
    fn epoch(&mut self, _: &Epoch) -> ControlFlow<()> {
        if self.0.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// The best recipe that is found for `dataset` within `seconds`: `usual` where none does better, or where the time is too
/// short to tell.
///
/// Every recipe is trained on a part of the training rows and judged by the validation rows, which none of its fits has
/// seen: so the average of several fits is judged as fairly as a single one.
///
/// # Errors
/// [`Error::Argument`] without validation rows; those of the engine.
pub async fn search(
    args: &TrainArgs,
    dataset: &Dataset,
    usual: &Recipe,
    record: DataSource,
    seconds: f64,
) -> Result<Recipe> {
    let begun = Instant::now();
    let budget = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    // A budget without end.
    let ends = begun.checked_add(budget).unwrap_or(begun + Duration::from_secs(u64::from(u32::MAX)));
    let rows = training_rows(dataset, usual.validation_fraction)?;
    let best = (usual.clone(), f64::INFINITY);
    let stop = signals::stop_flag();
    let mut search = Search { args, usual, dataset, rows, record, ends, stop, free: available, best };
    let judges = dataset.validation.len() / dataset.features();
    search.say(format_args!(
        "search   {} s; recipes are judged by {} validation rows that none of their fits has seen",
        seconds,
        grouped(judges as u64)
    ));
    if search.judge(usual, None).await?.is_some() {
        let reserve = reserve_for_averages(begun.elapsed(), search.left());
        if let Some((single, each)) = search.halve(ends.checked_sub(reserve).unwrap_or(begun)).await? {
            search.average(&single, each).await?;
        }
    }
    search.conclude()
}

impl Search<'_> {
    fn say(&self, line: impl std::fmt::Display) {
        if self.args.log_format == LogFormat::Text {
            output::say(line);
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.ends || self.stop.load(Ordering::Relaxed)
    }

    fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    /// Tries averages of fits of `single`, one of which takes `each`.
    async fn average(&mut self, single: &Recipe, each: Duration) -> Result<()> {
        for recipe in averages(single, self.usual) {
            let Some(ensemble) = fits_within(recipe.ensemble, each, self.left()) else { break };
            let recipe = self.args.recipe().over(Recipe { ensemble, ..recipe })?;
            if recipe != *single {
                self.judge(&recipe, None).await?;
            }
        }
        Ok(())
    }

    /// Successive halving until `until`; the best of the recipes that have had all of their epochs, and the time of its fit.
    async fn halve(&mut self, until: Instant) -> Result<Option<(Recipe, Duration)>> {
        let [rows, columns] = shape(self.dataset);
        let usual = self.usual;
        let mut going: Box<dyn Iterator<Item = Recipe>> =
            Box::new((0..).map(move |index| candidate(usual, index, rows, columns)));
        let mut best = None;
        for round in Round::ALL {
            let left = until.saturating_duration_since(Instant::now());
            let round_ends = Instant::now() + left / (Round::ALL.len() - round.number) as u32;
            let mut tried = Vec::new();
            for recipe in going {
                if Instant::now() >= round_ends || self.is_over() {
                    break;
                }
                let recipe = self.args.recipe().over(recipe)?.of_member(0);
                let begun = Instant::now();
                if let Some(loss) = self.judge(&recipe, Some(round)).await? {
                    tried.push(((recipe, begun.elapsed()), loss));
                }
            }
            let kept = Round::best(tried);
            best = kept.first().cloned();
            going = Box::new(kept.into_iter().map(|(recipe, _)| recipe));
        }
        Ok(best)
    }

    /// Trains `recipe`, or the part of it that `round` has, says how it did, and keeps it if it is the best with all of its
    /// epochs; `None` where the time is up, and where it came to nothing.
    async fn judge(&mut self, recipe: &Recipe, round: Option<Round>) -> Result<Option<f64>> {
        let begun = Instant::now();
        let part = round.map_or_else(|| recipe.clone(), |round| round.part_of(recipe));
        let Some(loss) = self.loss(&part).await? else { return Ok(None) };
        let seconds = begun.elapsed().as_secs_f64();
        let epochs = match round {
            Some(Round { divisor: 2.., .. }) => format!("{} of {} epochs", part.epochs, recipe.epochs),
            _ => format!("{} epochs", recipe.epochs),
        };
        self.say(format_args!(
            "tried    {epochs}, {}: {loss:.4} nats in {}",
            described(recipe),
            duration(seconds)
        ));
        if self.args.log_format == LogFormat::Json {
            output::say_json(&json!({
                "event": "tried", "epochs": part.epochs, "recipe": output::as_json(recipe), "nll": loss, "seconds": seconds,
            }));
        }
        if part.epochs == recipe.epochs && loss < self.best.1 {
            self.best = (recipe.clone(), loss);
        }
        Ok(Some(loss))
    }

    /// Whether the networks of `recipe`, which may be larger than those of the usual one, fit into the memory.
    fn has_memory_for(&self, recipe: &Recipe) -> bool {
        Need::new(recipe, false, self.args.device.name()).networks_fit(self.dataset.features(), (self.free)())
    }

    /// The loss of `recipe` on the judges, in nats; `None` where a fit did not come to its end, or does not fit the memory.
    async fn loss(&self, recipe: &Recipe) -> Result<Option<f64>> {
        if !self.has_memory_for(recipe) {
            return Ok(None);
        }
        let mut fits = Members::new(recipe, self.rows.clone());
        let (mut models, mut engines) = (Vec::new(), Vec::new());
        while let Some((recipe, rows)) = fits.next_fit()? {
            if self.is_over() {
                return Ok(None);
            }
            let mut engine = self.args.device.engine(recipe.flow_over(rows)?).await?;
            let limit = self.left().as_secs_f64();
            let options = Options { time_limit: Some(limit), unchecked: true, ..Options::default() };
            let mut watch = Watch(Arc::clone(&self.stop));
            let fitted =
                fit_with(&mut engine, rows, &recipe, self.record.clone(), options, &mut watch).await?;
            if !fitted.outcome.is_whole() {
                return Ok(None);
            }
            models.push(fitted.model);
            engines.push(engine);
        }
        let ensemble = Ensemble::average(models, recipe)?;
        let mut engines = Engines::of_each(engines);
        // Dequantised columns have their noise here.
        let log_density = ensemble.log_density(&mut engines, &self.dataset.validation).await?;
        Ok(Some(-self.dataset.validation_mean(&log_density)?))
    }

    /// Says what was found.
    fn conclude(self) -> Result<Recipe> {
        if self.stop.load(Ordering::Relaxed) {
            note(
                "note: the search ends here, and the best recipe so far is trained; Ctrl-C again ends that too",
            );
            signals::go_on();
        }
        let (recipe, loss) = &self.best;
        if loss.is_finite() {
            self.say(format_args!(
                "chosen   {} epochs, {}: {loss:.4} nats",
                recipe.epochs,
                described(recipe)
            ));
        } else {
            note("note: the time was too short for a single recipe; the usual one is trained");
        }
        Ok(self.best.0)
    }
}

/// What a search varies of a recipe, in a few words.
fn described(recipe: &Recipe) -> String {
    let widths: Vec<String> = recipe.hidden.iter().map(usize::to_string).collect();
    let mut text = format!("{} couplings, {}", recipe.layers, widths.join("×"));
    if recipe.bijector == BijectorKind::Spline {
        text += &format!(", {} bins", recipe.bins);
    }
    if let Some((name, _)) =
        Mixing::ALL.iter().find(|(_, mixing)| *mixing == recipe.mixing && *mixing != Mixing::None)
    {
        text += &format!(", mixing {name}");
    }
    text += &format!(", rate {}", recipe.learning_rate);
    if recipe.ensemble > 1 {
        text += &format!(", average of {} fits", recipe.ensemble);
    }
    let bases: Vec<String> = recipe.bases.iter().map(usize::to_string).collect();
    text + &match (bases.is_empty(), recipe.base, recipe.components) {
        (false, ..) => format!(", bases of {} Gaussians in turns", bases.join(", ")),
        (_, BaseKind::Mixture, 1) => ", base of a Gaussian".to_owned(),
        (_, BaseKind::Mixture, count) => format!(", base of {count} Gaussians"),
        _ => ", normal base".to_owned(),
    }
}

/// Refuses a search where there is nothing to choose or nothing that it could choose by.
///
/// # Errors
/// [`Error::Argument`] for a toy density.
pub fn check(is_table: bool) -> Result<()> {
    if is_table {
        return Ok(());
    }
    Err(Error::Argument("--search is for tables; toy densities have presets of their own (--preset)".into()))
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};
    use moonflow::data::Table;

    use super::*;

    #[test]
    fn recipes_whose_networks_do_not_fit_the_memory_are_passed_over() {
        let matches = TrainArgs::augment_args(Command::new("train"))
            .try_get_matches_from(["train", "t.csv", "--device", "cpu"])
            .expect("known flags");
        let args = TrainArgs::from_arg_matches(&matches).expect("valid");
        let values = (0..160).map(|i| f64::from(i * i % 83)).collect();
        let table = Table { name: "t".into(), columns: vec!["a".into(), "b".into()], values };
        let dataset = Dataset::split(&table, 0.2, 0).expect("splits");
        let usual = Recipe { epochs: 2, layers: 1, hidden: vec![4], ..Recipe::default() };
        let large = Recipe { hidden: vec![1000, 1000], ..usual.clone() };
        let begun = Instant::now();
        let mut search = Search {
            args: &args,
            usual: &usual,
            dataset: &dataset,
            rows: training_rows(&dataset, 0.2).expect("splits"),
            record: DataSource::table("t", 80),
            ends: begun + Duration::from_secs(600),
            stop: Arc::default(),
            free: || Some(1.2e8),
            best: (usual.clone(), f64::INFINITY),
        };
        let mut judge = |recipe: &Recipe| {
            let loss = pollster::block_on(search.judge(recipe, None)).expect("trains");
            (loss, search.best.clone())
        };
        assert_eq!(judge(&large), (None, (usual.clone(), f64::INFINITY)));
        let (loss, best) = judge(&usual);
        assert_eq!((loss, best.0), (Some(best.1), usual.clone()));
        assert!(best.1.is_finite());
    }
}
