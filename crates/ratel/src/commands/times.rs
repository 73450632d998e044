//! Where a generation's time went.

use crate::units::seconds;
use ratel_engine::Recording;
use serde_json::{Value, json};
use std::time::Duration;

/// A generation in a few times.
pub(crate) struct Times {
    /// From the program's start until model and device were open.
    pub opened: Duration,
    /// From then to the end of the first step.
    pub first_step: Option<Duration>,
    stages: Vec<Stage>,
}

/// A stage of the run, all of its spans together.
struct Stage {
    name: &'static str,
    seconds: f64,
    /// Of them, in which the host's thread computed.
    computed: f64,
}

impl Times {
    pub(crate) fn new(opened: Duration, first_step: Option<Duration>, recording: &Recording) -> Times {
        let mut stages: Vec<Stage> = Vec::new();
        for span in &recording.spans {
            let (whole, computed) = (span.nanoseconds as f64 * 1e-9, span.computed as f64 * 1e-9);
            match stages.iter_mut().find(|stage| stage.name == span.stage) {
                Some(stage) => {
                    stage.seconds += whole;
                    stage.computed += computed;
                }
                None => stages.push(Stage { name: span.stage, seconds: whole, computed }),
            }
        }
        Times { opened, first_step, stages }
    }

    /// Prints a line for each.
    pub(crate) fn print(&self) {
        println!("{:14} {:>9}", "opening", seconds(self.opened.as_secs_f64()));
        for Stage { name, seconds: whole, computed } in &self.stages {
            println!("{name:14} {:>9}, of which this thread computed {}", seconds(*whole), seconds(*computed));
        }
        if let Some(first) = self.first_step {
            println!("{:14} {:>9} after the start", "first step", seconds((self.opened + first).as_secs_f64()));
        }
    }

    pub(crate) fn json(&self) -> Value {
        let stage =
            |stage: &Stage| json!({ "stage": stage.name, "seconds": stage.seconds, "cpu_seconds": stage.computed });
        json!({
            "open_seconds": self.opened.as_secs_f64(),
            "first_step_seconds": self.first_step.map(|first| (self.opened + first).as_secs_f64()),
            "stages": self.stages.iter().map(stage).collect::<Vec<_>>(),
        })
    }
}
