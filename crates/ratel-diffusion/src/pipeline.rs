//! From a prompt to pictures: text encoder, denoising, decoder, one after the other, so that only one of them is in device
//! memory at a time.

use crate::DiffusionError;
use crate::denoise::{Denoiser, Guide};
use crate::latents;
use crate::model::Model;
use crate::random::RandomSource;
use crate::sampling::Run;
use crate::text::Tokens;
use ratel_engine::{Engine, EngineError, Hooks, Progress, Session, WeightSink, WeightSource};
use ratel_graph::{Finished, Plan, PlanOptions, Rule};
use ratel_kernels::scale_latents::ScaleLatents;
use ratel_kernels::{Op, Role, Target};
use ratel_tensor::{Elem, HostTensor};
use std::sync::atomic::{AtomicBool, Ordering};

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
}

/// The stage, among those that [`draw`] marks on an engine's tape, in which weights go to the device. The others are
/// `text_encoder`, `unet` and `sampler` with their step, and `vae_decoder`.
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
    let [h, w] = latent_size(model, request.width, request.height)?;
    let guide = Guide { scale: request.cfg_scale, rescale: request.guidance_rescale };
    let stage = Stage { engine, model, request, stop };

    let (context, cut) = stage.encode(&guide, watcher)?;
    let (latents, kept) = stage.denoise(&guide, &context, h, w, watcher)?;
    let mut all = vec![&latents];
    all.extend(&kept);
    let mut decoded = stage.decode(&all, watcher)?.into_iter();
    let pictures = decoded.next().unwrap_or_default();
    Ok(Drawn { pictures, latents: latents.channels_first(), steps: decoded.collect(), cut })
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

/// What the stages of a run share.
struct Stage<'a> {
    engine: &'a Engine,
    model: &'a Model,
    request: &'a Request,
    stop: &'a AtomicBool,
}

impl Stage<'_> {
    /// The embeddings of the prompts, `(2 N, T, C)` with the negative ones first, or `(N, T, C)` without guidance; and what
    /// was cut off the prompts. As in diffusers, layers are skipped for the prompt and not for the negative one.
    fn encode(&self, guide: &Guide, watcher: &mut dyn Watcher) -> Result<(Vec<f32>, Vec<String>), DiffusionError> {
        let Request { prompt, negative_prompt, clip_skip, batch, .. } = self.request;
        let encode = |prompt: &str| -> Result<Tokens, DiffusionError> { Ok(self.model.tokenizer.encode(prompt)?) };
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
        let plan = self.plan(self.model.text_graph(prompts.len(), clip_skip)?)?;
        let session = self.load(plan, "text encoder", watcher)?;
        let ids: Vec<u32> = prompts.iter().flat_map(|tokens| tokens.ids.iter().copied()).collect();
        session.input("ids")?.write_u32(&ids)?;
        self.engine.mark("text_encoder", None);
        self.run(&session, "", watcher)?;
        Ok(session.output("context")?.read_f32()?)
    }

    /// The last latents `(N, H, W, C)`, and those after each step if they are kept.
    fn denoise(
        &self,
        guide: &Guide,
        context: &[f32],
        h: usize,
        w: usize,
        watcher: &mut dyn Watcher,
    ) -> Result<(HostTensor, Vec<HostTensor>), DiffusionError> {
        let request = self.request;
        let copies = if guide.is_on() { 2 } else { 1 };
        let graph = self.model.unet_graph(copies * request.batch, h, w)?;
        let plan = self.plan(graph)?;
        let session = self.load(plan, "UNet", watcher)?;
        self.engine.mark("sampler", None);
        session.input("context")?.write_f32(context)?;

        let shape = [request.batch, self.model.latent_channels(), h, w];
        let mut noise = latents::Source::new(request.noise, request.seed, shape);
        let mut denoiser = Denoiser::new(self.engine, session, *guide, shape);
        denoiser.start(&noise.draw(), request.run.initial_noise_scale)?;
        let mut kept = Vec::new();
        let total = request.run.steps.len();
        for (i, step) in request.run.steps.iter().enumerate() {
            let observed = request.observe_steps.contains(&i);
            let prefix = if observed && request.observe_steps.len() > 1 { format!("step{i}.") } else { String::new() };
            self.engine.mark("sampler", Some(i));
            denoiser.step(step, &mut || noise.draw(), |session| {
                self.engine.mark("unet", Some(i));
                let ran = if observed { self.run(session, &prefix, watcher) } else { self.run_plainly(session) };
                self.engine.mark("sampler", Some(i));
                ran
            })?;
            watcher.event(Event::Step(i + 1, total));
            if request.keep_steps {
                kept.push(denoiser.latents()?);
            }
        }
        self.engine.mark("sampler", None);
        Ok((denoiser.latents()?, kept))
    }

    /// The pictures of each of these latents.
    fn decode(&self, all: &[&HostTensor], watcher: &mut dyn Watcher) -> Result<Vec<Vec<Vec<u8>>>, DiffusionError> {
        let [batch, h, w, c] = match *all[0].shape {
            [n, h, w, c] => [n, h, w, c],
            _ => return Ok(vec![]),
        };
        let plan = self.plan(self.model.vae_graph(1, h, w)?)?;
        let target = plan.target;
        let session = self.load(plan, "VAE", watcher)?;
        self.engine.mark("vae_decoder", None);
        let count = h * w * c;
        let unscaled = self.engine.buffer(Role::Vector, count, &target)?;
        let (scale, shift) = (1.0 / self.model.scaling_factor, self.model.shift_factor);
        let op = Op::from(ScaleLatents { count, copies: 1, scale, shift });
        let mut pictures = Vec::new();
        for (i, latents) in all.iter().enumerate() {
            let mut images = Vec::new();
            for (j, one) in latents.data.chunks(count).enumerate() {
                unscaled.write_f32(one)?;
                self.engine.run_op(&op, None, &[&unscaled], session.input("latents")?)?;
                // a trace shows the first picture's
                if i + j == 0 {
                    self.run(&session, "", watcher)?
                } else {
                    self.run_plainly(&session)?
                }
                images.push(session.output("picture")?.read_bytes()?);
                watcher.event(Event::Picture(i * batch + j + 1, all.len() * batch));
            }
            pictures.push(images);
        }
        Ok(pictures)
    }

    fn plan(&self, graph: Finished) -> Result<Plan, DiffusionError> {
        let options = PlanOptions { rules: self.request.rules.clone(), observe: self.request.observe.clone() };
        Ok(graph.plan(&target(self.engine, self.request.precision, self.model.elem)?, &options)?)
    }

    fn load(&self, plan: Plan, name: &'static str, watcher: &mut dyn Watcher) -> Result<Session, DiffusionError> {
        self.engine.mark(LOADING, None);
        let source = Stoppable { source: &*self.model.weights, stop: self.stop };
        let progress = &mut |at: Progress| watcher.event(Event::Loading(name, at.done, at.total));
        Ok(self.engine.load(plan, &source, progress)?)
    }

    /// Runs a session, showing what is observed.
    fn run(&self, session: &Session, prefix: &str, watcher: &mut dyn Watcher) -> Result<(), DiffusionError> {
        let mut hooks = Hooks { cancel: Some(self.stop), ..Hooks::default() };
        session.run_observed(&mut hooks, &mut |observed, values| {
            let value = HostTensor::new(observed.shape, values).channels_first();
            watcher.tensor(&format!("{prefix}{}", observed.name), value);
        })?;
        Ok(())
    }

    fn run_plainly(&self, session: &Session) -> Result<(), DiffusionError> {
        session.run(&mut Hooks { cancel: Some(self.stop), ..Hooks::default() })?;
        Ok(())
    }
}

/// Weights whose loading can be stopped.
struct Stoppable<'a> {
    source: &'a dyn WeightSource,
    stop: &'a AtomicBool,
}

impl WeightSource for Stoppable<'_> {
    fn read(
        &self,
        weight: &ratel_graph::Weight,
        elem: Elem,
        sink: &mut WeightSink,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(EngineError::Cancelled.into());
        }
        self.source.read(weight, elem, sink)
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
