//! From a prompt to pictures: text encoder, denoising, decoder, one after the other, so that only one of them is in device
//! memory at a time.

use crate::DiffusionError;
use crate::autoencoder::Picture;
pub use crate::denoise::Guess;
use crate::denoise::{Denoiser, Guide, Inside, Reuse};
use crate::latents::{self, slerp};
use crate::model::{Model, Space};
use crate::random::RandomSource;
use crate::sampling::{NoiseLevel, Prediction, Run};
use crate::stage::Stage;
use crate::text::Tokens;
use ratel_engine::{Engine, EngineError, Hooks, Point, Session};
use ratel_graph::{Plan, Rule};
use ratel_kernels::Target;
use ratel_tensor::{Elem, HostTensor};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

/// The type of numbers a run computes with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// `f16` where a GPU has it; otherwise activations in `f32` over weights in `f16`.
    #[default]
    Auto,
    /// `f32`, over weights as they are in the file.
    F32,
    /// `f16`, which the device must have.
    F16,
}

/// What to draw.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is to be seen.
    pub prompt: String,
    /// What is not.
    pub negative_prompt: String,
    /// Pixels across; a multiple of 8.
    pub width: usize,
    /// Pixels down; a multiple of 8.
    pub height: usize,
    /// The sampler's program: its steps with their timesteps and coefficients.
    pub run: Run,
    /// `guidance_scale`; at 1 and below the negative prompt is not looked at.
    pub cfg_scale: f32,
    /// `guidance_rescale`.
    pub guidance_rescale: f32,
    /// The first picture's seed; each further one counts up.
    pub seed: u64,
    /// Where noise comes from.
    pub noise: RandomSource,
    /// Pictures.
    pub batch: usize,
    /// 1 for the whole text encoder; 2 leaves out its last layer, and so on.
    pub clip_skip: usize,
    /// The type of numbers.
    pub precision: Precision,
    /// Fusion rules to apply.
    pub rules: Vec<Rule>,
    /// Modules whose outputs go to [`Watcher::tensor`].
    pub observe: Vec<String>,
    /// Steps of the UNet, from 0, whose modules are observed.
    pub observe_steps: Vec<usize>,
    /// Whether the latents of every step are kept and decoded.
    pub keep_steps: bool,
    /// A picture of this size to start from, noised to the level of the run's first step (image to image); `None` starts
    /// from noise alone.
    pub init: Option<Picture>,
    /// Noise to start on the way to.
    pub variation: Option<Variation>,
    /// What the model predicts, if [`Watcher::seen`] is to be told of every step.
    pub reveal: Option<Prediction>,
}

/// Initial noise between that of two seeds, on the great circle through both: AUTOMATIC1111's variation seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variation {
    /// The other first seed.
    pub seed: u64,
    /// How much of it: 0 is the request's own noise, 1 the other.
    pub strength: f64,
}

/// What a run made before its pictures are decoded.
#[derive(Clone, Debug)]
pub struct Denoised {
    /// The last latents, `(N, H, W, C)`.
    pub latents: HostTensor,
    /// The latents after each step, if they were asked for.
    pub steps: Vec<HostTensor>,
    /// What did not fit into the text encoder, if anything.
    pub cut: Vec<String>,
}

/// A step of a run as the model saw it, `(N, H, W, C)` all.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The step, from 0.
    pub step: usize,
    /// The training timestep that the model was told.
    pub timestep: f32,
    /// How noisy `x` is.
    pub level: NoiseLevel,
    /// The latents before the step.
    pub x: HostTensor,
    /// What the model made of them: without the prompt, with it, and guided, or the last alone without guidance.
    pub guesses: Vec<Guess>,
}

/// What a run made.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// One after the other, each `height * width * 3` bytes.
    pub pictures: Vec<Vec<u8>>,
    /// The last latents, `(N, C, H, W)`, as the sampler left them.
    pub latents: HostTensor,
    /// The pictures after each step, as in `pictures`, if they were asked for.
    pub steps: Vec<Vec<Vec<u8>>>,
    /// What did not fit into the text encoder, if anything.
    pub cut: Vec<String>,
}

/// What happens during a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// A component's weights are on their way to the device: bytes so far, of so many.
    Loading(&'static str, u64, u64),
    /// A step of the sampler was done: how many so far, of so many.
    Step(usize, usize),
    /// A picture was decoded: how many so far, of so many.
    Picture(usize, usize),
}

/// Whoever follows a run.
pub trait Watcher {
    /// Something happened.
    fn event(&mut self, event: Event);
    /// The output of an observed module: its name, and its value with channels first.
    fn tensor(&mut self, _name: &str, _value: HostTensor) {}
    /// A component runs whose modules could be observed: of the UNet in the steps that [`Request::observe_steps`] names and
    /// before them, of the decoder for the first picture. Whoever wants to look at the operands of its dispatches runs it
    /// here instead, with [`Session::run_looking`]; `None` leaves it to the pipeline.
    fn run(&mut self, _part: &Part<'_>, _hooks: &mut Hooks) -> Option<Result<(), EngineError>> {
        None
    }
    /// A step was seen from within, if the request asks for it; of a step with several calls of the model, the first.
    fn seen(&mut self, _seen: Seen) {}
}

/// What of a component runs.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// The component.
    pub session: &'a Session,
    /// The plan's steps: all of them, or its prologue, or what comes after that.
    pub range: Range<usize>,
    /// The step of the sampler, from 0, that it is run in, if it is run in one.
    pub step: Option<usize>,
}

/// How many of a run's calls of the UNet have their timesteps embedded together, before the first of them: all, up to as many
/// as take little memory, if what runs share is computed once.
pub fn calls_together(calls: usize, rules: &[Rule]) -> usize {
    if rules.contains(&Rule::Once) { calls.clamp(1, 64) } else { 1 }
}

/// The stage, among those that [`draw`] marks on an engine's tape, in which weights go to the device. The others are
/// `text_encoder`, `unet` and `sampler` with their step, and `vae_decoder`; what the UNet computes once for many steps is
/// `unet` without a step.
pub const LOADING: &str = "loading";

/// Draws what a request asks for.
///
/// # Errors
/// Sizes that are no multiple of 8, a checkpoint that does not fit, a device that lacks something or fails;
/// [`DiffusionError::is_stopped`] tells that `stop` was set.
pub fn draw(
    engine: &Engine,
    model: &Model,
    request: &Request,
    stop: &AtomicBool,
    watcher: &mut dyn Watcher,
) -> Result<Drawn, DiffusionError> {
    let stage = request.stage(engine, model, stop);
    let Denoised { latents, steps, cut } = denoise(engine, model, request, stop, watcher)?;
    let mut all = vec![&latents];
    all.extend(&steps);
    let mut decoded = stage.decode(&all, watcher)?.into_iter();
    let pictures = decoded.next().unwrap_or_default();
    Ok(Drawn { pictures, latents: latents.channels_first(), steps: decoded.collect(), cut })
}

/// All of [`draw`] but the decoding.
///
/// # Errors
/// As for [`draw`].
pub fn denoise(
    engine: &Engine,
    model: &Model,
    request: &Request,
    stop: &AtomicBool,
    watcher: &mut dyn Watcher,
) -> Result<Denoised, DiffusionError> {
    let stages = Stages { stage: request.stage(engine, model, stop), request };
    let mut ready = stages.prepare(watcher)?;
    let (latents, steps) = stages.denoise(&mut ready, request.variation, 0..1, watcher)?;
    Ok(Denoised { latents, steps, cut: ready.cut })
}

/// [`denoise`] for noise on several places of the way to other seeds', in their order: the prompts are encoded and the UNet
/// goes to the device only once. Steps are counted over all of them.
///
/// # Errors
/// As for [`draw`].
pub fn denoise_variations(
    engine: &Engine,
    model: &Model,
    request: &Request,
    variations: &[Variation],
    stop: &AtomicBool,
    watcher: &mut dyn Watcher,
) -> Result<Vec<Denoised>, DiffusionError> {
    let stages = Stages { stage: request.stage(engine, model, stop), request };
    let mut ready = stages.prepare(watcher)?;
    let mut made = Vec::new();
    for (i, variation) in variations.iter().enumerate() {
        let (latents, steps) = stages.denoise(&mut ready, Some(*variation), i..variations.len(), watcher)?;
        made.push(Denoised { latents, steps, cut: ready.cut.clone() });
    }
    Ok(made)
}

impl Request {
    /// What its stages run on.
    pub fn stage<'a>(&'a self, engine: &'a Engine, model: &'a Model, stop: &'a AtomicBool) -> Stage<'a> {
        Stage { engine, model, precision: self.precision, rules: &self.rules, observe: &self.observe, stop }
    }
}

/// The latents' height and width of a picture.
///
/// # Errors
/// Sizes of 0, that are no multiple of what a latent covers (8 pixels), or that are beyond any model.
pub fn latent_size(model: &Model, width: usize, height: usize) -> Result<[usize; 2], DiffusionError> {
    let step = model.latent_scale();
    let fits = |size: usize| size > 0 && size <= MAX_SIZE && size.is_multiple_of(step);
    if !fits(width) || !fits(height) {
        return Err(DiffusionError::Size { width, height, step, most: MAX_SIZE });
    }
    Ok([height / step, width / step])
}

/// The largest picture, in either direction.
pub const MAX_SIZE: usize = 16_384;

/// The stages of a run.
struct Stages<'a> {
    stage: Stage<'a>,
    request: &'a Request,
}

impl Stages<'_> {
    /// The embeddings of the prompts, `(2 N, T, C)` with the negative ones first, or `(N, T, C)` without guidance; and what
    /// was cut off the prompts. As in diffusers, layers are skipped for the prompt and not for the negative one.
    fn encode(&self, guide: &Guide, watcher: &mut dyn Watcher) -> Result<(Vec<f32>, Vec<String>), DiffusionError> {
        let Request { prompt, negative_prompt, clip_skip, batch, .. } = self.request;
        let encode =
            |prompt: &str| -> Result<Tokens, DiffusionError> { Ok(self.stage.model.tokenizer.encode(prompt)?) };
        let mut prompts = vec![encode(prompt)?];
        if guide.is_on() {
            prompts.insert(0, encode(negative_prompt)?);
        }
        let embeddings = match &prompts[..] {
            [negative, positive] if *clip_skip > 1 => {
                let negative = self.embed(std::slice::from_ref(negative), 1, watcher)?;
                [negative, self.embed(std::slice::from_ref(positive), *clip_skip, watcher)?].concat()
            }
            all => self.embed(all, *clip_skip, watcher)?,
        };
        // every picture of the batch has the same prompts
        let one = embeddings.len() / prompts.len();
        let repeated = embeddings.chunks(one).flat_map(|embedding| embedding.repeat(*batch)).collect();
        Ok((repeated, prompts.into_iter().filter_map(|tokens| tokens.cut).collect()))
    }

    /// One embedding `(T, C)` after the other.
    fn embed(
        &self,
        prompts: &[Tokens],
        clip_skip: usize,
        watcher: &mut dyn Watcher,
    ) -> Result<Vec<f32>, DiffusionError> {
        let stage = &self.stage;
        let plan = stage.plan(stage.model.text_graph(prompts.len(), clip_skip)?)?;
        let session = stage.load(plan, "text encoder", watcher)?;
        let ids: Vec<u32> = prompts.iter().flat_map(|tokens| tokens.ids.iter().copied()).collect();
        session.input("ids")?.write_u32(&ids)?;
        stage.engine.mark("text_encoder", None);
        stage.run(&session, None, "", watcher)?;
        Ok(session.output("context")?.read_f32()?)
    }

    /// Encodes the prompts and what the run starts from, and brings the UNet to the device.
    fn prepare(&self, watcher: &mut dyn Watcher) -> Result<Ready<'_>, DiffusionError> {
        let (stage, request) = (&self.stage, self.request);
        let [h, w] = latent_size(stage.model, request.width, request.height)?;
        let guide = Guide { scale: request.cfg_scale, rescale: request.guidance_rescale };
        let (context, cut) = self.encode(&guide, watcher)?;
        let shape = [request.batch, stage.model.latent_channels(), h, w];
        let mut noise = latents::Source::new(request.noise, request.seed, shape);
        let picture = request.init.as_ref().map(|picture| self.sample(picture, &mut noise, watcher)).transpose()?;
        let own = noise.draw();

        let copies = if guide.is_on() { 2 } else { 1 };
        let timesteps: Vec<f32> = request.run.model_calls().map(|call| call.timestep).collect();
        let images = copies * request.batch;
        let graph = if request.observe.is_empty() {
            let together = calls_together(timesteps.len(), &request.rules);
            stage.model.unet_graph_of_calls(together, images, h, w)?
        } else {
            // a trace shows those of each call by themselves, once for each image, as diffusers has them
            stage.model.unet_graph(images, h, w)?
        };
        let plan = stage.plan(graph)?;
        let session = stage.load(plan, "UNet", watcher)?;
        stage.engine.mark("sampler", None);
        session.input("context")?.write_f32(&context)?;
        let denoiser = Denoiser::new(stage.engine, session, guide, shape, timesteps);
        Ok(Ready { denoiser, shape, picture, own, noise, cut })
    }

    /// A picture as the UNet knows pictures, once for each of the batch, `(N, H, W, C)`: in image space as it is; in latent
    /// space a sample of what the encoder says, drawn first from `noise`, as diffusers' image-to-image pipeline does.
    fn sample(
        &self,
        picture: &Picture,
        noise: &mut latents::Source,
        watcher: &mut dyn Watcher,
    ) -> Result<HostTensor, DiffusionError> {
        let Request { width, height, batch, .. } = self.request;
        if (picture.width, picture.height) != (*width, *height) {
            let size = |width, height| format!("{width}x{height}");
            return Err(DiffusionError::Mismatch {
                what: "the picture to start from",
                given: size(picture.width, picture.height),
                expected: size(*width, *height),
            });
        }
        match self.stage.model.space() {
            Space::Image => Ok(HostTensor::new([*batch, *height, *width, 3], picture.tensor()?.data.repeat(*batch))),
            Space::Latent => Ok(self.stage.encode(picture, &noise.draw(), watcher)?.latents),
        }
    }

    /// The last latents `(N, H, W, C)`, and those after each step if they are kept. This is run `runs.start` of `runs.end`.
    fn denoise(
        &self,
        ready: &mut Ready<'_>,
        variation: Option<Variation>,
        runs: Range<usize>,
        watcher: &mut dyn Watcher,
    ) -> Result<(HostTensor, Vec<HostTensor>), DiffusionError> {
        let (stage, request) = (&self.stage, self.request);
        let terms = self.start(ready, variation);
        // whatever was drawn in another run, this one goes on from the start's noise
        let mut noise = ready.noise.clone();
        let denoiser = &mut ready.denoiser;
        denoiser.start(&terms)?;
        let mut kept = Vec::new();
        let steps = request.run.steps.len();
        let mut ahead = Ahead::new(stage.engine, runs.start * steps, runs.end * steps);
        for (i, step) in request.run.steps.iter().enumerate() {
            let observed = request.observe_steps.contains(&i);
            let prefix = if observed && request.observe_steps.len() > 1 { format!("step{i}.") } else { String::new() };
            // a trace shows in each step all that the step's outputs were made of
            let traced = observed && !request.observe.is_empty();
            let watched = request.observe.is_empty() && !request.observe_steps.is_empty();
            stage.engine.mark("sampler", Some(i));
            let inside = denoiser.step(step, request.reveal, &mut || noise.draw(), |session, reuse| {
                let Plan { prologue, steps, .. } = session.plan();
                let part = |range, step| Part { session, range, step };
                if reuse == Reuse::Nothing && *prologue > 0 && !traced {
                    stage.engine.mark("unet", None);
                    if !(watched && stage.is_run_by(watcher, &part(0..*prologue, None))?) {
                        stage.prepare(session)?;
                    }
                }
                stage.engine.mark("unet", Some(i));
                if traced {
                    stage.run(session, Some(i), &prefix, watcher)?;
                } else if !(observed && stage.is_run_by(watcher, &part(*prologue..steps.len(), Some(i)))?) {
                    stage.start_again(session, &mut || ahead.tell(watcher))?;
                }
                stage.engine.mark("sampler", Some(i));
                Ok(())
            })?;
            if let Some(Inside { timestep, x, guesses }) = inside {
                watcher.seen(Seen { step: i, timestep, level: step.level, x, guesses });
            }
            // what is waited for is the UNet
            stage.engine.mark("unet", Some(i));
            ahead.add_step(watcher)?;
            if request.keep_steps {
                kept.push(denoiser.latents()?);
            }
        }
        ahead.wait(0, watcher)?;
        stage.engine.mark("sampler", None);
        Ok((denoiser.latents()?, kept))
    }

    /// The sum that a run starts from: a picture and noise at the level of the first step, or noise alone.
    fn start(&self, ready: &Ready<'_>, variation: Option<Variation>) -> Vec<(HostTensor, f64)> {
        let Request { run, noise, .. } = self.request;
        let mut terms = Vec::new();
        let mut scale = run.initial_noise_scale;
        if let Some(picture) = &ready.picture {
            let level = run.steps.first().map_or(NoiseLevel { signal: 1.0, noise: 0.0 }, |step| step.level);
            terms.push((picture.clone(), level.signal));
            scale = level.noise;
        }
        let own = ready.own.clone();
        match variation {
            None => terms.push((own, scale)),
            Some(Variation { seed, strength }) => {
                let other = latents::Source::new(*noise, seed, ready.shape).draw();
                let [a, b] = slerp(&own.data, &other.data, strength);
                terms.extend([(own, a * scale), (other, b * scale)]);
            }
        }
        terms
    }
}

/// A run whose UNet is on the device.
struct Ready<'e> {
    denoiser: Denoiser<'e>,
    /// `(N, C, H, W)`.
    shape: [usize; 4],
    /// The picture to start from, if there is one, and the noise that is added, `(N, H, W, C)`.
    picture: Option<HostTensor>,
    own: HostTensor,
    /// Draws what the steps ask for.
    noise: latents::Source,
    /// What did not fit into the text encoder, if anything.
    cut: Vec<String>,
}

/// The steps that were given to the device and of which nobody was told yet that they are done. The host records a step while
/// the one before runs, and is never further ahead than that.
struct Ahead<'a> {
    engine: &'a Engine,
    steps: VecDeque<Point>,
    done: usize,
    total: usize,
}

impl<'a> Ahead<'a> {
    /// Of `total` steps, `done` were done before.
    fn new(engine: &'a Engine, done: usize, total: usize) -> Self {
        Ahead { engine, steps: VecDeque::new(), done, total }
    }

    /// A step was given to the device: the one before it is waited for.
    fn add_step(&mut self, watcher: &mut dyn Watcher) -> Result<(), DiffusionError> {
        self.steps.push_back(self.engine.point()?);
        self.wait(1, watcher)
    }

    /// Waits until so many steps are left to be done.
    fn wait(&mut self, left: usize, watcher: &mut dyn Watcher) -> Result<(), DiffusionError> {
        while let Some(first) = self.steps.front().filter(|_| self.steps.len() > left) {
            self.engine.reach(first)?;
            self.pop(watcher);
        }
        Ok(())
    }

    /// Tells of the steps that are done by now.
    fn tell(&mut self, watcher: &mut dyn Watcher) {
        while self.steps.front().is_some_and(Point::is_reached) {
            self.pop(watcher);
        }
    }

    fn pop(&mut self, watcher: &mut dyn Watcher) {
        self.steps.pop_front();
        self.done += 1;
        watcher.event(Event::Step(self.done, self.total));
    }
}

/// What kernels are chosen for: see [`Precision`].
///
/// # Errors
/// `f16` on a device that lacks it.
pub fn target(engine: &Engine, precision: Precision, file: Elem) -> Result<Target, DiffusionError> {
    let gpu_f16 = engine.device().is_some_and(|info| info.f16 && info.kind != ratel_engine::DeviceKind::Software);
    let in_file = if file == Elem::F16 { Elem::F16 } else { Elem::F32 };
    let (elem, weight) = match precision {
        Precision::F32 => (Elem::F32, in_file),
        Precision::F16 => (Elem::F16, Elem::F16),
        Precision::Auto if gpu_f16 => (Elem::F16, Elem::F16),
        Precision::Auto if engine.device().is_none() => (Elem::F32, in_file),
        Precision::Auto => (Elem::F32, Elem::F16),
    };
    Ok(engine.target(elem, weight)?)
}
