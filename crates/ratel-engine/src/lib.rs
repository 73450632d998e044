//! Runs ops and plans on wgpu, or on the CPU twins where there is no device.
//!
//! - [`Engine`] is an open device (or the twins): it makes [`Buffer`]s and runs one op at a time.
//! - [`Session`] is a plan in memory, ready to run any number of times, observed or timed step by step.
//! - [`Tape`] records what runs on an engine, and when.
//! - [`selftest`] and [`Engine::check`] compare kernels with their twins on the device at hand; [`race`] times them,
//!   and [`Roof`] says how fast the device could be.
//!
//! Only this crate names wgpu. It never prints, and no input makes it panic: whatever a driver reports becomes an
//! [`EngineError`].

mod buffer;
mod cache;
mod check;
mod cpu;
mod device;
mod dispatch;
mod engine;
mod error;
mod gpu;
mod memory;
mod pipeline;
mod pipeline_cache;
mod point;
mod profile;
mod race;
mod roof;
mod session;
mod tape;
mod time;
mod tune;
mod weights;

pub use buffer::Buffer;
pub use cache::cache_folder;
pub use check::{Check, Difference, Row, Wrong, selftest};
pub use device::{CooperativeMatrix, DeviceChoice, DeviceInfo, DeviceKind};
pub use engine::{Engine, EngineOptions};
pub use error::EngineError;
pub use memory::MemoryUse;
pub use point::Point;
pub use profile::Profile;
pub use race::{Entrant, climb, race};
pub use roof::{Attainable, Bound, Probe, Roof};
pub use session::{Hooks, Loading, Progress, Session};
pub use tape::{Recording, Span, Tape, TapeOptions, Timed};
pub use time::{Summary, Timing};
pub use tune::Tuning;
pub use weights::{WeightSink, WeightSource};
