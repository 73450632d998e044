//! A profile as plain data.

use crate::Unit;
use ratel_engine::Roof;
use serde::{Deserialize, Serialize};

/// What one or several runs of the same generation dispatched, and how long that took.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// What was run, and on what.
    pub run: Run,
    /// The host's time in stages.
    pub spans: Vec<Span>,
    /// Each dispatch, in order.
    pub dispatches: Vec<Dispatch>,
}

/// Which clock timed the dispatches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The device's, by timestamps before and after each dispatch.
    Device,
    /// The host's, around each dispatch, its submission and the wait for it: too long by that. Nothing runs beside it.
    Host,
    /// The host's, around each of the CPU twins.
    Twins,
}

/// What was run, and on what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The version of these fields: 1.
    pub version: u32,
    /// The program and its version.
    pub program: String,
    /// The device.
    pub device: String,
    /// Its driver; empty for the CPU twins.
    pub driver: String,
    /// Who timed the dispatches.
    pub clock: Clock,
    /// The model's name.
    pub model: String,
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Pictures at a time.
    pub batch: usize,
    /// The sampler's name.
    pub sampler: String,
    /// Steps of the sampler.
    pub steps: usize,
    /// The steps that were recorded: from, and up to without.
    pub recorded_steps: [usize; 2],
    /// Guidance; 1 and below ask the model once a step, above twice.
    pub cfg_scale: f32,
    /// The types of activations and of layers' matrices: see [`crate::precision`].
    pub precision: String,
    /// The fusion rules that were applied.
    pub rules: Vec<String>,
    /// The most that the engine held at a time, in bytes.
    pub peak_bytes: u64,
    /// Nanoseconds from the beginning of the first run on the opened device, which built the pipelines, to the end of its
    /// first step; none where that was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_step_ns: Option<u64>,
    /// What the device can do, where that is known.
    pub roof: Option<Roof>,
}

/// A stretch of the host's time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// `loading`, `text_encoder`, `unet`, `sampler` or `vae_decoder`.
    pub stage: String,
    /// The sampler's step, from 0.
    pub step: Option<usize>,
    /// Nanoseconds from the first run's beginning.
    pub begin_ns: u64,
    /// Nanoseconds that it took in each timed run.
    pub ns: Vec<u64>,
    /// Nanoseconds that it took in each of the runs beside them in which no dispatch was timed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plain_ns: Vec<u64>,
    /// Nanoseconds that the host's thread computed, and did not wait, in each of the runs in which no dispatch was timed; in
    /// the timed ones where there are no others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu_ns: Vec<u64>,
}

/// One dispatch: what was computed, how, and how long it took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dispatch {
    /// `text_encoder`, `unet`, `sampler` or `vae_decoder`.
    pub stage: String,
    /// The sampler's step, from 0.
    pub step: Option<usize>,
    /// The module, in diffusers' spelling: `unet.down_blocks.0.resnets.0.conv1`.
    pub module: String,
    /// What was computed: the op's plain kernel's name.
    pub op: String,
    /// On which sizes.
    pub shape: String,
    /// The kernel; the op's name for a CPU twin.
    pub kernel: String,
    /// Its element types and constants; `twin` for a CPU twin.
    pub variant: String,
    /// Its WGSL file; none for a CPU twin.
    pub file: Option<String>,
    /// Workgroups along x, y, z; none for a CPU twin.
    pub workgroups: Option<[u32; 3]>,
    /// Floating-point operations that the op takes; a multiply-add is two.
    pub flops: f64,
    /// Bytes that it must move: every operand once.
    pub bytes: f64,
    /// What its arithmetic could be done by.
    pub unit: Unit,
    /// Nanoseconds from the first run's beginning.
    pub begin_ns: u64,
    /// Nanoseconds that it took in each run: one at least.
    pub ns: Vec<u64>,
    /// Bytes that the engine held.
    pub held_bytes: u64,
    /// Bytes of them in use: weights, inputs, outputs and the tensors alive at the time.
    pub used_bytes: Option<u64>,
}

impl Profile {
    /// Runs of which there are times.
    pub fn runs(&self) -> usize {
        self.dispatches.iter().map(|dispatch| dispatch.ns.len()).min().unwrap_or(0)
    }
}
