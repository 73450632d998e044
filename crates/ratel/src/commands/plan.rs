use super::setup;
use crate::Failure;
use crate::args::{ComponentArg, PlanArgs};
use ratel_diffusion::DiffusionError;
use ratel_diffusion::model::{Model, Space};
use ratel_diffusion::pipeline::{Precision, calls_together, latent_size, target};
use ratel_engine::Engine;
use ratel_graph::PlanOptions;
use ratel_kernels::{Target, WeightStorage};
use ratel_tensor::Elem;

/// Prints the plan of each component.
pub(crate) fn run(args: PlanArgs) -> Result<(), Failure> {
    let pictures = setup::pictures(args.batch)?;
    let model = setup::model_or_architecture(&args.model, &args.arch)?;
    let (width, height) = setup::size(&args.size, &model)?;
    let [h, w] = latent_size(&model, width, height)?;
    let options = PlanOptions { rules: setup::rules(&args.run)?, observe: vec![] };
    let target = planned_target(&args, &model)?;
    let copies = if args.cfg_scale.unwrap_or(model.defaults.guidance_scale) > 1.0 { 2 } else { 1 };
    if args.component == Some(ComponentArg::Vae) && model.space() == Space::Image {
        return Err(DiffusionError::NoVae { model: model.name }.into());
    }
    let mut peak = 0;
    for component in [ComponentArg::TextEncoder, ComponentArg::Unet, ComponentArg::Vae] {
        let missing = component == ComponentArg::Vae && model.space() == Space::Image;
        if missing || args.component.is_some_and(|only| only != component) {
            continue;
        }
        let graph = match component {
            ComponentArg::TextEncoder => model.text_graph(copies, 1)?,
            ComponentArg::Unet => {
                let calls = calls_together(model.defaults.steps, &options.rules);
                model.unet_graph_of_calls(calls, copies * pictures, h, w)?
            }
            ComponentArg::Vae => model.vae_graph(1, h, w)?,
        };
        let plan = graph.plan(&target, &options).map_err(DiffusionError::from)?;
        println!("{plan}\n");
        peak = peak.max(plan.activation_bytes() + plan.weight_bytes());
    }
    println!("peak: {:.2} MiB, since one component is in memory at a time", peak as f64 / f64::from(1 << 20));
    Ok(())
}

/// The device's target; that of a machine of WebGPU's least limits, but for the sizes of buffers, when none is named.
fn planned_target(args: &PlanArgs, model: &Model) -> Result<Target, Failure> {
    if args.run.device != "auto" {
        let engine = setup::engine(&args.run.device, None)?;
        return Ok(target(&engine, setup::precision(&args.run), model.elem)?);
    }
    let twins = target(&Engine::twins(), Precision::F32, model.elem)?;
    let limits =
        ratel_kernels::Limits { binding_bytes: u64::MAX, buffer_bytes: u64::MAX, ..ratel_kernels::Limits::WEBGPU };
    let plain = Target { limits, weight: twins.weight, ..Target::PLAIN };
    Ok(match setup::precision(&args.run) {
        Precision::F32 => plain,
        Precision::Auto => Target { weight: WeightStorage::PackedF16, ..plain },
        Precision::F16 => Target { elem: Elem::F16, weight: WeightStorage::F16, f16: true, ..plain },
    })
}
