//! The command-line program: the only crate that prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

/// `println!`, but for a reader that has gone, as in `ratel plan | head`: the program then ends without a word.
macro_rules! println {
    () => { $crate::say(format_args!("")) };
    ($($words:tt)*) => { $crate::say(format_args!($($words)*)) };
}

mod args;
mod commands;
mod failure;
mod output;
mod picture;
mod plot;
mod progress;
mod shape;
mod sheet;
mod tensors;
mod terminal;
mod units;

use args::{Cli, Command};
use clap::Parser;
pub(crate) use failure::Failure;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Generate(args) => commands::generate::run(args),
        Command::Encode(args) => commands::encode::run(args),
        Command::Decode(args) => commands::decode::run(args),
        Command::Diffuse(args) => commands::diffuse::run(args),
        Command::Denoise(args) => commands::denoise::run(args),
        Command::Interpolate(args) => commands::interpolate::run(args),
        Command::CompareSpaces(args) => commands::compare_spaces::run(args),
        Command::Devices(args) => commands::devices::run(args),
        Command::Selftest(args) => commands::selftest::run(args),
        Command::Info(args) => commands::info::run(args),
        Command::Plan(args) => commands::plan::run(args),
        Command::Trace(args) => commands::trace::run(args),
        Command::Profile(args) => commands::profile::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Roofline(args) => commands::roofline::run(args),
        Command::Kernels(args) => commands::kernels::run(args),
        Command::Show(args) => commands::show::run(args),
        Command::Lesson(args) => commands::lesson::run(args),
        Command::Bench(args) => commands::bench::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ratel: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Prints a line on standard output.
fn say(line: std::fmt::Arguments<'_>) {
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            eprintln!("ratel: standard output can't be written: {error}");
        }
        std::process::exit(1);
    }
}
