//! Turns panics of other crates' decoders and renderers into errors: some panic on damaged input.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives, or the message of its panic. What `work` changes must not be used after a panic.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it gave no reason".into())
    })
}

/// Whether a panic of this thread, now, would be caught and returned as an error. A program's panic hook asks this, so
/// that it does not report what is no failure of the program.
pub fn panic_is_guarded() -> bool {
    GUARDED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message_and_the_guard_ends_with_the_work() {
        assert_eq!(guarded(|| (panic_is_guarded(), 3)), Ok((true, 3)));
        assert!(!panic_is_guarded());
        std::panic::set_hook(Box::new(|_| ()));
        assert_eq!(guarded(|| -> () { panic!("as text") }), Err("as text".into()));
        assert_eq!(guarded(|| -> () { panic!("with {}", 1) }), Err("with 1".into()));
        let _ = std::panic::take_hook();
        assert!(!panic_is_guarded());
    }
}
