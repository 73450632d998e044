//! The commands, one a file.

pub(crate) mod bench;
pub(crate) mod compare_spaces;
pub(crate) mod decode;
pub(crate) mod denoise;
pub(crate) mod devices;
pub(crate) mod diffuse;
pub(crate) mod encode;
mod from_file;
pub(crate) mod generate;
pub(crate) mod info;
pub(crate) mod inspect;
mod inspect_data;
mod inspect_serve;
pub(crate) mod interpolate;
pub(crate) mod kernels;
pub(crate) mod lesson;
mod lesson_page;
pub(crate) mod plan;
pub(crate) mod profile;
mod profile_tables;
pub(crate) mod roofline;
pub(crate) mod selftest;
pub(crate) mod setup;
pub(crate) mod show;
mod times;
pub(crate) mod trace;
