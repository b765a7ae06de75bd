//! Everything that can go wrong, as one enum whose messages say what was got, what was expected and what to do next.

use std::path::{Path, PathBuf};

use crate::shown::shown_path;

/// A `Result` with moonflow's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A flow that breaks a rule: too few features, no layers, a mask that transforms nothing.
    #[error("flow: {0}")]
    Flow(String),
    /// An option or argument whose value cannot be used.
    #[error("{0}")]
    Argument(String),
    /// A table that cannot be used. The message names line and column where they are known.
    #[error("{source_name}: {message}", source_name = shown_path(Path::new(source_name)))]
    Data {
        /// File or toy density.
        source_name: String,
        /// What is wrong with it, where, and what to do.
        message: String,
    },
    /// A model file that is truncated, foreign or inconsistent.
    #[error("{path}: not a usable moonflow model: {message}", path = shown_path(path))]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A checkpoint that is truncated, foreign or inconsistent.
    #[error("{path}: not a usable checkpoint: {message}", path = shown_path(path))]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Slices whose lengths do not fit the flow.
    #[error("{what}: got {got} values, expected {expected}")]
    Length {
        /// The argument.
        what: &'static str,
        /// Values received.
        got: usize,
        /// Values that the flow's shape asks for.
        expected: usize,
    },
    /// Training met a loss or gradient that is not finite.
    #[error(
        "training stopped in epoch {epoch}: the loss or a gradient was not finite, step after step; the parameters \
         before were kept. Try a smaller learning rate, or look for extreme values in the data"
    )]
    NonFinite {
        /// Epoch, counted from 1.
        epoch: u32,
    },
    /// No adapter, a lost device, or limits too small for the model.
    #[error("GPU: {0}")]
    Device(String),
    /// An error with a way around it.
    #[error("{problem}; {remedy}")]
    Advised {
        /// What went wrong: any other of these variants.
        problem: Box<Error>,
        /// What to do about it.
        remedy: Remedy,
    },
    /// A picture that could not be drawn.
    #[error("picture: {0}")]
    Picture(String),
    /// Reading or writing failed.
    #[error("{path}: {source}", path = shown_path(path))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

impl Error {
    /// An [`Error::Io`] of `path`.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// An [`Error::Data`] of `source_name`.
    pub fn data(source_name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Data { source_name: source_name.into(), message: message.into() }
    }

    /// The same with a way around it.
    #[must_use]
    pub fn advise(self, remedy: Remedy) -> Self {
        Self::Advised { problem: Box::new(self), remedy }
    }

    /// What went wrong, without advice: never an [`Error::Advised`].
    ///
    /// ```
    /// use moonflow::error::{Error, Remedy};
    ///
    /// let error = Error::Device("no adapter was found".into()).advise(Remedy::Cpu);
    /// assert_eq!(error.to_string(), "GPU: no adapter was found; the CPU engine does without a GPU");
    /// assert!(matches!(error.problem(), Error::Device(_)));
    /// ```
    pub fn problem(&self) -> &Self {
        match self {
            Self::Advised { problem, .. } => problem.problem(),
            plain => plain,
        }
    }
}

/// A way around an error: a setting to change. Its text names no flag, so that each interface can add its own word for
/// the setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Remedy {
    /// Leave the column out of the table.
    #[error("leave the column out")]
    DropColumn,
    /// Take the column's values as categories, or leave it out.
    #[error("take the column as a category, or leave it out")]
    CategoryOrDrop,
    /// Name the column, or leave it out.
    #[error("name it, or leave column {0} out if it is an index")]
    NameOrDropColumn(usize),
    /// Leave text columns out, or write a format that holds them.
    #[error("write CSV or Parquet, or leave these columns out")]
    DropTexts,
    /// Save the file as UTF-8, or leave the column out.
    #[error("save the file as UTF-8, or leave the column out")]
    Utf8,
    /// Numbers with the decimal of this name, `point` or `comma`.
    #[error("with a decimal {0} it is one")]
    Decimal(&'static str),
    /// Choose as many columns as the model has.
    #[error("choose as many columns")]
    ChooseColumns,
    /// Leave out the rows with missing values.
    #[error("leave such rows out, or fill in numbers")]
    DropMissing,
    /// Standardise by the mean and standard deviation.
    #[error("standardise by mean and standard deviation")]
    StandardiseByMean,
    /// Only a training with a constant learning rate can be given more epochs.
    #[error("only a training with a constant learning rate can be extended")]
    ConstantRate,
    /// The CPU engine.
    #[error("the CPU engine does without a GPU")]
    Cpu,
    /// A smaller batch or model, or the CPU engine.
    #[error("take a smaller batch or model, or the CPU engine, which has no such limit")]
    SmallerBatchOrCpu,
    /// A plan is for a GPU.
    #[error("choose a GPU, or no plan")]
    Gpu,
    /// The layered plan.
    #[error("the layered plan takes any flow")]
    LayeredPlan,
}

/// Checks that `got` values are what the flow's shape asks for.
///
/// # Errors
/// [`Error::Length`] when they are not.
pub fn expect_length(what: &'static str, got: usize, expected: usize) -> Result<()> {
    if got == expected { Ok(()) } else { Err(Error::Length { what, got, expected }) }
}
