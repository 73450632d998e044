//! What can be wrong with a sampler's name, settings or number of steps.

use super::Reg;
use crate::schedule::ScheduleError;

/// Errors of this module. Each message is one line that says what to change.
#[derive(Debug, thiserror::Error)]
pub enum SamplerError {
    /// A name that nothing answers to.
    #[error("unknown {kind} `{name}`; did you mean `{nearest}`? Valid names: {valid}")]
    UnknownName {
        /// "sampler", "schedule" and so on.
        kind: &'static str,
        /// As typed.
        name: String,
        /// The closest valid name.
        nearest: String,
        /// All canonical names.
        valid: String,
    },
    /// A sampler known elsewhere that Ratel does not have.
    #[error("sampler `{name}` is not in Ratel: {instead}. Valid names: {valid}")]
    Absent {
        /// As typed.
        name: String,
        /// What to use.
        instead: &'static str,
        /// All canonical names.
        valid: String,
    },
    /// scheduler_config.json cannot be read.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// scheduler_config.json asks for something that Ratel does not do.
    #[error("`{key}` = {value} is not supported; {instead}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// The way out.
        instead: String,
    },
    /// A setting that does not go with this sampler.
    #[error("sampler {sampler} does not take {setting}; {instead}")]
    Incompatible {
        /// Canonical name.
        sampler: &'static str,
        /// What was asked for.
        setting: String,
        /// The way out.
        instead: String,
    },
    /// A setting outside its range.
    #[error("{setting} is {value}, but must {rule}")]
    OutOfRange {
        /// Which setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// The range.
        rule: String,
    },
    /// The betas make no schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A coefficient came out infinite or undefined.
    #[error(
        "step {step} has a coefficient that is not finite: take fewer steps, another sampler, or, with zero terminal \
         SNR, a model that predicts v"
    )]
    NotFinite {
        /// The step, from 0.
        step: usize,
    },
    /// A model or noise callback gave the wrong number of values.
    #[error("{reg:?} got {given} values instead of {expected}")]
    LatentLength {
        /// The register.
        reg: Reg,
        /// Values in the latent.
        expected: usize,
        /// Values given.
        given: usize,
    },
}
