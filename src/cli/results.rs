//! What a training writes at its end: one file after the other, none lost for the sake of another.

use std::io;
use std::path::{Path, PathBuf};

use moonflow::model::TableModel;
use moonflow::shown::shown_path;
use moonflow::{Error, Result};
use serde_json::{Value, json};

use super::advice::with_flags;
use super::output::note;

/// The files that were to be written, and what became of them.
#[derive(Default)]
pub struct Results {
    written: Vec<PathBuf>,
    missing: Vec<Unwritten>,
}

/// A file that was not written.
struct Unwritten {
    path: PathBuf,
    reason: String,
    asked_for: bool,
    /// Where its content is instead.
    kept: Option<PathBuf>,
}

impl Results {
    /// Takes note of an attempt to write `path`: a result `asked_for`, or one that the training is whole without.
    pub fn add(&mut self, path: &Path, asked_for: bool, attempt: Result<()>) {
        let reason = match attempt {
            Ok(()) => return self.written.push(path.to_path_buf()),
            Err(Error::Io { path: named, source }) if named == path => source.to_string(),
            Err(error) => with_flags(&error),
        };
        self.missing.push(Unwritten { path: path.to_path_buf(), reason, asked_for, kept: None });
    }

    /// Writes the model to `path`, or where that fails, as on a full disk, into the folder for temporary files: it is what
    /// the training was for.
    pub fn add_model(&mut self, path: &Path, model: &TableModel) {
        self.add(path, true, model.save(path));
        if let Some(missing) = self.missing.last_mut().filter(|missing| missing.path == path) {
            missing.kept = kept_elsewhere(model);
        }
    }

    /// `path` where it was written, for a program to read.
    pub fn path(&self, path: &Path) -> Option<&Path> {
        self.written.iter().map(PathBuf::as_path).find(|written| *written == path)
    }

    /// What was written, a line each for a person.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let labels = std::iter::once("wrote   ").chain(std::iter::repeat("        "));
        labels.zip(&self.written).map(|(label, path)| format!("{label} {}", shown_path(path)))
    }

    /// What was not written and why, for a program to read.
    pub fn missing(&self) -> Value {
        let entry = |missing: &Unwritten| json!({ "path": missing.path, "reason": missing.reason, "kept": missing.kept });
        self.missing.iter().map(entry).collect()
    }

    /// Says on standard error what was not written and why.
    ///
    /// # Errors
    /// [`Error::Io`] of the first file that was asked for and not written.
    pub fn finish(self) -> Result<()> {
        let mut first = Ok(());
        for missing in self.missing {
            let kept = missing.kept.map(|kept| format!("; it is in {} for now", shown_path(&kept)));
            let reason = format!("not written: {}{}", missing.reason, kept.unwrap_or_default());
            let reason = io::Error::other(reason);
            let error = Error::io(missing.path, reason);
            match (missing.asked_for, &first) {
                (false, _) => note(format_args!("warning: {error}")),
                (true, Ok(())) => first = Err(error),
                (true, Err(_)) => note(format_args!("error: {error}")),
            }
        }
        first
    }
}

/// A new file with `model` among the temporary ones, where there is room.
fn kept_elsewhere(model: &TableModel) -> Option<PathBuf> {
    let file = tempfile::Builder::new().prefix("moonflow-").suffix(".safetensors").tempfile().ok()?;
    model.save(file.path()).ok()?;
    Some(file.keep().ok()?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_result_that_was_asked_for_is_an_error() {
        let full = || Err(Error::io("a", io::ErrorKind::StorageFull.into()));
        let mut results = Results::default();
        results.add(Path::new("m"), true, Ok(()));
        results.add(Path::new("a"), false, full());
        assert_eq!(
            (results.path(Path::new("m")), results.path(Path::new("a"))),
            (Some(Path::new("m")), None)
        );
        assert_eq!(results.lines().collect::<Vec<_>>(), ["wrote    m"]);
        assert_eq!(results.missing()[0]["path"], "a");
        results.finish().expect("a picture is no result");

        let mut results = Results::default();
        for (path, asked_for) in [("p", false), ("a", true), ("b", true)] {
            results.add(Path::new(path), asked_for, full());
        }
        let error = results.finish().expect_err("asked for").to_string();
        assert_eq!(error, format!("a: not written: {}", io::Error::from(io::ErrorKind::StorageFull)));
    }
}
