//! Shapes, element types, layouts, host tensors and key paths: the plain data that every other crate speaks.

mod elem;
mod host;
mod key;
mod layout;
mod panels;
mod shape;

pub use elem::Elem;
pub use host::HostTensor;
pub use key::{join, matches};
pub use layout::Layout;
pub use panels::{PANEL, panel_index};
pub use shape::Shape;
