use super::setup;
use crate::Failure;
use crate::args::InfoArgs;
use ratel_weights::{Defaults, describe};
use serde_json::json;

/// Says what a checkpoint is, and whether a model can be built of it.
pub(crate) fn run(args: InfoArgs) -> Result<(), Failure> {
    let checkpoint = setup::open(args.model.as_deref())?;
    let info = describe(&checkpoint);
    let problem = setup::checked(checkpoint).err();
    if args.json {
        let mut all = json!(info);
        all["problem"] = json!(problem.as_ref().map(ToString::to_string));
        println!("{all}");
        return problem.map_or(Ok(()), Err);
    }
    println!("{}", info.path);
    println!("family      {}", json!(info.family).as_str().unwrap_or_default());
    println!("prediction  {}", info.prediction);
    if let Some(guess) = &info.prediction_guess {
        println!("            {guess}");
    }
    let Defaults { steps, guidance_scale, .. } = info.defaults;
    let sample = if info.space == "latent" { "latents" } else { "pictures" };
    println!("space       {}", info.space);
    println!("drawn with  {steps} steps, guidance {guidance_scale}, {sample} of {0}x{0}", info.sample_size);
    println!("{:14} {:>8} {:>14} {:>10}  element types", "component", "tensors", "parameters", "MiB");
    for part in &info.components {
        let types: Vec<_> = part.elements.iter().map(|(elem, count)| format!("{count} {elem}")).collect();
        let mebibytes = part.bytes as f64 / f64::from(1 << 20);
        let (name, tensors, parameters) = (part.name, part.tensors, part.parameters);
        println!("{name:14} {tensors:>8} {parameters:>14} {mebibytes:>10.1}  {}", types.join(", "));
    }
    for key in &info.unknown_keys {
        println!("unknown     {key}");
    }
    match problem {
        None => {
            println!("complete: every tensor that the architecture needs is there, and no other");
            Ok(())
        }
        Some(problem) => Err(problem),
    }
}
