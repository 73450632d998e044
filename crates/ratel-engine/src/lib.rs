//! Runs a plan on wgpu or on the CPU twins.
