//! ZIP archives: NumPy's `.npz` with one array, and others, which are named for what they are.

use std::fs::File;
use std::io::{self, Read};

use zip::result::ZipResult;
use zip::{CompressionMethod, ZipArchive};

use super::{Reader, npy};
use crate::error::{Error, Result};
use crate::shown::{shown, shown_list};

/// Reads the array in the archive `file`.
pub(super) fn open(name: &str, file: File) -> Result<Reader<'static>> {
    let damaged = |error: &dyn std::fmt::Display| {
        Error::data(name, format!("is a truncated or damaged ZIP archive: {}", shown(&error.to_string())))
    };
    let mut archive = ZipArchive::new(file).map_err(|error| damaged(&error))?;
    let files = archive.file_names().map(|name| Ok(name?.into_owned()));
    let files: Vec<String> = files.collect::<ZipResult<_>>().map_err(|error| damaged(&error))?;
    if let Some(problem) = refusal(&files) {
        return Err(Error::data(name, problem));
    }
    let entry = archive.by_index(0).map_err(|error| damaged(&error))?;
    let (length, start) = (entry.size(), entry.data_start());
    if let (CompressionMethod::Stored, Some(start)) = (entry.compression(), start) {
        drop(entry);
        return npy::open_at(name, archive.into_inner(), start, length);
    }
    let mut unpacked = tempfile::tempfile().map_err(|error| Error::io(name, error))?;
    // What the archive claims is believed only as far as there are bytes.
    io::copy(&mut entry.take(length.saturating_add(1)), &mut unpacked).map_err(|error| damaged(&error))?;
    npy::open(name, unpacked)
}

/// What an archive of `files` is that is not one array, and what to do.
fn refusal(files: &[String]) -> Option<String> {
    let any = |is: fn(&str) -> bool| files.iter().any(|file| is(file));
    let arrays = files.iter().filter(|file| file.ends_with(".npy")).count();
    if arrays == files.len() && arrays == 1 {
        None
    } else if arrays == files.len() && arrays > 1 {
        let names: Vec<&str> = files.iter().map(|file| file.trim_end_matches(".npy")).collect();
        Some(format!("holds {arrays} arrays, {}; save one of two dimensions", shown_list(&names)))
    } else if any(|file| file.starts_with("xl/")) {
        Some("is an Excel workbook; save its sheet as CSV".into())
    } else if any(|file| file == "content.xml") {
        Some("is an OpenDocument file; save its sheet as CSV".into())
    } else if any(|file| file.ends_with("data.pkl")) {
        Some(
            "is a file of PyTorch, which may run any program when it is opened; save its tensor as NPY"
                .into(),
        )
    } else {
        Some(format!("is a ZIP archive of {}; unpack it and name the table", shown_list(files)))
    }
}
