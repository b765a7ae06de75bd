//! Where results go: standard output or a file, but no file that is read. A reader that has gone away
//! (`moonflow … | head`) is no error.

use std::borrow::Cow;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use moonflow::files::write_atomically;
use moonflow::shown::{harmless, is_unprintable, shown_path};
use moonflow::{Error, Result};
use same_file::Handle;

/// The files that a command reads, which it must not write over.
pub struct Inputs(Vec<Named>);

/// A file and what it is, however it is called.
struct Named {
    name: PathBuf,
    handle: Handle,
    canonical: Option<PathBuf>,
}

impl Inputs {
    /// The regular files among `paths`, where `-` is standard input. What cannot be opened is for its reader to refuse.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let named =
            |path: &Path| if path.as_os_str() == "-" { standard(Handle::stdin()) } else { Named::file(path) };
        Self(paths.into_iter().filter_map(named).collect())
    }

    /// Refuses `output`, or standard output where there is none or it is `-`, where that is one of these files: through
    /// links and by any spelling of its path.
    ///
    /// # Errors
    /// [`Error::Argument`] with both names.
    pub fn spare(&self, output: Option<&Path>) -> Result<()> {
        let output = output.filter(|path| path.as_os_str() != "-");
        let Some(target) = output.map_or_else(|| standard(Handle::stdout()), Named::file) else {
            return Ok(());
        };
        let Some(input) = self.0.iter().find(|input| input.is(&target)) else { return Ok(()) };
        let name = shown_path(output.unwrap_or(Path::new("standard output")));
        let read = match input.name == target.name {
            true => "a file that is read".into(),
            false => format!("the same file as {}, which is read", shown_path(&input.name)),
        };
        Err(Error::Argument(format!(
            "{name} is {read}, and would be written over; name another file to write"
        )))
    }
}

impl Named {
    fn file(path: &Path) -> Option<Self> {
        // Before it is opened, which takes from a pipe.
        let regular = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        let handle = regular.then(|| Handle::from_path(path).ok()).flatten()?;
        Some(Self { name: path.to_path_buf(), handle, canonical: fs::canonicalize(path).ok() })
    }

    /// Whether both are one file; by its path too, for file systems that make up numbers for their files.
    fn is(&self, other: &Self) -> bool {
        self.handle == other.handle || self.canonical.is_some() && self.canonical == other.canonical
    }
}

/// Standard input or output, where that is a regular file.
fn standard(handle: io::Result<Handle>) -> Option<Named> {
    let handle = handle.ok()?;
    let regular = handle.as_file().metadata().is_ok_and(|metadata| metadata.is_file());
    regular.then(|| Named { name: "standard input".into(), handle, canonical: None })
}

/// Writes a command's result to `path`, whole or not at all, or to standard output.
///
/// # Errors
/// [`Error::Io`] of the file or of standard output; a closed pipe is one, and [`is_closed_pipe`] tells it apart.
pub fn write(path: Option<&Path>, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    match path {
        Some(path) => write_atomically(path, write),
        None => {
            let mut stdout = BufWriter::new(io::stdout().lock());
            write(&mut stdout)
                .and_then(|()| stdout.flush())
                .map_err(|source| Error::io("standard output", source))
        }
    }
}

/// Writes a text for a person to standard output, whose names the terminal must not obey.
///
/// # Errors
/// Those of [`write`].
pub fn print(text: &str) -> Result<()> {
    write(None, |out| out.write_all(harmless(text).as_bytes()))
}

/// Writes a command's result to standard output as JSON.
///
/// # Errors
/// Those of [`write`].
pub fn write_json(value: &serde_json::Value) -> Result<()> {
    write(None, |out| writeln!(out, "{}", json_in_sight(&format!("{value:#}"))))
}

/// Prints a line of JSON to standard output, under the rule of [`say`].
pub fn say_json(value: &serde_json::Value) {
    let _ = writeln!(io::stdout(), "{}", json_in_sight(&value.to_string()));
}

/// The same JSON with escapes for what a terminal would obey. JSON itself asks for those of the first 32 characters only.
fn json_in_sight(json: &str) -> Cow<'_, str> {
    let harmful = |character| is_unprintable(character) && character != '\n';
    if !json.chars().any(harmful) {
        return Cow::Borrowed(json);
    }
    let mut text = String::new();
    for character in json.chars() {
        if harmful(character) {
            let mut units = [0; 2];
            text.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            text.push(character);
        }
    }
    Cow::Owned(text)
}

/// Plain data as JSON, through text: there a number of single precision has the digits that it was given.
pub fn as_json(data: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_string(data).and_then(|text| serde_json::from_str(&text)).unwrap_or_default()
}

/// Whether the error only says that the output has no reader any more.
pub fn is_closed_pipe(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints a line to standard output for a person, whose absence is no reason to stop working.
pub fn say(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{}", harmless(&line.to_string()));
}

/// Prints a line to standard error, under the same rule.
pub fn note(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{}", harmless(&line.to_string()));
}

/// `number` with a comma between groups of three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_known_by_every_name_and_other_files_are_not_taken_for_it() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["a", "b"] {
            fs::write(path(name), "same contents").expect("writable");
        }
        fs::create_dir(path("d")).expect("made");
        fs::hard_link(path("a"), path("hard")).expect("linked");
        let mut names = vec!["a", "./a", "d/../a", "hard"];
        if cfg!(unix) {
            #[cfg(unix)]
            std::os::unix::fs::symlink("a", path("soft")).expect("linked");
            names.push("soft");
        }
        for input in &names {
            let (absent, input) = (path("absent"), path(input));
            let inputs = Inputs::new([absent.as_path(), input.as_path()]);
            for output in &names {
                let error = inputs.spare(Some(&path(output))).expect_err(output).to_string();
                assert!(error.contains("read") && error.contains(output), "{error}");
            }
            for output in ["b", "absent", "d", "d/a", "/dev/null"] {
                inputs.spare(Some(&path(output))).expect(output);
            }
        }
    }

    #[test]
    fn json_says_the_same_without_a_character_that_a_terminal_obeys() {
        let value = serde_json::json!({"a\u{9b}2J": ["\u{1b}[2J\n", "\u{e0041}\u{202e}x\u{7f}"], "höhe": 1});
        for text in [value.to_string(), format!("{value:#}")] {
            let seen = json_in_sight(&text);
            assert!(!seen.chars().any(|character| is_unprintable(character) && character != '\n'), "{seen}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&seen).expect("JSON"), value);
        }
        assert!(matches!(json_in_sight("{\"a\": 1}\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn digits_are_grouped_by_three() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (123_456, "123,456"), (1_000_000, "1,000,000")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
