//! Where results go: standard output or a file. A reader that has gone away (`moonflow … | head`) is no error.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use moonflow::data::write_atomically;
use moonflow::shown::{harmless, is_unprintable};
use moonflow::{Error, Result};

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

/// Whether the error only says that nobody reads our output any more.
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
