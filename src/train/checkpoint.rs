//! A training as it stands between two epochs, whole enough to go on bit for bit, and the file that keeps it.
//!
//! The file is safetensors like the model's, with one JSON entry, `moonflow-checkpoint`. Numbers that decide what comes
//! after are tensors, so that no digit is lost: `parameters`, `moment1`, `moment2` `[P]` are `F32`; `corrections` `[2]`
//! and `history` `[E, 7]` are `F64`; `best.parameters`, `best.nll`, and `average.…` are there where training has them. It
//! has the checksum of [`crate::model::container`].

use std::path::Path;

use safetensors::tensor::Metadata;
use serde::{Deserialize, Serialize};

use super::{Average, Epoch, History, TrainerState};
use crate::engine::{DeviceInfo, Training};
use crate::error::{Error, Remedy, Result};
use crate::flow::MAX_WIDTH;
use crate::layout::Layout;
use crate::model::Recipe;
use crate::model::container::{self, Container, Parsed, StoredTensor, Version, serialise};
use crate::optimiser::{Best, Decay, State};
use crate::shown::{shown, shown_list};

/// Version of the file's format. It grows when another reader would misread a file.
pub const CHECKPOINT_VERSION: u32 = 1;

/// The metadata entry that holds the [`Header`].
const ENTRY: &str = "moonflow-checkpoint";

/// Numbers of an epoch in the history's tensor; NaN stands for a validation loss that there is not.
const EPOCH_NUMBERS: usize = 7;

/// A training between two epochs.
///
/// # Examples
/// A training of 2 epochs goes on to 4, which needs a constant learning rate.
///
/// ```
/// use moonflow::data::{Dataset, Toy, ToyDensity};
/// use moonflow::optimiser::Decay;
/// use moonflow::train::{Checkpoint, Epoch, Observer};
/// use moonflow::{Device, Recipe, Result, Trainer};
/// use std::ops::ControlFlow;
///
/// struct Keep(Option<Checkpoint>);
///
/// impl Observer for Keep {
///     fn epoch(&mut self, _: &Epoch) -> ControlFlow<()> {
///         ControlFlow::Continue(())
///     }
///
///     fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<()> {
///         self.0 = Some(checkpoint.clone()); // or `checkpoint.save("run.checkpoint")`
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let dataset = Dataset::split(&ToyDensity::new(Toy::Moons).table(200, 1), 0.1, 1)?;
/// let recipe = Recipe { epochs: 2, warmup: 0, decay: Decay::Constant, layers: 2, hidden: vec![4], ..Recipe::default() };
/// let mut trainer = Trainer::new(recipe).on(Device::Cpu);
/// trainer.options.checkpoint_every = Some(2);
/// let mut keep = Keep(None);
/// trainer.fit_watched(&dataset, &mut keep)?;
///
/// trainer.recipe.epochs = 4;
/// trainer.options.resume = keep.0;
/// assert_eq!(trainer.fit(&dataset)?.history.epochs.len(), 4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The recipe.
    pub recipe: Recipe,
    /// Names of the features `[D]`.
    pub columns: Vec<String>,
    /// The device computed on, as [`crate::engine::DeviceInfo`] prints itself. Another one goes on with other bits.
    pub device: String,
    /// [`fingerprint`] of the rows.
    pub rows: u64,
    /// Parameters and optimiser.
    pub state: State,
    /// What has been done and counted.
    pub trainer: TrainerState,
}

/// What the tensors do not say.
#[derive(Serialize, Deserialize)]
struct Header {
    format_version: u32,
    recipe: Recipe,
    columns: Vec<String>,
    device: String,
    /// Hexadecimal, because JSON's numbers lose digits in other languages.
    rows: String,
    step: u32,
    epoch: u32,
    row: u32,
    skipped: u32,
    skipped_in_a_row: u32,
    last_skipped: u32,
    rollbacks: u32,
    has_best: bool,
    averaged_epochs: Option<u32>,
    has_best_average: bool,
}

/// A number that tells one set of rows from another: FNV-1a over training rows, validation rows and the preprocessing's
/// mean log-determinants, in the order and precision in which an engine gets them.
pub fn fingerprint(training: &Training, log_det: [f64; 2]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let rows =
        training.train.iter().chain(&*training.validation).flat_map(|value| value.to_bits().to_le_bytes());
    let counts = [training.train.len() as u64, training.validation.len() as u64];
    let counts = counts.into_iter().chain(log_det.map(f64::to_bits));
    let weights =
        training.weights.iter().flat_map(|weights| weights.train.iter().chain(&*weights.validation));
    let weights = weights.flat_map(|weight| weight.to_bits().to_le_bytes());
    let bytes = counts.flat_map(u64::to_le_bytes).chain(rows).chain(weights);
    bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

impl Checkpoint {
    /// Whether `device` computes with the bits of the one that it was made on: the CPU engine does on any number of
    /// threads.
    pub fn has_the_bits_of(&self, device: &DeviceInfo) -> bool {
        self.device == device.to_string() || (device.backend == "cpu" && self.device.ends_with("(cpu)"))
    }

    /// This checkpoint under the recipe of `fresh`, a training that is about to begin.
    ///
    /// # Errors
    /// [`Error::Argument`] that says which columns, rows or settings are not those that the checkpoint was made with,
    /// or why it cannot be trained for another number of epochs.
    pub(super) fn fitted_to(mut self, fresh: Self) -> Result<Self> {
        let fail = |message: String| {
            Err(Error::Argument(format!("the checkpoint cannot be gone on with: {message}")))
        };
        if self.columns != fresh.columns {
            return fail(format!(
                "it has the columns {}, and the data {}",
                shown_list(&self.columns),
                shown_list(&fresh.columns)
            ));
        }
        let epochs = fresh.recipe.epochs;
        let done = self.trainer.history.epochs.len() as u32;
        let differences = differences(&self.recipe, &fresh.recipe);
        if !differences.is_empty() {
            return fail(format!(
                "its recipe is another: {}. Go on with the recipe that it was made with",
                differences.join("; ")
            ));
        }
        if epochs != self.recipe.epochs && self.recipe.decay != Decay::Constant {
            return fail(format!(
                "it was made for {} epochs, got {epochs}; its learning rate falls along a cosine to zero at the end, so \
                 that another number of epochs is another training",
                self.recipe.epochs
            ))
            .map_err(|error| error.advise(Remedy::ConstantRate));
        }
        if epochs < done {
            return fail(format!("it has {done} epochs behind it already, got {epochs}"));
        }
        if self.rows != fresh.rows {
            return fail(format!(
                "the rows are not those that it was made with (fingerprint {:016x}, expected {:016x}); give it the same \
                 data, unchanged",
                fresh.rows, self.rows
            ));
        }
        (self.recipe, self.device) = (fresh.recipe, fresh.device);
        Ok(self)
    }

    /// The checkpoint as the bytes of its file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { state, trainer, .. } = self;
        let best_average = trainer.average.as_ref().and_then(|average| average.best.as_ref());
        let header = Header {
            format_version: CHECKPOINT_VERSION,
            recipe: self.recipe.clone(),
            columns: self.columns.clone(),
            device: self.device.clone(),
            rows: format!("{:016x}", self.rows),
            step: state.step,
            epoch: state.epoch,
            row: state.row,
            skipped: trainer.skipped,
            skipped_in_a_row: trainer.skipped_in_a_row,
            last_skipped: trainer.last_skipped,
            rollbacks: trainer.rollbacks,
            has_best: state.best.is_some(),
            averaged_epochs: trainer.average.as_ref().map(|average| average.epochs),
            has_best_average: best_average.is_some(),
        };
        let json = serde_json::to_string(&header).expect("invariant: a header is plain data");
        let total = state.parameters.len();
        let epochs = &trainer.history.epochs;
        let history: Vec<f64> = epochs.iter().flat_map(to_numbers).collect();
        let mut tensors = vec![
            StoredTensor::f32("parameters", vec![total], &state.parameters),
            StoredTensor::f32("moment1", vec![total], &state.moment1),
            StoredTensor::f32("moment2", vec![total], &state.moment2),
            StoredTensor::f64("corrections", vec![2], &state.corrections),
            StoredTensor::f64("history", vec![epochs.len(), EPOCH_NUMBERS], &history),
        ];
        for (prefix, best) in [("", state.best.as_ref()), ("average.", best_average)] {
            if let Some(best) = best {
                tensors.push(StoredTensor::f64(format!("{prefix}best.nll"), vec![1], &[best.nll]));
                tensors.push(StoredTensor::f32(
                    format!("{prefix}best.parameters"),
                    vec![total],
                    &best.parameters,
                ));
            }
        }
        if let Some(average) = &trainer.average {
            tensors.push(StoredTensor::f64("average.parameters", vec![total], &average.parameters));
        }
        serialise(tensors, ENTRY, &json)
    }

    /// The checkpoint in the bytes of its file. `name` is used in messages.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] that says what is wrong: truncated, foreign, from another version, a tensor that is missing,
    /// misshaped, not finite or there twice, another checksum than the contents', or parts that contradict each other.
    pub fn from_bytes(name: impl AsRef<Path>, bytes: &[u8]) -> Result<Self> {
        parse(bytes).map_err(|message| Error::Checkpoint { path: name.as_ref().to_owned(), message })
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Checkpoint {
    /// Writes the file. Either the whole file is there afterwards or what was there before.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let bytes = self.to_bytes();
        crate::files::write_atomically(path.as_ref(), |writer| writer.write_all(&bytes))
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read or is no regular one, and those of [`Checkpoint::from_bytes`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let damaged = |message| Error::Checkpoint { path: path.to_owned(), message };
        let bytes = container::read(path, |metadata| Header::read(metadata).map(drop), damaged)?;
        Self::from_bytes(path, &bytes)
    }
}

impl Header {
    /// The header, and the number of parameters of its flow: of the version that is known, and of a size that the file can
    /// hold.
    fn read(metadata: &Metadata) -> Parsed<(Self, usize)> {
        let version: Version = container::entry(metadata, ENTRY)?.ok_or_else(|| {
            format!("it is a safetensors file, but no checkpoint: its metadata has no entry `{ENTRY}`")
        })?;
        if version.format_version != CHECKPOINT_VERSION {
            return Err(format!(
                "it has format version {}, and this moonflow reads version {CHECKPOINT_VERSION} only; go on with the \
                 moonflow that wrote it",
                version.format_version
            ));
        }
        let header: Self = container::entry(metadata, ENTRY)?.expect("invariant: the entry was read above");
        // Masks are made of them.
        if header.columns.len() > MAX_WIDTH {
            return Err(format!("it names {} columns, expected at most {MAX_WIDTH}", header.columns.len()));
        }
        if header.epoch > header.recipe.epochs {
            return Err(format!("it has {} epochs of {} behind it", header.epoch, header.recipe.epochs));
        }
        let flow = header.recipe.flow(header.columns.len()).map_err(|error| error.to_string())?;
        let total = Layout::new(&flow).total;
        // Parameters, two moments, the average in double precision, and the best of both.
        let most = total as u128 * (4 * 3 + 8 + 4 * 2)
            + 8 * (EPOCH_NUMBERS as u128 * u128::from(header.epoch) + 2 + 2);
        if metadata.data_len() as u128 > most {
            return Err(format!(
                "its tensors have {} bytes, but it needs {most} at most",
                metadata.data_len()
            ));
        }
        Ok((header, total))
    }
}

fn parse(bytes: &[u8]) -> Parsed<Checkpoint> {
    let tensors = Container::new(bytes)?;
    let (header, total) = Header::read(&tensors.metadata)?;
    tensors.verify(ENTRY)?;
    let best = |prefix: &str| -> Parsed<Best> {
        Ok(Best {
            nll: tensors.f64(&format!("{prefix}best.nll"), &[1])?[0],
            parameters: tensors.f32(&format!("{prefix}best.parameters"), &[total])?,
        })
    };
    let corrections = tensors.f64("corrections", &[2])?;
    let state = State {
        parameters: tensors.f32("parameters", &[total])?,
        moment1: tensors.f32("moment1", &[total])?,
        moment2: tensors.f32("moment2", &[total])?,
        step: header.step,
        epoch: header.epoch,
        row: header.row,
        corrections: [corrections[0], corrections[1]],
        best: header.has_best.then(|| best("")).transpose()?,
    };
    let average = match header.averaged_epochs {
        Some(epochs) => Some(Average {
            parameters: tensors.f64("average.parameters", &[total])?,
            epochs,
            best: header.has_best_average.then(|| best("average.")).transpose()?,
        }),
        None => None,
    };
    if average.is_some() != header.recipe.ema.is_some() {
        return Err("its recipe and its average of the weights contradict each other".into());
    }
    let history = read_history(&tensors, header.epoch as usize)?;
    let rows = u64::from_str_radix(&header.rows, 16).map_err(|_| {
        format!("its fingerprint of the rows is `{}`, expected hexadecimal digits", shown(&header.rows))
    })?;
    let trainer = TrainerState {
        history,
        average,
        skipped: header.skipped,
        skipped_in_a_row: header.skipped_in_a_row,
        last_skipped: header.last_skipped,
        rollbacks: header.rollbacks,
    };
    Ok(Checkpoint {
        recipe: header.recipe,
        columns: header.columns,
        device: header.device,
        rows,
        state,
        trainer,
    })
}

/// The first `epochs` epochs, from tensor `history`.
fn read_history(tensors: &Container, epochs: usize) -> Parsed<History> {
    // The shape says how much is there before anything of that size is made.
    let numbers = tensors.any_f64("history", &[epochs, EPOCH_NUMBERS])?;
    let (numbers, _) = numbers.as_chunks::<EPOCH_NUMBERS>();
    let history = History { epochs: numbers.iter().map(from_numbers).collect() };
    if let Some(place) = history.epochs.iter().zip(1..).position(|(epoch, number)| epoch.epoch != number) {
        return Err(format!(
            "its history has epoch {} where {} is due",
            history.epochs[place].epoch,
            place + 1
        ));
    }
    Ok(history)
}

fn to_numbers(epoch: &Epoch) -> [f64; EPOCH_NUMBERS] {
    // A loss that is NaN and one that there is not are told apart by their sign bits.
    let validation =
        epoch.validation_nll.map_or(-f64::NAN.abs(), |nll| if nll.is_nan() { f64::NAN.abs() } else { nll });
    let flags = f64::from(epoch.skipped) * 2.0 + f64::from(u8::from(epoch.improved));
    let Epoch { train_nll, learning_rate, grad_norm, seconds, .. } = *epoch;
    [f64::from(epoch.epoch), train_nll, validation, learning_rate, grad_norm, seconds, flags]
}

fn from_numbers(numbers: &[f64; EPOCH_NUMBERS]) -> Epoch {
    let [epoch, train_nll, validation, learning_rate, grad_norm, seconds, flags] = *numbers;
    Epoch {
        epoch: epoch as u32,
        train_nll,
        validation_nll: (!(validation.is_nan() && validation.is_sign_negative())).then_some(validation),
        learning_rate,
        grad_norm,
        seconds,
        improved: flags as u64 % 2 == 1,
        skipped: (flags as u64 / 2) as u32,
    }
}

/// `name: value in the checkpoint, value now` for every setting but the number of epochs that differs.
fn differences(kept: &Recipe, now: &Recipe) -> Vec<String> {
    // Through text, where a number of single precision has the digits that it was given.
    let fields = |recipe: &Recipe| -> serde_json::Map<String, serde_json::Value> {
        let text = serde_json::to_string(recipe).expect("invariant: a recipe is plain data");
        serde_json::from_str(&text).expect("invariant: a recipe is an object")
    };
    let now = fields(now);
    fields(kept)
        .iter()
        .filter(|(name, value)| *name != "epochs" && now.get(*name) != Some(value))
        .map(|(name, value)| {
            format!("{} is {value} in the checkpoint, {} now", name.replace('_', " "), now[name.as_str()])
        })
        .collect()
}
