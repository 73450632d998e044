//! The Rust half of each WGSL kernel: registry, linker, costs, cases and CPU twins.
