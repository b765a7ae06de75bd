//! Errors in the words of the command line: the library says what to change, and this says by which flag.

use std::borrow::Cow;

use moonflow::Error;
use moonflow::error::Remedy;

/// The message of `error`, with flags where it gives advice.
pub fn with_flags(error: &Error) -> String {
    match error {
        Error::Advised { problem, remedy } => format!("{problem}{}", advice(remedy)),
        Error::NonFinite { .. } => format!("{error} (--lr)"),
        plain => plain.to_string(),
    }
}

/// What follows the message of a problem with this remedy.
fn advice(remedy: &Remedy) -> Cow<'static, str> {
    Cow::Borrowed(match remedy {
        Remedy::DropColumn => "; --drop leaves the column out",
        Remedy::CategoryOrDrop => "; --categorical takes it as categories, --drop leaves the column out",
        Remedy::NameOrDropColumn(place) => {
            return format!("; name it, or leave it out with --drop {place} if it is an index").into();
        }
        Remedy::Utf8 => "; save the file as UTF-8, or leave the column out with --drop",
        Remedy::Decimal(name) => return format!("; --decimal {name} reads it").into(),
        Remedy::DropTexts => "; write CSV or Parquet, or leave them out with --drop",
        Remedy::ChooseColumns => "; choose as many with --columns",
        Remedy::DropMissing => ". Leave such rows out with --missing drop, or fill in numbers",
        Remedy::StandardiseByMean => "; use --standardise mean",
        Remedy::ConstantRate => ". Only --decay constant can be extended",
        Remedy::Cpu => "; --device cpu does without a GPU",
        Remedy::SmallerBatchOrCpu => {
            "; take a smaller --batch or model, or --device cpu, which has no such limit"
        }
        Remedy::Gpu => "; add --device gpu, or leave --plan out",
        Remedy::LayeredPlan => "; --plan layered takes any flow",
        other => return format!("; {other}").into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_flags_and_other_errors_stay_as_they_are() {
        let problem = || Error::data("t.csv", "column 2 has no name in the header");
        assert_eq!(with_flags(&problem()), problem().to_string());
        let advised = problem().advise(Remedy::NameOrDropColumn(2));
        assert!(!advised.to_string().contains("--"), "{advised}");
        let message = with_flags(&advised);
        assert!(message.starts_with(&problem().to_string()), "{message}");
        assert!(message.contains("leave it out with --drop 2"), "{message}");
        assert!(with_flags(&Error::NonFinite { epoch: 3 }).ends_with("in the data (--lr)"));
    }
}
