//! The `moonflow` program: the library behind a command line.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main()
}
