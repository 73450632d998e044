use super::setup::{self, Prepared};
use crate::args::GenerateArgs;
use crate::output::{Parameters, check_writable, write_png};
use crate::progress::Progress;
use crate::{Failure, tensors};
use ratel_diffusion::model::Model;
use ratel_diffusion::pipeline::{Drawn, Request, draw};
use ratel_diffusion::sampling::SamplerConfig;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Draws pictures.
pub(crate) fn run(args: GenerateArgs) -> Result<(), Failure> {
    let names = file_names(&args.output, setup::pictures(args.draw.batch)?);
    for name in names.iter().chain(&args.latents_out) {
        check_writable(name)?;
    }
    if let Some(folder) = &args.steps_dir {
        let failed = |source| Failure::Write { path: folder.clone(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        check_writable(&folder.join("step_001.png"))?;
    }
    let Prepared { engine, model, mut request, sampler, stop } = setup::prepare(&args.draw)?;
    request.keep_steps = args.steps_dir.is_some();
    if !args.json {
        println!("seed {} on {}", request.seed, engine.name());
    }

    let started = Instant::now();
    let mut progress = Progress::default();
    let result = draw(&engine, &model, &request, &stop, &mut progress);
    progress.finish();
    let drawn = result?;
    for cut in &drawn.cut {
        eprintln!("note: the prompt is longer than the text encoder reads; left out: {cut}");
    }
    let parameters = |i| parameters(&args, &model, &request, &sampler, i);
    write_all(&args, &names, &request, &drawn, parameters)?;

    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        let made: Vec<_> = names
            .iter()
            .zip(0..)
            .map(|(path, i)| json!({ "path": path, "seed": request.seed.wrapping_add(i) }))
            .collect();
        let memory = engine.memory().peak;
        println!(
            "{}",
            json!({ "pictures": made, "seconds": seconds, "peak_device_bytes": memory, "device": engine.name() })
        );
    } else {
        for name in &names {
            println!("{}", name.display());
        }
        println!("{seconds:.1} s");
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

/// What made picture number `i`.
fn parameters(args: &GenerateArgs, model: &Model, request: &Request, sampler: &SamplerConfig, i: usize) -> String {
    let draw = &args.draw;
    let mut settings = vec![
        ("Steps", draw.steps.unwrap_or(model.defaults.steps).to_string()),
        ("Sampler", sampler.sampler.name().to_owned()),
        ("Schedule type", format!("{:?}", sampler.curve).to_lowercase()),
        ("CFG scale", request.cfg_scale.to_string()),
        ("Seed", request.seed.wrapping_add(i as u64).to_string()),
        ("Size", format!("{}x{}", request.width, request.height)),
        ("Model", model.name.clone()),
    ];
    if request.clip_skip > 1 {
        settings.push(("Clip skip", request.clip_skip.to_string()));
    }
    if request.guidance_rescale > 0.0 {
        settings.push(("Guidance rescale", request.guidance_rescale.to_string()));
    }
    settings.push(("RNG", format!("{:?}", draw.rng).to_lowercase()));
    settings.push(("Version", format!("ratel {}", env!("CARGO_PKG_VERSION"))));
    Parameters { prompt: &request.prompt, negative_prompt: &request.negative_prompt, settings }.text()
}

/// `output.png`, or `output_1.png`, `output_2.png` ... of several.
fn file_names(output: &Path, count: usize) -> Vec<PathBuf> {
    (0..count).map(|i| numbered(output, i, count)).collect()
}

fn numbered(path: &Path, i: usize, count: usize) -> PathBuf {
    if count == 1 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or(String::new(), |e| format!(".{}", e.to_string_lossy()));
    path.with_file_name(format!("{stem}_{}{extension}", i + 1))
}
