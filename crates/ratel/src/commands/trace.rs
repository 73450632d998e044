use super::setup::{self, Prepared};
use crate::args::{DiffArgs, RecordArgs, TraceArgs, TraceCommand};
use crate::progress::Progress;
use crate::{Failure, output, tensors};
use ratel_diffusion::pipeline;
use ratel_tensor::HostTensor;
use serde_json::json;
use std::collections::BTreeMap;

/// Records the outputs of layers, or compares two recordings.
pub(crate) fn run(args: TraceArgs) -> Result<(), Failure> {
    match args.diff {
        Some(TraceCommand::Diff(args)) => diff(args),
        None => record(args.record),
    }
}

fn record(args: RecordArgs) -> Result<(), Failure> {
    output::check_writable(&args.output)?;
    let Prepared { engine, model, mut request, stop, .. } = setup::prepare(&args.draw)?;
    request.observe = args.only;
    request.observe_steps = args.at_steps;
    let mut progress = Progress::default();
    let result = pipeline::draw(&engine, &model, &request, &stop, &mut progress);
    progress.finish();
    result?;
    if progress.tensors.is_empty() {
        let names = "unet.down_blocks.0.resnets.0, text_encoder.encoder.layers.0, vae.decoder.mid_block";
        return Err(Failure::Usage(format!("--only fits no module; names are diffusers', such as {names}")));
    }
    let all: Vec<_> = progress.order.iter().map(|name| (name.as_str(), &progress.tensors[name])).collect();
    tensors::save(&args.output, &all)?;
    println!("{}: {} tensors", args.output.display(), all.len());
    Ok(())
}

/// One line of a comparison.
struct Line {
    name: String,
    shape: String,
    error: f64,
    /// The error of what a block adds to the one before it, where that can be told.
    adds: Option<f64>,
}

fn diff(args: DiffArgs) -> Result<(), Failure> {
    let mut ours: BTreeMap<String, HostTensor> = tensors::load(&args.a)?.into_iter().collect();
    let reference = tensors::load(&args.b)?;
    for (name, tensor) in &reference {
        // (N, C, H W) and (N, C, H, W) hold the same numbers
        if let Some(mine) = ours.get_mut(name).filter(|mine| mine.data.len() == tensor.data.len()) {
            mine.shape = tensor.shape;
        }
    }
    let mut lines = Vec::new();
    let mut before: BTreeMap<String, &str> = BTreeMap::new();
    let theirs: BTreeMap<&str, &HostTensor> = reference.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    for (name, tensor) in &reference {
        let Some(mine) = ours.get(name) else { continue };
        let adds = component_of_block(name).and_then(|component| {
            let previous = before.insert(component, name)?;
            let (a, b) = (ours.get(previous)?, theirs.get(previous)?);
            let same = a.shape == mine.shape && b.shape == tensor.shape && mine.shape == tensor.shape;
            same.then(|| minus(mine, a).relative_error(&minus(tensor, b)))
        });
        lines.push(Line {
            name: name.clone(),
            shape: tensor.shape.to_string(),
            error: mine.relative_error(tensor),
            adds,
        });
    }
    if lines.is_empty() {
        return Err(Failure::Usage(format!("{} and {} share no tensor", args.a.display(), args.b.display())));
    }
    let differs = |line: &&Line| line.error > args.tolerance || line.adds.is_some_and(|error| error > args.tolerance);
    let first = lines.iter().find(differs);
    let only_a = ours.keys().filter(|name| !theirs.contains_key(name.as_str())).count();
    let only_b = reference.iter().filter(|(name, _)| !ours.contains_key(name)).count();
    if args.json {
        let rows: Vec<_> = lines
            .iter()
            .map(|line| json!({ "name": line.name, "shape": line.shape, "error": line.error, "adds_error": line.adds }))
            .collect();
        let first = first.map(|line| &line.name);
        println!("{}", json!({ "first_different": first, "only_in_a": only_a, "only_in_b": only_b, "rows": rows }));
    } else {
        println!("{:76} {:>16} {:>10} {:>10}", "module", "shape", "error", "adds");
        for line in &lines {
            let adds = line.adds.map_or(String::new(), |error| format!("{error:.2e}"));
            let mark = if differs(&line) { "  <" } else { "" };
            println!("{:76} {:>16} {:>10.2e} {adds:>10}{mark}", line.name, line.shape, line.error);
        }
        println!(
            "{} compared; {only_a} only in {}, {only_b} only in {}",
            lines.len(),
            args.a.display(),
            args.b.display()
        );
    }
    match first {
        None => Ok(()),
        Some(line) => Err(Failure::Check(format!(
            "the first that differs is {}: {:.2e}, more than {:.0e}",
            line.name,
            line.adds.unwrap_or(0.0).max(line.error),
            args.tolerance
        ))),
    }
}

/// The component (`unet`, with its step) of a residual block; `None` for other modules.
fn component_of_block(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let [.., kind, number] = parts[..] else { return None };
    let is_block = matches!(kind, "resnets" | "attentions" | "transformer_blocks" | "layers");
    (is_block && number.parse::<usize>().is_ok()).then(|| parts[..2.min(parts.len() - 2)].join(".") + kind)
}

fn minus(a: &HostTensor, b: &HostTensor) -> HostTensor {
    HostTensor::new(a.shape, a.data.iter().zip(&b.data).map(|(a, b)| a - b).collect())
}
