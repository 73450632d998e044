//! The command-line program: the only crate that prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod commands;
mod failure;
mod output;
mod progress;
mod tensors;

use args::{Cli, Command};
use clap::Parser;
pub(crate) use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Generate(args) => commands::generate::run(args),
        Command::Devices(args) => commands::devices::run(args),
        Command::Selftest(args) => commands::selftest::run(args),
        Command::Info(args) => commands::info::run(args),
        Command::Plan(args) => commands::plan::run(args),
        Command::Trace(args) => commands::trace::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ratel: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
