//! A model on a device: what the stages of a run, and the commands that run one stage alone, have in common.

use crate::DiffusionError;
use crate::model::Model;
use crate::pipeline::{Event, LOADING, Part, Precision, Watcher, target};
use ratel_engine::{Engine, EngineError, Hooks, Progress, Session, WeightSink, WeightSource};
use ratel_graph::{Finished, Plan, PlanOptions, Rule};
use ratel_tensor::{Elem, HostTensor};
use std::sync::atomic::{AtomicBool, Ordering};

/// A model, the device that it runs on, and how.
#[derive(Clone, Copy)]
pub struct Stage<'a> {
    /// The device.
    pub engine: &'a Engine,
    /// The model.
    pub model: &'a Model,
    /// The type of numbers.
    pub precision: Precision,
    /// Fusion rules to apply.
    pub rules: &'a [Rule],
    /// Modules whose outputs go to [`Watcher::tensor`].
    pub observe: &'a [String],
    /// Stops what runs when set.
    pub stop: &'a AtomicBool,
}

impl Stage<'_> {
    pub(crate) fn plan(&self, graph: Finished) -> Result<Plan, DiffusionError> {
        self.engine.mark(LOADING, None);
        let options = PlanOptions { rules: self.rules.to_vec(), observe: self.observe.to_vec() };
        Ok(graph.plan(&target(self.engine, self.precision, self.model.elem)?, &options)?)
    }

    /// Weights of a plan on their way to the device.
    pub(crate) fn load(
        &self,
        plan: Plan,
        name: &'static str,
        watcher: &mut dyn Watcher,
    ) -> Result<Session, DiffusionError> {
        let source = Stoppable { source: &*self.model.weights, stop: self.stop };
        let progress = &mut |at: Progress| watcher.event(Event::Loading(name, at.done, at.total));
        Ok(self.engine.load(plan, &source, progress)?)
    }

    /// Runs a session, showing what is observed.
    pub(crate) fn run(
        &self,
        session: &Session,
        step: Option<usize>,
        prefix: &str,
        watcher: &mut dyn Watcher,
    ) -> Result<(), DiffusionError> {
        if self.is_run_by(watcher, &Part { session, range: 0..session.plan().steps.len(), step })? {
            return Ok(());
        }
        session.run_observed(&mut self.hooks(), &mut |observed, values| {
            let value = HostTensor::new(observed.shape, values).channels_first();
            watcher.tensor(&format!("{prefix}{}", observed.name), value);
        })?;
        Ok(())
    }

    /// Whether whoever watches runs it.
    pub(crate) fn is_run_by(&self, watcher: &mut dyn Watcher, part: &Part<'_>) -> Result<bool, DiffusionError> {
        let ran = watcher.run(part, &mut self.hooks());
        Ok(ran.transpose()?.is_some())
    }

    pub(crate) fn run_plainly(&self, session: &Session) -> Result<(), DiffusionError> {
        Ok(session.run(&mut self.hooks())?)
    }

    /// Runs what a session computes once for many runs.
    pub(crate) fn prepare(&self, session: &Session) -> Result<(), DiffusionError> {
        Ok(session.prepare(&mut self.hooks())?)
    }

    /// Gives a session that was prepared to the device again, without waiting for the last of its steps; `tell` is called
    /// whenever some are done.
    pub(crate) fn start_again(&self, session: &Session, tell: &mut dyn FnMut()) -> Result<(), DiffusionError> {
        Ok(session.start_again(&mut Hooks { progress: Some(&mut |_| tell()), ..self.hooks() })?)
    }

    fn hooks(&self) -> Hooks<'_> {
        Hooks { cancel: Some(self.stop), ..Hooks::default() }
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
