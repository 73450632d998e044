//! What the integration tests share.

pub mod fixtures;
pub mod program;
pub mod repository;
pub mod variants;
