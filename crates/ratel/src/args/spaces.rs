//! Arguments of `ratel compare-spaces`.

use super::{ArchArgs, ModelArgs, RunArgs};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct CompareSpacesArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub arch: ArchArgs,
    /// A model of image space to compare with; when not given, cub-pixels, the one inside the program
    #[arg(long, value_name = "PATH")]
    pub pixels: Option<PathBuf>,
    /// Pixels of a side of the pictures, multiples of 8
    #[arg(long, value_name = "PIXELS", value_delimiter = ',', default_value = "32,128,512")]
    pub sizes: Vec<usize>,
    /// Denoising steps of a picture; when not given, what the ratel.json of the model of latents says, else 20
    #[arg(long)]
    pub steps: Option<usize>,
    /// Plan, and don't run, what would take more than so many seconds in a step; 0 runs nothing
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// How often each is timed, after once to warm up
    #[arg(long, default_value_t = 3)]
    pub runs: usize,
    #[command(flatten)]
    pub run: RunArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
