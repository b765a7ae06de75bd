//! Configuration files of `moonflow train`: TOML whose keys are the command's long flags, and `data` for its argument.
//!
//! A file is turned into arguments that the command line then overrides. So there is one list of options and one set
//! of rules for their values, whichever way they come.

use std::ffi::OsString;
use std::path::{Path, PathBuf, absolute};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use moonflow::data::near_matches;
use moonflow::files::{read_text, write_atomically};
use moonflow::flow::{BaseKind, BijectorKind, ConditionerForm, Mixing};
use moonflow::model::Recipe;
use moonflow::shown::{shown, shown_path};
use moonflow::{Error, Result};
use toml::{Table, Value};

use super::columns::TableArgs;
use super::preprocess::PreprocessArgs;
use super::source::Source;

/// What a training writes its resolved configuration to, beside the model.
pub const FILE_NAME: &str = "config.toml";

/// How the first line of that file begins.
const HEADER: &str = "# moonflow ";

/// The command that is configured.
const TRAIN: &str = "train";

/// The key of the command's argument.
const DATA: &str = "data";

/// Most bytes of a configuration: a file that is none is not read to its end.
const LONGEST: u64 = 1 << 20;

/// Most characters of a line or message that quotes the file.
const QUOTED: usize = 300;

/// Flags that say where a configuration is or how to come by one, not what it is.
const NOT_CONFIGURED: [&str; 5] = ["auto", "config", "resume", "help", "version"];

/// The command line `arguments`, with those that its configuration file adds. They are as they were where there is no
/// such file or they cannot be parsed, which the parser then says better.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, is no regular one or too long, [`Error::Argument`] when it is not TOML, has a key that is no option, or
/// a value that the option refuses.
pub fn arguments(command: fn() -> Command, arguments: Vec<OsString>) -> Result<Vec<OsString>> {
    let Ok(matches) = command().try_get_matches_from(&arguments) else { return Ok(arguments) };
    let Some((TRAIN, given)) = matches.subcommand() else { return Ok(arguments) };
    let resumed = given.get_one::<PathBuf>("resume").map(|folder| folder.join(FILE_NAME));
    let file = match given.get_one::<PathBuf>("config") {
        Some(file) => file.clone(),
        None => match resumed.filter(|file| file.exists()) {
            Some(file) => file,
            None => return Ok(arguments),
        },
    };
    let text = read_text(&file, LONGEST)?;
    let fail = |message: String| Error::Argument(format!("{}: {message}", shown_path(&file)));
    let table: Table =
        text.parse().map_err(|error: toml::de::Error| fail(quoted(error.to_string().trim_end())))?;
    let command_of_training = command();
    let known = keys(&command_of_training);
    let (mut all, mut added) = (ConfigArguments::default(), ConfigArguments::default());
    for (key, value) in &table {
        if !known.contains(&key.as_str()) {
            let near = near_matches(key, &known)
                .first()
                .map(|name| format!(" Did you mean `{name}`?"))
                .unwrap_or_default();
            return Err(fail(format!(
                "there is no option `{}`.{near} The options are {}",
                shown(key),
                known.join(", ")
            )));
        }
        let value = scalar(value).ok_or_else(|| {
            let value = shown(&value.to_string()).to_string();
            fail(format!("`{key}` must be a number, a text, true, false or a list of numbers, got {value}"))
        })?;
        if !is_given(given, key) {
            added.push(key, &value);
        }
        all.push(key, &value);
    }
    // Alone first, so that a refused value is the file's fault and not the command line's.
    let alone = all.within(vec!["moonflow".into(), TRAIN.into()]);
    command().try_get_matches_from(alone).map_err(|error| {
        let text = error.to_string();
        fail(quoted(text.lines().next().unwrap_or_default().trim_start_matches("error: ")))
    })?;
    Ok(added.within(arguments))
}

/// What a configuration adds to a command line.
#[derive(Default)]
struct ConfigArguments {
    flags: Vec<OsString>,
    data: Option<OsString>,
}

impl ConfigArguments {
    fn push(&mut self, key: &str, value: &str) {
        if key == DATA {
            self.data = Some(value.into());
        } else {
            self.flags.push(format!("--{key}={value}").into());
        }
    }

    /// The command line `arguments` with these: the flags before all others, the data last and never taken for a flag.
    fn within(self, arguments: Vec<OsString>) -> Vec<OsString> {
        let mut all = arguments;
        if let Some(data) = self.data {
            if !all.iter().any(|argument| argument == "--") {
                all.push("--".into());
            }
            all.push(data);
        }
        let place = all.iter().position(|argument| argument == TRAIN).map_or(all.len(), |place| place + 1);
        all.splice(place..place, self.flags);
        all
    }
}

/// A message of a parser, no line of which is endless.
fn quoted(message: &str) -> String {
    let lines = message.lines().map(|line| shown(line).at_most(QUOTED).to_string());
    lines.collect::<Vec<_>>().join("\n")
}

/// Every key that a configuration may have.
fn keys(command: &Command) -> Vec<&str> {
    let train = command.find_subcommand(TRAIN).expect("invariant: there is a command `train`");
    let flags = train.get_arguments().filter_map(|argument| argument.get_long());
    std::iter::once(DATA).chain(flags.filter(|flag| !NOT_CONFIGURED.contains(flag))).collect()
}

/// Whether the command line has the option `key` itself, or one that takes its place.
fn is_given(given: &ArgMatches, key: &str) -> bool {
    let named = |key: &str| given.value_source(&key.replace('-', "_")) == Some(ValueSource::CommandLine);
    named(key)
        || match key {
            "out" => named("resume"),
            "test" => named("test-fraction"),
            "test-fraction" => named("test"),
            "gaussianise" => named("margins"),
            "margins" => named("gaussianise"),
            // Rows and noise are a toy density's; they fall with it.
            "rows" | "noise" => named(DATA),
            _ => false,
        }
}

/// The value as it is written on a command line.
fn scalar(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        Value::Array(values) => values.iter().map(scalar).collect::<Option<Vec<_>>>()?.join(","),
        Value::Datetime(_) | Value::Table(_) => return None,
    })
}

/// What besides its recipe makes a training what it is.
pub struct Resolved<'a> {
    pub data: &'a Source,
    pub rows: Option<u32>,
    pub noise: Option<f64>,
    pub table: &'a TableArgs,
    pub preprocess: &'a PreprocessArgs,
    pub recipe: &'a Recipe,
    pub weights: Option<&'a str>,
    pub test: Option<&'a Path>,
    pub test_fraction: Option<f64>,
    pub time_limit: Option<f64>,
    pub checkpoint_every: Option<u32>,
    pub animate: Option<&'a Path>,
    pub device: &'a str,
    pub plan: &'a str,
    pub out: &'a Path,
}

impl Resolved<'_> {
    /// Writes the configuration, every option resolved, so that the training can be repeated from it alone. Paths of
    /// inputs are absolute.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let version = env!("CARGO_PKG_VERSION");
        let text = format!(
            "{HEADER}{version}: `moonflow train --config` with this file repeats the training.\n{}",
            self.table()
        );
        write_atomically(path, |out| out.write_all(text.as_bytes()))
    }

    /// Whether the file `path` is one that [`Resolved::write`] wrote and says the same: nothing is lost when it is
    /// written again.
    pub fn is_said_by(&self, path: &Path) -> bool {
        let text = read_text(path, LONGEST).unwrap_or_default();
        let body = text.strip_prefix(HEADER).and_then(|rest| rest.split_once('\n'));
        body.is_some_and(|(_, body)| body == self.table().to_string())
    }

    fn table(&self) -> Table {
        let recipe = self.recipe;
        let mut table = Table::new();
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                table.insert(key.to_owned(), value);
            }
        };
        let path = |path: &Path| Value::from(path.to_string_lossy().into_owned());
        // Whole, so that a training goes on from any folder, its own having been moved or not.
        let whole_path = |given: &Path| path(&absolute(given).unwrap_or_else(|_| given.to_owned()));
        set(
            DATA,
            Some(match self.data {
                Source::Toy(toy) => toy.name().into(),
                Source::File(file) if file.as_os_str() == "-" => path(file),
                Source::File(file) => whole_path(file),
            }),
        );
        set("rows", self.rows.map(whole));
        set("noise", self.noise.map(Value::from));
        for (key, value) in self.table.entries().into_iter().chain(self.preprocess.entries()) {
            set(key, value.map(Value::from));
        }
        set("category-moments", self.rows.is_none().then(|| self.preprocess.has_category_moments().into()));
        set("weights", self.weights.map(Value::from));
        set("test", self.test.map(whole_path));
        set("test-fraction", self.test_fraction.map(Value::from));
        set("validation-fraction", Some(recipe.validation_fraction.into()));
        set("preset", Some(recipe.preset.as_str().into()));
        set("epochs", Some(whole(recipe.epochs)));
        set("batch", Some(whole(recipe.batch)));
        set("layers", Some(whole(recipe.layers as u64)));
        let numbers =
            |numbers: &[usize]| numbers.iter().map(|&number| whole(number as u64)).collect::<Vec<_>>();
        set("hidden", Some(numbers(&recipe.hidden).into()));
        set("activation", Some(recipe.activation.name().into()));
        set("mask", Some(recipe.masking.name().into()));
        set("bijector", name_of(&BijectorKind::ALL, recipe.bijector));
        set("conditioner", name_of(&ConditionerForm::ALL, recipe.conditioner));
        set("bound", Some(decimal(recipe.bound)));
        set("bins", Some(whole(recipe.bins as u64)));
        set("tail-bound", Some(decimal(recipe.tail_bound)));
        set("mixing", name_of(&Mixing::ALL, recipe.mixing));
        set("actnorm", Some(recipe.actnorm.into()));
        if recipe.bases.len() > 1 {
            set("components", Some(numbers(&recipe.bases).into()));
        } else {
            set("base", name_of(&BaseKind::ALL, recipe.base));
            set("components", Some(whole(recipe.components as u64)));
        }
        set("ensemble", Some(whole(recipe.ensemble as u64)));
        set("lr", Some(decimal(recipe.learning_rate)));
        set("decay", Some(recipe.decay.name().into()));
        set("warmup", Some(whole(recipe.warmup)));
        set("clip", Some(decimal(recipe.clip_norm.unwrap_or(0.0))));
        set("weight-decay", Some(decimal(recipe.weight_decay)));
        set("patience", recipe.patience.map(whole));
        set("ema", recipe.ema.map(Value::from));
        set("rollback", Some(recipe.rollback.into()));
        set("seed", Some(whole(recipe.seed)));
        set("time-limit", self.time_limit.map(Value::from));
        set("checkpoint-every", self.checkpoint_every.map(whole));
        set("animate", self.animate.map(whole_path));
        set("device", Some(self.device.into()));
        set("plan", Some(self.plan.into()));
        set("out", Some(path(self.out)));
        table
    }
}

/// The name of `value`.
fn name_of<T: PartialEq>(all: &[(&str, T)], value: T) -> Option<Value> {
    all.iter().find(|(_, known)| *known == value).map(|(name, _)| (*name).into())
}

/// A whole number; TOML's have 63 bits, and a text is taken as well.
fn whole(number: impl Into<u64>) -> Value {
    let number = number.into();
    i64::try_from(number).map_or_else(|_| number.to_string().into(), Value::from)
}

/// The shortest decimal that names `value`.
fn decimal(value: f32) -> Value {
    Value::from(value.to_string().parse::<f64>().unwrap_or_else(|_| value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_a_command_line_has_them() {
        let table: Table =
            "a = [64, 32]\nb = 5e-3\nc = true\nd = \"x y\"\ne = 7\nf = { g = 1 }\n".parse().expect("TOML");
        let texts: Vec<_> = table.values().map(scalar).collect();
        let want = [Some("64,32"), Some("0.005"), Some("true"), Some("x y"), Some("7"), None];
        assert_eq!(texts, want.map(|text| text.map(str::to_owned)));
    }

    #[test]
    fn data_come_last_and_are_no_flags() {
        let line = |given: &[&str]| -> Vec<String> {
            let mut options = ConfigArguments::default();
            options.push("lr", "0.1");
            options.push(DATA, "--help");
            let all = options.within(given.iter().map(OsString::from).collect());
            all.into_iter().map(|argument| argument.into_string().expect("UTF-8")).collect()
        };
        assert_eq!(
            line(&["moonflow", "train", "--seed", "3"]),
            ["moonflow", "train", "--lr=0.1", "--seed", "3", "--", "--help"]
        );
        assert_eq!(line(&["moonflow", "train", "--"]), ["moonflow", "train", "--lr=0.1", "--", "--help"]);
    }

    #[test]
    fn numbers_keep_every_digit() {
        assert_eq!(decimal(5e-3), Value::Float(0.005));
        assert_eq!(whole(u64::MAX), Value::String(u64::MAX.to_string()));
        assert_eq!(whole(3u32), Value::Integer(3));
    }
}
