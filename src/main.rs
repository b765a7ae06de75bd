//! The `moonflow` program: the library behind a command line.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    without_session_noise();
    cli::main()
}

/// Keeps a Vulkan layer of Mesa's from printing an error on machines without a desktop session: to order the
/// devices it asks Wayland, and Wayland complains on standard error when this variable is missing.
fn without_session_noise() {
    const VARIABLE: &str = "XDG_RUNTIME_DIR";

    if cfg!(target_os = "linux") && std::env::var_os(VARIABLE).is_none() {
        // SAFETY: the program's first action, so no other thread reads the environment.
        unsafe { std::env::set_var(VARIABLE, "/nonexistent") };
    }
}
