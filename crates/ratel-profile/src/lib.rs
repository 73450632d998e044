//! Profiles: what a run dispatched, how long each dispatch took, and what that says.
//!
//! - [`Profile`] is plain data: a [`Run`], the host's [`Span`]s, and a [`Dispatch`] for each time a kernel ran.
//! - [`rows`] sums dispatches up by module, kernel or shape; [`summary`] says where the time went, and what could be gained.
//! - [`Limit`] is what a device's roof means for a dispatch.
//! - [`diff`] compares two profiles, with the noise of repeated runs.
//! - [`Format`] is a file: a trace for Perfetto, CSV, JSON lines (which [`read`] takes back), folded stacks, or a page.

mod diff;
#[cfg(test)]
mod example;
mod export;
mod record;
mod roof;
mod rows;
mod samples;
mod shape;
mod summary;
mod tape;

pub use diff::{Change, Diff, Side, Verdict, diff};
pub use export::{Format, ReadError, read};
pub use record::{Clock, Dispatch, Profile, Run, Span};
pub use roof::{Bound, Limit, Unit};
pub use rows::{Grouping, Row, rows};
pub use samples::Samples;
pub use shape::shape;
pub use summary::{Cost, Gain, HostCost, StageSummary, Summary, summary};
pub use tape::{Mismatch, kernel_variant, precision};
