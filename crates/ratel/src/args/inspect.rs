//! Arguments of `ratel inspect`.

use super::DrawArgs;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub draw: DrawArgs,
    /// The page: one file that needs nothing else
    #[arg(short, long, value_name = "FILE.html", default_value = "inspect.html", conflicts_with = "serve")]
    pub output: PathBuf,
    /// Serve the page to this machine alone instead, with a form to run again
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 0..=1, require_equals = true, default_missing_value = "127.0.0.1:7380")]
    pub serve: Option<SocketAddr>,
    /// Modules whose values are kept, names or patterns, the first before the others; a choice of the model's own when not
    /// given. Every other layer still has its shapes, kernel and times
    #[arg(long, value_name = "PATTERN")]
    pub only: Vec<String>,
    /// The step of the UNet, from 0, whose layers are shown; the one in the middle when not given
    #[arg(long, value_name = "N")]
    pub at_step: Option<usize>,
    /// Megabytes that the kept values may take in the page
    #[arg(long, value_name = "MB", default_value_t = 8)]
    pub limit: u64,
    /// So many of the sampler's steps are shown, evenly from the first to the last
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub steps_shown: usize,
    /// Draw this prompt too, from the same noise, and show both side by side
    #[arg(long, value_name = "PROMPT")]
    pub compare_prompt: Option<String>,
    /// Draw with this guidance too, from the same noise, and show both side by side
    #[arg(long, value_name = "SCALE")]
    pub compare_cfg_scale: Option<f32>,
    /// Don't compare with what the device can do at most
    #[arg(long)]
    pub no_roof: bool,
    /// Also write the run's profile as JSON lines
    #[arg(long, value_name = "FILE.jsonl")]
    pub profile_out: Option<PathBuf>,
}
