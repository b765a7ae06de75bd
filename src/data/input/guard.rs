//! A wall around the Parquet decoder, which panics on some damaged files where it should return an error: negative
//! offsets, levels and dictionary indices out of range.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::errors::ParquetError;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives; a panic in it is an error like its own. What `work` changes must not be used after an error.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(text.unwrap_or_else(|| "it cannot be decoded".into()))
        }
    }
}

/// Whether a panic of this thread, now, would be caught and returned as an error. A program's panic hook asks this, so
/// that it says nothing about damaged files.
pub fn panic_is_guarded() -> bool {
    GUARDED.get()
}
