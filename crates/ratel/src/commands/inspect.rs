//! `ratel inspect`: a generation with everything in it laid open, as one page.

use super::inspect_data::{Looker, Wish, figures, side};
use super::inspect_serve::{bind, serve};
use super::setup;
use crate::Failure;
use crate::args::InspectArgs;
use crate::output::{check_writable, write_whole};
use ratel_diffusion::model::Model;
use ratel_diffusion::pipeline::{Request, denoise, target};
use ratel_diffusion::sampling::Prediction;
use ratel_engine::{Engine, Roof, Tape, TapeOptions};
use ratel_kernels::Shaders;
use ratel_profile::{Clock, Dispatch, Format, Profile, Run, precision};
use ratel_teach::{Recording, Settings, component, page};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Modules whose values are kept if no argument says which: one of each kind, those first that explain most.
const ONLY: &[&str] = &[
    "unet.conv_in",
    "unet.down_blocks.0.resnets.0",
    "unet.down_blocks.1.attentions.0",
    "unet.conv_norm_out",
    "unet.conv_out",
    "unet.down_blocks.0.downsamplers.0",
    "unet.up_blocks.0.upsamplers.0",
    "unet.time_embedding",
    "text_encoder.encoder.layers.0",
    "text_encoder.final_layer_norm",
    "vae.decoder.conv_in",
    "vae.decoder.mid_block.attentions.0",
    "vae.decoder.conv_out",
];

/// What stays the same from run to run while a page is served.
pub(super) struct Study {
    args: InspectArgs,
    engine: Engine,
    model: Model,
    roof: Option<Roof>,
    prediction: Prediction,
    sampler: &'static str,
    /// The step of the UNet that is shown.
    step: usize,
    stop: Arc<AtomicBool>,
}

/// Runs a generation and writes its page, or serves it.
pub(crate) fn run(args: InspectArgs) -> Result<(), Failure> {
    check(&args)?;
    let model = setup::model_to_draw_with(&args.draw)?;
    let (request, origin) = setup::request(&args.draw, &model)?;
    let steps = request.run.steps.len();
    let step = args.at_step.unwrap_or(steps / 2);
    if step >= steps {
        return Err(Failure::Usage(format!("--at-step {step}: this run has {steps} steps, from 0")));
    }
    let stop = setup::stop_on_ctrl_c()?;
    let listener = args.serve.map(bind).transpose()?;
    let engine = setup::engine(&args.draw.run.device, args.draw.run.shaders.as_deref())?;
    let engine = setup::tuned(engine, args.draw.tune.tune).stopped_by(stop.clone());
    let roof = if args.no_roof { None } else { super::profile::roof(&engine)? };
    let (prediction, sampler) = (origin.sampler.prediction, origin.sampler.sampler.name());
    let study = Study { args, engine, model, roof, prediction, sampler, step, stop };

    let written = |recording: &Recording| page(recording).map_err(|error| Failure::Check(error.to_string()));
    let first = written(&study.record(&request)?)?;
    let Some(listener) = listener else {
        let path = &study.args.output;
        write_whole(path, |out| out.write_all(first.as_bytes()))?;
        println!("{}: {:.1} MB", path.display(), first.len() as f64 / 1e6);
        return Ok(());
    };
    serve(listener, &first, &study.stop, |asked| {
        let mut request = request.clone();
        request.prompt = asked.prompt;
        request.seed = asked.seed.unwrap_or(request.seed);
        request.cfg_scale = asked.cfg_scale.unwrap_or(request.cfg_scale);
        written(&study.record(&request)?)
    })
}

/// Mistakes that can be told before a model is opened.
fn check(args: &InspectArgs) -> Result<(), Failure> {
    let usage = |what: String| Err(Failure::Usage(what));
    if args.draw.batch != 1 {
        return usage("--batch: one picture at a time is looked into".to_owned());
    }
    if args.steps_shown == 0 {
        return usage("--steps-shown takes 1 step or more".to_owned());
    }
    if args.compare_cfg_scale.is_some_and(|scale| !scale.is_finite()) {
        return usage("--compare-cfg-scale takes a number".to_owned());
    }
    if let Some(address) = args.serve.filter(|address| !address.ip().is_loopback()) {
        return usage(format!("--serve={address}: the page is served to this machine alone, at 127.0.0.1 or [::1]"));
    }
    if args.serve.is_none() {
        check_writable(&args.output)?;
    }
    args.profile_out.as_deref().map_or(Ok(()), check_writable)
}

impl Study {
    /// Runs a request and keeps what the page shows.
    fn record(&self, request: &Request) -> Result<Recording, Failure> {
        let Study { args, engine, model, stop, .. } = self;
        let steps = request.run.steps.len();
        let mut request = request.clone();
        request.reveal = Some(self.prediction);
        request.observe_steps = (0..steps).collect();
        let sides = if args.compare_prompt.is_some() || args.compare_cfg_scale.is_some() { 2 } else { 1 };
        let shown = args.steps_shown.min(steps) * sides;
        let limit = args.limit.saturating_mul(1_000_000);
        let wish = Wish::new(engine, model, &request, &self.patterns(), limit, shown)?;
        if !args.only.is_empty() && wish.fitting == 0 {
            let names = "unet.down_blocks.0.resnets.0, text_encoder.encoder.layers.0, vae.decoder.mid_block";
            return Err(Failure::Usage(format!("--only fits no module; names are diffusers', such as {names}")));
        }
        eprintln!("note: {}", wish.told());

        // the run that everything on the page but the comparison is of
        engine.reset_peak();
        let tape = Tape::new(TapeOptions { dispatches: true, steps: 0..steps });
        let taped = engine.taped(&tape);
        let mut looker = Looker::new(model, &request, Some((&wish, self.step)))?;
        let made = denoise(&taped, model, &request, stop, &mut looker).and_then(|made| {
            let picture = request.stage(&taped, model, stop).decode(&[&made.latents], &mut looker)?;
            Ok((made, picture.into_iter().flatten().next().unwrap_or_default()))
        });
        looker.progress.finish();
        let (made, picture) = made?;
        setup::say_what_was_cut(&made.cut);
        let profile = self.profile(&request, tape.take(&taped)?)?;
        if let Some(path) = &args.profile_out {
            write_whole(path, |out| Format::JsonLines.write(&profile, out))?;
        }

        let parts = [("text_encoder", "text_encoder"), ("unet", "unet"), ("vae", "vae_decoder")];
        let mut components = Vec::new();
        for (name, stage) in parts {
            let Some(plan) = looker.plan(name) else { continue };
            let own: Vec<&Dispatch> = profile.dispatches.iter().filter(|dispatch| dispatch.stage == stage).collect();
            components.push(component(name, plan, &profile.run, &own));
        }
        let (tensors, samples) = looker.fill(&mut components);
        let shaders = args.draw.run.shaders.clone().map_or(Shaders::Embedded, Shaders::Directory);
        let kernels = looker.kernels(&shaders).map_err(|error| Failure::Check(error.to_string()))?;
        let figures = figures(model, &request, looker.plan("unet"), &components);
        let mut sides = vec![self.side(&request, &mut looker, picture)?];
        if args.compare_prompt.is_some() || args.compare_cfg_scale.is_some() {
            let mut other = request.clone();
            other.prompt = args.compare_prompt.clone().unwrap_or(other.prompt);
            other.cfg_scale = args.compare_cfg_scale.unwrap_or(other.cfg_scale);
            sides.push(self.beside(&other)?);
        }
        let [_, h, w, c] = *made.latents.shape else { return Err(Failure::Check("latents have four axes".to_owned())) };
        let settings = Settings {
            step: self.step,
            only: self.patterns(),
            limit: wish.limit,
            wanted: wish.wanted,
            kept: wish.kept,
            latents: [h, w, c],
            seed: request.seed,
        };
        Ok(Recording { version: 1, run: profile.run, settings, figures, components, kernels, tensors, samples, sides })
    }

    fn patterns(&self) -> Vec<String> {
        let ours = || ONLY.iter().map(|name| (*name).to_owned()).collect();
        if self.args.only.is_empty() { ours() } else { self.args.only.clone() }
    }

    /// Another run from the same noise, of which the steps alone are kept.
    fn beside(&self, request: &Request) -> Result<ratel_teach::Side, Failure> {
        let Study { engine, model, stop, .. } = self;
        let mut looker = Looker::new(model, request, None)?;
        let made = denoise(engine, model, request, stop, &mut looker).and_then(|made| {
            let picture = request.stage(engine, model, stop).decode(&[&made.latents], &mut looker.progress)?;
            Ok((made, picture.into_iter().flatten().next().unwrap_or_default()))
        });
        looker.progress.finish();
        let (_, picture) = made?;
        self.side(request, &mut looker, picture)
    }

    fn side(&self, request: &Request, looker: &mut Looker, picture: Vec<u8>) -> Result<ratel_teach::Side, Failure> {
        let stage = request.stage(&self.engine, &self.model, &self.stop);
        Ok(side(&stage, request, looker, picture, self.args.steps_shown)?)
    }

    fn profile(&self, request: &Request, recording: ratel_engine::Recording) -> Result<Profile, Failure> {
        let Study { engine, model, roof, .. } = self;
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
            sampler: self.sampler.to_owned(),
            steps: request.run.steps.len(),
            recorded_steps: [0, request.run.steps.len()],
            cfg_scale: request.cfg_scale,
            precision: precision(&target),
            rules: request.rules.iter().map(|rule| rule.name().to_owned()).collect(),
            peak_bytes: engine.memory().peak,
            first_step_ns: None,
            roof: roof.clone(),
        };
        Ok(Profile::of_recording(run, recording))
    }
}
