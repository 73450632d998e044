//! Tokenizer, noise schedules, samplers, random numbers and the pipeline.

mod denoise;
mod error;
mod latents;
pub mod model;
mod open;
pub mod pipeline;
pub mod random;
pub mod sampling;
pub mod schedule;
pub mod text;
mod toy;

pub use error::DiffusionError;
