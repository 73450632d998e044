//! How long each step of one run takes.

use crate::EngineError;
use crate::session::{Hooks, Session};
use crate::tape::{Tape, TapeOptions};

/// The time of each step of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Nanoseconds of each step, in the plan's order.
    pub nanoseconds: Vec<u64>,
    /// Whether the device's own clock was read. Otherwise the host's, around each step and its submission: too long by
    /// what a submission takes.
    pub device_clock: bool,
}

impl Session {
    /// Runs once, as [`Session::run`] does, and times each step. The first run of a session warms the device up: time a
    /// later one. A [`Tape`] times a whole program.
    ///
    /// # Errors
    /// Those of [`Session::run`].
    pub fn profile(&self, hooks: &mut Hooks) -> Result<Profile, EngineError> {
        let tape = Tape::new(TapeOptions { dispatches: true, steps: 0..0 });
        self.run_steps(0..self.plan().steps.len(), hooks, Some(&tape))?;
        let recording = tape.take(&self.engine)?;
        let nanoseconds = recording.dispatches.iter().map(|timed| timed.nanoseconds).collect();
        Ok(Profile { nanoseconds, device_clock: recording.device_clock })
    }
}
