//! Checkpoints: diffusers folders and single safetensors files, behind one set of names, handed out piece by piece.
//!
//! Files come from strangers. Nothing is believed before it is checked, no pickle is ever run, and a mistake is an error
//! of one line that names the file and the key.

mod checkpoint;
mod config;
mod error;
mod file;
mod folder;
mod info;
mod ldm;
mod pack;

pub use checkpoint::{Checkpoint, Component, Prediction, Sink};
pub use config::{Family, TextFacts, UnetFacts, VaeFacts};
pub use error::WeightsError;
pub use info::{ComponentInfo, Info, describe};

/// How a tensor is rearranged on its way to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// As it is.
    AsIs,
    /// PyTorch's `(out, in)`, or `(out, in, 1, 1)`, to `(in, out)`.
    Linear,
    /// PyTorch's `(out, in, rows, columns)` to `(rows, columns, in, out)`.
    Conv,
}
