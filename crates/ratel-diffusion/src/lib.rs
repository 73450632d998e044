//! Tokenizer, noise schedules, samplers, random numbers and the pipeline.

mod denoise;
mod error;
mod latents;
pub mod model;
mod open;
pub mod pipeline;
pub mod random;
mod random_weights;
pub mod sampling;
pub mod schedule;
pub mod text;

pub use error::DiffusionError;
