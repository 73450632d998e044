//! A run looked into, for people who want to understand it: data first, then one page that shows the data.
//!
//! - [`Recording`] is plain data: the model as components and dispatches with a shape on every edge, who lives in which
//!   memory when, times of the same run, values of layers, the sampler's steps, and what the prompt's words attend to.
//! - [`component`] makes a component's part of it from a plan, [`kernel_page`] a kernel's from its WGSL.
//! - [`explain`] takes one element of an op's output apart into every multiply and add that made it.
//! - [`attention_maps`] says how much each place of the picture attends to each token of the prompt.
//! - [`page`] writes it all as one file that needs nothing else.
//!
//! Nothing here runs a model or does I/O: the program records, this crate describes.

mod attention;
mod component;
mod explain;
mod kernel;
mod page;
mod recording;
mod shapes;
mod tensor;

pub use attention::{attention_maps, map_size, per_word};
pub use component::component;
pub use explain::{Explanation, Line, Term, explain};
pub use kernel::kernel_page;
pub use page::page;
pub use recording::{
    Component, Figures, Heat, HeatLayer, KernelPage, Module, Node, NodeOperand, Recording, Sample, Settings, Side,
    SideStep, Source, Tenant, Word,
};
pub use shapes::{in_order, shapes};
pub use tensor::{Histogram, Tensor, data_url};
