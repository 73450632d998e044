//! What the integration tests share.

pub mod fixtures;
pub mod repository;
pub mod variants;
