//! Line numbers as an editor counts them, in constant memory however long the text.
//! They stand between the bytes of a CSV file and the csv crate, whose own count knows neither a pending LF of CRLF
//! nor the blank lines before a record.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::rc::Rc;

/// Most bytes of one row. A quote that is left open would otherwise take the rest of the file into one field, and a row of
/// separators alone eight bytes for each of them.
const LONGEST_ROW: u64 = 16 << 20;

/// Most line ends of one row, in a quoted field or before it.
const MOST_ENDS: usize = 1 << 22;

/// Most fields of one row, each of which takes more memory than its delimiter.
const MOST_FIELDS: usize = 1 << 22;

/// The line ends that have been read but not yet passed by a record.
#[derive(Default)]
pub(super) struct Lines {
    /// Bytes read.
    read: u64,
    /// Where CR and LF bytes lie, and whether it is LF.
    ends: VecDeque<(u64, bool)>,
    /// Line ends passed.
    passed: u64,
    /// Where the last record began that was asked for.
    start: u64,
    /// Delimiters read since.
    delimiters: usize,
}

impl Lines {
    /// The line, counted from 1, on which the record begins that the csv crate places at byte `start`, where it may
    /// still have the previous line's end and blank lines before it. Records must be asked for in order.
    pub(super) fn line_at(&mut self, start: u64) -> u64 {
        let mut start = start;
        while let Some(&(place, line_feed)) = self.ends.front() {
            if place > start {
                break;
            }
            if place == start {
                start += 1;
            }
            self.ends.pop_front();
            // The first half of CRLF ends no line.
            if line_feed || self.ends.front() != Some(&(place + 1, true)) {
                self.passed += 1;
            }
        }
        self.start = start;
        self.delimiters = 0;
        self.passed + 1
    }

    /// What is wrong with what has been read since the last record began, when it is more than one may take.
    fn too_long(&self) -> Option<String> {
        let line = self.passed + 1;
        if self.read - self.start > LONGEST_ROW {
            return Some(format!("the row from line {line} on is longer than {LONGEST_ROW} bytes"));
        }
        if self.ends.len() > MOST_ENDS {
            return Some(format!("from line {line} on there are over {MOST_ENDS} lines without a row"));
        }
        let fields = self.delimiters > MOST_FIELDS;
        fields.then(|| format!("the row from line {line} on has over {MOST_FIELDS} fields"))
    }

    fn see(&mut self, bytes: &[u8], delimiter: u8) {
        for (index, &byte) in bytes.iter().enumerate() {
            if byte == delimiter {
                self.delimiters += 1;
            } else if byte == b'\n' || byte == b'\r' {
                self.ends.push_back((self.read + index as u64, byte == b'\n'));
            }
        }
        self.read += bytes.len() as u64;
    }
}

/// Passes bytes on and notes their line ends.
pub(super) struct LineReader<R> {
    inner: R,
    delimiter: u8,
    lines: Rc<RefCell<Lines>>,
}

impl<R> LineReader<R> {
    pub(super) fn new(inner: R, delimiter: u8) -> (Self, Rc<RefCell<Lines>>) {
        let lines = Rc::<RefCell<Lines>>::default();
        (Self { inner, delimiter, lines: Rc::clone(&lines) }, lines)
    }
}

impl<R: Read> Read for LineReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut lines = self.lines.borrow_mut();
        if let Some(problem) = lines.too_long() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{problem}; is a quote left open?"),
            ));
        }
        let count = self.inner.read(buffer)?;
        lines.see(&buffer[..count], self.delimiter);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_line_ends_that_no_record_has_passed_are_kept() {
        let text: String = (0..10_000).map(|i| format!("{i}\r\n")).collect();
        let (mut reader, lines) = LineReader::new(text.as_bytes(), b',');
        let (mut buffer, mut most, mut start) = ([0; 97], 0, 0);
        let mut line = 0;
        while reader.read(&mut buffer).expect("a slice reads") > 0 {
            let mut lines = lines.borrow_mut();
            most = most.max(lines.ends.len());
            // Every record that is whole by now.
            while line < 10_000 && start + line.to_string().len() as u64 + 2 <= lines.read {
                assert_eq!(lines.line_at(start), line + 1);
                start += line.to_string().len() as u64 + 2;
                line += 1;
            }
        }
        assert_eq!(line, 10_000);
        assert!(most < 100, "{most} line ends were kept");
    }

    #[test]
    fn a_row_without_an_end_is_refused() {
        let (mut reader, _) = LineReader::new(io::repeat(b'x'), b',');
        let error = io::copy(&mut reader, &mut io::sink()).expect_err("endless");
        assert!(error.to_string().contains("the row from line 1 on"), "{error}");
        // Each line end takes more memory than its byte.
        let (mut reader, lines) = LineReader::new(io::repeat(b'\n'), b',');
        let error = io::copy(&mut reader, &mut io::sink()).expect_err("endless");
        assert!(error.to_string().contains("from line 1 on there are over"), "{error}");
        assert!(lines.borrow().ends.len() < 2 * MOST_ENDS);
        let (mut reader, _) = LineReader::new(io::repeat(b';'), b';');
        let error = io::copy(&mut reader, &mut io::sink()).expect_err("endless");
        assert!(error.to_string().contains("from line 1 on has over 4194304 fields"), "{error}");
    }
}
