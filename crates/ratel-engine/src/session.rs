//! A plan loaded on an engine: its memory, its dispatches, and the ways to run it.

use crate::buffer::{Allocation, Region, from_f16};
use crate::dispatch::Dispatch;
use crate::engine::Where;
use crate::gpu::Gpu;
use crate::pipeline::Key;
use crate::tape::{self, Note, Tape};
use crate::weights::Weights;
use crate::{Buffer, DeviceKind, Engine, EngineError, WeightSource, cpu};
use ratel_graph::{Memory, Observed, Place, Plan, Port, Step};
use ratel_kernels::{Choice, Role, Target};
use ratel_tensor::Elem;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How far something is: bytes of an upload, steps of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// So many are done,
    pub done: u64,
    /// of so many.
    pub total: u64,
}

/// What a run tells and is told on its way.
#[derive(Default)]
pub struct Hooks<'a> {
    /// Set by another thread (Ctrl-C) to stop the run; looked at between submissions.
    pub cancel: Option<&'a AtomicBool>,
    /// Called after each submission with the steps that are done.
    pub progress: Option<&'a mut dyn FnMut(Progress)>,
}

impl Hooks<'_> {
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        match self.cancel {
            Some(cancel) if cancel.load(Ordering::Relaxed) => Err(EngineError::Cancelled),
            _ => Ok(()),
        }
    }

    pub(crate) fn tell(&mut self, done: usize, total: usize) {
        if let Some(progress) = &mut self.progress {
            progress(Progress { done: done as u64, total: total as u64 });
        }
    }
}

/// How long it took to load a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loading {
    /// Building the pipelines of its kernels, on every core, while its weights were read.
    pub pipelines: Duration,
    /// How many pipelines were built; those of plans loaded before are there already.
    pub built: usize,
    /// Reading, converting and uploading its weights, all at once.
    pub weights: Duration,
    /// All of it, with what was to be done before and after.
    pub whole: Duration,
}

/// Submissions that may be under way when the next one is recorded: one runs, and the next one waits for it.
const UNDER_WAY: usize = 2;

/// A plan in memory, ready to run any number of times.
#[derive(Debug)]
pub struct Session {
    pub(crate) engine: Engine,
    plan: Plan,
    slots: Vec<Allocation>,
    weights: Weights,
    inputs: Vec<Buffer>,
    outputs: Vec<Buffer>,
    /// One a step; none on the CPU twins.
    dispatches: Vec<Dispatch>,
    /// Whether the plan's prologue was run.
    prepared: AtomicBool,
    /// [`Plan::live_bytes`], once something asks.
    live_bytes: OnceLock<Vec<u64>>,
    /// The last submissions, with the number of steps of their run that are done after them.
    under_way: Mutex<VecDeque<(wgpu::SubmissionIndex, usize)>>,
    loading: Loading,
}

impl Engine {
    /// Allocates a plan's memory, and uploads its weights while further ones are read and converted and while its kernels'
    /// pipelines are built. Of the host's memory a load takes some tens of megabytes, whatever the weights' size.
    ///
    /// # Errors
    /// If the plan was made for another kind of device, or does not fit this one; what `source` and the device report.
    pub fn load(
        &self,
        mut plan: Plan,
        source: &dyn WeightSource,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Session, EngineError> {
        let begun = Instant::now();
        if plan.target.twins != self.device().is_none() {
            let made = if plan.target.twins { "the CPU twins" } else { "a device" };
            return Err(EngineError::Plan(format!("it was made for {made}, and this engine is {}", self.name())));
        }
        if let (Where::Device(gpu), Some(tuner)) = (&self.place, &self.tuner) {
            tuner.tune(self, gpu, &mut plan)?;
        }
        let ports = |ports: &[Port]| -> Result<Vec<Buffer>, EngineError> {
            ports.iter().map(|port| self.buffer(port.role, port.shape.count(), &plan.target)).collect()
        };
        let slots = plan.slots.iter().map(|bytes| self.allocate("slot", *bytes)).collect::<Result<_, _>>()?;
        let (inputs, outputs) = (ports(&plan.inputs)?, ports(&plan.outputs)?);
        let (weights, mut loading) = self.fill(&plan, source, progress)?;
        let mut session = Session {
            engine: self.clone(),
            slots,
            inputs,
            outputs,
            weights,
            dispatches: vec![],
            prepared: AtomicBool::new(false),
            live_bytes: OnceLock::new(),
            under_way: Mutex::default(),
            loading,
            plan,
        };
        if let Where::Device(gpu) = &self.place {
            session.dispatches = (0..session.plan.steps.len())
                .map(|i| {
                    let step = &session.plan.steps[i];
                    let choice = chosen(&step.choice, &step.label)?;
                    Dispatch::new(gpu, &step.op, choice, &session.plan.target, &session.operands(i)?)
                })
                .collect::<Result<_, _>>()?;
        }
        loading.whole = begun.elapsed();
        Ok(Session { loading, ..session })
    }

    /// Uploads a plan's weights and builds its pipelines, both at once.
    fn fill(
        &self,
        plan: &Plan,
        source: &dyn WeightSource,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Weights, Loading), EngineError> {
        let begun = Instant::now();
        // set by whichever of the two fails: nobody uploads gigabytes to hear that a kernel is wrong
        let halt = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let builder = scope.spawn(|| -> Result<_, EngineError> {
                let Where::Device(gpu) = &self.place else { return Ok((0, Duration::ZERO)) };
                let built = build(self, gpu, plan, &halt).inspect_err(|_| halt.store(true, Ordering::Relaxed))?;
                Ok((built, begun.elapsed()))
            });
            let go_on = || if halt.load(Ordering::Relaxed) { Err(EngineError::Cancelled) } else { self.check_stop() };
            let weights = Weights::load(self, &plan.target, &plan.weights, source, &go_on, progress);
            let uploaded = begun.elapsed();
            halt.fetch_or(weights.is_err(), Ordering::Relaxed);
            let (built, pipelines) = builder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok((weights?, Loading { pipelines, built, weights: uploaded, whole: Duration::ZERO }))
        })
    }
}

impl Session {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The engine that holds it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// An input, to be written before a run.
    ///
    /// # Errors
    /// If the plan has none of that name.
    pub fn input(&self, name: &str) -> Result<&Buffer, EngineError> {
        port(&self.plan.inputs, &self.inputs, name, "input")
    }

    /// An output, to be read after a run.
    ///
    /// # Errors
    /// If the plan has none of that name.
    pub fn output(&self, name: &str) -> Result<&Buffer, EngineError> {
        port(&self.plan.outputs, &self.outputs, name, "output")
    }

    /// How long it took to load.
    pub fn loading(&self) -> Loading {
        self.loading
    }

    /// Runs every step and waits. Submissions are bounded in their estimated time, and two at most are under way.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`] when told to stop; what the device reports.
    pub fn run(&self, hooks: &mut Hooks) -> Result<(), EngineError> {
        self.run_through(0..self.plan.steps.len(), hooks)
    }

    /// Runs the plan's prologue alone: after the tensors that are given once were written, before [`Session::run_again`].
    ///
    /// # Errors
    /// Those of [`Session::run`].
    pub fn prepare(&self, hooks: &mut Hooks) -> Result<(), EngineError> {
        self.run_through(0..self.plan.prologue, hooks)
    }

    /// Runs all but the plan's prologue, whose results are still there.
    ///
    /// # Errors
    /// If they are not; those of [`Session::run`].
    pub fn run_again(&self, hooks: &mut Hooks) -> Result<(), EngineError> {
        self.run_through(self.after_prologue()?, hooks)
    }

    /// Like [`Session::run_again`], but does not wait for the last of its submissions, so that what comes next is recorded
    /// while they run: their results are there for whatever the device is given later, and for whoever reads them. Two
    /// submissions at most are under way, those of the runs before included.
    ///
    /// # Errors
    /// Those of [`Session::run_again`]; some come with a later call.
    pub fn start_again(&self, hooks: &mut Hooks) -> Result<(), EngineError> {
        self.start_steps(self.after_prologue()?, hooks, self.engine.tape.as_deref())
    }

    fn after_prologue(&self) -> Result<Range<usize>, EngineError> {
        if self.plan.prologue > 0 && !self.prepared.load(Ordering::Relaxed) {
            return Err(EngineError::Plan("its prologue was not run".to_owned()));
        }
        Ok(self.plan.prologue..self.plan.steps.len())
    }

    /// Like [`Session::run`], and shows each observed tensor right after its step, as `f32` in its shape.
    ///
    /// # Errors
    /// Those of [`Session::run`].
    pub fn run_observed(
        &self,
        hooks: &mut Hooks,
        observe: &mut dyn FnMut(&Observed, Vec<f32>),
    ) -> Result<(), EngineError> {
        let mut order: Vec<&Observed> = self.plan.observed.iter().collect();
        order.sort_by_key(|observed| observed.step);
        self.begin(0);
        let mut done = 0;
        for observed in order {
            if let Some(step) = observed.step
                && step >= done
            {
                self.run_steps(done..step + 1, hooks, self.engine.tape.as_deref())?;
                done = step + 1;
            }
            observe(observed, self.read(observed)?);
        }
        self.run_through(done..self.plan.steps.len(), hooks)
    }

    /// Runs some steps, of which those before have run.
    fn run_through(&self, steps: Range<usize>, hooks: &mut Hooks) -> Result<(), EngineError> {
        self.begin(steps.start);
        let end = steps.end;
        self.run_steps(steps, hooks, self.engine.tape.as_deref())?;
        if end >= self.plan.prologue {
            self.prepared.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Steps from `first` on are about to run: of a prologue that is run again, nothing holds until it is done.
    fn begin(&self, first: usize) {
        if first < self.plan.prologue {
            self.prepared.store(false, Ordering::Relaxed);
        }
    }

    /// Runs a range of the plan's steps, such as all, or its prologue, or what comes after that, waits, and shows the
    /// operands of the steps that are `wanted` as they lay in memory, the inputs as the step found them. Nothing is kept from
    /// being fused for it, so what is seen is what runs.
    ///
    /// # Errors
    /// If the range is not within the plan; those of [`Session::run_again`].
    pub fn run_looking(
        &self,
        range: Range<usize>,
        hooks: &mut Hooks,
        wanted: &dyn Fn(usize) -> bool,
        look: &mut dyn FnMut(usize, Vec<Vec<f32>>),
    ) -> Result<(), EngineError> {
        if range.start > 0 {
            self.after_prologue()?;
        }
        if range.start > range.end || range.end > self.plan.steps.len() {
            return Err(EngineError::Plan(format!("it has {} steps, not {range:?}", self.plan.steps.len())));
        }
        let tape = self.engine.tape.as_deref();
        self.begin(range.start);
        let mut done = range.start;
        for i in range.clone().filter(|&i| wanted(i)) {
            self.run_steps(done..i, hooks, tape)?;
            let operands = self.plan.steps[i].op.operands();
            let mut seen = (0..operands.len() - 1).map(|at| self.operand(i, at)).collect::<Result<Vec<_>, _>>()?;
            self.run_steps(i..i + 1, hooks, tape)?;
            done = i + 1;
            seen.push(self.operand(i, operands.len() - 1)?);
            look(i, seen);
        }
        self.run_through(done..range.end, hooks)
    }

    /// The values of an operand of a step, by its number.
    fn operand(&self, step: usize, at: usize) -> Result<Vec<f32>, EngineError> {
        let step = &self.plan.steps[step];
        let operands = step.op.operands();
        let missing = || EngineError::Plan(format!("{} has no operand {at}", step.label));
        let (operand, place) = operands.get(at).zip(step.operands.get(at)).ok_or_else(missing)?;
        let region = self.region(place)?;
        let bytes = region.allocation.read(region.offset, region.bytes)?;
        let mut values = values(operand.role, &self.plan.target, &bytes);
        values.truncate(operand.count);
        Ok(values)
    }

    /// Runs some of the steps, and records them if there is a tape.
    pub(crate) fn run_steps(
        &self,
        steps: Range<usize>,
        hooks: &mut Hooks,
        tape: Option<&Tape>,
    ) -> Result<(), EngineError> {
        let started = self.start_steps(steps, hooks, tape);
        self.settle(0, hooks, tape)?;
        started
    }

    /// Waits until so many submissions are left.
    fn settle(&self, left: usize, hooks: &mut Hooks, tape: Option<&Tape>) -> Result<(), EngineError> {
        let Where::Device(gpu) = &self.engine.place else { return Ok(()) };
        loop {
            let mut under_way = self.under_way();
            let first = if under_way.len() > left { under_way.pop_front() } else { None };
            drop(under_way);
            let Some((submission, done)) = first else { return Ok(()) };
            gpu.wait(Some(submission))?;
            if let Some(tape) = tape {
                tape.harvest(gpu)?;
            }
            hooks.tell(done, self.plan.steps.len());
        }
    }

    fn under_way(&self) -> MutexGuard<'_, VecDeque<(wgpu::SubmissionIndex, usize)>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives some of the steps to the device.
    fn start_steps(&self, steps: Range<usize>, hooks: &mut Hooks, tape: Option<&Tape>) -> Result<(), EngineError> {
        self.engine.check_stop()?;
        let total = self.plan.steps.len();
        let tape = tape.filter(|tape| tape.times_dispatches());
        let gpu = match &self.engine.place {
            Where::Device(gpu) => gpu,
            Where::Twins(_) => {
                for i in steps {
                    hooks.check()?;
                    let run = || cpu::run(&self.plan.steps[i].op, &self.plan.target, &self.operands(i)?);
                    tape.map_or_else(run, |tape| tape.by_host(&self.note(i), run))?;
                    hooks.tell(i + 1, total);
                }
                return Ok(());
            }
        };
        if let Some(tape) = tape.filter(|_| !gpu.info.timestamps) {
            for i in steps {
                hooks.check()?;
                tape.by_host(&self.note(i), || gpu.wait(Some(self.submit(gpu, i..i + 1, None)?)))?;
                hooks.tell(i + 1, total);
            }
            return Ok(());
        }
        // of this run, nothing is done after a submission of the run before
        self.under_way().iter_mut().for_each(|(_, done)| *done = 0);
        for batch in self.batches(steps, gpu.info.kind, tape.map_or(usize::MAX, |_| tape::DISPATCHES)) {
            hooks.check()?;
            let submission = self.submit(gpu, batch.clone(), tape)?;
            self.under_way().push_back((submission, batch.end));
            self.settle(UNDER_WAY - 1, hooks, tape)?;
        }
        Ok(())
    }

    fn submit(
        &self,
        gpu: &Gpu,
        batch: Range<usize>,
        tape: Option<&Tape>,
    ) -> Result<wgpu::SubmissionIndex, EngineError> {
        if let Some(tape) = tape {
            return tape.submit(gpu, batch.map(|i| (&self.dispatches[i], self.note(i))));
        }
        gpu.guarded(&self.plan.steps[batch.start].label, || {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for dispatch in &self.dispatches[batch] {
                dispatch.record(&mut pass);
            }
            drop(pass);
            gpu.queue.submit([encoder.finish()])
        })
    }

    /// A step as a tape knows it.
    fn note(&self, step: usize) -> Note<'_> {
        let Step { label, op, choice, .. } = &self.plan.steps[step];
        let live = self.live_bytes.get_or_init(|| self.plan.live_bytes());
        Note {
            module: Some(label),
            op,
            choice: choice.as_ref(),
            target: &self.plan.target,
            held: self.engine.held(),
            used: live.get(step).copied(),
        }
    }

    /// Steps in runs that are submitted together: each as long as its estimated time allows, one step at least, and `most`
    /// steps at most.
    fn batches(&self, steps: Range<usize>, kind: DeviceKind, most: usize) -> Vec<Range<usize>> {
        let times = self.plan.steps[steps.clone()].iter().map(|step| {
            let cost = step.op.cost(&self.plan.target);
            let (flops, bytes) = pace(kind);
            cost.flops / flops + cost.bytes / bytes
        });
        let cuts = cut(times, SUBMISSION);
        let parts = |run: Range<usize>| {
            let (start, end) = (steps.start + run.start, steps.start + run.end);
            (start..end).step_by(most).map(move |start| start..end.min(start.saturating_add(most)))
        };
        cuts.into_iter().flat_map(parts).collect()
    }

    /// Where the operands of a step lie.
    fn operands(&self, step: usize) -> Result<Vec<Region<'_>>, EngineError> {
        self.plan.steps[step].operands.iter().map(|place| self.region(place)).collect()
    }

    fn region(&self, place: &Place) -> Result<Region<'_>, EngineError> {
        let missing = || EngineError::Plan(format!("there is no {:?}", place.memory));
        let memory = match place.memory {
            Memory::Slot(i) => self.slots.get(i),
            Memory::Input(i) => self.inputs.get(i).map(|buffer| &buffer.allocation),
            Memory::Output(i) => self.outputs.get(i).map(|buffer| &buffer.allocation),
            Memory::Weight(i) => return self.weights.region(i, place).ok_or_else(missing),
        };
        memory.map(|memory| memory.region(place.offset, place.bytes)).ok_or_else(missing)
    }

    /// An observed tensor's values.
    fn read(&self, observed: &Observed) -> Result<Vec<f32>, EngineError> {
        let role = match (observed.step, observed.place.memory) {
            (Some(step), _) => self.plan.steps.get(step).map(|step| step.op.output().role),
            (None, Memory::Input(i)) => self.plan.inputs.get(i).map(|port| port.role),
            (None, _) => None,
        };
        let missing = || EngineError::Plan(format!("{} is written by no step", observed.name));
        let role = role.ok_or_else(missing)?;
        let region = self.region(&observed.place)?;
        let bytes = region.allocation.read(region.offset, region.bytes)?;
        let mut values = values(role, &self.plan.target, &bytes);
        values.truncate(observed.shape.count());
        Ok(values)
    }
}

/// Bytes of a role as numbers.
fn values(role: Role, target: &Target, bytes: &[u8]) -> Vec<f32> {
    match role {
        Role::Activation if target.elem == Elem::F16 => from_f16(bytes),
        Role::Weight if target.weight.elem() == Elem::F16 => from_f16(bytes),
        Role::Bytes => bytes.iter().map(|byte| f32::from(*byte)).collect(),
        Role::Ids { .. } => bytemuck::pod_collect_to_vec::<u8, u32>(bytes).into_iter().map(|id| id as f32).collect(),
        _ => bytemuck::pod_collect_to_vec(bytes),
    }
}

fn port<'a>(ports: &[Port], buffers: &'a [Buffer], name: &str, kind: &str) -> Result<&'a Buffer, EngineError> {
    let found = ports.iter().position(|port| port.name == name);
    found.and_then(|i| buffers.get(i)).ok_or_else(|| {
        let known: Vec<_> = ports.iter().map(|port| port.name.as_str()).collect();
        EngineError::Plan(format!("it has no {kind} `{name}`; it has {}", known.join(", ")))
    })
}

fn chosen<'a>(choice: &'a Option<Choice>, label: &str) -> Result<&'a Choice, EngineError> {
    choice.as_ref().ok_or_else(|| EngineError::Plan(format!("no kernel was chosen for {label}")))
}

/// Builds the pipelines that a plan needs, each once, and says how many were new. On threads of its own, since those of
/// rayon convert weights meanwhile. It ends early when `halt` is set, which the first that fails does, or when the engine is
/// told to stop.
fn build(engine: &Engine, gpu: &Arc<Gpu>, plan: &Plan, halt: &AtomicBool) -> Result<usize, EngineError> {
    let mut needed = HashMap::new();
    for step in &plan.steps {
        let choice = chosen(&step.choice, &step.label)?;
        needed.entry(Key::new(choice, &plan.target)).or_insert(choice);
    }
    let needed: Vec<_> = needed.into_values().collect();
    let before = gpu.pipelines.count();
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), EngineError> {
        while let Some(choice) = needed.get(next.fetch_add(1, Ordering::Relaxed)) {
            if halt.load(Ordering::Relaxed) {
                break;
            }
            let built = engine.check_stop().and_then(|()| gpu.pipeline(choice, &plan.target));
            built.inspect_err(|_| halt.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(needed.len());
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
        joined.fold(Ok(()), Result::and)
    })?;
    let built = gpu.pipelines.count();
    if let Some(kept) = &gpu.kept_pipelines {
        kept.keep(built);
    }
    Ok(built - before)
}

/// Seconds that a submission may take by estimate. Windows resets a device that does not answer for two seconds, and a
/// desktop stutters long before.
const SUBMISSION: f64 = 0.2;

/// Operations and bytes a second to reckon with: a slow device of each kind, so that estimates err to the long side.
fn pace(kind: DeviceKind) -> (f64, f64) {
    match kind {
        DeviceKind::Discrete => (2e12, 2e11),
        DeviceKind::Integrated | DeviceKind::Virtual | DeviceKind::Unknown => (2e11, 2e10),
        DeviceKind::Software => (2e10, 1e10),
    }
}

/// Runs of consecutive steps whose times sum up to at most `budget`, or single steps beyond it.
fn cut(times: impl Iterator<Item = f64>, budget: f64) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut spent = 0.0;
    for (i, time) in times.enumerate() {
        match runs.last_mut() {
            Some(run) if spent + time <= budget => run.end = i + 1,
            _ => {
                runs.push(i..i + 1);
                spent = 0.0;
            }
        }
        spent += time;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_where_the_budget_ends() {
        let times = [0.5, 0.4, 0.3, 5.0, 0.1, 0.1];
        assert_eq!(cut(times.into_iter(), 1.0), [0..2, 2..3, 3..4, 4..6]);
        assert_eq!(cut([].into_iter(), 1.0), []);
    }
}
