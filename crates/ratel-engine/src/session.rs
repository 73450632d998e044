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
use rayon::prelude::*;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

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

/// How much of a step is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing.
    Away,
    /// What it writes.
    Output,
    /// What it reads and what it writes.
    Operands,
}

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
    /// [`Plan::live_bytes`], once something asks.
    live_bytes: OnceLock<Vec<u64>>,
}

impl Engine {
    /// Allocates a plan's memory, compiles its kernels and uploads its weights. Staging memory stays bounded, so that
    /// beside the device's memory a load takes little of the host's.
    ///
    /// # Errors
    /// If the plan was made for another kind of device, or does not fit this one; what `source` and the device report.
    pub fn load(
        &self,
        mut plan: Plan,
        source: &dyn WeightSource,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Session, EngineError> {
        if plan.target.twins != self.device().is_none() {
            let made = if plan.target.twins { "the CPU twins" } else { "a device" };
            return Err(EngineError::Plan(format!("it was made for {made}, and this engine is {}", self.name())));
        }
        if let Where::Device(gpu) = &self.place {
            if let Some(tuner) = &self.tuner {
                tuner.tune(self, gpu, &mut plan)?;
            }
            compile(gpu, &plan)?;
        }
        let ports = |ports: &[Port]| -> Result<Vec<Buffer>, EngineError> {
            ports.iter().map(|port| self.buffer(port.role, port.shape.count(), &plan.target)).collect()
        };
        let mut session = Session {
            engine: self.clone(),
            slots: plan.slots.iter().map(|bytes| self.allocate("slot", *bytes)).collect::<Result<_, _>>()?,
            inputs: ports(&plan.inputs)?,
            outputs: ports(&plan.outputs)?,
            weights: Weights::load(self, &plan.target, &plan.weights, source, progress)?,
            dispatches: vec![],
            live_bytes: OnceLock::new(),
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
        Ok(session)
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

    /// Runs every step and waits. Submissions are bounded in their estimated time, and two at most are under way.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`] when told to stop; what the device reports.
    pub fn run(&self, hooks: &mut Hooks) -> Result<(), EngineError> {
        self.run_steps(0..self.plan.steps.len(), hooks, self.engine.tape.as_deref())
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
        self.run_steps(done..self.plan.steps.len(), hooks, self.engine.tape.as_deref())
    }

    /// Like [`Session::run`], and shows the operands of steps as they lay in memory: of each step as much as `wanted` says
    /// of it, the inputs as the step found them. Nothing is kept from being fused for it, so what is seen is what runs.
    ///
    /// # Errors
    /// Those of [`Session::run`].
    pub fn run_looking(
        &self,
        hooks: &mut Hooks,
        wanted: &dyn Fn(usize) -> Look,
        look: &mut dyn FnMut(usize, Vec<Vec<f32>>),
    ) -> Result<(), EngineError> {
        let (total, tape) = (self.plan.steps.len(), self.engine.tape.as_deref());
        let mut done = 0;
        for i in (0..total).filter(|&i| wanted(i) != Look::Away) {
            self.run_steps(done..i, hooks, tape)?;
            let operands = self.plan.steps[i].op.operands();
            let inputs = if wanted(i) == Look::Operands { operands.len().saturating_sub(1) } else { 0 };
            let mut seen = (0..inputs).map(|at| self.operand(i, at)).collect::<Result<Vec<_>, _>>()?;
            self.run_steps(i..i + 1, hooks, tape)?;
            done = i + 1;
            seen.push(self.operand(i, operands.len() - 1)?);
            look(i, seen);
        }
        self.run_steps(done..total, hooks, tape)
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
        let mut under_way = VecDeque::new();
        let mut stopped = Ok(());
        let finish = |(submission, end), hooks: &mut Hooks| -> Result<(), EngineError> {
            gpu.wait(Some(submission))?;
            if let Some(tape) = tape {
                tape.harvest(gpu)?;
            }
            hooks.tell(end, total);
            Ok(())
        };
        for batch in self.batches(steps, gpu.info.kind, tape.map_or(usize::MAX, |_| tape::DISPATCHES)) {
            stopped = hooks.check();
            if stopped.is_err() {
                break;
            }
            under_way.push_back((self.submit(gpu, batch.clone(), tape)?, batch.end));
            if under_way.len() == 2
                && let Some(first) = under_way.pop_front()
            {
                finish(first, hooks)?;
            }
        }
        for last in under_way {
            finish(last, hooks)?;
        }
        stopped
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

/// Compiles what a plan needs, each kernel once, on every core.
fn compile(gpu: &Arc<Gpu>, plan: &Plan) -> Result<(), EngineError> {
    let mut needed = HashMap::new();
    for step in &plan.steps {
        let choice = chosen(&step.choice, &step.label)?;
        needed.entry(Key::new(choice, &plan.target)).or_insert(choice);
    }
    let needed: Vec<_> = needed.into_values().collect();
    needed.into_par_iter().try_for_each(|choice| gpu.pipeline(choice, &plan.target).map(drop))
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
