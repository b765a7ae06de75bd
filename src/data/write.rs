//! Files that are either whole or not there.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes `path` so that, whatever fails, it holds either all of the new contents or exactly what it held before.
///
/// `write` fills a temporary file in the same folder, which is synced to disk and then renamed over `path`.
/// A symbolic link is followed, and what is not a regular file (a pipe, `/dev/null`) is written directly, since
/// replacing it would destroy it.
///
/// # Errors
/// [`Error::Io`] naming `path` when the folder is missing or cannot be written, the disk is full, or `write` fails.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    replace(path, write).map_err(|error| Error::io(path, error))
}

fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = AtomicFile::create(path)?;
    write(&mut out)?;
    out.commit()
}

/// A file that is being written and takes its place when it is whole; see [`write_atomically`]. Dropped before that,
/// it leaves nothing behind.
pub(super) enum AtomicFile {
    /// A pipe or a device.
    Direct(BufWriter<File>),
    /// A temporary file, and the path that it gets.
    Temporary(BufWriter<tempfile::NamedTempFile>, PathBuf),
}

impl AtomicFile {
    /// Begins to write what will be `path`.
    ///
    /// # Errors
    /// When the folder is missing or cannot be written.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        const BUFFER: usize = 1 << 16;
        let target = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(metadata) if !metadata.is_file() => {
                return Ok(Self::Direct(BufWriter::new(File::options().write(true).open(path)?)));
            }
            Ok(_) => fs::canonicalize(path)?,
            Err(_) => path.to_path_buf(),
        };
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        Ok(Self::Temporary(BufWriter::with_capacity(BUFFER, temporary(folder)?), target))
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// When the disk is full or the file cannot be renamed.
    pub(super) fn commit(self) -> io::Result<()> {
        match self {
            Self::Direct(mut out) => out.flush(),
            Self::Temporary(out, target) => {
                let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.as_file().sync_all()?;
                file.persist(&target)?;
                Ok(())
            }
        }
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Direct(out) => out.write(bytes),
            Self::Temporary(out, _) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Direct(out) => out.flush(),
            Self::Temporary(out, _) => out.flush(),
        }
    }
}

/// A temporary file in `folder` with the permissions of any new file, not the private ones of a temporary one.
fn temporary(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".moonflow-");
    #[cfg(unix)]
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    #[cfg(unix)]
    builder.permissions(permissions);
    builder.tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).expect("readable").count()
    }

    #[test]
    fn a_written_file_holds_the_contents_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("a.txt");
        for contents in ["first", "second, and longer"] {
            write_atomically(&path, |out| out.write_all(contents.as_bytes())).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("readable"), contents);
        }
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_as_it_was() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("a.txt");
        fs::write(&path, "old").expect("writable");
        let error = write_atomically(&path, |out| {
            out.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        })
        .expect_err("must fail");
        assert!(error.to_string().contains("a.txt"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "old");
        assert_eq!(entries(folder.path()), 1, "the temporary file is gone");
    }

    #[test]
    fn missing_folders_and_folders_in_place_of_files_are_errors() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for path in [folder.path().join("absent/a.txt"), folder.path().to_path_buf()] {
            let error = write_atomically(&path, |_| Ok(())).expect_err("must fail");
            assert!(matches!(error, Error::Io { .. }), "{error}");
        }
        assert_eq!(entries(folder.path()), 0);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_devices_are_kept_and_permissions_are_those_of_a_new_file() {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        let folder = tempfile::tempdir().expect("temporary folder");
        let (path, plain, link) =
            (folder.path().join("a"), folder.path().join("plain"), folder.path().join("link"));
        write_atomically(&path, |out| out.write_all(b"1")).expect("written");
        fs::write(&plain, "").expect("writable");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode();
        assert_eq!(mode(&path), mode(&plain));

        std::os::unix::fs::symlink(&path, &link).expect("linked");
        write_atomically(&link, |out| out.write_all(b"2")).expect("written");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(fs::read_to_string(&path).expect("readable"), "2");

        write_atomically(Path::new("/dev/null"), |out| out.write_all(b"3")).expect("written");
        assert!(fs::metadata("/dev/null").expect("there").file_type().is_char_device());
    }
}
