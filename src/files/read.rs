//! Files that are read whole: regular ones, of a size that is known beforehand. A device or pipe may never end.

use std::fs::{self, File, FileType, Metadata};
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// Opens the regular file `path`, and how many bytes it has.
///
/// # Errors
/// [`Error::Io`] when it cannot be opened, or is a folder, a pipe, a socket or a device.
pub fn open_regular(path: &Path) -> Result<(File, u64)> {
    let fail = |error| Error::io(path, error);
    // Before it is opened: to open a pipe is to wait for its writer.
    regular(&fs::metadata(path).map_err(fail)?).map_err(fail)?;
    let file = File::open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    regular(&metadata).map_err(fail)?;
    Ok((file, metadata.len()))
}

/// The text in the regular file `path`, of at most `most` bytes.
///
/// # Errors
/// Those of [`open_regular`]; [`Error::Io`] when the file is longer, cannot be read or is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> Result<String> {
    let fail = |error| Error::io(path, error);
    let (file, length) = open_regular(path)?;
    let mut text = String::new();
    if length <= most {
        // Files of a process tell no length.
        file.take(most + 1).read_to_string(&mut text).map_err(fail)?;
    }
    if length.max(text.len() as u64) > most {
        return Err(fail(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("is larger than the {most} bytes that such a file may have"),
        )));
    }
    Ok(text)
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("is {}, which may never end; expected a regular file", kind(metadata.file_type())),
    ))
}

#[cfg(unix)]
fn kind(file: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    if file.is_fifo() {
        "a pipe"
    } else if file.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(not(unix))]
fn kind(_: FileType) -> &'static str {
    "no regular file"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_are_read_up_to_their_bound() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("a");
        fs::write(&path, "12345").expect("writable");
        assert_eq!(read_text(&path, 5).expect("fits"), "12345");
        let message = read_text(&path, 4).expect_err("too long").to_string();
        assert!(message.contains("larger than the 4 bytes"), "{message}");
        assert_eq!(open_regular(&path).expect("regular").1, 5);
        fs::write(&path, [0xff]).expect("writable");
        assert!(read_text(&path, 5).expect_err("no text").to_string().contains("UTF-8"));
        assert!(matches!(open_regular(&folder.path().join("absent")), Err(Error::Io { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn folders_devices_and_pipes_are_refused_without_waiting_for_them() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
        let pipe = pipe.to_str().expect("UTF-8");
        let folder = folder.path().to_str().expect("UTF-8");
        for (path, want) in [(folder, "irectory"), ("/dev/zero", "is a device"), (pipe, "is a pipe")] {
            for error in [open_regular(Path::new(path)).err(), read_text(Path::new(path), 9).err()] {
                let message = error.expect(path).to_string();
                assert!(message.starts_with(path) && message.contains(want), "{message}");
            }
        }
    }
}
