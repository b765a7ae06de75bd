//! `moonflow train`: data in; model file, history and picture out.

use std::path::{Path, PathBuf};

use clap::value_parser;
use moonflow::data::{Chunk, Dataset, Margins, Rows, Table, ToyDensity};
use moonflow::model::{DataSource, Encoding, Recipe};
use moonflow::shown::{shown, shown_list};
use moonflow::train::{CategoryFit, Groups};
use moonflow::{Error, Result};

use super::advice::with_flags;
use super::auto;
use super::columns::{self, Roles, TableArgs};
use super::config::Resolved;
use super::far_rows::{self, Places};
use super::findings;
use super::folder::Files;
use super::job::TrainingJob;
use super::memory::Need;
use super::output::{Inputs, note, say};
use super::preprocess::PreprocessArgs;
use super::progress::{Busy, LogFormat};
use super::recipe::{RecipeArgs, Subject};
use super::search;
use super::source::Source;
use super::test_rows::TestRows;
use super::tune::TunedDeviceArgs;
use super::values;

/// Arguments of `moonflow train`.
#[derive(clap::Args)]
pub struct TrainArgs {
    /// A toy density (moons, circles, blobs, pinwheel, checkerboard, spirals, swiss-roll) or a table's file: .csv, .tsv
    /// (.gz and .zst too), .npy or .parquet; `-` reads CSV from standard input
    #[arg(default_value = "moons")]
    data: String,
    /// TOML file of options, by the names of these flags, and `data`; flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Go on with the training in DIR from its last checkpoint, under the options written there
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    resume: Option<PathBuf>,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Rows to draw from a toy density [default: 10000]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = value_parser!(u32).range(4..=10_000_000))]
    rows: Option<u32>,
    /// Standard deviation of a toy density's noise [default: its own]
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = values::noise)]
    noise: Option<f64>,
    /// Column that says how much each row counts in losses, by name or position from 1: 0 or more; it is not modelled
    #[arg(long, value_name = "COLUMN")]
    weights: Option<String>,
    /// Table to score once after training, read like DATA
    #[arg(long, value_name = "FILE", conflicts_with = "test_fraction")]
    test: Option<PathBuf>,
    /// Share of the rows that is kept for a test, scored once after training
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = values::share_above_zero)]
    test_fraction: Option<f64>,
    /// Look at a table first, as `inspect` does, and take the flags that suit it besides those given: --drop, --dequantize,
    /// --bounds and --missing
    #[arg(long, conflicts_with = "resume")]
    auto: bool,
    /// Try recipes of a table for so many seconds, judged by its validation rows, and train the best: what the recipe's flags
    /// leave open is varied
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = values::seconds, conflicts_with = "resume")]
    search: Option<f64>,
    /// End with the epoch under way after so many seconds
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = values::seconds)]
    pub time_limit: Option<f64>,
    /// Write a checkpoint to go on from every N epochs, and after the last
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = value_parser!(u32).range(1..))]
    pub checkpoint_every: Option<u32>,
    /// Moving picture to write of the training of a flow with two features: samples and density, a .gif
    #[arg(long, value_name = "FILE")]
    animate: Option<PathBuf>,
    /// What to print: text for a person, or a line of JSON for each epoch and for the end
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    #[command(flatten)]
    pub table: TableArgs,
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    /// Folder to write into [default: runs/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub device: TunedDeviceArgs,
}

impl TrainArgs {
    fn source(&self) -> Result<Source> {
        match Source::parse(&self.data)? {
            // How a test is read may be said of a toy density too.
            Source::Toy(_)
                if (self.table.are_given() && self.test.is_none())
                    || self.preprocess.context.is_some()
                    || self.preprocess.categorical.is_some()
                    || self.weights.is_some() =>
            {
                Err(Error::Argument(format!(
                    "--format, --header, --delimiter, --decimal, --columns, --drop, --missing, --missing-values, --context, --categorical and --weights are for tables; `{}` is a toy density (./{0} is a file)",
                    shown(&self.data)
                )))
            }
            Source::Toy(toy) => Ok(Source::Toy(match self.noise {
                Some(noise) => toy.with_noise(noise)?,
                None => toy,
            })),
            Source::File(path) if self.resume.is_some() && path.as_os_str() != "-" && !path.exists() => {
                let message =
                    "is not where it was; name the data beside --resume: moonflow train DATA --resume DIR";
                Err(Error::data(path.display().to_string(), message))
            }
            Source::File(_) if self.rows.is_some() || self.noise.is_some() => Err(Error::Argument(format!(
                "--rows and --noise are for toy densities; `{}` is read as a file, whole and as it is",
                shown(&self.data)
            ))),
            file => Ok(file),
        }
    }

    /// Takes the flags that suit the table, and says which.
    fn look_first(&mut self, source: &Source) -> Result<()> {
        let Source::File(path) = source else {
            let toy = shown(&self.data);
            return Err(Error::Argument(format!(
                "--auto is for tables; `{toy}` is a toy density (./{toy} is a file)"
            )));
        };
        let flags = auto::apply(self, path)?;
        if self.log_format == LogFormat::Text {
            say(format_args!("auto     {}", if flags.is_empty() { "no flags" } else { &flags }));
        }
        Ok(())
    }

    fn test_rows(&self) -> TestRows<'_> {
        match (&self.test, self.test_fraction) {
            (Some(path), _) => TestRows::File(path),
            (None, Some(fraction)) => TestRows::Fraction(fraction),
            (None, None) => TestRows::None,
        }
    }
}

/// Trains and writes `model.safetensors`, `history.csv`, `config.toml` and a picture, and checkpoints where asked to.
///
/// # Errors
/// Bad arguments or data, a folder that cannot be written or that another training writes to (found before training
/// starts), those of the engine; and, after what there was has been written, [`Error::NonFinite`] and those of what was not
/// written.
pub async fn run(mut args: TrainArgs) -> Result<()> {
    let source = args.source()?;
    let subject = if source.toy().is_some() { Subject::Toy } else { Subject::Table };
    if args.auto {
        args.look_first(&source)?;
    }
    if args.search.is_some() {
        search::check(subject != Subject::Toy)?;
    }
    if args.recipe.is_for_tables(subject) {
        args.preprocess.set_usual_of_tables();
    }
    // What of it depends on the table's size decides nothing before the table is read.
    let provisional = args.recipe.resolve(subject)?;
    let folder = args.resume.as_ref().or(args.out.as_ref());
    let out = folder.cloned().unwrap_or_else(|| Path::new("runs").join(source.name()));
    let mut files = Files::new(&out, &source.name());
    args.spare_inputs(&source, &files, &args.resolved(&provisional, &source, &out))?;
    files.claim_existing()?;
    let checkpoint = args.resume.is_some().then(|| files.load_checkpoint()).transpose()?;
    let (dataset, mut data) = args.read(&source, &provisional)?;
    let Some(dataset) = dataset else {
        let resolved = args.resolved(&provisional, &source, &out);
        return super::categories::run(&args, &provisional, files, &resolved, &data);
    };
    let (dataset, mut recipe) = args.decide(subject, dataset, &mut data)?;
    if subject != Subject::Toy {
        data.notes.extend(far_rows::note(&dataset, &data.places));
    }
    if let Some(seconds) = args.search {
        // Found out now rather than behind the search.
        files.prepare()?;
        recipe = search::search(&args, &dataset, &recipe, data.record.clone(), seconds).await?;
    }
    data.need = Need::new(&recipe, source.toy().is_some(), args.device.name());
    let resolved = args.resolved(&recipe, &source, &out);

    let mut job =
        TrainingJob { args: &args, recipe: &recipe, source: &source, files, resolved, data, animation: None };
    let (ensemble, mut engines, artifacts) = job.fit(dataset, checkpoint).await?;
    let outcome = artifacts.outcome;
    let mut model = job.model(ensemble)?;
    // What fails from here on must not cost the training: its error comes last.
    let judged = job.judge(&mut model, &mut engines).await;
    job.report(&model, outcome);
    let results = job.write(&mut engines, &model, artifacts).await;
    job.conclude(&model, &results);
    let mut errors = [results.finish(), judged, job.end(outcome)].into_iter().filter_map(Result::err);
    let first = errors.next();
    for error in errors {
        note(format_args!("error: {}", with_flags(&error)));
    }
    first.map_or(Ok(()), Err)
}

/// Rows, validation rows included, and modelled columns.
pub fn shape(dataset: &Dataset) -> [usize; 2] {
    let rows = (dataset.train.len() + dataset.validation.len()) / dataset.features();
    [rows, dataset.preprocessing.modelled()]
}

/// Which columns are shifted and scaled by which category, where some are.
fn moments_note(dataset: &Dataset, categories: &CategoryFit) -> Option<String> {
    let moments = &dataset.preprocessing.category_moments.columns;
    let lines = categories.encoding().indicators().into_iter().filter_map(|(place, [first, _])| {
        let by_it = moments.iter().filter(|moments| moments.indicator == first);
        let columns: Vec<&String> = by_it.map(|moments| &dataset.columns[moments.column]).collect();
        let name = shown(&categories.columns[place].name);
        (!columns.is_empty()).then(|| format!("{} by `{name}`", shown_list(&columns)))
    });
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| {
        format!(
            "note: levels that look alike are shifted and scaled to each other: {}; --category-moments=false leaves them as \
             they are",
            lines.join(", ")
        )
    })
}

/// Rows of a training and where they are from.
pub struct Data {
    /// Rows of the test, as they are read.
    pub test: Option<Table>,
    /// The table's first rows as a flow sees them, for pictures, row-major [N, F], in the user's units.
    pub head: Vec<f64>,
    /// What there is to say of its columns.
    pub notes: Vec<String>,
    /// Where the rows are in their file.
    places: Places,
    /// What the columns are, and the probability of those that are categories.
    pub categories: CategoryFit,
    pub record: DataSource,
    /// The memory that its training takes.
    pub need: Need,
}

impl TrainArgs {
    /// The flags of the recipe.
    pub fn recipe(&self) -> &RecipeArgs {
        &self.recipe
    }

    /// What columns are besides numbers that are modelled.
    pub fn roles(&self) -> Roles<'_> {
        Roles {
            context: self.preprocess.context.as_deref(),
            weights: self.weights.as_deref(),
            categorical: self.preprocess.categorical.as_deref(),
        }
    }

    /// Whether an earlier training is gone on with.
    pub fn is_resumed(&self) -> bool {
        self.resume.is_some()
    }

    /// Whether recipes are searched.
    pub fn is_searched(&self) -> bool {
        self.search.is_some()
    }

    /// Where the moving picture is to be written.
    pub fn animated(&self) -> Option<&Path> {
        self.animate.as_deref()
    }

    /// The recipe for `dataset`, and the dataset with the moments and margins that go with it. What it says of them goes to the
    /// notes of `data`.
    fn decide(
        &mut self,
        subject: Subject,
        mut dataset: Dataset,
        data: &mut Data,
    ) -> Result<(Dataset, Recipe)> {
        if subject == Subject::Toy {
            return Ok((dataset, self.recipe.resolve(subject)?));
        }
        if self.preprocess.has_category_moments() {
            let indicators = data.categories.encoding().indicators().into_iter();
            let indicators: Vec<[usize; 2]> = indicators.map(|(_, indicators)| indicators).collect();
            dataset = dataset.with_category_moments(&indicators)?;
            data.notes.extend(moments_note(&dataset, &data.categories));
        }
        let recipe = self.recipe.resolve(Subject::Shape(shape(&dataset)))?;
        let is_free = self.recipe.is_for_tables(subject)
            && !self.recipe.names_base()
            && !self.preprocess.names_margins();
        let groups = if is_free { Groups::of(&dataset, recipe.seed)? } else { None };
        let Some(Groups { count, bases }) = groups else { return Ok((dataset, recipe)) };
        data.notes.push(format!(
            "note: the rows fall into groups far apart, {count} or more: mixtures of Gaussians start from them, and columns \
             stay as they are; --margins kernel bends them as usual"
        ));
        self.preprocess.set_usual_margins(Margins::None);
        Ok((dataset.with_margins(Margins::None)?, recipe.with_bases(&bases)))
    }

    fn toy_rows(&self) -> u32 {
        const TOY_ROWS: u32 = 10_000;
        self.rows.unwrap_or(TOY_ROWS)
    }

    /// Every option as it holds for this training.
    fn resolved<'a>(&'a self, recipe: &'a Recipe, source: &'a Source, out: &'a Path) -> Resolved<'a> {
        let toy = source.toy();
        Resolved {
            data: source,
            rows: toy.map(|_| self.toy_rows()),
            noise: toy.map(|toy| toy.noise()),
            table: &self.table,
            preprocess: &self.preprocess,
            recipe,
            weights: self.weights.as_deref(),
            test: self.test.as_deref(),
            test_fraction: self.test_fraction,
            time_limit: self.time_limit,
            checkpoint_every: self.checkpoint_every,
            animate: self.animate.as_deref(),
            device: self.device.name(),
            plan: self.device.plan(),
            out,
        }
    }

    /// Refuses to write over a file that is read. The configuration beside a model may be overwritten where
    /// its content would not change.
    fn spare_inputs(&self, source: &Source, files: &Files, resolved: &Resolved) -> Result<()> {
        let tables = Inputs::new(source.file().into_iter().chain(self.test.as_deref()));
        let config = Inputs::new(self.config.as_deref());
        for output in files.all().into_iter().chain(self.animate.as_deref()) {
            tables.spare(Some(output))?;
            if let Err(error) = config.spare(Some(output))
                && !(output == files.config && resolved.is_said_by(output))
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Reads all rows and splits them, if they and their training fit into the memory.
    fn read(&self, source: &Source, recipe: &Recipe) -> Result<(Option<Dataset>, Data)> {
        let drawn = matches!(source, Source::Toy(_));
        let need = Need::new(recipe, drawn, self.device.name()).with_search(self.is_searched());
        if drawn {
            recipe.flow(ToyDensity::FEATURES)?;
            need.check(f64::from(self.toy_rows()), ToyDensity::FEATURES).map_err(Error::Argument)?;
        }
        let (mut context, mut weights, mut plan) = (0, Vec::new(), None);
        let mut places = Places::new("row");
        let (table, mut types) = source.table(self.toy_rows() as usize, recipe.seed, |path| {
            let rows;
            (rows, context) = self.table.open(path, self.roles())?;
            let (name, columns) = (rows.name().to_owned(), rows.columns());
            let unit = rows.unit();
            places = Places::new(unit);
            let mut opened = self.preprocess.plan(&name, &columns, context)?;
            let check = |chunk: &Chunk, rows: &Rows<'_>| {
                weights.extend(columns::weights(chunk, rows)?);
                chunk.places.iter().for_each(|&place| places.push(place));
                opened.check(&name, &columns, unit, chunk)
            };
            let table = columns::into_table(rows, check, |rows, columns| need.check(rows, columns))?;
            plan = Some(opened);
            Ok(table)
        })?;
        let plan = match plan {
            Some(plan) => plan,
            None => self.preprocess.plan(&table.name, &table.columns, context)?,
        };
        let (plan, grids) = plan.settle(&table, &mut types)?;
        let encoding = Encoding::new(&types, context);
        if encoding.has_categories() {
            need.check(table.rows() as f64, table.features() + encoding.features())
                .map_err(|message| Error::data(&table.name, message))?;
        }
        let record = source.record(&table);
        if let Some(fraction) = self.test_fraction {
            let is_test = table.test_rows(fraction, recipe.seed)?;
            places = places.without(&is_test);
            let mut is_test = is_test.into_iter();
            weights.retain(|_| is_test.next() == Some(false));
        }
        let (table, test) =
            self.test_rows().set_aside(table, &types, &self.table, self.roles(), recipe.seed)?;
        let _busy = Busy::new("preparing");
        let first = table.values.len().min(super::plot::ROWS * table.features());
        let head = encoding.encode(&table.values[..first]);
        let weighted = self.weights.is_some().then_some(&weights[..]);
        let (fraction, seed) = (recipe.validation_fraction, recipe.seed);
        let categories = CategoryFit::new(types, context, &table, weighted, fraction, seed)?;
        let (table, plan) = categories.encoded(table, plan)?;
        let notes = match source {
            Source::Toy(_) => grids.into_iter().collect(),
            Source::File(_) => grids.into_iter().chain(findings::of_training(&table, &plan)).collect(),
        };
        let mut dataset = match encoding.modelled_numbers() {
            [] => None,
            _ => Some(Dataset::from_table(table, fraction, seed, &plan)?),
        };
        if self.weights.is_some() {
            dataset = dataset.map(|dataset| dataset.with_weights(weights)).transpose()?;
        }
        Ok((dataset, Data { test, head, notes, places, categories, record, need }))
    }
}
