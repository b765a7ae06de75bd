//! Text whose fields are aligned by white space, as one with single tabs.
//! It stands between a file and the csv crate, which knows delimiters of one byte only.

use std::io::{self, Read};

/// Passes text on with one tab for every run of spaces and tabs, but none at the ends of a line or in quotes.
pub(super) struct WhiteSpaceReader<R> {
    inner: R,
    read: Vec<u8>,
    /// What has been made of it, given as far as `given`.
    made: Vec<u8>,
    given: usize,
    place: Place,
}

/// Where in a line the text has been left.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    LineStart,
    /// After white space that follows a field.
    Between,
    Field,
    Quoted,
    /// After a quote in a quoted field: its end, or the first half of a quote.
    QuotedEnd,
}

impl<R> WhiteSpaceReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, read: vec![0; 1 << 16], made: Vec::new(), given: 0, place: Place::LineStart }
    }

    fn take(&mut self, byte: u8) {
        use Place::{Between, Field, LineStart, Quoted, QuotedEnd};
        self.place = match (self.place, byte) {
            (Quoted, b'"') => QuotedEnd,
            (Quoted, _) | (QuotedEnd, b'"') => Quoted,
            (_, b'\n' | b'\r') => LineStart,
            (LineStart, b' ' | b'\t') => return,
            (_, b' ' | b'\t') => {
                self.place = Between;
                return;
            }
            (before, _) => {
                if before == Between {
                    self.made.push(b'\t');
                }
                if byte == b'"' && matches!(before, LineStart | Between) { Quoted } else { Field }
            }
        };
        self.made.push(byte);
    }
}

impl<R: Read> Read for WhiteSpaceReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.made.len() {
            self.made.clear();
            self.given = 0;
            let mut read = std::mem::take(&mut self.read);
            let count = self.inner.read(&mut read);
            if let Ok(count) = count {
                read[..count].iter().for_each(|&byte| self.take(byte));
            }
            self.read = read;
            if count? == 0 {
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.made.len() - self.given);
        buffer[..count].copy_from_slice(&self.made[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_become_tabs_lines_keep_their_ends_and_quotes_their_blanks() {
        for (text, want) in [
            ("1 2\n", "1\t2\n"),
            ("   1.0 \t  2 \r\n\n  3\t4", "1.0\t2\r\n\n3\t4"),
            ("1 \"a  b\" 2\n", "1\t\"a  b\"\t2\n"),
            ("\"a \"\"b\n  c\"  5\n", "\"a \"\"b\n  c\"\t5\n"),
            ("5\" 6\n", "5\"\t6\n"),
            (" \n", "\n"),
        ] {
            let mut got = String::new();
            WhiteSpaceReader::new(text.as_bytes()).read_to_string(&mut got).expect("a slice reads");
            assert_eq!(got, want, "{text:?}");
            // Byte by byte.
            let bytes = text.as_bytes().chunks(1).map(io::Cursor::new);
            let one_by_one =
                bytes.fold(Box::new(io::empty()) as Box<dyn Read>, |all, one| Box::new(all.chain(one)));
            let mut got = String::new();
            WhiteSpaceReader::new(one_by_one).read_to_string(&mut got).expect("a slice reads");
            assert_eq!(got, want, "{text:?}");
        }
    }
}
