//! The op graph, shape inference, fusion, and the plan of steps and memory slots.
//!
//! Three stages of plain data: a [`Graph`] says what is computed, a [`Plan`] how, the engine where.

mod bands;
mod fuse;
mod graph;
mod layers;
mod live;
mod plan;
mod planner;
mod print;
mod projections;
mod slots;
mod split;

pub use fuse::Rule;
pub use graph::{Finished, Graph, GraphError, Module, Tensor};
pub use layers::Stride;
pub use plan::{Memory, Observed, Place, Plan, Port, Step, Weight};
pub use planner::{PlanError, PlanOptions};
