//! Tokenizer, noise schedules, samplers, random numbers and the pipeline.

pub mod random;
pub mod sampling;
pub mod schedule;
pub mod text;
