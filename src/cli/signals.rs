//! Signals that ask the program to end: Ctrl-C, SIGTERM and SIGHUP.
//!
//! A training ends with the epoch under way and writes what it has. Everything else ends at once, without the temporary
//! files of what it was writing.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use moonflow::files::remove_unfinished;

use super::folder;
use super::output::note;

/// What a signal sets instead of ending the program, where a training is under way.
static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Answers signals from now on.
pub fn watch() {
    if let Err(error) = listen() {
        note(format_args!("warning: Ctrl-C will stop without writing anything: {error}"));
    }
}

/// A flag that the first signal sets from now on, instead of ending the program.
pub fn stop_flag() -> Arc<AtomicBool> {
    Arc::clone(STOP.get_or_init(Arc::default))
}

/// Whether a person or a supervisor has asked before.
static INSISTED: AtomicBool = AtomicBool::new(false);

/// Takes the requests so far as answered: the next one is a first one again.
pub fn go_on() {
    INSISTED.store(false, Ordering::Relaxed);
    stop_flag().store(false, Ordering::Relaxed);
}

/// Who asks the program to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asker {
    /// A person or a supervisor, whose second request is impatience.
    Insistent,
    /// A terminal that closes. It says so several times over, and so does the shell in it.
    HangUp,
}

/// Answers a request to end; `number` is the signal's.
fn answer(asker: Asker, number: i32) {
    let Some(stop) = STOP.get() else { end(number) };
    if asker == Asker::Insistent && INSISTED.swap(true, Ordering::Relaxed) {
        end(number);
    }
    if !stop.swap(true, Ordering::Relaxed) {
        note("stopping after this epoch; press Ctrl-C again to stop at once and write nothing");
    }
}

/// Ends the program now, with the status by which shells report a program that the signal `number` has ended.
fn end(number: i32) -> ! {
    remove_unfinished();
    folder::forget_claim();
    exit(128 + number)
}

#[cfg(unix)]
fn listen() -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
    use signal_hook::iterator::Signals;

    // A file that grows over the limit is then an error like a full disk, not the end of the program.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    // What `nohup` has begun does not end with its terminal.
    if !is_ignored(SIGHUP) {
        signals.add_signal(SIGHUP)?;
    }
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for number in &mut signals {
            answer(if number == SIGHUP { Asker::HangUp } else { Asker::Insistent }, number);
        }
    })?;
    Ok(())
}

#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    // SAFETY: all zeros are a valid `sigaction`, which the call only writes to; no handler is passed.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Without the destructors of libraries, such as a GPU's driver, whose threads still run.
#[cfg(unix)]
fn exit(status: i32) -> ! {
    signal_hook::low_level::exit(status)
}

#[cfg(not(unix))]
fn listen() -> io::Result<()> {
    /// Ctrl-C's number elsewhere.
    const INTERRUPT: i32 = 2;

    ctrlc::set_handler(|| answer(Asker::Insistent, INTERRUPT)).map_err(io::Error::other)
}

#[cfg(not(unix))]
fn exit(status: i32) -> ! {
    std::process::exit(status)
}
