//! The folder that a training writes into: its files, and the claim that keeps it to one training at a time.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use moonflow::files::remove_stale;
use moonflow::shown::shown_path;
use moonflow::train::Checkpoint;
use moonflow::{Error, Result};
use same_file::Handle;

use super::config;
use super::output::note;

/// Name of the file with a training's losses.
pub const HISTORY: &str = "history.csv";

/// Where a training's files lie.
pub struct Files {
    folder: PathBuf,
    pub model: PathBuf,
    pub history: PathBuf,
    pub picture: PathBuf,
    pub config: PathBuf,
    pub checkpoint: PathBuf,
    claim: Option<Claim>,
}

impl Files {
    /// The files in `folder` of a training on what is called `name`. Nothing is touched.
    pub fn new(folder: &Path, name: &str) -> Self {
        Self {
            folder: folder.to_path_buf(),
            model: folder.join("model.safetensors"),
            history: folder.join(HISTORY),
            picture: folder.join(format!("{name}.png")),
            config: folder.join(config::FILE_NAME),
            checkpoint: folder.join("checkpoint.safetensors"),
            claim: None,
        }
    }

    /// Every file that may be written.
    pub fn all(&self) -> [&Path; 5] {
        [&self.model, &self.history, &self.picture, &self.config, &self.checkpoint].map(PathBuf::as_path)
    }

    /// Claims the folder, where it is there already: before a long table is read for nothing.
    ///
    /// # Errors
    /// Those of [`Claim::take`].
    pub fn claim_existing(&mut self) -> Result<()> {
        self.claim = self.folder.is_dir().then(|| Claim::take(&self.folder)).transpose()?;
        Ok(())
    }

    /// Makes the folder, claims it and tries it by writing to it: better now than after the training. Clears away what
    /// killed trainings have left half-written.
    ///
    /// # Errors
    /// Those of [`Claim::take`]; [`Error::Io`] when the folder cannot be made or written, or a folder is in the place of a file.
    pub fn prepare(&mut self) -> Result<()> {
        let folder = &self.folder;
        fs::create_dir_all(folder).map_err(|source| Error::io(folder, source))?;
        if self.claim.is_none() {
            self.claim = Some(Claim::take(folder)?);
        }
        tempfile::tempfile_in(folder).map_err(|source| Error::io(folder, source))?;
        if let Some(file) = self.all().into_iter().find(|file| file.is_dir()) {
            return Err(Error::io(file, io::ErrorKind::IsADirectory.into()));
        }
        if let Err(error) = remove_stale(folder) {
            note(format_args!("warning: a temporary file is left behind: {error}"));
        }
        Ok(())
    }

    /// The checkpoint in the folder.
    ///
    /// # Errors
    /// [`Error::Argument`] where there is none; those of [`Checkpoint::load`].
    pub fn load_checkpoint(&self) -> Result<Checkpoint> {
        let path = &self.checkpoint;
        if !path.exists() {
            return Err(Error::Argument(format!(
                "there is no {} to go on from; training writes one with --checkpoint-every, at Ctrl-C and at --time-limit",
                shown_path(path)
            )));
        }
        Checkpoint::load(path)
    }
}

/// A folder's lock: held by one training at a time, given up when it is dropped or the process ends, however it ends.
///
/// The lock is the operating system's, on a file that says whose it is. A process that is killed leaves the file, which
/// then means nothing.
pub struct Claim {
    path: PathBuf,
    // Closed after the file is removed.
    _locked: File,
}

/// Name of the locked file.
const LOCK: &str = ".moonflow-training.lock";

impl Claim {
    /// Claims `folder`.
    ///
    /// # Errors
    /// [`Error::Io`] with process and time when another training has it, or when the file cannot be made.
    fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK);
        let fail = |error| Error::io(folder, error);
        let mut file = loop {
            let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = open.map_err(fail)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(fail(in_use(&mut file))),
                // Some network file systems have none.
                Err(TryLockError::Error(error)) => note(format_args!(
                    "warning: {} cannot be locked ({error}); do not start a second training into it",
                    shown_path(folder)
                )),
            }
            // The process that had the lock removed the file before it released it: then this file has no name any more.
            let named =
                Handle::from_path(&path).and_then(|named| Ok(named == Handle::from_file(file.try_clone()?)?));
            if named.unwrap_or(false) {
                break file;
            }
        };
        // A full disk is no reason not to train: the lock holds all the same.
        let since = humantime::format_rfc3339_seconds(SystemTime::now());
        let _ = file.set_len(0).and_then(|()| write!(file, "process {}, since {since}", std::process::id()));
        *claimed() = Some(path.clone());
        Ok(Self { path, _locked: file })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        *claimed() = None;
    }
}

/// Removes the file of the claim that this process has, for a program that ends before it can be dropped.
pub fn forget_claim() {
    if let Some(path) = claimed().take() {
        let _ = fs::remove_file(path);
    }
}

fn claimed() -> MutexGuard<'static, Option<PathBuf>> {
    static CLAIMED: Mutex<Option<PathBuf>> = Mutex::new(None);
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a folder whose lock `file` is taken cannot be used.
fn in_use(file: &mut File) -> io::Error {
    /// Most bytes that a claim writes.
    const LENGTH: u64 = 80;

    let mut text = String::new();
    let told = file.take(LENGTH).read_to_string(&mut text).is_ok() && text.starts_with("process ");
    let who = if told && !text.contains(char::is_control) { text.as_str() } else { "another process" };
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        format!("another training writes here ({who}); wait for its end, or name another folder with --out"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_refused_with_its_holder_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let claim = Claim::take(folder.path()).expect("free");
        let error = Claim::take(folder.path()).map(drop).expect_err("taken").to_string();
        assert!(error.contains(&format!("(process {}, since 2", std::process::id())), "{error}");
        drop(claim);
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
        // What a killed process has left is no claim, whatever it says.
        fs::write(folder.path().join(LOCK), "process 1, since 1999-01-01T00:00:00Z and a day")
            .expect("writable");
        let claim = Claim::take(folder.path()).expect("free");
        let text = fs::read_to_string(folder.path().join(LOCK)).expect("readable");
        assert!(text.ends_with('Z') && !text.contains("1999"), "{text}");
        drop(claim);
    }

    #[test]
    fn a_lock_that_says_nothing_sensible_is_a_lock() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for text in ["", "\u{1b}[2J", "process \u{1b}[2J", "x"] {
            fs::write(folder.path().join(LOCK), text).expect("writable");
            let mut file = File::open(folder.path().join(LOCK)).expect("there");
            assert!(in_use(&mut file).to_string().contains("(another process)"), "{text:?}");
        }
    }
}
