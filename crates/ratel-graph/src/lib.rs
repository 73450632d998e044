//! The op graph, shape inference, fusion, and the plan of steps and memory slots.

mod plan;

pub use plan::{Layout, Memory, Observed, Place, Plan, Port, Step, Weight};
