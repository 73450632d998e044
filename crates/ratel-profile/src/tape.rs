//! From an engine's tape to a profile.

use crate::{Clock, Dispatch, Profile, Run, Span, Unit, shape};
use ratel_engine::{Recording, Timed};
use ratel_kernels::{Choice, Target, WeightStorage};

/// A run that did not do what the runs before it did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the runs differ: the {place}. {what} was {before} and then {after}, so their times can't be put together")]
pub struct Mismatch {
    /// `dispatch` or `span`.
    what: &'static str,
    /// Its number, from 1.
    place: usize,
    /// What it was.
    before: String,
    /// What it is.
    after: String,
}

impl Profile {
    /// The first timed run. Spans of steps that were not recorded are left out.
    pub fn of_recording(mut run: Run, recording: Recording) -> Profile {
        run.clock = match recording.dispatches.first() {
            Some(first) if first.choice.is_none() => Clock::Twins,
            _ if recording.device_clock => Clock::Device,
            _ => Clock::Host,
        };
        let spans = spans(&recording, run.recorded_steps).map(|span| Span {
            stage: span.stage.to_owned(),
            step: span.step,
            begin_ns: span.begin,
            ns: vec![span.nanoseconds],
            plain_ns: vec![],
            cpu_ns: vec![span.computed],
        });
        let spans = spans.collect();
        let dispatches = recording.dispatches.into_iter().map(dispatch).collect();
        Profile { run, spans, dispatches }
    }

    /// Another timed run of the same generation.
    ///
    /// # Errors
    /// If it is not the same.
    pub fn add_timed(&mut self, recording: &Recording) -> Result<(), Mismatch> {
        let names = |timed: &Timed| format!("{} ({})", timed.module, kernel(timed));
        let before = self.dispatches.iter().map(|known| format!("{} ({})", known.module, known.kernel));
        same("dispatch", before, recording.dispatches.iter().map(names))?;
        self.check_spans(recording)?;
        for (known, timed) in self.dispatches.iter_mut().zip(&recording.dispatches) {
            known.ns.push(timed.nanoseconds);
        }
        let recorded = self.run.recorded_steps;
        for (known, span) in self.spans.iter_mut().zip(spans(recording, recorded)) {
            known.ns.push(span.nanoseconds);
            if known.plain_ns.is_empty() {
                known.cpu_ns.push(span.computed);
            }
        }
        Ok(())
    }

    /// A run of the same generation in which no dispatch was timed.
    ///
    /// # Errors
    /// If it is not the same.
    pub fn add_plain(&mut self, recording: &Recording) -> Result<(), Mismatch> {
        self.check_spans(recording)?;
        let recorded = self.run.recorded_steps;
        for (known, span) in self.spans.iter_mut().zip(spans(recording, recorded)) {
            if known.plain_ns.is_empty() {
                known.cpu_ns.clear(); // of timed runs, which compute more
            }
            known.plain_ns.push(span.nanoseconds);
            known.cpu_ns.push(span.computed);
        }
        Ok(())
    }

    fn check_spans(&self, recording: &Recording) -> Result<(), Mismatch> {
        let name = |stage: &str, step: Option<usize>| match step {
            Some(step) => format!("{stage} of step {step}"),
            None => stage.to_owned(),
        };
        let before = self.spans.iter().map(|span| name(&span.stage, span.step));
        same("span", before, spans(recording, self.run.recorded_steps).map(|span| name(span.stage, span.step)))
    }
}

/// The spans of no step or a recorded one.
fn spans(recording: &Recording, [from, to]: [usize; 2]) -> impl Iterator<Item = &ratel_engine::Span> {
    recording.spans.iter().filter(move |span| span.step.is_none_or(|step| (from..to).contains(&step)))
}

fn same(
    what: &'static str,
    mut before: impl Iterator<Item = String>,
    mut after: impl Iterator<Item = String>,
) -> Result<(), Mismatch> {
    for place in 1.. {
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "not there".to_owned());
        match (before.next(), after.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => return Err(Mismatch { what, place, before: name(&a), after: name(&b) }),
        }
    }
    Ok(())
}

fn kernel(timed: &Timed) -> &'static str {
    timed.choice.as_ref().map_or(timed.op.name(), |choice| choice.kernel.name)
}

fn dispatch(timed: Timed) -> Dispatch {
    let cost = timed.op.cost(&timed.target);
    let choice = timed.choice.as_ref();
    Dispatch {
        stage: timed.stage.to_owned(),
        step: timed.step,
        op: timed.op.name().to_owned(),
        shape: shape(&timed.op),
        kernel: kernel(&timed).to_owned(),
        variant: choice.map_or_else(|| "twin".to_owned(), |choice| kernel_variant(choice, &timed.target)),
        file: choice.map(|choice| format!("shaders/{}", choice.kernel.path)),
        workgroups: choice.map(|choice| choice.schedule.workgroups),
        flops: cost.flops,
        bytes: cost.bytes,
        unit: Unit::of(&timed.op, &timed.target),
        begin_ns: timed.begin,
        ns: vec![timed.nanoseconds],
        held_bytes: timed.held,
        used_bytes: timed.used,
        module: timed.module,
    }
}

/// The types of a run: `f32 activations, packed f16 weights`.
pub fn precision(target: &Target) -> String {
    let weights = match target.weight {
        WeightStorage::F32 => "f32",
        WeightStorage::F16 => "f16",
        WeightStorage::PackedF16 => "packed f16",
    };
    format!("{} activations, {weights} weights", target.elem)
}

/// What tells one compiled form of a kernel from another: the types of activations and of layers' matrices, then extents
/// and constants by name: `f32 activations, packed f16 weights, ACT=2 BIAS=1`.
pub fn kernel_variant(choice: &Choice, target: &Target) -> String {
    let extents = choice.schedule.extents.iter().map(|(name, value)| format!("{name}={value}"));
    let constants = choice.schedule.constants.iter().map(|(name, value)| format!("{name}={value}"));
    let values: Vec<_> = extents.chain(constants).collect();
    let types = precision(target);
    if values.is_empty() { types } else { format!("{types}, {}", values.join(" ")) }
}
