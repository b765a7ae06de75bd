//! `moonflow completions` and `moonflow man`: what a shell and `man` want to know, made from the arguments themselves.

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use moonflow::{Error, Result};

use super::{Cli, output};
use moonflow::data::near_matches;
use moonflow::shown::shown;

/// Arguments of `moonflow completions`.
#[derive(clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Arguments of `moonflow man`.
#[derive(clap::Args)]
pub struct ManArgs {
    /// A command of moonflow [default: moonflow itself]
    command: Option<String>,
}

/// Prints the completions.
///
/// # Errors
/// Those of standard output.
pub fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "moonflow", &mut script);
    output::write(None, |out| out.write_all(&script))
}

/// Prints the page in the language of `man`.
///
/// # Errors
/// [`Error::Argument`] for a command that there is not, and those of standard output.
pub fn man(args: &ManArgs) -> Result<()> {
    let mut program = Cli::command();
    // Gives commands the names that their pages have.
    program.build();
    let page = match args.command.as_deref() {
        None => program,
        Some(name) => program.find_subcommand(name).cloned().ok_or_else(|| unknown(&program, name))?,
    };
    output::write(None, |out| Man::new(page).render(&mut { out }))
}

fn unknown(program: &Command, name: &str) -> Error {
    let names: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
    let near =
        near_matches(name, &names).first().map(|near| format!(" Did you mean `{near}`?")).unwrap_or_default();
    Error::Argument(format!(
        "there is no command `{}`.{near} The commands are {}",
        shown(name),
        names.join(", ")
    ))
}
