//! Arguments of the commands that go between pictures, latents and noise.

use super::{DrawArgs, ModelArgs, Rng, RunArgs};
use crate::picture::{Fit, Wanted};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// The size in which a file's picture is taken.
#[derive(Clone, Debug, Args)]
pub(crate) struct FitArgs {
    /// Pixels across; the picture's own when not given, less what a multiple of 8 leaves over
    #[arg(short = 'W', long)]
    pub width: Option<usize>,
    /// Pixels down; where only one side is given, the other follows from the picture's proportions
    #[arg(short = 'H', long)]
    pub height: Option<usize>,
    /// What becomes of a picture of other proportions
    #[arg(long, value_enum, default_value_t)]
    pub fit: Fit,
}

impl FitArgs {
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted { width: self.width, height: self.height, fit: self.fit }
    }
}

#[derive(Debug, Args)]
pub(crate) struct EncodeArgs {
    /// A PNG or JPEG file
    pub image: PathBuf,
    /// The latents, scaled as the UNet sees them
    #[arg(short, long, value_name = "FILE.safetensors", default_value = "latents.safetensors")]
    pub output: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub fit: FitArgs,
    /// Draw the latents from the distribution that the encoder gives, instead of taking its mode
    #[arg(long)]
    pub sample: bool,
    /// The seed to draw with
    #[arg(short, long, default_value_t = 0, requires = "sample")]
    pub seed: u64,
    /// Where noise comes from
    #[arg(long, value_enum, default_value_t = Rng::Torch)]
    pub rng: Rng,
    /// Also write the picture that the latents decode to
    #[arg(long, value_name = "FILE.png")]
    pub round_trip: Option<PathBuf>,
    /// Also write what that picture differs by from the one that was encoded, brightened
    #[arg(long, value_name = "FILE.png")]
    pub difference: Option<PathBuf>,
    #[command(flatten)]
    pub run: RunArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DecodeArgs {
    /// Latents, from `ratel encode`, `ratel generate --latents-out` or a diffusers pipeline
    #[arg(value_name = "FILE.safetensors")]
    pub latents: PathBuf,
    /// The picture; those of several latents are numbered
    #[arg(short, long, default_value = "output.png")]
    pub output: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
    /// The tensor in the file, if it holds several
    #[arg(long, value_name = "NAME")]
    pub key: Option<String>,
    /// Say how far the picture is from this one
    #[arg(long, value_name = "IMAGE")]
    pub compare: Option<PathBuf>,
    /// Also write what it differs by from that one, brightened
    #[arg(long, value_name = "FILE.png", requires = "compare")]
    pub difference: Option<PathBuf>,
    #[command(flatten)]
    pub run: RunArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Where diffusion happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Space {
    /// In the picture itself
    Image,
    /// In its latents
    Latent,
}

impl From<Space> for ratel_diffusion::model::Space {
    fn from(space: Space) -> Self {
        match space {
            Space::Image => Self::Image,
            Space::Latent => Self::Latent,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DiffuseArgs {
    /// A PNG or JPEG file
    pub image: PathBuf,
    /// Add noise to the picture or to its latents; to each for itself when not given, where the model has latents
    #[arg(long, value_enum)]
    pub space: Option<Space>,
    /// Levels of noise to show, from none to all
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub steps_shown: usize,
    /// Another schedule than the model's: scaled_linear, linear or squaredcos_cap_v2
    #[arg(long, value_name = "BETA_SCHEDULE")]
    pub schedule: Option<String>,
    /// The noise's seed; random when not given
    #[arg(short, long)]
    pub seed: Option<u64>,
    /// Where noise comes from
    #[arg(long, value_enum, default_value_t = Rng::Torch)]
    pub rng: Rng,
    /// A strip of pictures, beside it the schedule as .svg and .csv; or a folder for these and for each picture
    #[arg(short, long, value_name = "STRIP.png|DIR", default_value = "diffuse.png")]
    pub output: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub fit: FitArgs,
    #[command(flatten)]
    pub run: RunArgs,
    /// Print the levels that are shown as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DenoiseArgs {
    #[command(flatten)]
    pub draw: DrawArgs,
    /// Steps to show, evenly from the first to the last; all when not given
    #[arg(long, value_name = "N")]
    pub steps_shown: Option<usize>,
    /// A sheet of a row per step, beside it the numbers as .csv and .safetensors; or a folder for these
    #[arg(short, long, value_name = "SHEET.png|DIR", default_value = "denoise.png")]
    pub output: PathBuf,
    /// Print what is in the .csv file as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InterpolateArgs {
    /// A PNG or JPEG file, or a seed
    #[arg(value_name = "FROM")]
    pub from: String,
    /// Another
    #[arg(value_name = "TO")]
    pub to: String,
    /// Pictures, with both ends
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub frames: usize,
    /// Whether latents of pictures are mixed on the arc or on the line between them; noise always is on the arc
    #[arg(long, value_enum, default_value_t = Path::Slerp)]
    pub path: Path,
    /// A strip of pictures, or a folder for them
    #[arg(short, long, value_name = "STRIP.png|DIR", default_value = "interpolate.png")]
    pub output: PathBuf,
    #[command(flatten)]
    pub draw: DrawArgs,
    /// Print what was made as JSON
    #[arg(long)]
    pub json: bool,
}

/// How two latents are mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Path {
    /// Spherical: as long in between as at the ends
    Slerp,
    /// Linear
    #[value(alias = "lerp")]
    Linear,
}
