//! What `ratel inspect` keeps of a run while it runs, and what it makes of it.

use super::denoise::{size, some_of};
use super::encode::finite;
use crate::Failure;
use crate::progress::Progress;
use image::imageops::{FilterType, resize};
use ratel_diffusion::DiffusionError;
use ratel_diffusion::model::{Model, Space};
use ratel_diffusion::pipeline::{Event, Part, Request, Seen, Watcher, calls_together, latent_size, target};
use ratel_diffusion::stage::Stage;
use ratel_engine::{Engine, EngineError, Hooks};
use ratel_graph::{Finished, Plan, PlanOptions, Step};
use ratel_kernels::attention::Attention;
use ratel_kernels::{Cost, Limits, LinkError, Op, Shaders, Target, kernels_of};
use ratel_teach::{
    Component, Figures, Heat, HeatLayer, Histogram, KernelPage, Sample, Side, SideStep, Source, Tensor, Word,
    attention_maps, data_url, explain, in_order, kernel_page, map_size, per_word,
};
use ratel_tensor::{HostTensor, matches};
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

/// Components whose dispatches have no more bytes of operands than this are looked at whole, for the distribution of their
/// values; of larger ones only the modules whose values are kept.
const LOOKED_AT_WHOLE: u64 = 512 << 20;

/// The dispatches whose values are kept.
pub(super) struct Wish {
    /// By component, the numbers of its plan's steps.
    nodes: BTreeMap<String, BTreeSet<usize>>,
    /// Components that are looked at whole.
    whole: BTreeSet<String>,
    /// Bytes that kept values may take in the page.
    pub limit: u64,
    /// Bytes that all that fit the patterns would take, and how many they are.
    pub wanted: u64,
    pub fitting: usize,
    /// Bytes that those take that are kept.
    pub kept: u64,
    /// Bytes that steps and words take besides.
    besides: u64,
}

impl Wish {
    /// Of the dispatches that fit `patterns`, those that take no more than `limit` bytes in the page; the first patterns
    /// have precedence; besides, so many steps of the sampler are shown. Nothing is run for it: the plans say how large
    /// everything is.
    pub(super) fn new(
        engine: &Engine,
        model: &Model,
        request: &Request,
        patterns: &[String],
        limit: u64,
        shown: usize,
    ) -> Result<Wish, Failure> {
        let target = target(engine, request.precision, model.elem)?;
        let (nodes, whole) = (BTreeMap::new(), BTreeSet::new());
        let mut wish = Wish { nodes, whole, limit, wanted: 0, fitting: 0, kept: 0, besides: 0 };
        let copies = if request.cfg_scale > 1.0 { 2 } else { 1 };
        let [h, w] = latent_size(model, request.width, request.height)?;
        let options = PlanOptions { rules: request.rules.clone(), observe: vec![] };
        let together = calls_together(request.run.model_calls().count(), &request.rules);
        let mut graphs: Vec<(&str, Finished)> = vec![
            ("text_encoder", model.text_graph(copies, request.clip_skip)?),
            ("unet", model.unet_graph_of_calls(together, copies, h, w)?),
        ];
        if model.space() == Space::Latent {
            graphs.push(("vae", model.vae_graph(1, h, w)?));
        }
        let mut plans = Vec::new();
        for (name, graph) in graphs {
            let plan = graph.plan(&target, &options).map_err(DiffusionError::from)?;
            let bytes: u64 = plan.steps.iter().flat_map(|step| step.op.operands()).map(|o| o.bytes(&target)).sum();
            if bytes <= LOOKED_AT_WHOLE {
                wish.whole.insert(name.to_owned());
            }
            plans.push((name, plan));
        }
        let words = words(model, &request.prompt)?.len();
        let maps = plans.iter().filter(|(name, _)| *name == "unet").flat_map(|(_, plan)| crossings(plan));
        let of_maps: usize = maps.map(|op| op.queries * words).sum();
        // x, and for each prediction the noise and x0
        let of_latents = (1 + 2 * if copies > 1 { 3 } else { 1 }) * h * w * model.latent_channels();
        wish.besides = in_page(4 * (shown * (of_maps + of_latents)) as u64);
        let mut counted: BTreeSet<(&str, usize)> = BTreeSet::new();
        for pattern in patterns {
            for (name, plan) in &plans {
                for (i, step) in plan.steps.iter().enumerate() {
                    if !matches(pattern, &step.label) || !counted.insert((name, i)) {
                        continue;
                    }
                    let chosen = wish.nodes.entry((*name).to_owned()).or_default();
                    let whole = |writer: usize, at: usize| plan.steps[writer].operands.last() == step.operands.get(at);
                    let given = |at: usize| writer(plan, i, at).is_some_and(|w| chosen.contains(&w) && whole(w, at));
                    let operands = step.op.operands();
                    let new = operands.iter().enumerate().filter(|(at, _)| !given(*at));
                    let bytes = in_page(new.map(|(_, operand)| operand.bytes(&target)).sum());
                    wish.wanted += bytes;
                    wish.fitting += 1;
                    if wish.kept + bytes <= limit {
                        wish.kept += bytes;
                        chosen.insert(i);
                    }
                }
            }
        }
        Ok(wish)
    }

    /// What is going to be kept, in a sentence.
    pub(super) fn told(&self) -> String {
        let kept: usize = self.nodes.values().map(BTreeSet::len).sum();
        let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let left = match self.fitting - kept {
            0 => String::new(),
            n => format!("; {n} more would take {} (--limit, --only)", mb(self.wanted - self.kept)),
        };
        format!(
            "values of {kept} dispatches will take at most {} of the page{left}; the steps and what words attend to take {} \
             (--steps-shown)",
            mb(self.kept),
            mb(self.besides)
        )
    }
}

/// Bytes as they are in the page: base64 makes four of three.
fn in_page(bytes: u64) -> u64 {
    bytes / 3 * 4
}

/// The cross-attention of a UNet's plan.
fn crossings(plan: &Plan) -> impl Iterator<Item = &Attention> {
    plan.steps.iter().filter(|step| step.label.ends_with("attn2")).filter_map(|step| match &step.op {
        Op::Attention(op) => Some(op),
        _ => None,
    })
}

/// The dispatch whose output operand `at` of dispatch `i` is.
fn writer(plan: &Plan, i: usize, at: usize) -> Option<usize> {
    let place = plan.steps[i].operands.get(at)?;
    let writes = |step: &Step| step.operands.last().is_some_and(|last| last.memory == place.memory);
    let input = at + 1 < plan.steps[i].operands.len();
    if input { plan.steps[..i].iter().rposition(writes) } else { None }
}

/// What was seen of a dispatch.
struct Looked {
    /// The distribution of each operand's values.
    values: Vec<Histogram>,
    /// The values themselves, of those that are kept.
    kept: Option<Vec<Vec<f32>>>,
}

/// Follows a run and looks into it.
pub(super) struct Looker<'a> {
    pub progress: Progress,
    /// What is kept, and of which step.
    wish: Option<(&'a Wish, usize)>,
    words: Vec<Word>,
    latents: [usize; 2],
    plans: BTreeMap<String, Plan>,
    seen: BTreeMap<(String, usize), Looked>,
    /// Cross-attention of each step.
    heat: BTreeMap<usize, Heat>,
}

impl<'a> Looker<'a> {
    pub(super) fn new(
        model: &Model,
        request: &Request,
        wish: Option<(&'a Wish, usize)>,
    ) -> Result<Looker<'a>, Failure> {
        let latents = latent_size(model, request.width, request.height)?;
        Ok(Looker {
            progress: Progress::default(),
            wish,
            words: words(model, &request.prompt)?,
            latents,
            plans: BTreeMap::new(),
            seen: BTreeMap::new(),
            heat: BTreeMap::new(),
        })
    }

    /// The plan of a component that ran.
    pub(super) fn plan(&self, name: &str) -> Option<&Plan> {
        self.plans.get(name)
    }

    /// Puts what was seen into the components; returns the values and some elements taken apart.
    pub(super) fn fill(&mut self, components: &mut [Component]) -> (Vec<Tensor>, Vec<Sample>) {
        let (mut tensors, mut samples) = (Vec::new(), Vec::new());
        for (at, component) in components.iter_mut().enumerate() {
            let Some(plan) = self.plans.get(&component.name) else { continue };
            let mut written: BTreeMap<usize, usize> = BTreeMap::new();
            for (i, node) in component.nodes.iter_mut().enumerate() {
                let Some(seen) = self.seen.remove(&(component.name.clone(), i)) else { continue };
                for (operand, values) in node.operands.iter_mut().zip(seen.values) {
                    operand.values = Some(values);
                }
                let Some(kept) = seen.kept else { continue };
                for ((operand, place), values) in node.operands.iter_mut().zip(&plan.steps[i].operands).zip(&kept) {
                    // of what is read only in part, the part is kept by itself
                    let whole = |writer: usize| plan.steps[writer].operands.last() == Some(place);
                    let known = match operand.from {
                        Source::Node(writer) if whole(writer) => written.get(&writer).copied(),
                        _ => None,
                    };
                    let number = known.unwrap_or_else(|| {
                        tensors.push(Tensor::new(&operand.shape, values));
                        tensors.len() - 1
                    });
                    if operand.from == Source::Output {
                        written.insert(i, number);
                    }
                    operand.tensor = Some(number);
                }
                samples.extend(taken_apart(at, i, &plan.steps[i].op, &kept));
            }
        }
        (tensors, samples)
    }

    /// The page of each kernel that ran, by the name that its dispatches have for it.
    pub(super) fn kernels(&self, shaders: &Shaders) -> Result<BTreeMap<String, KernelPage>, LinkError> {
        let mut pages = BTreeMap::new();
        for plan in self.plans.values() {
            for step in &plan.steps {
                let (choice, target, twin) = match &step.choice {
                    Some(choice) => (choice.clone(), plan.target, false),
                    None => {
                        // what a device would run at the least
                        let target = Target { twins: false, ..Target::PLAIN };
                        let Some(choice) = kernels_of(&step.op, &target).into_iter().next() else { continue };
                        (choice, target, true)
                    }
                };
                let key = match twin {
                    false => format!("{} {}", choice.kernel.name, ratel_profile::kernel_variant(&choice, &target)),
                    true => format!("{} (twin)", step.op.name()),
                };
                if let Entry::Vacant(place) = pages.entry(key) {
                    place.insert(kernel_page(&choice, &target, shaders)?);
                }
            }
        }
        Ok(pages)
    }
}

/// Elements of a dispatch: the middle one and the largest.
fn taken_apart(component: usize, node: usize, op: &Op, kept: &[Vec<f32>]) -> Vec<Sample> {
    const TERMS: usize = 4;
    let Some((output, inputs)) = kept.split_last() else { return vec![] };
    let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let largest = output.iter().enumerate().max_by(|(_, a), (_, b)| a.abs().total_cmp(&b.abs())).map(|(at, _)| at);
    let places: BTreeSet<usize> = [0, output.len() / 2].into_iter().chain(largest).collect();
    let explained = places.into_iter().filter_map(|element| explain(op, &inputs, element));
    let sample = explained.map(|found| Sample {
        component,
        node,
        element: found.element,
        value: found.value,
        device: output.get(found.element).copied().unwrap_or(f32::NAN),
        terms: (found.terms.len(), found.terms.into_iter().take(TERMS).collect()),
    });
    sample.collect()
}

impl Watcher for Looker<'_> {
    fn event(&mut self, event: Event) {
        self.progress.event(event);
    }

    fn seen(&mut self, seen: Seen) {
        self.progress.seen(seen);
    }

    fn run(&mut self, part: &Part<'_>, hooks: &mut Hooks) -> Option<Result<(), EngineError>> {
        let plan = part.session.plan();
        let name = plan.steps.first()?.label.split('.').next()?.to_owned();
        let unet = name == "unet";
        // what is in no step of the sampler is run once; of many calls, again for later ones
        let is_past = |chosen: &usize| unet && self.heat.contains_key(chosen);
        let looked = self.wish.filter(|(_, chosen)| match part.step {
            Some(step) => step == *chosen,
            None => !is_past(chosen),
        });
        let crossing = |i: usize| unet && plan.steps[i].label.ends_with("attn2");
        let keeps = |i: usize| looked.is_some_and(|(w, _)| w.nodes.get(&name).is_some_and(|nodes| nodes.contains(&i)));
        let whole = looked.is_some_and(|(wish, _)| wish.whole.contains(&name));
        let wanted = |i: usize| {
            let cross = crossing(i) && matches!(plan.steps[i].op, Op::Attention(_));
            whole || keeps(i) || cross
        };
        let mut heat = Heat::default();
        let (words, latents, all) = (&self.words, self.latents, &mut self.seen);
        let ran = part.session.run_looking(part.range.clone(), hooks, &wanted, &mut |i, values| {
            let planned = &plan.steps[i];
            if let (Op::Attention(op), true) = (&planned.op, crossing(i))
                && let Some([rows, columns]) = map_size(op.queries, latents)
            {
                // with guidance the second half of the batch has the prompt
                let shares = attention_maps(op, &values[0], &values[1], op.batch - 1);
                let maps = per_word(&shares, op.keys, words);
                let maps = Tensor::new(&[words.len(), rows, columns], &maps);
                heat.layers.push(HeatLayer { module: planned.label.clone(), maps });
            }
            if looked.is_some() && (whole || keeps(i)) {
                let histograms = values.iter().map(|values| Histogram::of(values)).collect();
                let in_order =
                    || values.into_iter().enumerate().map(|(at, values)| in_order(&planned.op, at, values)).collect();
                all.insert((name.clone(), i), Looked { values: histograms, kept: keeps(i).then(in_order) });
            }
        });
        if let Some(step) = part.step {
            // of several calls in one step the last
            self.heat.insert(step, heat);
        }
        if looked.is_some() {
            self.plans.insert(name, plan.clone());
        }
        Some(ran)
    }
}

/// The prompt's words, and the marks around them.
fn words(model: &Model, prompt: &str) -> Result<Vec<Word>, Failure> {
    let tokens = model.tokenizer.encode(prompt).map_err(DiffusionError::from)?;
    let mark = |text: &str, from, to| Word { text: text.to_owned(), tokens: [from, to], real: false };
    let real = |word: &ratel_diffusion::text::Word| Word {
        text: word.text.clone(),
        tokens: [word.positions.start, word.positions.end],
        real: true,
    };
    let end = tokens.words.last().map_or(1, |word| word.positions.end);
    let length = model.tokenizer.max_length();
    let mut all: Vec<Word> = tokens.words.iter().map(real).collect();
    all.extend([mark("start", 0, 1), mark("end", end, end + 1), mark("padding", end + 1, length)]);
    Ok(all)
}

/// The steps of a run as the page shows them.
pub(super) fn side(
    stage: &Stage,
    request: &Request,
    looker: &mut Looker,
    picture: Vec<u8>,
    steps_shown: usize,
) -> Result<Side, DiffusionError> {
    let seen = some_of(std::mem::take(&mut looker.progress.seen), Some(steps_shown));
    let mut decoded = Vec::new();
    for seen in &seen {
        let scale = seen.level.signal.hypot(seen.level.noise);
        decoded.push(stage.sum(&[(seen.x.clone(), 1.0 / scale)])?);
        decoded.extend(seen.guesses.last().map(|guess| guess.x0.clone()));
    }
    let pictures = if decoded.is_empty() {
        vec![]
    } else {
        stage.decode(&decoded.iter().collect::<Vec<_>>(), &mut looker.progress)?
    };
    looker.progress.finish();
    let mut pictures = pictures.into_iter().flatten();
    let latents = |values: &HostTensor| Tensor::new(&values.shape, &values.data);
    let mut steps = Vec::new();
    for Seen { step, timestep, level, x, guesses } in seen {
        let mut all = vec![("x".to_owned(), x)];
        for guess in guesses {
            all.push((format!("noise.{}", guess.name), guess.noise));
            all.push((format!("x0.{}", guess.name), guess.x0));
        }
        let shown = ["x", "x0"].into_iter().zip(pictures.by_ref());
        steps.push(SideStep {
            step,
            timestep,
            sigma: finite(level.sigma()),
            sizes: all.iter().map(|(name, values)| (name.clone(), size(values))).collect(),
            latents: all.iter().map(|(name, values)| (name.clone(), latents(values))).collect(),
            pictures: shown.map(|(name, rgb)| (name.to_owned(), small(request, rgb))).collect(),
            heat: looker.heat.remove(&step).unwrap_or_default(),
        });
    }
    Ok(Side {
        prompt: request.prompt.clone(),
        negative_prompt: request.negative_prompt.clone(),
        cfg_scale: request.cfg_scale,
        words: looker.words.clone(),
        steps,
        picture: whole(request, &picture),
    })
}

/// The longest side of the pictures of steps.
const SMALL: u32 = 256;

/// A picture of a step: JPEG, no larger than [`SMALL`].
fn small(request: &Request, rgb: Vec<u8>) -> String {
    let (w, h) = (request.width as u32, request.height as u32);
    let Some(mut picture) = image::RgbImage::from_raw(w, h, rgb) else { return String::new() };
    let longest = w.max(h);
    if longest > SMALL {
        let scaled = |side: u32| (side * SMALL / longest).max(1);
        picture = resize(&picture, scaled(w), scaled(h), FilterType::Triangle);
    }
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 88);
    match picture.write_with_encoder(encoder) {
        Ok(()) => data_url("image/jpeg", &bytes),
        Err(_) => String::new(),
    }
}

/// The result, as it is.
fn whole(request: &Request, rgb: &[u8]) -> String {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let (w, h) = (request.width as u32, request.height as u32);
    let written =
        image::write_buffer_with_format(&mut bytes, rgb, w, h, image::ColorType::Rgb8, image::ImageFormat::Png);
    if written.is_ok() { data_url("image/png", &bytes.into_inner()) } else { String::new() }
}

/// Why latents are cheaper: the UNet over latents as it ran, and over pixels as it would be planned.
pub(super) fn figures(model: &Model, request: &Request, unet: Option<&Plan>, components: &[Component]) -> Figures {
    let sum = |name: &str, of: &dyn Fn(&Component) -> f64| components.iter().find(|c| c.name == name).map_or(0.0, of);
    let flops = |component: &Component| component.nodes[component.once..].iter().map(|node| node.flops).sum();
    let bytes = |component: &Component| component.nodes[component.once..].iter().map(|node| node.bytes).sum();
    let copies = if request.cfg_scale > 1.0 { 2 } else { 1 };
    // no device would have to hold it: it is only counted
    let limits = Limits { binding_bytes: u64::MAX >> 1, buffer_bytes: u64::MAX >> 1, ..Limits::WEBGPU };
    let like = unet.map_or(Target::PLAIN, |plan| plan.target);
    let target = Target { twins: true, limits, ..like };
    let options = PlanOptions { rules: request.rules.clone(), observe: vec![] };
    let together = calls_together(request.run.model_calls().count(), &request.rules);
    let graph = model.unet_graph_of_calls(together, copies, request.height, request.width).ok();
    let plan = graph.filter(|_| model.space() == Space::Latent).and_then(|graph| graph.plan(&target, &options).ok());
    let cost = |plan: &Plan, of: &dyn Fn(Cost) -> f64| -> f64 {
        plan.steps[plan.prologue..].iter().map(|step| of(step.op.cost(&target))).sum()
    };
    let scale = model.latent_scale();
    Figures {
        picture_elements: request.width * request.height * 3,
        latent_elements: request.width / scale * (request.height / scale) * model.latent_channels(),
        unet_flops: sum("unet", &flops),
        unet_bytes: sum("unet", &bytes),
        unet_memory: components.iter().find(|c| c.name == "unet").map_or(0, |c| c.activation_bytes),
        pixel_flops: plan.as_ref().map(|plan| cost(plan, &|cost| cost.flops)),
        pixel_bytes: plan.as_ref().map(|plan| cost(plan, &|cost| cost.bytes)),
        pixel_memory: plan.as_ref().map(Plan::activation_bytes),
        decoder_flops: sum("vae", &flops),
    }
}
