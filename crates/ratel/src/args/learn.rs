//! The arguments of the commands that explain kernels.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// A kernel, an op, or a rung of a lesson: matmul, conv2d_tiled, group_norm, attention_2_one_pass ...; `ratel kernels`
    /// lists them
    #[arg(value_name = "KERNEL|OP")]
    pub name: String,
    /// Show the text that a device gets: what is imported, and the constants that are chosen for a shape
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "f32")]
    pub variant: Option<Variant>,
    /// The shape that constants are chosen for, such as m=4096,n=320,k=320; the first that the kernel is tested on when not
    /// given
    #[arg(long, value_name = "NAME=VALUE,...", requires = "variant")]
    pub shape: Option<String>,
    /// Whose constants: auto, a number or a part of a name from `ratel devices`
    #[arg(short, long, default_value = "auto", requires = "variant")]
    pub device: String,
    /// Where the twin stands
    #[arg(long, value_enum, default_value_t = Layout::Auto)]
    pub layout: Layout,
    /// Columns to fit into; those of the terminal when not given
    #[arg(long, value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(40..=1000))]
    pub width: Option<u16>,
    /// Load kernels from a copy of shaders/ instead of the program's own
    #[arg(long, value_name = "DIR")]
    pub shaders: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Variant {
    /// Everything in f32
    F32,
    /// Layers' matrices in f16, activations in f32
    Mixed,
    /// Layers' matrices and activations in f16
    F16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layout {
    /// Beside the kernel where there is room, below it otherwise
    Auto,
    /// Beside the kernel
    Side,
    /// Below the kernel
    Below,
}

#[derive(Debug, Args)]
pub(crate) struct LessonArgs {
    /// matmul, conv, attention or group_norm
    pub name: String,
    /// Sizes by name, such as m=4096,n=320,k=320; one of the model's when not given
    #[arg(long, value_name = "NAME=VALUE,...")]
    pub shape: Option<String>,
    /// Only this rung, in full, timed beside the one below it
    #[arg(long, value_name = "N")]
    pub rung: Option<usize>,
    /// Only the table
    #[arg(long, conflicts_with_all = ["rung", "json"])]
    pub brief: bool,
    /// Copy the rungs to DIR/lessons, to be edited there and run with --shaders DIR
    #[arg(long, value_name = "DIR", conflicts_with_all = ["shaders", "rung", "shape", "json", "brief"])]
    pub copy: Option<PathBuf>,
    /// Run the rungs from DIR/lessons where they are there
    #[arg(long, value_name = "DIR")]
    pub shaders: Option<PathBuf>,
    /// auto, a number or a part of a name from `ratel devices`
    #[arg(short, long, default_value = "auto")]
    pub device: String,
    /// Seconds that each rung is timed for
    #[arg(long, default_value_t = 0.5)]
    pub seconds: f64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
