//! Text from outside, made fit to be read: names of columns, files and devices on their way into a message or picture.
//! A table or model may come from anyone, and a terminal obeys what it is sent. Data output keeps every name as it is.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

/// Characters of a name that are shown.
const NAME: usize = 64;

/// Names of a list that are shown.
const LISTED: usize = 12;

/// A text on one line whose control characters, line ends and marks of direction are written as escapes, and that ends
/// in `…` where it was cut.
#[derive(Clone, Debug)]
pub struct Shown<'a> {
    text: Cow<'a, str>,
    most: usize,
}

/// The name of a column or of anything else in a file, at most 64 characters of it.
pub fn shown(name: &str) -> Shown<'_> {
    Shown { text: Cow::Borrowed(name), most: NAME }
}

/// A path, whole: whoever reads it wants to find the file.
pub fn shown_path(path: &Path) -> Shown<'_> {
    Shown { text: path.to_string_lossy(), most: usize::MAX }
}

/// Names with commas between them: the first 12, and how many there are if there are more.
pub fn shown_list(names: &[impl AsRef<str>]) -> String {
    let listed: Vec<String> =
        names.iter().take(LISTED).map(|name| shown(name.as_ref()).to_string()).collect();
    let more = if names.len() > LISTED { format!(", … ({} in all)", names.len()) } else { String::new() };
    listed.join(", ") + &more
}

impl Shown<'_> {
    /// The same, cut at `most` characters.
    #[must_use]
    pub fn at_most(self, most: usize) -> Self {
        Self { most, ..self }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No character becomes fewer than one, so that what follows these cannot be seen.
        let line = visible(self.text.chars().take(self.most.saturating_add(1)), is_unprintable);
        match line.char_indices().nth(self.most) {
            None => f.pad(&line),
            Some(_) => {
                let kept: String = line.chars().take(self.most.saturating_sub(1)).chain(['…']).collect();
                f.pad(&kept)
            }
        }
    }
}

/// `text` of several lines, whose other control characters and marks of direction become escapes.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let harmful = |character| is_unprintable(character) && !matches!(character, '\n' | '\t');
    if text.chars().any(harmful) { Cow::Owned(visible(text.chars(), harmful)) } else { Cow::Borrowed(text) }
}

/// Whether a character moves the cursor, ends a line, turns the direction of text, or cannot be seen.
pub fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}'
            | '\u{e0000}'..='\u{e0fff}')
}

fn visible(characters: impl Iterator<Item = char>, harmful: impl Fn(char) -> bool) -> String {
    let mut text = String::new();
    for character in characters {
        if harmful(character) {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_letters_and_show_what_would_be_obeyed() {
        for (name, want) in [
            ("width, mm", "width, mm"),
            ("höhe 漢字 e\u{301} \\ '\"", "höhe 漢字 e\u{301} \\ '\""),
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("\u{1b}]8;;http://x\u{7}y", "\\u{1b}]8;;http://x\\u{7}y"),
            ("a\nerror: b\r\t\0", "a\\nerror: b\\r\\t\\u{0}"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}"),
            (
                "a\u{202e}b\u{2066}c\u{200b}\u{2028}\u{feff}\u{e0041}",
                "a\\u{202e}b\\u{2066}c\\u{200b}\\u{2028}\\u{feff}\\u{e0041}",
            ),
            ("", ""),
        ] {
            assert_eq!(shown(name).to_string(), want);
            assert_eq!(shown_path(Path::new(name)).to_string(), want);
        }
    }

    #[test]
    fn long_names_are_cut_and_paths_are_not() {
        let long = "x".repeat(70_000);
        let cut = shown(&long).to_string();
        assert_eq!((cut.chars().count(), cut.ends_with("x…")), (64, true));
        assert_eq!(shown(&"é".repeat(64)).to_string(), "é".repeat(64));
        assert_eq!(shown(&"\u{1b}".repeat(70_000)).to_string().chars().count(), 64);
        assert_eq!(shown(&long).at_most(3).to_string(), "xx…");
        assert_eq!(shown_path(Path::new(&long)).to_string(), long);
        assert_eq!(format!("{:<4}|{:>4}|", shown("ab"), shown("ab")), "ab  |  ab|");
    }

    #[test]
    fn lists_are_cut_and_counted() {
        let names: Vec<String> = (0..13).map(|index| format!("c{index}")).collect();
        assert_eq!(shown_list(&names[..3]), "c0, c1, c2");
        assert!(shown_list(&names[..12]).ends_with("c10, c11"));
        assert!(shown_list(&names).ends_with("c11, … (13 in all)"));
        assert_eq!(shown_list(&["a\n", "b"]), "a\\n, b");
    }

    #[test]
    fn lines_stay_lines() {
        assert!(matches!(harmless("a\n\tb ✓\n"), Cow::Borrowed(_)));
        assert_eq!(harmless("a\u{1b}[2J\r\nb\u{202e}"), "a\\u{1b}[2J\\r\nb\\u{202e}");
    }
}
