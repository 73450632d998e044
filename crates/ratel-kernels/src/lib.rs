//! The Rust half of each WGSL kernel: what it computes, with which sizes, at what cost, and its twin on the CPU.
//!
//! Two ideas carry this crate:
//! - an [`Op`] says *what* is computed: an operation with all its sizes, its operands by name, its cost, its twin (a
//!   plain loop that defines the right answer) and the cases it is tested on;
//! - a [`Kernel`] says *how*: one WGSL file under `shaders/`, and for which ops and targets it can be used, on what
//!   grid. An op has one kernel or several; [`choose`] picks one.
//!
//! The twin, the file, the entry point, this crate's module and the profiler's row all share the kernel's name.

mod block_tile;
mod cooperative_tile;
mod kernel;
mod linker;
mod op;
mod product;
mod reflect;
mod registry;
mod source;
mod split;
mod subgroup_tile;
mod values;

pub mod activation;
pub mod add;
pub mod attention;
pub mod attention_cooperative;
pub mod combine;
pub mod concat;
pub mod conv2d;
pub mod conv2d_cooperative;
pub mod conv2d_narrow;
pub mod conv2d_subgroup;
pub mod conv2d_tiled;
pub mod embedding;
pub mod geglu;
pub mod group_norm;
pub mod group_norm_stats;
pub mod group_norm_whole;
pub mod guidance;
pub mod index_select;
pub mod layer_norm;
pub mod lessons;
pub mod matmul;
pub mod matmul_cooperative;
pub mod matmul_subgroup;
pub mod matmul_tiled;
pub mod posterior;
pub mod rgb8;
pub mod roof_copy;
pub mod roof_empty;
pub mod roof_fma;
pub mod roof_matrix;
pub mod roof_workgroup;
pub mod scale_latents;
pub mod sum_parts;
pub mod time_embedding;
pub mod to_vector;
pub mod upsample;

pub use kernel::{Constant, Kernel, Language, Limits, Schedule, Target, WeightStorage, grid_1d, grid_2d};
pub use linker::{LinkError, Linked, Options, Shaders, link, link_with_places};
pub use op::{Cost, Op, Operand, Operation, Param, Role};
pub use reflect::{Binding, Reflection, Wrong, reflect, whats_wrong};
pub use registry::{Choice, choose, kernels, kernels_of, variants};
pub use source::{Excerpt, twin_text};
pub use split::{Parts, split};
pub use values::{Values, ValuesMut};
