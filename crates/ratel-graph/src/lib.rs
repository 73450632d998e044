//! The op graph, shape inference, fusion, and the plan of steps and memory slots.
