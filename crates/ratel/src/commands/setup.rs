//! What commands that draw have in common: from arguments to a device, a model and a request.

use crate::args::{Arch, ArchArgs, DrawArgs, ModelArgs, PrecisionArg, Rng, RunArgs, SizeArgs, Tune};
use crate::output::Parameters;
use crate::picture::{self, Read, Wanted};
use crate::{Failure, progress};
use ratel_diffusion::DiffusionError;
use ratel_diffusion::autoencoder::Picture;
use ratel_diffusion::model::{Model, Space};
use ratel_diffusion::pipeline::{Precision, Request, latent_size};
use ratel_diffusion::random::{Generator, RandomSource};
use ratel_diffusion::sampling::{
    Sampler, SamplerChoice, SamplerConfig, SamplerError, Schedule, parse_prediction, parse_spacing,
};
use ratel_diffusion::stage::Stage;
use ratel_engine::{DeviceChoice, Engine, EngineOptions, Tuning, cache_folder};
use ratel_graph::Rule;
use ratel_kernels::Shaders;
use ratel_models::Architecture;
use ratel_tensor::HostTensor;
use ratel_weights::{Checkpoint, Files};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Everything a run needs.
pub(crate) struct Prepared {
    pub engine: Engine,
    pub model: Model,
    pub request: Request,
    /// Set by Ctrl-C.
    pub stop: Arc<AtomicBool>,
}

/// The device of a name, with a line on standard error if it is a stand-in.
pub(crate) fn engine(device: &str, shaders: Option<&Path>) -> Result<Engine, Failure> {
    open_engine(device, shaders, EngineOptions::default())
}

/// Like [`engine`], for measurements: kernels have no bounds checks, whatever the program was built as, unless they
/// come from `shaders`.
pub(crate) fn engine_to_time(device: &str, shaders: Option<&Path>) -> Result<Engine, Failure> {
    open_engine(device, shaders, EngineOptions { checks: false, ..EngineOptions::default() })
}

/// The engine with its kernels tuned as the arguments say.
pub(crate) fn tuned(engine: Engine, tune: Tune) -> Engine {
    if tune == Tune::Off {
        return engine;
    }
    let (folder, force) = (cache_folder(), tune == Tune::Force);
    engine.tuned(Tuning { folder, force, budget: TUNING }, progress::of_tuning())
}

/// The time that may be spent on tuning in one run of the program.
const TUNING: Duration = Duration::from_secs(30);

fn open_engine(device: &str, shaders: Option<&Path>, mut options: EngineOptions) -> Result<Engine, Failure> {
    let Ok(choice) = device.parse::<DeviceChoice>();
    if let Some(folder) = shaders {
        if !folder.is_dir() {
            return Err(Failure::Usage(format!("--shaders {}: no such folder", folder.display())));
        }
        options.shaders = Shaders::Directory(folder.to_owned());
    }
    options.pipelines = cache_folder();
    let engine = Engine::open(&choice, options)?;
    if let Some(note) = engine.note() {
        eprintln!("note: {note}");
    }
    Ok(engine)
}

/// The model of an argument; cub when none is named.
pub(crate) fn model(args: &ModelArgs) -> Result<Model, Failure> {
    checked(open(args.model.as_deref())?)
}

/// The model of an argument, or a known architecture with random weights.
pub(crate) fn model_or_architecture(args: &ModelArgs, arch: &ArchArgs) -> Result<Model, Failure> {
    let architecture = match arch.arch {
        None => return model(args),
        Some(Arch::Sd15) => Architecture::sd15(),
        Some(Arch::Sd21) => Architecture::sd21(),
    };
    Ok(Model::of_architecture(&architecture, 0)?)
}

/// Opens a checkpoint; one of those inside the program by its name, and cub when none is named.
pub(crate) fn open(model: Option<&Path>) -> Result<Checkpoint, Failure> {
    let path = model.unwrap_or(Path::new(ratel_cub::NAME));
    let inside = [ratel_cub::NAME, ratel_cub::PIXELS].into_iter().find(|name| path.as_os_str() == *name);
    if let (Some(name), Some(_), true) = (inside, model, path.exists()) {
        eprintln!("note: {name} is the model inside the program; what lies here under that name is ./{name}");
    }
    if let Some(name) = inside.filter(|name| !ratel_cub::has(name)) {
        return Err(Failure::Check(format!(
            "{name} is not in this program, which was built without models/{name}; name another model by -m"
        )));
    }
    let files = inside.map_or(Files::Disk, |_| Files::Embedded(ratel_cub::FILES));
    Ok(Checkpoint::open(files, path).map_err(DiffusionError::from)?)
}

/// The model of a checkpoint, which must fit in all its parts before anything is computed.
pub(crate) fn checked(checkpoint: Checkpoint) -> Result<Model, Failure> {
    let path = checkpoint.path().to_owned();
    let model = Model::of_checkpoint(checkpoint)?;
    match model.check() {
        Ok(()) => Ok(model),
        Err(source) => Err(Failure::Misfit { path, source }),
    }
}

/// The fusion rules that are left when some are switched off.
pub(crate) fn rules(args: &RunArgs) -> Result<Vec<Rule>, Failure> {
    let known = || Rule::ALL.map(Rule::name).join(", ");
    for name in &args.no_fuse {
        if name != "all" && !Rule::ALL.iter().any(|rule| rule.name() == name) {
            return Err(Failure::Usage(format!("--no-fuse {name}: no such rule; there are {} and all", known())));
        }
    }
    let off = |rule: &Rule| args.no_fuse.iter().any(|name| name == "all" || name == rule.name());
    Ok(Rule::ALL.into_iter().filter(|rule| !off(rule)).collect())
}

pub(crate) fn precision(args: &RunArgs) -> Precision {
    match args.precision {
        PrecisionArg::Auto => Precision::Auto,
        PrecisionArg::F32 => Precision::F32,
        PrecisionArg::F16 => Precision::F16,
    }
}

/// How many pictures are drawn at a time.
pub(crate) fn pictures(batch: usize) -> Result<usize, Failure> {
    if !(1..=64).contains(&batch) {
        return Err(Failure::Usage("--batch takes 1 to 64 pictures at a time".to_owned()));
    }
    Ok(batch)
}

/// Width and height: as asked, or what the model was trained on.
pub(crate) fn size(args: &SizeArgs, model: &Model) -> Result<(usize, usize), Failure> {
    let native = model.native_latents * model.latent_scale();
    let (width, height) = (args.width.unwrap_or(native), args.height.unwrap_or(native));
    latent_size(model, width, height)?;
    Ok((width, height))
}

/// Opens the model, reads the arguments for it, and opens the device; nothing is computed yet.
pub(crate) fn prepare(args: &DrawArgs) -> Result<Prepared, Failure> {
    let model = model_to_draw_with(args)?;
    let (request, _) = request(args, &model)?;
    let stop = stop_on_ctrl_c()?;
    let engine = tuned(engine(&args.run.device, args.run.shaders.as_deref())?, args.tune.tune).stopped_by(stop.clone());
    Ok(Prepared { engine, model, request, stop })
}

/// A model on a device, for commands that run parts of it.
pub(crate) struct Parts {
    pub engine: Engine,
    pub model: Model,
    precision: Precision,
    rules: Vec<Rule>,
    /// Set by Ctrl-C.
    stop: Arc<AtomicBool>,
}

impl Parts {
    /// `model` on the device of the arguments.
    pub(crate) fn open(model: Model, run: &RunArgs) -> Result<Self, Failure> {
        let rules = rules(run)?;
        let stop = stop_on_ctrl_c()?;
        let engine = engine(&run.device, run.shaders.as_deref())?.stopped_by(stop.clone());
        Ok(Parts { engine, model, precision: precision(run), rules, stop })
    }

    pub(crate) fn stage(&self) -> Stage<'_> {
        let Parts { engine, model, precision, rules, stop } = self;
        Stage { engine, model, precision: *precision, rules, observe: &[], stop }
    }
}

/// A file's picture in the size that is wanted of it, with a line on standard error where it had to be changed, or is
/// much larger than what the model was trained on.
pub(crate) fn picture(path: &Path, wanted: Wanted, model: &Model) -> Result<Picture, Failure> {
    Ok(read_picture(path, wanted, model)?.picture)
}

fn read_picture(path: &Path, wanted: Wanted, model: &Model) -> Result<Read, Failure> {
    if model.space() == Space::Latent && !model.has_encoder() {
        return Err(DiffusionError::NoEncoder { model: model.name.clone() }.into());
    }
    let read = picture::read(path, wanted, model.latent_scale())?;
    let picture = &read.picture;
    latent_size(model, picture.width, picture.height)?;
    if let Some(note) = &read.note {
        eprintln!("note: {note}");
    }
    let native = model.native_latents * model.latent_scale();
    if wanted.width.is_none() && wanted.height.is_none() && picture.width * picture.height > 4 * native * native {
        eprintln!(
            "note: {} is {}x{}, and {} was trained on {native}x{native}: -W {native} makes it smaller",
            path.display(),
            picture.width,
            picture.height,
            model.name
        );
    }
    Ok(read)
}

/// Standard normal noise of a seed, drawn as one picture's `(1, C, H, W)`, as `(1, H, W, C)`.
pub(crate) fn noise(rng: Rng, seed: u64, [h, w, c]: [usize; 3]) -> HostTensor {
    let values = Generator::new(source(rng), seed).normal(h * w * c);
    HostTensor::new([1, c, h, w], values).channels_last()
}

fn source(rng: Rng) -> RandomSource {
    match rng {
        Rng::Torch => RandomSource::Torch,
        Rng::Philox => RandomSource::Philox,
    }
}

/// The model, with a line on standard error where what it predicts is a guess and no argument says.
pub(crate) fn model_to_draw_with(args: &DrawArgs) -> Result<Model, Failure> {
    let space = args.space.map(Space::from);
    let model = match (&args.model.model, space) {
        (None, Some(Space::Image)) => checked(open(Some(Path::new(ratel_cub::PIXELS)))?)?,
        _ => model(&args.model)?,
    };
    if let Some(space) = space.filter(|space| *space != model.space()) {
        let (name, asked, own) = (&model.name, space.name(), model.space().name());
        return Err(Failure::Usage(format!("--space {asked}: {name} draws in {own} space; leave out -m, or --space")));
    }
    if let (Some(note), None) = (&model.guess, &args.prediction) {
        eprintln!("note: {note}");
    }
    Ok(model)
}

/// What a request was made of.
pub(crate) struct Origin {
    /// What its run was planned from.
    pub sampler: SamplerConfig,
    /// How much of a picture is redrawn.
    strength: f64,
    /// That picture's size in its file, across and down.
    init_size: Option<[usize; 2]>,
}

/// What the arguments ask of a model, and what its run was planned from.
pub(crate) fn request(args: &DrawArgs, model: &Model) -> Result<(Request, Origin), Failure> {
    let usage = |what: &str| Failure::Usage(what.to_owned());
    let prompt = args.positional.as_ref().or(args.prompt.as_ref());
    let prompt = prompt.ok_or_else(|| usage("no prompt; write one in quotes after the command, \"\" for none"))?;
    pictures(args.batch)?;
    let rescales = args.guidance_rescale.is_none_or(|rescale| (0.0..=1.0).contains(&rescale));
    if args.cfg_scale.is_some_and(|scale| !scale.is_finite()) || !rescales {
        return Err(usage("--cfg-scale takes a number, and --guidance-rescale one from 0 to 1"));
    }
    if args.clip_skip == 0 {
        return Err(usage("--clip-skip counts from 1: 1 leaves nothing out, 2 the last layer"));
    }
    let mut choice = SamplerChoice::default();
    if let Some(name) = &args.sampler {
        let (sampler, schedule) = Sampler::parse(name).map_err(refused)?;
        choice.sampler = Some(sampler);
        choice.schedule = schedule;
    }
    if let Some(name) = &args.schedule {
        choice.schedule = Some(Schedule::parse(name).map_err(refused)?);
    }
    choice.spacing = args.spacing.as_deref().map(parse_spacing).transpose().map_err(refused)?;
    choice.prediction = args.prediction.as_deref().map(parse_prediction).transpose().map_err(refused)?;

    let init = match &args.init_image {
        Some(path) => {
            let wanted = Wanted { width: args.size.width, height: args.size.height, fit: args.fit };
            Some(read_picture(path, wanted, model)?)
        }
        None => None,
    };
    let (width, height) = match &init {
        Some(read) => (read.picture.width, read.picture.height),
        None => size(&args.size, model)?,
    };
    let steps = args.steps.unwrap_or(model.defaults.steps);
    // diffusers' default
    let strength = if init.is_some() { args.strength.unwrap_or(0.8) } else { 1.0 };
    if !(0.0..=1.0).contains(&strength) || (steps > 0 && steps as f64 * strength < 1.0) {
        let least = 1.0 / steps.max(1) as f64;
        return Err(Failure::Usage(format!(
            "--strength {strength} of {steps} steps leaves none to run; it takes a number from {least:.3} to 1"
        )));
    }
    let (sampler, run) = model.sampler_for_strength(&choice, steps, strength).map_err(|error| match error {
        DiffusionError::Sampler(error) => refused(error),
        other => other.into(),
    })?;
    let origin = Origin { sampler, strength, init_size: init.as_ref().map(|read| read.own) };
    let request = Request {
        prompt: prompt.clone(),
        negative_prompt: args.negative_prompt.clone(),
        width,
        height,
        run,
        cfg_scale: args.cfg_scale.unwrap_or(model.defaults.guidance_scale),
        guidance_rescale: args.guidance_rescale.unwrap_or(model.defaults.guidance_rescale),
        seed: args.seed.unwrap_or_else(random_seed),
        noise: source(args.rng),
        batch: args.batch,
        clip_skip: args.clip_skip,
        precision: precision(&args.run),
        rules: rules(&args.run)?,
        observe: vec![],
        observe_steps: vec![],
        keep_steps: false,
        init: init.map(|read| read.picture),
        variation: None,
        reveal: None,
    };
    Ok((request, origin))
}

/// Says on standard error what did not fit into the text encoder.
pub(crate) fn say_what_was_cut(cut: &[String]) {
    for words in cut {
        eprintln!("note: the prompt is longer than the text encoder reads; left out: {words}");
    }
}

/// What made picture number `i` of a request, as the field's programs write it.
pub(crate) fn parameters(draw: &DrawArgs, request: &Request, origin: &Origin, model: &Model, i: usize) -> String {
    let mut settings = vec![
        ("Steps", draw.steps.unwrap_or(model.defaults.steps).to_string()),
        ("Sampler", origin.sampler.sampler.name().to_owned()),
        ("Schedule type", format!("{:?}", origin.sampler.curve).to_lowercase()),
        ("CFG scale", request.cfg_scale.to_string()),
        ("Seed", request.seed.wrapping_add(i as u64).to_string()),
        ("Size", format!("{}x{}", request.width, request.height)),
        ("Model", model.name.clone()),
    ];
    if let Some([width, height]) = origin.init_size {
        settings.push(("Denoising strength", origin.strength.to_string()));
        settings.push(("Init image size", format!("{width}x{height}")));
    }
    if let Some(variation) = request.variation {
        settings.push(("Variation seed", variation.seed.wrapping_add(i as u64).to_string()));
        settings.push(("Variation seed strength", variation.strength.to_string()));
    }
    if request.clip_skip > 1 {
        settings.push(("Clip skip", request.clip_skip.to_string()));
    }
    if request.guidance_rescale > 0.0 {
        settings.push(("Guidance rescale", request.guidance_rescale.to_string()));
    }
    settings.push(("RNG", format!("{:?}", draw.rng).to_lowercase()));
    settings.push(version());
    Parameters { prompt: &request.prompt, negative_prompt: &request.negative_prompt, settings }.text()
}

/// The same for what no prompt made.
pub(crate) fn plain_parameters(model: &Model, mut settings: Vec<(&'static str, String)>) -> String {
    settings.push(("Model", model.name.clone()));
    settings.push(version());
    Parameters { prompt: "", negative_prompt: "", settings }.text()
}

fn version() -> (&'static str, String) {
    ("Version", format!("ratel {}", env!("CARGO_PKG_VERSION")))
}

/// Settings of a sampler that make no sense are mistakes on the command line.
fn refused(error: SamplerError) -> Failure {
    Failure::Usage(error.to_string())
}

/// A seed as programs of the field draw it: 32 bits, short enough to type again.
pub(crate) fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() >> 32
}

/// A flag that the first Ctrl-C sets; the second ends the program at once.
pub(crate) fn stop_on_ctrl_c() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .map_err(|error| Failure::Check(format!("Ctrl-C can't be caught: {error}")))?;
    Ok(stop)
}
