//! Whether a training or a model fits into memory, before it takes it, and what would fit.
//!
//! What it takes is computed by [`Need`] from the constants below. They are the largest resident set of the process
//! (`/usr/bin/time -v`), at tables of 2 to 64 columns and networks of 4 to 16 million parameters, rounded up: a table of 8
//! million numbers takes 11.3 bytes a number more than one of 2 million, in 8 columns and with any margins, and 13.1 where
//! its rows have weights besides (`tests/suite/memory.rs` holds the former); a network took 80 bytes a parameter on a batch
//! of 64 rows and 108 on 2,000, with 1 thread and with 4, and 51 more with averaged weights and rollback; a search takes 16
//! bytes a number more.

use moonflow::device::AnyEngine;
use moonflow::engine::{Engine, TrainingShape};
use moonflow::flow::{Activation, BaseKind, BijectorKind, ConditionerForm, Mixing};
use moonflow::model::{Recipe, TableModel};
use moonflow::{Error, Result};

use super::free_memory::available;
use super::output::grouped;

/// Bytes for each number of the table: itself in double precision, and standardised in single precision.
const VALUE: f64 = 12.0;
/// Bytes besides for each number where recipes are searched: the training rows of the search, and those of the fit under way.
const SEARCHED_VALUE: f64 = 16.0;
/// Bytes for each row: its weight in double and in single precision, where rows count differently.
const ROW: f64 = 12.0;
/// Bytes for each parameter on the CPU: weights, packed weights, gradient, moments, the best and what the next checkpoint
/// is made of, and the self-check's weights in double precision.
const PARAMETER: f64 = 77.0;
/// Bytes besides for each parameter and slot that a batch's gradient is summed in, of which there are this many at most,
/// one for so many rows at least.
const SLOT: f64 = 4.0;
const SLOTS: f64 = 8.0;
const SLOT_ROWS: f64 = 64.0;
/// Bytes besides for each parameter with averaged weights or rollback.
const KEPT_PARAMETER: f64 = 52.0;
/// Bytes for each parameter on the host of a GPU.
const HOST_PARAMETER: f64 = 64.0;
/// Bytes for each parameter of a model that scores or samples.
const MODEL_PARAMETER: f64 = 24.0;
/// Bytes for each hidden value of a tile in the forward and the backward pass, once more where its nonlinearity is
/// smooth; and rows of a tile, which each thread has one of.
const ACTIVATION: f64 = 4.0;
const TILE_ROWS: f64 = 128.0;
/// Bytes of the program itself, and of pictures.
const PROGRAM: f64 = 64e6;

/// What a training needs on its host, as far as its recipe says.
#[derive(Clone, Debug)]
pub struct Need {
    recipe: Recipe,
    /// Whether the table is drawn, so that --rows says how long it is.
    drawn: bool,
    /// Whether recipes are searched.
    searched: bool,
    engine: EngineKind,
}

/// Where the network's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EngineKind {
    Cpu,
    /// A GPU, or it is not known yet.
    Other,
}

impl Need {
    /// Of `recipe` on the device called `device`.
    pub fn new(recipe: &Recipe, drawn: bool, device: &str) -> Self {
        let engine = if device == "cpu" { EngineKind::Cpu } else { EngineKind::Other };
        Self { recipe: recipe.clone(), drawn, searched: false, engine }
    }

    /// The same with a search before the training, where `searched` says so.
    #[must_use]
    pub fn with_search(self, searched: bool) -> Self {
        Self { searched, ..self }
    }

    /// Bytes for a table of `rows` rows of `columns` columns.
    fn table(&self, rows: f64, columns: f64) -> f64 {
        let value = if self.searched { VALUE + SEARCHED_VALUE } else { VALUE };
        rows * (columns * value + ROW)
    }

    /// Bytes for the networks over `columns` columns.
    fn networks(&self, columns: f64) -> f64 {
        let parameters = parameters(&self.recipe, columns);
        let kept = if self.recipe.ema.is_some() || self.recipe.rollback { KEPT_PARAMETER } else { 0.0 };
        if self.engine == EngineKind::Other {
            return parameters * (HOST_PARAMETER + kept);
        }
        let slots = (f64::from(self.recipe.batch) / SLOT_ROWS).ceil().clamp(1.0, SLOTS);
        let hidden: f64 = self.recipe.hidden.iter().map(|&width| width as f64).sum();
        let smooth = matches!(self.recipe.activation, Activation::Tanh | Activation::Silu);
        let activation = if smooth { 2.0 * ACTIVATION } else { ACTIVATION };
        let tile = 2.0 * hidden * self.recipe.layers as f64 * TILE_ROWS * activation;
        let threads = rayon::current_num_threads() as f64;
        parameters * (PARAMETER + SLOT * slots + kept) + tile * threads
    }

    fn bytes(&self, rows: f64, columns: f64) -> f64 {
        PROGRAM + self.table(rows, columns) + self.networks(columns)
    }

    /// That training on `rows` rows of `columns` columns fits into what is free.
    ///
    /// # Errors
    /// What it needs, what there is, and what would fit.
    pub fn check(&self, rows: f64, columns: usize) -> std::result::Result<(), String> {
        self.check_within(rows, columns as f64, available())
    }

    /// Whether the networks over `columns` columns, whose table is there already, fit into `free` bytes, where these are known.
    pub fn networks_fit(&self, columns: usize, free: Option<f64>) -> bool {
        self.check_within(0.0, columns as f64, free).is_ok()
    }

    fn check_within(
        &self,
        rows: f64,
        columns: f64,
        available: Option<f64>,
    ) -> std::result::Result<(), String> {
        let needed = self.bytes(rows, columns);
        let Some(available) = available.filter(|&available| needed > available) else { return Ok(()) };
        let numbers = match rows * columns {
            0.0 => String::new(),
            numbers => format!("on {} numbers ", approximately(numbers)),
        };
        Err(format!(
            "training {numbers}with {} parameters needs {} of memory, and {} are available; {}",
            approximately(parameters(&self.recipe, columns)),
            bytes(needed),
            bytes(available),
            self.advice(rows, columns, available)
        ))
    }

    /// What to change so that it fits into `available` bytes.
    fn advice(&self, rows: f64, columns: f64, available: f64) -> String {
        let mut fitting = Vec::new();
        let fits = |need: &Self| need.bytes(rows, columns) <= available;
        let with = |change: &dyn Fn(&mut Recipe)| {
            let mut changed = self.clone();
            change(&mut changed.recipe);
            changed
        };
        let most = |most: usize, fits: &dyn Fn(usize) -> bool| (1..most).rev().find(|&number| fits(number));
        let batch = with(&|recipe| recipe.batch = SLOT_ROWS as u32);
        if self.recipe.batch > batch.recipe.batch && fits(&batch) {
            fitting.push(format!("--batch {}", batch.recipe.batch));
        }
        if let Some(layers) =
            most(self.recipe.layers, &|layers| fits(&with(&|recipe| recipe.layers = layers)))
        {
            fitting.push(format!("--layers {layers}"));
        }
        // In hundredths of what they are.
        let narrow = |share: usize| {
            let width = |width: &usize| (width * share / 100).max(1);
            self.recipe.hidden.iter().map(width).collect::<Vec<_>>()
        };
        if let Some(share) = most(100, &|share| fits(&with(&|recipe| recipe.hidden = narrow(share)))) {
            let widths: Vec<String> = narrow(share).iter().map(usize::to_string).collect();
            fitting.push(format!("--hidden {}", widths.join(",")));
        }
        let left = available - PROGRAM - self.networks(columns);
        let fitting_rows = (left / self.table(1.0, columns)).floor();
        if (4.0..rows).contains(&fitting_rows) {
            let fitting_rows = grouped(fitting_rows as u64);
            fitting.push(if self.drawn {
                format!("--rows {}", fitting_rows.replace(',', ""))
            } else {
                format!("{fitting_rows} of its rows")
            });
        }
        let narrower = |columns: usize| self.bytes(rows, columns as f64) <= available;
        if let Some(columns) = most(columns as usize, &narrower).filter(|&columns| columns > 1 && !self.drawn)
        {
            fitting.push(format!("{columns} of its columns (--columns)"));
        }
        match fitting.as_slice() {
            [] => "no part of it would fit: take both fewer rows and smaller networks (--hidden, --layers)"
                .into(),
            fitting => format!("this would fit: {}", fitting.join(", or ")),
        }
    }

    /// That what `engine` needs besides for a training of `shape` fits: the networks, now that it is known where they are,
    /// and a software adapter's buffers, which are in this machine's memory too.
    ///
    /// # Errors
    /// [`Error::Device`] or [`Error::Argument`] with what it needs, what there is, and what would fit.
    pub fn check_engine(&self, engine: &AnyEngine, shape: &TrainingShape) -> Result<()> {
        match engine {
            AnyEngine::Cpu(engine) => {
                let need = Self { engine: EngineKind::Cpu, ..self.clone() };
                // The table is there already.
                need.check(0.0, Engine::flow(engine).features).map_err(Error::Argument)
            }
            AnyEngine::Gpu(engine) => {
                if !engine.context().target().software {
                    return Ok(());
                }
                let needed = engine.training_plan(shape)?.plan.bytes() as f64;
                match available() {
                    Some(available) if needed > available => Err(Error::Device(format!(
                        "its buffers need {} of this machine's memory, and {} are available; take a smaller --batch, \
                         --hidden or --layers, or --device cpu, which keeps a tile of the batch at a time",
                        bytes(needed),
                        bytes(available)
                    ))),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// That engines for the members of `model` fit into what is free.
///
/// # Errors
/// [`Error::Argument`] with what it needs and what there is.
pub fn check_model(model: &TableModel) -> Result<()> {
    let members = model.density().into_iter().flat_map(|density| density.members());
    let parameters: usize = members.map(|model| model.parameters.len()).sum();
    let parameters = parameters as f64;
    let needed = parameters * MODEL_PARAMETER;
    match available() {
        Some(available) if needed > available => Err(Error::Argument(format!(
            "the model's {} parameters need {} of memory, and {} are available",
            approximately(parameters),
            bytes(needed),
            bytes(available)
        ))),
        _ => Ok(()),
    }
}

/// That `values` numbers of a table can be held.
///
/// # Errors
/// What they need, and what there is.
pub fn check_table(values: f64) -> std::result::Result<(), String> {
    /// The table, and the part of it that is used.
    const VALUE: f64 = 16.0;

    match available() {
        Some(available) if values * VALUE > available => Err(format!(
            "its {} numbers need {} of memory, and {} are available; take a part of its rows",
            approximately(values),
            bytes(values * VALUE),
            bytes(available)
        )),
        _ => Ok(()),
    }
}

/// Parameters of the recipe's flow over `columns` columns.
fn parameters(recipe: &Recipe, columns: f64) -> f64 {
    let numbers = match recipe.bijector {
        BijectorKind::Spline => 3.0 * recipe.bins as f64 - 1.0,
        _ => 2.0,
    };
    let hidden = recipe.hidden.iter().map(|&width| width as f64);
    let linear = |inputs: f64, outputs: f64| (inputs + 1.0) * outputs;
    let chain = |outputs: f64| -> f64 {
        let widths: Vec<f64> = std::iter::once(columns).chain(hidden.clone()).chain([outputs]).collect();
        widths.windows(2).map(|pair| linear(pair[0], pair[1])).sum()
    };
    let coupling = match recipe.conditioner {
        ConditionerForm::Separate => 2.0 * chain(columns),
        ConditionerForm::Residual => {
            let width = hidden.clone().next().unwrap_or_default();
            let blocks = 2.0 * linear(width, width) * recipe.hidden.len() as f64;
            linear(columns, width) + blocks + linear(width, columns * numbers)
        }
        _ => chain(columns * numbers),
    };
    let actnorm = if recipe.actnorm { 2.0 * columns } else { 0.0 };
    let mixing = if recipe.mixing == Mixing::Lu { 2.0 * linear(columns, columns) } else { 0.0 };
    let base = match recipe.base {
        BaseKind::Mixture => recipe.components as f64 * (1.0 + 2.0 * columns + columns * columns),
        _ => 0.0,
    };
    (coupling + actnorm + mixing) * recipe.layers as f64 + base
}

fn approximately(number: f64) -> String {
    for (unit, name) in [(1e9, " billion"), (1e6, " million"), (1e3, " thousand")] {
        if number >= unit {
            return format!("about {:.1}{name}", number / unit);
        }
    }
    format!("{number:.0}")
}

fn bytes(number: f64) -> String {
    for (unit, name) in [(1e12, "TB"), (1e9, "GB"), (1e6, "MB")] {
        if number >= unit {
            return format!("{:.1} {name}", number / unit);
        }
    }
    format!("{number:.0} bytes")
}

#[cfg(test)]
mod tests {
    use moonflow::layout::Layout;

    use super::*;

    fn need(change: impl Fn(&mut Recipe)) -> Need {
        let mut recipe = Recipe::default();
        change(&mut recipe);
        Need::new(&recipe, false, "cpu")
    }

    #[test]
    fn parameters_are_those_of_the_layout() {
        for (layers, hidden, columns) in [(10, vec![48, 48], 2), (3, vec![7], 5)] {
            let recipe = Recipe { layers, hidden, ..Recipe::default() };
            let layout = Layout::new(&recipe.flow(columns).expect("valid"));
            assert_eq!(parameters(&recipe, columns as f64), layout.total as f64);
            for conditioner in [ConditionerForm::Joint, ConditionerForm::Residual] {
                for bijector in [BijectorKind::Affine, BijectorKind::Spline] {
                    let actnorm = bijector == BijectorKind::Spline;
                    let recipe = Recipe {
                        hidden: vec![recipe.hidden[0]; 2],
                        conditioner,
                        bijector,
                        actnorm,
                        mixing: Mixing::Lu,
                        base: BaseKind::Mixture,
                        ..recipe.clone()
                    };
                    let layout = Layout::new(&recipe.flow(columns).expect("valid"));
                    assert_eq!(parameters(&recipe, columns as f64), layout.total as f64);
                }
            }
        }
    }

    #[test]
    fn a_training_that_does_not_fit_says_what_it_needs_and_what_there_is() {
        let small = need(|_| ());
        assert_eq!(small.check_within(1e5, 2.0, Some(1e9)), Ok(()));
        assert_eq!(small.check_within(1e30, 2.0, None), Ok(()));
        let message = small.check_within(1e9, 2.0, Some(8e9)).expect_err("too large");
        assert!(
            message.contains("about 2.0 billion numbers with about 51.9 thousand parameters needs 36.1 GB")
                && message.contains("8.0 GB are"),
            "{message}"
        );
    }

    #[test]
    fn a_search_takes_the_memory_of_two_more_copies_of_the_rows() {
        let (usual, searched) = (need(|_| ()), need(|_| ()).with_search(true));
        assert!((searched.bytes(1e6, 3.0) - usual.bytes(1e6, 3.0) - 48e6).abs() < 1.0);
        assert_eq!(usual.check_within(1e6, 3.0, Some(1.2e8)), Ok(()));
        let message = searched.check_within(1e6, 3.0, Some(1.2e8)).expect_err("too large");
        assert!(message.contains("of its rows"), "{message}");
    }

    /// The number behind `before` in `message`.
    fn number(message: &str, before: &str) -> Option<f64> {
        let text = message.split_once(before)?.1;
        let digits: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == ',').collect();
        digits.trim_end_matches(',').replace(',', "").parse().ok()
    }

    #[test]
    fn what_is_advised_would_fit() {
        let available = Some(8e9);
        let large = need(|recipe| (recipe.layers, recipe.hidden) = (8, vec![4000, 4000]));
        let message = large.check_within(1e5, 2.0, available).expect_err("too large");
        let layers = number(&message, "--layers ").expect(&message) as usize;
        let fewer = |layers| need(|recipe| (recipe.layers, recipe.hidden) = (layers, vec![4000, 4000]));
        assert_eq!(fewer(layers).check_within(1e5, 2.0, available), Ok(()));
        assert!(fewer(layers + 1).check_within(1e5, 2.0, available).is_err(), "{message}");
        let widths = message.split_once("--hidden ").expect(&message).1;
        let width = widths.split(',').next().and_then(|width| width.parse().ok()).expect(&message);
        let narrower = need(|recipe| (recipe.layers, recipe.hidden) = (8, vec![width, width]));
        assert_eq!(narrower.check_within(1e5, 2.0, available), Ok(()));
        assert!(!message.contains("rows") && !message.contains("columns"), "{message}");

        let message = need(|_| ()).check_within(1e8, 20.0, available).expect_err("too long");
        let rows = number(&message, "fit: ").expect(&message);
        assert_eq!(need(|_| ()).check_within(rows, 20.0, available), Ok(()));
        assert!(need(|_| ()).check_within(rows + 1.0, 20.0, available).is_err(), "{message}");
        let columns = number(&message, "rows, or ").expect(&message);
        assert_eq!(need(|_| ()).check_within(1e8, columns, available), Ok(()));
        assert!(message.contains("(--columns)") && !message.contains("--layers"), "{message}");

        let batch = need(|recipe| (recipe.layers, recipe.hidden, recipe.batch) = (1, vec![8000, 8000], 512));
        let message = batch.check_within(100.0, 2.0, Some(11.5e9)).expect_err("too large");
        assert!(message.contains("--batch 64"), "{message}");
        let smaller = need(|recipe| (recipe.layers, recipe.hidden, recipe.batch) = (1, vec![8000, 8000], 64));
        assert_eq!(smaller.check_within(100.0, 2.0, Some(11.5e9)), Ok(()));

        let message = large.check_within(1e9, 20.0, Some(1e8)).expect_err("too large");
        assert!(message.contains("fewer rows and smaller networks"), "{message}");
        let drawn = Need { drawn: true, ..need(|_| ()) };
        let message = drawn.check_within(1e8, 2.0, Some(1e9)).expect_err("too long");
        assert!(message.contains("--rows ") && !message.contains("--columns"), "{message}");
    }
}
