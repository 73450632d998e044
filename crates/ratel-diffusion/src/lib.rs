//! Tokenizer, noise schedules, samplers, random numbers and the pipeline.

pub mod text;
