//! Files that are either whole or not there.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempPath;

use crate::error::{Error, Result};

/// Writes `path` so that, whatever fails, it holds either all of the new contents or exactly what it held before.
///
/// `write` fills a temporary file in the same folder, which is synced to disk and then renamed over `path`. What was
/// there passes its permissions on. A symbolic link is followed, and what is not a regular file (a pipe, `/dev/null`) is
/// written directly, since replacing it would destroy it.
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

/// Removes the temporary files of all that this process is writing: for the handler of a signal that ends the process
/// next, before anything could be dropped. Threads that begin a file afterwards, or end one, wait for that end.
pub fn remove_unfinished() {
    let mut paths = unfinished();
    for path in paths.drain(..) {
        // What cannot be removed has taken its place meanwhile.
        let _ = fs::remove_file(path);
    }
    std::mem::forget(paths);
}

/// Removes the temporary files in `folder` that killed processes have left there, and nothing else: those that a process
/// is writing are locked.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be read or a file not removed.
pub fn remove_stale(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
        let entry = entry.map_err(|error| Error::io(folder, error))?;
        let ours = is_temporary(&entry.file_name().to_string_lossy())
            && entry.file_type().is_ok_and(|kind| kind.is_file());
        let path = entry.path();
        if ours && File::options().write(true).open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            fs::remove_file(&path).map_err(|error| Error::io(&path, error))?;
        }
    }
    Ok(())
}

/// A file that is being written and takes its place when it is whole; see [`write_atomically`]. Dropped before that,
/// it leaves nothing behind.
pub(crate) struct AtomicFile {
    out: BufWriter<File>,
    /// Of a temporary file, what it becomes; a pipe or a device is written directly.
    place: Option<Box<Replacement>>,
}

/// What a temporary file becomes.
struct Replacement {
    temporary: TempPath,
    target: PathBuf,
    /// Of the file that is replaced.
    replaced: Option<fs::Metadata>,
    _unfinished: Unfinished,
}

impl AtomicFile {
    /// Begins to write what will be `path`.
    ///
    /// # Errors
    /// When the folder is missing or cannot be written.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        const BUFFER: usize = 1 << 16;
        let buffered = |file| BufWriter::with_capacity(BUFFER, file);
        let (target, replaced) = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(metadata) if !metadata.is_file() => {
                return Ok(Self { out: buffered(File::options().write(true).open(path)?), place: None });
            }
            Ok(metadata) => (fs::canonicalize(path)?, Some(metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (behind_links(path), None),
            Err(error) => return Err(error),
        };
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let (file, temporary, unfinished) = temporary(folder)?;
        let place = Replacement { temporary, target, replaced, _unfinished: unfinished };
        Ok(Self { out: buffered(file), place: Some(Box::new(place)) })
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// When the disk is full or the file cannot be renamed.
    pub(crate) fn commit(self) -> io::Result<()> {
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let Some(place) = self.place else { return Ok(()) };
        if let Some(replaced) = &place.replaced {
            inherit(&file, replaced)?;
        }
        file.sync_all()?;
        place.temporary.persist(&place.target)?;
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The file that a symbolic link names although it is not there yet; `path` itself where that is no link.
fn behind_links(path: &Path) -> PathBuf {
    /// As many as Linux follows.
    const MOST: usize = 40;

    let mut target = path.to_path_buf();
    for _ in 0..MOST {
        let Ok(next) = fs::read_link(&target) else { break };
        target = target.parent().unwrap_or(Path::new("")).join(next);
    }
    target
}

/// Gives `file` the permissions of what it replaces, and its owner where this process may give files away.
fn inherit(file: &File, replaced: &fs::Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (replaced.uid(), replaced.gid()) {
            let _ = fchown(file, Some(replaced.uid()), Some(replaced.gid()));
        }
    }
    // After the owner, whose change takes set-user-ID away.
    file.set_permissions(replaced.permissions())
}

const PREFIX: &str = ".moonflow-";
const SUFFIX: &str = ".tmp";
/// Random characters between them.
const RANDOM: usize = 6;

fn is_temporary(name: &str) -> bool {
    let random = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
    random.is_some_and(|text| text.len() == RANDOM && text.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// A temporary file in `folder` with the permissions of any new file, not the private ones of a temporary one; locked
/// for as long as it is open, where the file system can do that.
fn temporary(folder: &Path) -> io::Result<(File, TempPath, Unfinished)> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX).rand_bytes(RANDOM);
    #[cfg(unix)]
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    #[cfg(unix)]
    builder.permissions(permissions);
    loop {
        let (file, path, unfinished) = Unfinished::begin(&builder, folder)?;
        // Before it is locked another process may take it for a stale one; then another is made.
        if !matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) && path.exists() {
            return Ok((file, path, unfinished));
        }
    }
}

fn unfinished() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    static PATHS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    PATHS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An entry in the list that [`remove_unfinished`] goes through.
struct Unfinished(PathBuf);

impl Unfinished {
    /// A new file in `folder`. It is in the list before a signal's handler can look there.
    fn begin(builder: &tempfile::Builder, folder: &Path) -> io::Result<(File, TempPath, Self)> {
        let mut paths = unfinished();
        let (file, path) = builder.tempfile_in(folder)?.into_parts();
        paths.push(path.to_path_buf());
        let unfinished = Self(path.to_path_buf());
        Ok((file, path, unfinished))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        unfinished().retain(|path| *path != self.0);
    }
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

    #[test]
    fn only_temporary_files_that_no_process_writes_are_stale() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = |name: &str| folder.path().join(name);
        let kept =
            [".moonflow-abc.tmp", ".moonflow-notes1.txt", "moonflow-abcdef.tmp", ".moonflow-a-b_cd.tmp"];
        for name in kept {
            fs::write(path(name), "mine").expect("writable");
        }
        fs::create_dir(path(".moonflow-folder.tmp")).expect("made");
        fs::write(path(".moonflow-aB3dE6.tmp"), "left behind").expect("writable");
        let out = AtomicFile::create(&path("new")).expect("begun");
        remove_stale(folder.path()).expect("readable");
        assert!(!path(".moonflow-aB3dE6.tmp").exists());
        assert_eq!(
            entries(folder.path()),
            kept.len() + 2,
            "what is being written, a folder and the user's files"
        );
        out.commit().expect("its temporary file is still there");
        assert!(path("new").exists());
    }

    #[test]
    fn what_is_unfinished_at_a_signal_is_removed() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let begun = AtomicFile::create(&folder.path().join("a")).expect("begun");
        let path = begun.place.as_ref().expect("no pipe").temporary.to_path_buf();
        assert!(unfinished().contains(&path));
        drop(begun);
        assert!(!unfinished().contains(&path) && !path.exists());
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

    #[cfg(unix)]
    #[test]
    fn a_replaced_file_passes_its_permissions_on_and_a_link_to_nothing_makes_its_target() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = |name: &str| folder.path().join(name);
        let mode = |name: &str| fs::metadata(path(name)).expect("there").permissions().mode() & 0o7777;
        for wanted in [0o600, 0o640, 0o444, 0o755, 0o666] {
            fs::write(path("a"), "old").expect("writable");
            fs::set_permissions(path("a"), fs::Permissions::from_mode(wanted)).expect("changed");
            write_atomically(&path("a"), |out| out.write_all(b"new")).expect("written");
            assert_eq!(format!("{:o}", mode("a")), format!("{wanted:o}"));
            fs::remove_file(path("a")).expect("there");
        }
        fs::create_dir(path("b")).expect("made");
        symlink("b/target", path("first")).expect("linked");
        symlink("first", path("second")).expect("linked");
        write_atomically(&path("second"), |out| out.write_all(b"new")).expect("written");
        assert_eq!(fs::read_to_string(path("b/target")).expect("made"), "new");
        assert!(["first", "second"].iter().all(|name| path(name).is_symlink()));
        symlink("loop", path("loop")).expect("linked");
        write_atomically(&path("loop"), |out| out.write_all(b"new")).expect_err("a link to itself");
        assert!(path("loop").is_symlink());
    }
}
