//! Tokenizer, noise schedules, samplers, random numbers and the pipeline.

pub mod autoencoder;
mod denoise;
mod error;
pub mod latents;
pub mod model;
mod open;
pub mod pipeline;
pub mod random;
mod random_weights;
pub mod sampling;
pub mod schedule;
pub mod stage;
pub mod text;

pub use error::DiffusionError;
