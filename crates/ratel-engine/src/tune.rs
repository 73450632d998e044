//! Kernels chosen by their time on the device rather than by their merit, which is a guess: once for each shape of an
//! op, within a bounded time, and kept between runs.

use crate::buffer::{Allocation, to_f16};
use crate::check::Random;
use crate::engine::Where;
use crate::gpu::Gpu;
use crate::pipeline::Key;
use crate::{Engine, EngineError, Progress, cache};
use ratel_graph::Plan;
use ratel_kernels::{Choice, Op, Options, Role, Shaders, Target, kernels_of, link};
use ratel_tensor::Elem;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How kernels are to be tuned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Where winners are kept between runs; `None` keeps them while the engine is open.
    pub folder: Option<PathBuf>,
    /// Whether to time anew what was timed in earlier runs.
    pub force: bool,
    /// The time that may be spent on it as long as the engine is open; shapes that are left have the kernel of the
    /// greatest merit. The costliest shapes come first.
    pub budget: Duration,
}

/// The most candidates for one shape.
const CANDIDATES: usize = 12;
/// Kernels of less than this share of the best one's merit are not tried: they can be a hundred times slower.
const WORTH_A_TRY: f32 = 0.05;
/// The time that one candidate is timed for.
const CANDIDATE: Duration = Duration::from_millis(20);

/// A candidate that was the fastest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Winner {
    kernel: String,
    /// Of every candidate's text and schedule: with other candidates the race is run again.
    candidates: u64,
    /// Its median.
    seconds: f64,
}

type Winners = BTreeMap<String, Winner>;

/// What an engine knows of winners.
pub(crate) struct Tuner {
    tuning: Tuning,
    state: Mutex<State>,
    progress: Box<dyn Fn(Progress) + Send + Sync>,
}

#[derive(Debug, Default)]
struct State {
    winners: Winners,
    /// The shapes that were timed since the engine was opened.
    timed: BTreeSet<String>,
    spent: Duration,
}

impl fmt::Debug for Tuner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tuner").field("tuning", &self.tuning).finish_non_exhaustive()
    }
}

/// One shape of an op in a plan.
struct Shape<'a> {
    op: &'a Op,
    candidates: Vec<Choice>,
    hash: u64,
    /// Operations in the whole plan.
    flops: f64,
}

impl Engine {
    /// This engine, with plans that are loaded from now on tuned; `progress` is told of shapes. On the CPU twins, which
    /// have no kernels, and with kernels edited on disk, which may change under the same name, nothing is tuned.
    pub fn tuned(mut self, tuning: Tuning, progress: impl Fn(Progress) + Send + Sync + 'static) -> Engine {
        let Where::Device(gpu) = &self.place else { return self };
        if gpu.options.shaders != Shaders::Embedded {
            return self;
        }
        let mut state = State::default();
        if let Some(path) = path(&tuning, gpu) {
            state.winners = cache::read(&path).unwrap_or_default();
        }
        let tuner = Tuner { tuning, state: Mutex::new(state), progress: Box::new(progress) };
        self.tuner = Some(Arc::new(tuner));
        self
    }
}

/// The file of a device's winners. Kernels with checks have a race of their own.
fn path(tuning: &Tuning, gpu: &Gpu) -> Option<PathBuf> {
    let name = gpu.info.to_string();
    let checks = if gpu.options.checks { "checks" } else { "" };
    tuning.folder.as_ref().map(|folder| folder.join(cache::file_name("tuned", &[&name, &gpu.info.driver, checks])))
}

impl Tuner {
    /// Gives every step of a plan the fastest kernel that is known, after timing what is not known and fits the budget.
    pub(crate) fn tune(&self, engine: &Engine, gpu: &Gpu, plan: &mut Plan) -> Result<(), EngineError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let target = plan.target;
        let shapes = shapes(gpu, plan)?;
        let known = |(name, shape): &(&String, &Shape)| {
            let winner = state.winners.get(*name).is_some_and(|winner| winner.candidates == shape.hash);
            winner && (!self.tuning.force || state.timed.contains(*name))
        };
        let mut unknown: Vec<_> = shapes.iter().filter(|shape| !known(shape)).collect();
        unknown.sort_by(|(_, a), (_, b)| b.flops.total_cmp(&a.flops));
        let total = unknown.len() as u64;
        let mut stopped = Ok(());
        for (done, (name, shape)) in unknown.iter().enumerate() {
            if state.spent >= self.tuning.budget {
                break;
            }
            (self.progress)(Progress { done: done as u64, total });
            let begun = Instant::now();
            match fastest(engine, shape, &target) {
                Ok(Some((kernel, seconds))) => {
                    let winner = Winner { kernel: kernel.to_owned(), candidates: shape.hash, seconds };
                    state.winners.insert((*name).clone(), winner);
                    state.timed.insert((*name).clone());
                }
                Ok(None) => {}
                Err(error @ (EngineError::Lost(_) | EngineError::Cancelled)) => {
                    stopped = Err(error);
                    break;
                }
                // no room to try it in, say: the kernel of the greatest merit it is
                Err(_) => {}
            }
            state.spent += begun.elapsed();
        }
        if total > 0 {
            (self.progress)(Progress { done: total, total });
            if let Some(path) = path(&self.tuning, gpu) {
                cache::write(&path, &state.winners).unwrap_or_default();
            }
        }
        stopped?; // after what was timed until then is kept
        let mut chosen = Vec::new();
        for step in &plan.steps {
            let name = name(&step.op, &target);
            let winner = state.winners.get(&name).zip(shapes.get(&name));
            chosen.push(winner.and_then(|(winner, shape)| {
                let known = winner.candidates == shape.hash;
                shape.candidates.iter().find(|choice| known && choice.kernel.name == winner.kernel).cloned()
            }));
        }
        for (step, choice) in plan.steps.iter_mut().zip(chosen) {
            if choice.is_some() {
                step.choice = choice;
            }
        }
        Ok(())
    }
}

/// A shape's name: the op with its sizes, and the types of its elements.
fn name(op: &Op, target: &Target) -> String {
    format!("{op:?} {} {:?}", target.elem, target.weight)
}

/// The shapes of a plan for which there is a choice.
fn shapes<'a>(gpu: &Gpu, plan: &'a Plan) -> Result<BTreeMap<String, Shape<'a>>, EngineError> {
    let mut shapes: BTreeMap<String, Shape> = BTreeMap::new();
    let mut texts: HashMap<Key, u64> = HashMap::new();
    for step in &plan.steps {
        let name = name(&step.op, &plan.target);
        if let Some(shape) = shapes.get_mut(&name) {
            shape.flops += step.op.flops();
            continue;
        }
        let candidates = candidates(&step.op, &plan.target);
        if candidates.len() < 2 {
            continue;
        }
        let mut hashes = Vec::new();
        for choice in &candidates {
            let key = Key::new(choice, &plan.target);
            let hash = match texts.get(&key) {
                Some(hash) => *hash,
                None => *texts.entry(key).or_insert(text_hash(gpu, choice, &plan.target)?),
            };
            hashes.push(hash.to_string());
        }
        let hash = cache::hash(&hashes.iter().map(String::as_str).collect::<Vec<_>>());
        shapes.insert(name, Shape { op: &step.op, candidates, hash, flops: step.op.flops() });
    }
    Ok(shapes)
}

/// What can be tried, the likeliest first.
fn candidates(op: &Op, target: &Target) -> Vec<Choice> {
    let mut all = kernels_of(op, target);
    all.sort_by(|a, b| b.schedule.merit.total_cmp(&a.schedule.merit));
    let least = all.first().map_or(0.0, |best| best.schedule.merit * WORTH_A_TRY);
    all.retain(|choice| choice.schedule.merit >= least);
    all.truncate(CANDIDATES);
    all
}

/// Of a kernel as the device gets it.
fn text_hash(gpu: &Gpu, choice: &Choice, target: &Target) -> Result<u64, EngineError> {
    let Target { elem, weight, .. } = *target;
    let options = Options { elem, weight, immediates: gpu.immediates, unroll: false, shaders: Shaders::Embedded };
    let text = link(choice.kernel, &choice.schedule, &options)?;
    Ok(cache::hash(&[&text, &format!("{:?}", choice.schedule.constants)]))
}

/// The fastest candidate and its seconds.
fn fastest(engine: &Engine, shape: &Shape, target: &Target) -> Result<Option<(&'static str, f64)>, EngineError> {
    let memories = operands(engine, shape.op, target)?;
    let regions: Vec<_> = memories.iter().map(|memory| memory.region(0, memory.bytes())).collect();
    let mut best: Option<(&'static str, f64)> = None;
    for choice in &shape.candidates {
        let seconds = engine.time(shape.op, Some(choice), target, &regions, CANDIDATE)?.seconds.median;
        if best.is_none_or(|(_, least)| seconds < least) {
            best = Some((choice.kernel.name, seconds));
        }
    }
    Ok(best)
}

/// An op's operands with random numbers, since zeros may be multiplied faster.
fn operands(engine: &Engine, op: &Op, target: &Target) -> Result<Vec<Allocation>, EngineError> {
    const PIECE: usize = 1 << 18;
    let mut random = Random(1);
    let floats: Vec<f32> = (0..PIECE).map(|_| random.signed()).collect();
    let halves = to_f16(&floats);
    let mut memories = Vec::new();
    for operand in op.operands() {
        let memory = engine.allocate("tuning", operand.bytes(target))?;
        let half = match operand.role {
            Role::Activation => target.elem == Elem::F16,
            Role::Weight => target.weight.elem() == Elem::F16,
            _ => false,
        };
        let piece: &[u8] = if half { bytemuck::cast_slice(&halves) } else { bytemuck::cast_slice(&floats) };
        // ids stay zero, which every table has
        if !matches!(operand.role, Role::Ids { .. } | Role::Bytes) {
            for at in (0..memory.bytes()).step_by(piece.len()) {
                let length = (memory.bytes() - at).min(piece.len() as u64) as usize;
                memory.write(at, &piece[..length])?;
            }
        }
        memories.push(memory);
    }
    Ok(memories)
}
