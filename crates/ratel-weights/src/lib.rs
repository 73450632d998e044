//! Checkpoints: diffusers folders and single safetensors files, behind one set of names, handed out piece by piece.
//!
//! Files come from strangers. Nothing is believed before it is checked, no pickle is ever run, and a mistake is an error
//! of one line that names the file and the key.

mod checkpoint;
mod config;
mod defaults;
mod error;
mod file;
mod files;
mod folder;
mod info;
mod json;
mod ldm;
mod pack;

pub use checkpoint::{Checkpoint, Component, Prediction, Sink};
pub use config::{Family, TextFacts, UnetFacts, VaeFacts};
pub use defaults::Defaults;
pub use error::WeightsError;
pub use files::Files;
pub use info::{ComponentInfo, Info, describe};
