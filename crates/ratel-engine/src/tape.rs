//! The tape: what ran, and when, while a program runs as it always does.
//!
//! An engine with a tape ([`Engine::taped`]) runs the same plans in the same submissions. Each dispatch then has a compute
//! pass of its own between two timestamps, which are read when the submission is waited for anyway, so nothing waits that
//! would not wait without a tape. Devices without timestamps are timed by the host, one dispatch at a time.

use crate::dispatch::Dispatch;
use crate::engine::Where;
use crate::error::one_line;
use crate::gpu::Gpu;
use crate::{Engine, EngineError};
use cpu_time::ThreadTime;
use ratel_kernels::{Choice, Op, Target};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Dispatches timed by one query set, which holds at most 4096 timestamps, two a dispatch.
pub(crate) const DISPATCHES: usize = 2048;

/// What a tape records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapeOptions {
    /// Whether each dispatch is timed; otherwise spans alone, which cost nothing.
    pub dispatches: bool,
    /// The steps whose dispatches are timed. What belongs to no step is timed always.
    pub steps: Range<usize>,
}

/// A stretch of the host's time, from one [`Engine::mark`] to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// What was done, as the mark said.
    pub stage: &'static str,
    /// The step, if it belongs to one.
    pub step: Option<usize>,
    /// Nanoseconds from the tape's beginning to the mark.
    pub begin: u64,
    /// Nanoseconds to the next mark.
    pub nanoseconds: u64,
    /// Nanoseconds of them in which the thread that marks computed: it recorded dispatches, submitted them, or ran a twin's
    /// share, and did not wait.
    pub computed: u64,
}

/// A dispatch as it ran.
#[derive(Clone, Debug)]
pub struct Timed {
    /// The stage that was marked before it.
    pub stage: &'static str,
    /// The step that was marked with it.
    pub step: Option<usize>,
    /// The module, in diffusers' spelling; the stage and the op's name for an op that belongs to no plan.
    pub module: String,
    /// What was computed.
    pub op: Op,
    /// By which kernel; `None` for the CPU twins.
    pub choice: Option<Choice>,
    /// For what it was chosen.
    pub target: Target,
    /// Nanoseconds from the tape's beginning. The device's clock is laid over the host's so that no submission ends after
    /// its end was seen: an error of some microseconds.
    pub begin: u64,
    /// Nanoseconds that it took.
    pub nanoseconds: u64,
    /// Bytes that the engine held.
    pub held: u64,
    /// Bytes of them in use by the plan's step: weights, inputs, outputs and the tensors alive then.
    pub used: Option<u64>,
}

/// What was on a tape.
#[derive(Clone, Debug)]
pub struct Recording {
    /// In the order of time, without gaps.
    pub spans: Vec<Span>,
    /// In the order in which they were given to the device.
    pub dispatches: Vec<Timed>,
    /// Whether the device's own clock timed the dispatches. Otherwise the host's did, around each dispatch with its
    /// submission (too long by what a submission takes), or around each of the CPU twins.
    pub device_clock: bool,
}

/// A tape, to be put into an engine. It belongs to one run.
#[derive(Debug)]
pub struct Tape {
    options: TapeOptions,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The mark that the host has passed last.
    mark: Option<Mark>,
    spans: Vec<Span>,
    timed: Vec<Timed>,
    /// Whether `timed` has times of the device's clock, in nanoseconds from its first timestamp.
    device_clock: bool,
    pending: Vec<Pending>,
    idle: Vec<Stopwatch>,
    first_tick: Option<u64>,
    /// What is to be added to the device's times to get the host's: no less than the first, no more than the second.
    offset: Option<[i64; 2]>,
}

/// What the host does, and since when.
#[derive(Clone, Copy, Debug)]
struct Mark {
    stage: &'static str,
    step: Option<usize>,
    begin: u64,
    /// What its thread had computed by then.
    computed: Duration,
}

/// Two timestamps for each of many dispatches, and the way to the host.
#[derive(Debug)]
struct Stopwatch {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readable: wgpu::Buffer,
}

/// A submission whose timestamps were not read yet.
#[derive(Debug)]
struct Pending {
    stopwatch: Stopwatch,
    submitted: u64,
    dispatches: Vec<Timed>,
    mapped: mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
}

/// What is known of a dispatch before it runs.
#[derive(Debug)]
pub(crate) struct Note<'a> {
    /// The module; none for an op outside of a plan.
    pub(crate) module: Option<&'a str>,
    pub(crate) op: &'a Op,
    pub(crate) choice: Option<&'a Choice>,
    pub(crate) target: &'a Target,
    pub(crate) held: u64,
    pub(crate) used: Option<u64>,
}

impl Tape {
    /// An empty tape, whose time begins now.
    pub fn new(options: TapeOptions) -> Arc<Tape> {
        Arc::new(Tape { options, started: Instant::now(), state: Mutex::default() })
    }

    /// What was recorded, after everything that was given to the engine is done. The tape is empty then.
    ///
    /// # Errors
    /// What the device reports.
    pub fn take(&self, engine: &Engine) -> Result<Recording, EngineError> {
        if let Where::Device(gpu) = &engine.place {
            gpu.wait(None)?;
            self.harvest(gpu)?;
            let missing = self.state().pending.len();
            if missing > 0 {
                return Err(unreadable(format!("the timestamps of {missing} submissions did not come")));
            }
        }
        let now = self.now();
        let mut state = self.state();
        state.end_span(now);
        let state = std::mem::take(&mut *state);
        let mut dispatches = state.timed;
        if let Some([least, most]) = state.offset {
            let offset = if least <= most { least + (most - least) / 2 } else { most };
            for timed in &mut dispatches {
                timed.begin = timed.begin.saturating_add_signed(offset);
            }
        }
        Ok(Recording { spans: state.spans, dispatches, device_clock: state.device_clock })
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, stage: &'static str, step: Option<usize>) {
        let now = self.now();
        let mut state = self.state();
        state.end_span(now);
        state.mark = Some(Mark { stage, step, begin: now, computed: ThreadTime::now().as_duration() });
    }

    /// Whether a step, or what belongs to none, is of those that are recorded.
    fn records(&self, step: Option<usize>) -> bool {
        step.is_none_or(|step| self.options.steps.contains(&step))
    }

    /// Whether what runs now is.
    fn is_recording(&self) -> bool {
        self.records(self.state().mark.and_then(|mark| mark.step))
    }

    /// Whether dispatches are timed at this time.
    pub(crate) fn times_dispatches(&self) -> bool {
        self.options.dispatches && self.is_recording()
    }

    /// Runs one dispatch and waits for it, timed by the host.
    pub(crate) fn by_host(
        &self,
        note: &Note,
        run: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let begin = self.now();
        run()?;
        let nanoseconds = self.now() - begin;
        let mut state = self.state();
        let timed = state.timed(note);
        state.timed.push(Timed { begin, nanoseconds, ..timed });
        Ok(())
    }

    /// Submits dispatches, at most [`DISPATCHES`], each between two timestamps.
    pub(crate) fn submit<'a>(
        &self,
        gpu: &Gpu,
        dispatches: impl ExactSizeIterator<Item = (&'a Dispatch, Note<'a>)>,
    ) -> Result<wgpu::SubmissionIndex, EngineError> {
        let idle = self.state().idle.pop();
        let stopwatch = idle.map_or_else(|| Stopwatch::new(gpu), Ok)?;
        let bytes = 16 * dispatches.len() as u64;
        let mut timed = Vec::with_capacity(dispatches.len());
        let (sender, mapped) = mpsc::channel();
        let (submitted, submission) = gpu.guarded("profiling", || {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            for (i, (dispatch, note)) in (0..).zip(dispatches) {
                let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
                    query_set: &stopwatch.queries,
                    beginning_of_pass_write_index: Some(2 * i),
                    end_of_pass_write_index: Some(2 * i + 1),
                });
                let pass = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
                dispatch.record(&mut encoder.begin_compute_pass(&pass));
                timed.push(self.state().timed(&note));
            }
            let Stopwatch { queries, resolved, readable } = &stopwatch;
            encoder.resolve_query_set(queries, 0..2 * timed.len() as u32, resolved, 0);
            encoder.copy_buffer_to_buffer(resolved, 0, readable, 0, bytes);
            let commands = encoder.finish();
            let submitted = self.now();
            let submission = gpu.queue.submit([commands]);
            readable.map_async(wgpu::MapMode::Read, ..bytes, move |result| drop(sender.send(result)));
            (submitted, submission)
        })?;
        self.state().pending.push(Pending { stopwatch, submitted, dispatches: timed, mapped });
        Ok(submission)
    }

    /// Reads the timestamps of the submissions that have been waited for.
    pub(crate) fn harvest(&self, gpu: &Gpu) -> Result<(), EngineError> {
        let done = self.now();
        let period = f64::from(gpu.queue.get_timestamp_period());
        let mut state = self.state();
        for pending in std::mem::take(&mut state.pending) {
            match pending.mapped.try_recv() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(unreadable(one_line(&error.to_string()))),
                Err(mpsc::TryRecvError::Empty) => {
                    state.pending.push(pending); // not done yet
                    continue;
                }
                Err(mpsc::TryRecvError::Disconnected) => {
                    return Err(unreadable("the driver dropped a submission's timestamps".to_owned()));
                }
            }
            let Pending { stopwatch, submitted, dispatches, .. } = pending;
            let range = ..16 * dispatches.len() as u64;
            let ticks: Vec<u64> = {
                let view = stopwatch.readable.get_mapped_range(range);
                bytemuck::pod_collect_to_vec(&view.map_err(|e| unreadable(one_line(&e.to_string())))?)
            };
            stopwatch.readable.unmap();
            state.idle.push(stopwatch);
            let base = *state.first_tick.get_or_insert(ticks.first().copied().unwrap_or(0));
            let nanoseconds = |tick: u64| (tick.saturating_sub(base) as f64 * period) as u64;
            let last = ticks.iter().copied().max().map_or(0, nanoseconds);
            let first = ticks.iter().copied().min().map_or(0, nanoseconds);
            let bounds = [submitted as i64 - first as i64, done as i64 - last as i64];
            let known = state.offset.unwrap_or(bounds);
            state.offset = Some([known[0].max(bounds[0]), known[1].min(bounds[1])]);
            state.device_clock = true;
            for (mut timed, ticks) in dispatches.into_iter().zip(ticks.chunks_exact(2)) {
                timed.begin = nanoseconds(ticks[0]);
                timed.nanoseconds = nanoseconds(ticks[1]).saturating_sub(timed.begin);
                state.timed.push(timed);
            }
        }
        Ok(())
    }
}

impl State {
    fn end_span(&mut self, now: u64) {
        if let Some(Mark { stage, step, begin, computed }) = self.mark.take() {
            let computed = ThreadTime::now().as_duration().saturating_sub(computed).as_nanos() as u64;
            self.spans.push(Span { stage, step, begin, nanoseconds: now - begin, computed });
        }
    }

    /// A dispatch without its times.
    fn timed(&self, note: &Note) -> Timed {
        let (stage, step) = self.mark.map_or(("run", None), |mark| (mark.stage, mark.step));
        Timed {
            stage,
            step,
            module: note.module.map_or_else(|| format!("{stage}.{}", note.op.name()), str::to_owned),
            op: note.op.clone(),
            choice: note.choice.cloned(),
            target: *note.target,
            begin: 0,
            nanoseconds: 0,
            held: note.held,
            used: note.used,
        }
    }
}

fn unreadable(why: String) -> EngineError {
    EngineError::Validation { what: "profiling".to_owned(), why }
}

impl Stopwatch {
    fn new(gpu: &Gpu) -> Result<Stopwatch, EngineError> {
        let bytes = 16 * DISPATCHES as u64;
        gpu.guarded("profiling", || {
            let buffer = |usage| {
                let label = Some("profile");
                gpu.device.create_buffer(&wgpu::BufferDescriptor {
                    label,
                    size: bytes,
                    usage,
                    mapped_at_creation: false,
                })
            };
            Stopwatch {
                queries: gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("profile"),
                    ty: wgpu::QueryType::Timestamp,
                    count: 2 * DISPATCHES as u32,
                }),
                resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
                readable: buffer(wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ),
            }
        })
    }
}

impl Engine {
    /// This engine with a tape that records what runs on it, and in sessions loaded with it.
    pub fn taped(&self, tape: &Arc<Tape>) -> Engine {
        let mut engine = self.clone();
        engine.tape = Some(tape.clone());
        engine
    }

    /// Says what the program does from here on, for the tape, if there is one. Where recorded steps begin and end it waits
    /// for the device, so that their time has nothing of others in it.
    pub fn mark(&self, stage: &'static str, step: Option<usize>) {
        let Some(tape) = &self.tape else { return };
        if tape.is_recording() != tape.records(step)
            && let Err(error) = self.finish()
            && let Where::Device(gpu) = &self.place
        {
            // the next call says so
            gpu.keep(&error);
        }
        tape.mark(stage, step);
    }
}

#[cfg(test)]
#[allow(clippy::print_stderr)] // a skipped test must be seen
mod tests {
    use super::*;
    use crate::{DeviceChoice, EngineOptions, Hooks, WeightSink, WeightSource};
    use ratel_graph::{Graph, PlanOptions, Weight};
    use ratel_kernels::Role;
    use ratel_kernels::add::Add;
    use ratel_tensor::Elem;

    struct Nothing;

    impl WeightSource for Nothing {
        fn read(
            &self,
            weight: &Weight,
            _: Elem,
            _: &mut WeightSink,
        ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            Err(format!("there is no {}", weight.key).into())
        }
    }

    /// A submission whose timestamps never come is an error, at once or when the tape is taken, and not a gap.
    #[test]
    fn timestamps_that_never_come_are_an_error() {
        let engine = Engine::open(&DeviceChoice::Auto, EngineOptions::default()).expect("it can fall back");
        let Where::Device(gpu) = &engine.place else { return eprintln!("SKIPPED for want of a device") };
        let pending = || {
            let (sender, mapped) = mpsc::channel();
            let stopwatch = Stopwatch::new(gpu).expect("a stopwatch");
            (sender, Pending { stopwatch, submitted: 0, dispatches: vec![], mapped })
        };
        let tape = Tape::new(TapeOptions { dispatches: true, steps: 0..1 });
        let (sender, lost) = pending();
        drop(sender);
        tape.state().pending.push(lost);
        let error = tape.harvest(gpu).expect_err("nobody will send them").to_string();
        assert!(error.contains("dropped"), "{error}");

        let (_sender, late) = pending();
        tape.state().pending.push(late);
        tape.harvest(gpu).expect("they may still come");
        let error = tape.take(&engine).expect_err("they did not").to_string();
        assert!(error.contains("1 submissions did not come"), "{error}");
    }

    #[test]
    fn without_timestamps_the_host_times() {
        let mut engine = Engine::open(&DeviceChoice::Auto, EngineOptions::default()).expect("it can fall back");
        match &mut engine.place {
            Where::Device(gpu) => Arc::get_mut(gpu).expect("its only owner").info.timestamps = false,
            Where::Twins(_) => return eprintln!("SKIPPED for want of a device"),
        }
        let tape = Tape::new(TapeOptions { dispatches: true, steps: 0..1 });
        let engine = engine.taped(&tape);
        let graph = Graph::new("net", Default::default());
        let x = graph.input("x", [1, 4, 4, 3], Role::Activation);
        (x.silu() + x).output("y");
        let target = engine.target(Elem::F32, Elem::F32).expect("every device has f32");
        let plan = graph.finish(|_| false).expect("it is whole").plan(&target, &PlanOptions::default());
        let session = engine.load(plan.expect("it fits"), &Nothing, &mut |_| {}).expect("it has no weights");
        session.input("x").expect("x").write_f32(&[1.0; 48]).expect("it is written");
        engine.mark("net", Some(0));
        session.run(&mut Hooks::default()).expect("it runs");
        let y = session.output("y").expect("y");
        let sum = engine.buffer(Role::Activation, 48, &target).expect("a buffer");
        let op = Op::from(Add { count: 48, span: 48, period: 48 });
        engine.run_op(&op, None, &[y, y], &sum).expect("it runs");
        let recording = tape.take(&engine).expect("it was recorded");
        assert!(!recording.device_clock);
        let modules: Vec<_> = recording.dispatches.iter().map(|timed| timed.module.as_str()).collect();
        let labels = session.plan().steps.iter().map(|step| step.label.as_str());
        assert_eq!(modules, labels.chain(["net.add"]).collect::<Vec<_>>());
        // one by one, each in the host's time
        let mut until = recording.spans[0].begin;
        for timed in &recording.dispatches {
            assert!(timed.begin >= until && timed.nanoseconds > 0, "{timed:?} after {until}");
            until = timed.begin + timed.nanoseconds;
        }
        assert!(until <= recording.spans[0].begin + recording.spans[0].nanoseconds);
        let expected = 2.0 * (1.0 / (1.0 + (-1.0f32).exp()) + 1.0);
        let found = sum.read_f32().expect("it is read");
        assert!(found.iter().all(|value| (value - expected).abs() < 1e-5), "{expected}: {found:?}");
    }
}
