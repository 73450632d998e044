//! `ratel profile`: a generation in which every dispatch is timed, and two such profiles compared.

use super::profile_tables as tables;
use super::setup::{self, Prepared};
use crate::Failure;
use crate::args::{FormatArg, GroupBy, ProfileArgs, ProfileCommand, ProfileDiffArgs, ProfileRunArgs};
use crate::output::{check_writable, write_whole};
use crate::progress::{self, Progress};
use ratel_diffusion::DiffusionError;
use ratel_diffusion::pipeline::{Request, draw, target};
use ratel_engine::{Engine, EngineError, Recording, Roof, Tape, TapeOptions};
use ratel_profile::{Clock, Format, Grouping, Profile, Run, diff, precision, read, rows, summary};
use serde_json::json;
use std::cell::Cell;
use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

/// Profiles a generation, or compares two profiles.
pub(crate) fn run(args: ProfileArgs) -> Result<(), Failure> {
    match args.diff {
        Some(ProfileCommand::Diff(args)) => compare(args),
        None => record(args.record),
    }
}

fn record(mut args: ProfileRunArgs) -> Result<(), Failure> {
    if !(1..=1000).contains(&args.repeat) {
        return Err(Failure::Usage("--repeat takes 1 to 1000 runs".to_owned()));
    }
    let format = args.output.as_deref().map(|path| format(path, args.format)).transpose()?;
    if let Some(path) = &args.output {
        check_writable(path)?;
    }
    // what is drawn makes no difference to the time, but two profiles are to be of the same
    if args.draw.prompt.is_none() {
        args.draw.positional.get_or_insert_default();
    }
    args.draw.seed.get_or_insert(0);
    let model = setup::model_to_draw_with(&args.draw)?;
    let (request, origin) = setup::request(&args.draw, &model)?;
    let steps = steps_range(args.steps_range.as_deref(), request.run.steps.len())?;
    let stop = setup::stop_on_ctrl_c()?;
    let engine = setup::engine_to_time(&args.draw.run.device, args.draw.run.shaders.as_deref())?;
    let prepared = Prepared { engine: engine.stopped_by(stop.clone()), model, request, stop };

    if !args.json {
        let Request { width, height, run, .. } = &prepared.request;
        let (model, sampler) = (&prepared.model.name, origin.sampler.sampler.name());
        let engine = prepared.engine.name();
        println!("{model}, {width}x{height}, {} steps of {sampler} on {engine}", run.steps.len());
    }
    let profile = profile(&args, &prepared, origin.sampler.sampler.name(), steps)?;
    if let (Some(path), Some(format)) = (&args.output, format) {
        write_whole(path, |out| format.write(&profile, out))?;
    }
    let groupings = match args.group_by {
        Some(GroupBy::Module) => vec![Grouping::Module],
        Some(GroupBy::Kernel) => vec![Grouping::Kernel],
        Some(GroupBy::Shape) => vec![Grouping::Shape],
        None => vec![Grouping::Module, Grouping::Kernel],
    };
    if args.json {
        let tables: serde_json::Map<_, _> = groupings
            .into_iter()
            .map(|grouping| {
                let mut rows = rows(&profile, grouping);
                rows.truncate(args.top.unwrap_or(usize::MAX));
                (tables::name(grouping).to_owned(), json!(rows))
            })
            .collect();
        let all = json!({ "run": profile.run, "runs": profile.runs(), "summary": summary(&profile), "rows": tables });
        println!("{all}");
        return Ok(());
    }
    tables::print(&profile, &groupings, args.top.unwrap_or(tables::ROWS));
    if let Some(path) = &args.output {
        println!("{}: {} dispatches", path.display(), profile.dispatches.len());
    }
    Ok(())
}

/// What a file is to be: as its name says, or the option.
fn format(path: &Path, asked: Option<FormatArg>) -> Result<Format, Failure> {
    let asked = asked.map(|format| match format {
        FormatArg::Trace => Format::Trace,
        FormatArg::Csv => Format::Csv,
        FormatArg::Jsonl => Format::JsonLines,
        FormatArg::Folded => Format::Folded,
        FormatArg::Html => Format::Html,
    });
    asked.or_else(|| Format::of_path(path)).ok_or_else(|| {
        let known: Vec<_> = Format::ALL.iter().map(|(_, name, endings)| format!(".{} ({name})", endings[0])).collect();
        let what = "its name does not say what it is to be; give it one of these endings, or --format";
        Failure::Usage(format!("{}: {what}: {}", path.display(), known.join(", ")))
    })
}

/// `A..B`, `A..`, `..B` or `A`, within `total` steps.
fn steps_range(text: Option<&str>, total: usize) -> Result<Range<usize>, Failure> {
    let Some(text) = text else { return Ok(0..total) };
    let wrong = |why: &str| {
        Failure::Usage(format!(
            "--steps-range {text}: {why}; this run has {total} steps, from 0: 0..{total} is all of them"
        ))
    };
    let number = |part: &str, open: usize| match part {
        "" => Ok(open),
        _ => part.parse::<usize>().map_err(|_| wrong("no range of steps, such as 2..5")),
    };
    let range = match text.split_once("..") {
        Some((from, to)) => number(from, 0)?..number(to, total)?,
        None => {
            let one = number(text, total)?;
            one..one.saturating_add(1)
        }
    };
    if range.start >= range.end {
        return Err(wrong("there is no step in it"));
    }
    if range.end > total {
        return Err(wrong("it goes beyond the last"));
    }
    Ok(range)
}

/// Steps of the sampler that a device is warmed up with: as many as bring every kernel in.
const WARM_UP: usize = 3;

/// Draws again and again: to warm up, then in pairs of a run without timestamps and one with them.
fn profile(args: &ProfileRunArgs, prepared: &Prepared, sampler: &str, steps: Range<usize>) -> Result<Profile, Failure> {
    let Prepared { engine, model, request, .. } = prepared;
    let runs = args.repeat;
    let turn =
        |name: &str, i: usize| if runs > 1 { format!("{name} {} of {runs} ", i + 1) } else { format!("{name} ") };
    let first_step = Cell::new(None);
    let recorded = |name: &str, dispatches| -> Result<Recording, Failure> {
        let tape = Tape::new(TapeOptions { dispatches, steps: steps.clone() });
        let taped = engine.taped(&tape);
        let first = run_once(prepared, &taped, request, name)?;
        first_step.set(first_step.get().or(first));
        Ok(tape.take(&taped)?)
    };
    let roof = if args.no_roof { None } else { roof(engine)? };
    if !args.once {
        let mut short = request.clone();
        short.run.steps.truncate(WARM_UP);
        first_step.set(run_once(prepared, engine, &short, "warm-up ")?);
    }
    let mut profile: Option<Profile> = None;
    for i in 0..runs {
        // whichever comes first by turns
        let plain = || recorded(&turn("plain", i), false);
        let before = if args.once || i % 2 == 1 { None } else { Some(plain()?) };
        engine.reset_peak();
        let timed = recorded(&turn("timed", i), true)?;
        let known = match &mut profile {
            Some(known) => {
                known.add_timed(&timed).map_err(mismatch)?;
                known
            }
            None => {
                let target = target(engine, request.precision, model.elem)?;
                let run = Run {
                    version: 1,
                    program: format!("ratel {}", env!("CARGO_PKG_VERSION")),
                    device: engine.name(),
                    driver: engine.device().map_or(String::new(), |device| device.driver.clone()),
                    clock: Clock::Host, // what the recording says comes in its place
                    model: model.name.clone(),
                    width: request.width,
                    height: request.height,
                    batch: request.batch,
                    sampler: sampler.to_owned(),
                    steps: request.run.steps.len(),
                    recorded_steps: [steps.start, steps.end],
                    cfg_scale: request.cfg_scale,
                    precision: precision(&target),
                    rules: request.rules.iter().map(|rule| rule.name().to_owned()).collect(),
                    peak_bytes: engine.memory().peak,
                    first_step_ns: first_step.get().map(|first| first.as_nanos() as u64),
                    roof: roof.clone(),
                };
                profile.insert(Profile::of_recording(run, timed))
            }
        };
        let after = if args.once || i % 2 == 0 { None } else { Some(plain()?) };
        if let Some(plain) = before.or(after) {
            known.add_plain(&plain).map_err(mismatch)?;
        }
    }
    let profile = profile.filter(|profile| !profile.dispatches.is_empty());
    profile.ok_or_else(|| Failure::Check("nothing was dispatched".to_owned()))
}

/// What the device can do at most, from the file in which that is kept, or measured; none where it can't be.
pub(super) fn roof(engine: &Engine) -> Result<Option<Roof>, Failure> {
    let spinner = progress::spinner();
    let roof = Roof::cached(engine, &mut |what| spinner.set_message(format!("roof: {what}")));
    spinner.finish_and_clear();
    match roof {
        Ok(roof) => Ok(Some(roof)),
        Err(error @ EngineError::Unsupported { .. }) => {
            eprintln!("note: the roof can't be measured: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Draws, and says how soon the first step was done.
fn run_once(
    prepared: &Prepared,
    engine: &Engine,
    request: &Request,
    name: &str,
) -> Result<Option<Duration>, DiffusionError> {
    let mut progress = Progress::of(name);
    let begun = Instant::now();
    let drawn = draw(engine, &prepared.model, request, &prepared.stop, &mut progress);
    progress.finish();
    drawn.map(|_| progress.first_step.map(|first| first - begun))
}

fn mismatch(error: ratel_profile::Mismatch) -> Failure {
    Failure::Check(error.to_string())
}

fn compare(args: ProfileDiffArgs) -> Result<(), Failure> {
    let load = |path: &Path| -> Result<Profile, Failure> {
        let failed = |source| Failure::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        read(BufReader::new(file)).map_err(|error| failed(std::io::Error::other(error)))
    };
    let (a, b) = (load(&args.a)?, load(&args.b)?);
    let mut diff = diff(&a, &b);
    if args.json {
        for changes in [&mut diff.kernels, &mut diff.modules] {
            changes.truncate(args.top.unwrap_or(usize::MAX));
        }
        println!("{}", json!(diff));
    } else {
        tables::print_diff(&diff, args.top.unwrap_or(tables::ROWS));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_steps() {
        let parse = |text| steps_range(text, 20).map_err(|failure| failure.to_string());
        assert_eq!(parse(None), Ok(0..20));
        for (text, range) in [("2..5", 2..5), ("18..", 18..20), ("..3", 0..3), ("..", 0..20), ("7", 7..8)] {
            assert_eq!(parse(Some(text)), Ok(range), "{text}");
        }
        for text in ["5..5", "6..2", "20", "0..21", "x..3", "-1", "1..2..3", "", "18446744073709551615"] {
            let error = parse(Some(text)).expect_err(text);
            assert!(error.starts_with(&format!("--steps-range {text}: ")) && error.contains("20 steps"), "{error}");
        }
    }
}
