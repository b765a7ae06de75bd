//! The command line: arguments in, files and text out. Every decision that is not about words is the library's.
//!
//! Exit status: 0 done, 1 the work failed, 2 the command line was wrong.

mod advice;
mod animate;
mod auto;
mod categories;
mod check;
mod columns;
mod config;
mod device;
mod devices;
mod far_rows;
mod findings;
mod folder;
mod free_memory;
mod grids;
mod info;
mod inspect;
mod job;
mod manual;
mod memory;
mod output;
mod plan;
mod plot;
mod preprocess;
mod progress;
mod ranges;
mod recipe;
mod results;
mod sample;
mod score;
mod search;
mod signals;
mod source;
mod table_notes;
mod test_rows;
mod train;
mod tune;
mod values;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use moonflow::shown::harmless;
use moonflow::{Error, Result};

/// Fits normalizing flows to tables of numbers, then scores rows by their log-density and samples new ones.
#[derive(Parser)]
#[command(name = "moonflow", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fit a flow to a toy density or a table: CSV, TSV, NPY or Parquet
    Train(Box<train::TrainArgs>),
    /// Look at a table before it is trained on: what its columns hold, and which flags suit it
    Inspect(inspect::InspectArgs),
    /// Write the log-density of every row of a table, in nats and the data's own units
    Score(score::ScoreArgs),
    /// Draw new rows from a model
    Sample(sample::SampleArgs),
    /// Draw the picture of a model
    Plot(plot::PlotArgs),
    /// Show what a model file holds
    Info(info::InfoArgs),
    /// List the devices that can compute
    Devices(devices::DevicesArgs),
    /// Show what a GPU would be told to do: buffers, dispatches, FLOPs and bytes
    Plan(Box<plan::PlanArgs>),
    /// Write a shell's completions for moonflow to standard output
    Completions(manual::CompletionsArgs),
    /// Write the manual page of moonflow, or of one of its commands, to standard output
    Man(manual::ManArgs),
}

/// Runs the program on its process's arguments.
pub fn main() -> ExitCode {
    without_guarded_panics();
    signals::watch();
    let result = config::arguments(Cli::command, std::env::args_os().collect()).and_then(|arguments| {
        // The program ends here when the command line is wrong.
        let matches = Cli::command().try_get_matches_from(arguments).unwrap_or_else(|error| exit(&error));
        let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| exit(&error));
        pollster::block_on(cli.command.run())
    });
    match result {
        Err(error) if !output::is_closed_pipe(&error) => {
            output::note(format_args!("error: {}", advice::with_flags(&error)));
            // What the arguments alone make impossible is a wrong command line; all else is work that failed. A
            // flow that breaks a rule comes from flags: one in a file is an `Error::Model`.
            ExitCode::from(if matches!(error.problem(), Error::Argument(_) | Error::Flow(_)) { 2 } else { 1 })
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Ends the program for a command line that is wrong or asks for help. A message that quotes what a terminal would obey,
/// such as the name of a file, is printed without colours.
fn exit(error: &clap::Error) -> ! {
    let text = error.to_string();
    if harmless(&text) == text {
        error.exit()
    }
    output::note(text.trim_end());
    std::process::exit(error.exit_code())
}

/// Keeps the message of a panic that a reader catches, and reports as an error, from being printed as well.
fn without_guarded_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !moonflow::panic_is_guarded() {
            print(panic);
        }
    }));
}

impl Command {
    async fn run(self) -> Result<()> {
        match self {
            Self::Train(args) => train::run(*args).await,
            Self::Inspect(args) => inspect::run(&args),
            Self::Score(args) => score::run(args).await,
            Self::Sample(args) => sample::run(args).await,
            Self::Plot(args) => plot::run(args).await,
            Self::Info(args) => info::run(&args),
            Self::Devices(args) => devices::run(&args).await,
            Self::Plan(args) => plan::run(&args).await,
            Self::Completions(args) => manual::completions(&args),
            Self::Man(args) => manual::man(&args),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_definitions_are_consistent() {
        Cli::command().debug_assert();
    }
}
