use super::from_file::{self, Line};
use super::setup::{self, Origin};
use super::times::Times;
use crate::args::GenerateArgs;
use crate::output::{check_writable, numbered, with_suffix, write_png};
use crate::progress::Progress;
use crate::{Failure, tensors};
use ratel_diffusion::model::Model;
use ratel_diffusion::pipeline::{Drawn, Request, draw};
use ratel_engine::{Engine, Tape, TapeOptions};
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// What is drawn at once, and where its pictures go.
struct Job {
    line: Line,
    request: Request,
    origin: Origin,
    names: Vec<PathBuf>,
}

/// Draws pictures: of one prompt, or of each line of a file.
pub(crate) fn run(args: GenerateArgs) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut shared = args.draw.clone();
    // lines that name no seed share one
    shared.seed.get_or_insert_with(setup::random_seed);
    let lines = match &args.from_file {
        Some(file) => from_file::read(file, &shared)?,
        None => vec![Line { number: 1, draw: shared }],
    };
    let names = all_names(&args, &lines)?;
    for name in names.iter().flatten().chain(&args.latents_out) {
        check_writable(name)?;
    }
    if let Some(folder) = &args.steps_dir {
        let failed = |source| Failure::Write { path: folder.clone(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        check_writable(&folder.join("step_001.png"))?;
    }

    let model = setup::model_to_draw_with(&args.draw)?;
    // a failure that a line of a file is to blame for names it
    let of_line = |number, failure| match &args.from_file {
        Some(file) => from_file::of_line(file, number, failure),
        None => failure,
    };
    let mut jobs = Vec::new();
    for (line, names) in lines.into_iter().zip(names) {
        let made = setup::request(&line.draw, &model);
        let (mut request, origin) = made.map_err(|failure| of_line(line.number, failure))?;
        request.keep_steps = args.steps_dir.is_some();
        jobs.push(Job { line, request, origin, names });
    }
    let run = &args.draw.run;
    let stop = setup::stop_on_ctrl_c()?;
    let engine = setup::tuned(setup::engine(&run.device, run.shaders.as_deref())?, args.draw.tune.tune);
    let engine = engine.stopped_by(stop.clone());
    let opened = begun.elapsed();
    if !args.json {
        match &args.from_file {
            Some(_) => println!("{} prompts on {}", jobs.len(), engine.name()),
            None => println!("seed {} on {}", jobs[0].request.seed, engine.name()),
        }
    }
    let started = Instant::now();
    for job in &jobs {
        finish(&args, &engine, &model, &stop, opened, job).map_err(|failure| of_line(job.line.number, failure))?;
    }
    if !args.json {
        println!("{:.1} s", started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Draws a job, writes its pictures, and says so.
fn finish(
    args: &GenerateArgs,
    engine: &Engine,
    model: &Model,
    stop: &AtomicBool,
    opened: Duration,
    job: &Job,
) -> Result<(), Failure> {
    let Job { line, request, names, .. } = job;
    let started = Instant::now();
    let mut progress = Progress::default();
    // spans alone, which cost nothing
    let tape = Tape::new(TapeOptions { dispatches: false, steps: 0..usize::MAX });
    let taped = engine.taped(&tape);
    let result = draw(&taped, model, request, stop, &mut progress);
    progress.finish();
    let drawn = result?;
    let first_step = progress.first_step.map(|first| first - started);
    let times = Times::new(opened, first_step, &tape.take(&taped)?);
    let place =
        args.from_file.as_ref().map_or(String::new(), |file| format!("{} line {}: ", file.display(), line.number));
    for cut in &drawn.cut {
        eprintln!("note: {place}the prompt is longer than the text encoder reads; left out: {cut}");
    }
    write_all(args, names, request, &drawn, |i| setup::parameters(&line.draw, request, &job.origin, model, i))?;

    if args.json {
        let seeds = (0..).map(|i| request.seed.wrapping_add(i));
        let pictures: Vec<_> =
            names.iter().zip(seeds).map(|(path, seed)| json!({ "path": path, "seed": seed })).collect();
        let mut said = json!({
            "pictures": pictures,
            "seconds": started.elapsed().as_secs_f64(),
            "peak_device_bytes": engine.memory().peak,
            "device": engine.name(),
            "times": times.json(),
        });
        if args.from_file.is_some() {
            said["line"] = line.number.into();
            said["prompt"] = request.prompt.as_str().into();
        }
        println!("{said}");
    } else {
        for name in names {
            println!("{}", name.display());
        }
        if args.verbose {
            times.print();
        }
    }
    Ok(())
}

fn write_all(
    args: &GenerateArgs,
    names: &[PathBuf],
    request: &Request,
    drawn: &Drawn,
    parameters: impl Fn(usize) -> String,
) -> Result<(), Failure> {
    let (width, height) = (request.width as u32, request.height as u32);
    for (i, (name, picture)) in names.iter().zip(&drawn.pictures).enumerate() {
        write_png(name, width, height, picture, &parameters(i))?;
    }
    if let Some(path) = &args.latents_out {
        tensors::save(path, &[("latents", &drawn.latents)])?;
    }
    if let Some(folder) = &args.steps_dir {
        for (step, pictures) in drawn.steps.iter().enumerate() {
            for (i, picture) in pictures.iter().enumerate() {
                let name = numbered(&folder.join(format!("step_{:03}.png", step + 1)), i, pictures.len());
                write_png(&name, width, height, picture, &parameters(i))?;
            }
        }
    }
    Ok(())
}

/// The pictures of each line: `output.png`, or `output_1.png`, `output_2.png` ... of several; of a file's third line
/// `output_0003.png`, or `output_0003_1.png`, `output_0003_2.png` ...
fn all_names(args: &GenerateArgs, lines: &[Line]) -> Result<Vec<Vec<PathBuf>>, Failure> {
    let count = setup::pictures(args.draw.batch)?;
    let of_line = |line: &Line| match &args.from_file {
        Some(_) => with_suffix(&args.output, &format!("_{:04}", line.number)),
        None => args.output.clone(),
    };
    Ok(lines.iter().map(|line| (0..count).map(|i| numbered(&of_line(line), i, count)).collect()).collect())
}
