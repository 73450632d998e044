//! The commands, one a file.

pub(crate) mod decode;
pub(crate) mod denoise;
pub(crate) mod devices;
pub(crate) mod diffuse;
pub(crate) mod encode;
mod from_file;
pub(crate) mod generate;
pub(crate) mod info;
pub(crate) mod interpolate;
pub(crate) mod plan;
pub(crate) mod selftest;
pub(crate) mod setup;
pub(crate) mod trace;
