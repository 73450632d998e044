use crate::sampling::SamplerError;
use crate::text::TextError;
use ratel_engine::EngineError;
use ratel_graph::{GraphError, PlanError};
use ratel_weights::WeightsError;
use std::path::PathBuf;

/// Why a picture could not be drawn. Every message is one line.
#[derive(Debug, thiserror::Error)]
pub enum DiffusionError {
    /// A size that no model can draw.
    #[error("{width}x{height} can't be drawn: width and height must be multiples of {step}, from {step} to {most}")]
    Size {
        /// Pixels across.
        width: usize,
        /// Pixels down.
        height: usize,
        /// Pixels that one latent covers.
        step: usize,
        /// The largest size.
        most: usize,
    },
    /// A picture of a model that has no eyes.
    #[error("{model} has no VAE encoder, which turns pictures into latents: take a checkpoint that has one")]
    NoEncoder {
        /// What the model is called.
        model: String,
    },
    /// Latents of a model that has none.
    #[error("{model} draws in image space: it has no VAE, and so no latents")]
    NoVae {
        /// What the model is called.
        model: String,
    },
    /// A picture to start from, or latents, of a size that was not asked for.
    #[error("{what} is {given}, but {expected} is needed")]
    Mismatch {
        /// What does not fit.
        what: &'static str,
        /// Its size.
        given: String,
        /// The size that fits.
        expected: String,
    },
    /// More layers left out than there are.
    #[error("--clip-skip {clip_skip} leaves nothing of a text encoder of {layers} layers")]
    ClipSkip {
        /// What was asked for.
        clip_skip: usize,
        /// Layers there are.
        layers: usize,
    },
    /// The checkpoint is not what it should be.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Tensors that no part of Stable Diffusion has.
    #[error("{}: {key} is no weight of Stable Diffusion 1.x or 2.x ({others} more like it)", path.display())]
    UnknownKey {
        /// The checkpoint.
        path: PathBuf,
        /// The first of them.
        key: String,
        /// How many more.
        others: usize,
    },
    /// The checkpoint can't be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The device can't hold it.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The device failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What was asked of a sampler makes no sense.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// A checkpoint's settings of its sampler make no sense.
    #[error("{}: {source}", path.display())]
    Scheduler {
        /// Its scheduler_config.json.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<SamplerError>,
    },
    /// The tokenizer failed.
    #[error(transparent)]
    Text(#[from] TextError),
}

impl DiffusionError {
    /// Whether it stopped because it was asked to.
    pub fn is_stopped(&self) -> bool {
        match self {
            DiffusionError::Engine(EngineError::Cancelled) => true,
            DiffusionError::Engine(EngineError::Source(source)) => {
                matches!(source.downcast_ref(), Some(EngineError::Cancelled))
            }
            _ => false,
        }
    }
}
