//! Points in what a device was given to do: how far it is, seen by a host that runs ahead of it.

use crate::engine::Where;
use crate::{Engine, EngineError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A point in what an engine was given to do: it is reached when all that was given before is done.
#[derive(Debug)]
pub struct Point {
    reached: Arc<AtomicBool>,
    /// None on the CPU twins, which are done with what they are given.
    submission: Option<wgpu::SubmissionIndex>,
}

impl Point {
    /// Whether it was reached when the device was last looked at, as every wait and submission does. Never waits.
    pub fn is_reached(&self) -> bool {
        self.reached.load(Ordering::Acquire)
    }
}

impl Engine {
    /// The point after everything that was given to the device so far.
    ///
    /// # Errors
    /// What the device reports.
    pub fn point(&self) -> Result<Point, EngineError> {
        let Where::Device(gpu) = &self.place else {
            return Ok(Point { reached: Arc::new(true.into()), submission: None });
        };
        let reached = Arc::new(AtomicBool::new(false));
        let tell = reached.clone();
        let submission = gpu.guarded("submitting", || {
            let submission = gpu.queue.submit([]);
            gpu.queue.on_submitted_work_done(move || tell.store(true, Ordering::Release));
            submission
        })?;
        Ok(Point { reached, submission: Some(submission) })
    }

    /// Waits until a point of this engine's is reached.
    ///
    /// # Errors
    /// What the device reports.
    pub fn reach(&self, point: &Point) -> Result<(), EngineError> {
        match (&self.place, &point.submission) {
            (Where::Device(gpu), Some(submission)) if !point.is_reached() => gpu.wait(Some(submission.clone())),
            _ => Ok(()),
        }
    }
}
