//! Where a table's bytes go: a file that takes its place at the end, or standard output.

use std::io::{self, BufWriter, Stdout, Write};
use std::path::Path;

use crate::files::AtomicFile;

/// A file or standard output.
pub(super) enum Destination {
    File(AtomicFile),
    Stdout(BufWriter<Stdout>),
}

impl Destination {
    /// The file `path`, or standard output.
    pub(super) fn open(path: Option<&Path>) -> io::Result<Self> {
        Ok(match path {
            Some(path) => Self::File(AtomicFile::create(path)?),
            None => Self::Stdout(BufWriter::with_capacity(1 << 16, io::stdout())),
        })
    }

    /// Puts the file in its place.
    pub(super) fn commit(self) -> io::Result<()> {
        match self {
            Self::File(file) => file.commit(),
            Self::Stdout(mut out) => out.flush(),
        }
    }
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(out) => out.flush(),
        }
    }
}
