//! The command line.

mod inspect;
mod latent;
mod learn;
mod spaces;

use crate::picture::Fit;
use clap::{Args, Parser, Subcommand, ValueEnum};
pub(crate) use inspect::InspectArgs;
pub(crate) use latent::{DecodeArgs, DenoiseArgs, DiffuseArgs, EncodeArgs, InterpolateArgs, Path, Space};
pub(crate) use learn::{Layout, LessonArgs, ShowArgs, Variant};
use ratel_graph::Rule;
pub(crate) use spaces::CompareSpacesArgs;
use std::path::PathBuf;

/// Stable Diffusion on any GPU, every kernel a WGSL file that you can read, measure and check.
#[derive(Debug, Parser)]
#[command(name = "ratel", version, max_term_width = 100, after_help = WHERE_TO_BEGIN)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What the list of commands ends with.
const WHERE_TO_BEGIN: &str = "\
To draw:        ratel generate \"a red star\" -o star.png
To understand:  ratel diffuse star.png       a picture drowns in noise
                ratel denoise \"a red star\"   and a model finds one in it
                ratel show group_norm        a kernel, and the same in Rust
                ratel lesson matmul          from the naive kernel to a fast one
To measure:     ratel selftest, ratel profile \"a red star\", ratel roofline

Without --model everything runs with cub, the small model inside the program.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Draw a picture of a prompt
    #[command(visible_alias = "txt2img")]
    Generate(GenerateArgs),
    /// Turn a picture into latents, and say what that saves and loses
    Encode(EncodeArgs),
    /// Turn latents into a picture
    Decode(DecodeArgs),
    /// Add noise to a picture step by step: forward diffusion
    Diffuse(DiffuseArgs),
    /// Take noise away step by step, and show what the model sees and answers: reverse diffusion
    Denoise(DenoiseArgs),
    /// Go from one picture to another through their latents, or from one seed to another through noise
    Interpolate(InterpolateArgs),
    /// Say what diffusion in image space costs beside diffusion in latents, for pictures of the same size
    CompareSpaces(CompareSpacesArgs),
    /// List the devices that can compute, and what they can do
    Devices(JsonArgs),
    /// Compare every kernel with its twin on a device: what to run first on a strange GPU
    Selftest(SelftestArgs),
    /// Say what a checkpoint is: family, components, element types, missing and unknown keys
    Info(InfoArgs),
    /// Print what would be dispatched and how much memory it would take; needs no GPU
    Plan(PlanArgs),
    /// Record the outputs of layers, or compare two recordings
    Trace(TraceArgs),
    /// Time every dispatch of a generation: where the time goes, what binds, what could be gained; or compare two profiles
    Profile(ProfileArgs),
    /// Look into a generation: one web page with every layer, kernel and value, from prompt to picture
    Inspect(InspectArgs),
    /// Measure what a device can do at best: arithmetic, memory, dispatches
    Roofline(RooflineArgs),
    /// List ops and kernels, or check and time the kernels of one op
    Kernels(KernelsArgs),
    /// Show a kernel: its mathematics, its WGSL, and beside it the same in Rust
    Show(ShowArgs),
    /// Climb from a naive kernel to a fast one, each step explained, checked and timed on your device
    Lesson(LessonArgs),
    /// Time the text encoder, a step of the UNet, the decoder, and a whole picture
    Bench(BenchArgs),
}

#[derive(Debug, Args)]
pub(crate) struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What to draw, and with what.
#[derive(Clone, Debug, Args)]
pub(crate) struct DrawArgs {
    /// What is to be seen
    #[arg(value_name = "PROMPT")]
    pub positional: Option<String>,
    /// What is to be seen (the same as the positional)
    #[arg(short, long, conflicts_with = "positional")]
    pub prompt: Option<String>,
    /// What is not to be seen
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub negative_prompt: String,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Where to diffuse: image takes cub-pixels when no model is named, which draws 32x32 pictures without a VAE; a model
    /// that is named must be of this space
    #[arg(long, value_enum)]
    pub space: Option<Space>,
    #[command(flatten)]
    pub size: SizeArgs,
    /// Denoising steps; when not given, what the model's ratel.json says, else 20
    #[arg(long)]
    pub steps: Option<usize>,
    /// Guidance: how strongly the prompt is followed; 1 turns it off; when not given, the model's own, else 7.5
    #[arg(long, visible_alias = "guidance-scale")]
    pub cfg_scale: Option<f32>,
    /// Rescale the guided prediction towards the unguided one's contrast, 0 to 1; when not given, the model's own, else 0
    #[arg(long)]
    pub guidance_rescale: Option<f32>,
    /// ddim, ddpm, pndm, lms, euler, euler_a, heun, dpm++2m, dpm++2m_sde, dpm++sde, unipc, lcm, or another program's
    /// name of one; the checkpoint's own when not given
    #[arg(long, visible_alias = "sampling-method")]
    pub sampler: Option<String>,
    /// normal, karras, exponential, sgm_uniform, simple, beta; the checkpoint's own when not given
    #[arg(long, visible_alias = "scheduler")]
    pub schedule: Option<String>,
    /// leading, trailing or linspace; the checkpoint's own when not given
    #[arg(long)]
    pub spacing: Option<String>,
    /// What the model predicts, where the checkpoint does not say: eps, v or sample
    #[arg(long)]
    pub prediction: Option<String>,
    /// The first picture's seed; random when not given
    #[arg(short, long)]
    pub seed: Option<u64>,
    /// Where noise comes from
    #[arg(long, value_enum, default_value_t = Rng::Torch)]
    pub rng: Rng,
    /// Pictures; each further one has the next seed
    #[arg(short, long, visible_alias = "batch-size", default_value_t = 1)]
    pub batch: usize,
    /// Start from this PNG or JPEG file with noise added, instead of from noise alone (image to image)
    #[arg(short, long, visible_alias = "init-img", value_name = "FILE")]
    pub init_image: Option<PathBuf>,
    /// How much of that picture is redrawn: the last STEPS x STRENGTH steps are run, rounded down; 0.8 when not given
    #[arg(long, visible_alias = "denoising-strength", value_name = "0..1", requires = "init_image")]
    pub strength: Option<f64>,
    /// What becomes of a picture whose proportions are not those of -W and -H
    #[arg(long, value_enum, default_value_t)]
    pub fit: Fit,
    /// 2 leaves out the text encoder's last layer for the prompt (not the negative one), 3 the last two ...
    #[arg(long, default_value_t = 1)]
    pub clip_skip: usize,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub tune: TuneArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ModelArgs {
    /// A diffusers folder or a .safetensors file; when not given, cub, the small model inside the program, beside which is
    /// cub-pixels, of image space
    #[arg(short, long, value_name = "PATH")]
    pub model: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ArchArgs {
    /// A known architecture with random weights, without a checkpoint
    #[arg(long, value_enum, conflicts_with = "model")]
    pub arch: Option<Arch>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SizeArgs {
    /// Pixels across, a multiple of 8 where there is a VAE; when not given, those of a picture that is started from, else what the model was
    /// trained on
    #[arg(short = 'W', long)]
    pub width: Option<usize>,
    /// Pixels down, likewise
    #[arg(short = 'H', long)]
    pub height: Option<usize>,
}

/// On what to compute, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// auto, cpu, a number or a part of a name from `ratel devices`
    #[arg(short, long, default_value = "auto")]
    pub device: String,
    /// Type of numbers
    #[arg(long, value_enum, default_value_t = PrecisionArg::Auto)]
    pub precision: PrecisionArg,
    #[arg(
        long,
        value_name = "RULE",
        value_delimiter = ',',
        help = format!("Leave fusion rules out: {}, or all", Rule::ALL.map(Rule::name).join(", "))
    )]
    pub no_fuse: Vec<String>,
    /// Load kernels from a copy of shaders/ instead of the program's own
    #[arg(long, value_name = "DIR")]
    pub shaders: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TuneArgs {
    /// Choose kernels by timing them on the device
    #[arg(long, value_enum, default_value_t = Tune::Off)]
    pub tune: Tune,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tune {
    /// Choose them by what is known of devices of this kind
    Off,
    /// Time what was not timed before, for half a minute at most, and keep it; results may differ in their last bits
    Auto,
    /// Time all of it anew
    Force,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rng {
    /// torch.randn on a CPU
    Torch,
    /// torch.randn on an NVIDIA GPU
    #[value(alias = "cuda", alias = "nv")]
    Philox,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArg {
    /// f16 on a GPU that has it
    Auto,
    /// Full precision, weights as in the file
    F32,
    /// Half precision
    F16,
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub draw: DrawArgs,
    /// Draw each line of a file (- for standard input), the model opened once: a prompt, or a JSON object with "prompt" and,
    /// where they differ from the command line's, "negative_prompt", "seed", "width", "height", "steps", "cfg_scale",
    /// "guidance_rescale", "sampler", "schedule", "clip_skip", "init_image", "strength"
    #[arg(long, value_name = "FILE", conflicts_with_all = ["positional", "prompt", "latents_out", "steps_dir"])]
    pub from_file: Option<PathBuf>,
    /// The picture; several are numbered, those of a file by their line
    #[arg(short, long, default_value = "output.png")]
    pub output: PathBuf,
    /// Also write the sampler's last latents
    #[arg(long, value_name = "FILE.safetensors")]
    pub latents_out: Option<PathBuf>,
    /// Also write the picture after every step
    #[arg(long, value_name = "DIR")]
    pub steps_dir: Option<PathBuf>,
    /// Say how long each part took, and how soon the first step was done
    #[arg(short, long)]
    pub verbose: bool,
    /// Print what was made as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// auto, a number or a part of a name from `ratel devices`
    #[arg(short, long, default_value = "auto")]
    pub device: String,
    /// Only kernels whose name contains this
    #[arg(long)]
    pub only: Option<String>,
    /// Load kernels from a copy of shaders/ instead of the program's own
    #[arg(long, value_name = "DIR")]
    pub shaders: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// A diffusers folder or a .safetensors file; when not given, cub, the small model inside the program
    #[arg(value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub arch: ArchArgs,
    #[command(flatten)]
    pub size: SizeArgs,
    /// Pictures
    #[arg(short, long, default_value_t = 1)]
    pub batch: usize,
    /// Guidance; 1 turns it off and halves the batch; when not given, the model's own, else 7.5
    #[arg(long)]
    pub cfg_scale: Option<f32>,
    #[command(flatten)]
    pub run: RunArgs,
    /// Only this component
    #[arg(long, value_enum)]
    pub component: Option<ComponentArg>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    Sd15,
    Sd21,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ComponentArg {
    TextEncoder,
    Unet,
    Vae,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct TraceArgs {
    #[command(subcommand)]
    pub diff: Option<TraceCommand>,
    #[command(flatten)]
    pub record: RecordArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TraceCommand {
    /// Compare two recordings: the first layer that differs, the error of each, and what each adds
    Diff(DiffArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    #[command(flatten)]
    pub draw: DrawArgs,
    /// The recording
    #[arg(short, long, default_value = "trace.safetensors")]
    pub output: PathBuf,
    /// Only modules of this name or under it; * stands for anything
    #[arg(long, value_name = "PATTERN", default_value = "*")]
    pub only: Vec<String>,
    /// Steps of the UNet to record, from 0
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0")]
    pub at_steps: Vec<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// A recording
    pub a: PathBuf,
    /// What it is compared with: the reference
    pub b: PathBuf,
    /// Relative error from which a layer counts as different
    #[arg(long, default_value_t = 1e-4)]
    pub tolerance: f64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ProfileArgs {
    #[command(subcommand)]
    pub diff: Option<ProfileCommand>,
    #[command(flatten)]
    pub record: ProfileRunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// Compare two profiles in JSON lines, kernel by kernel and module by module, with the noise of their runs
    Diff(ProfileDiffArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ProfileRunArgs {
    #[command(flatten)]
    pub draw: DrawArgs,
    /// Time only these of the sampler's steps, from 0: A..B without B, A.., ..B, or one
    #[arg(long, value_name = "A..B")]
    pub steps_range: Option<String>,
    /// Print only this table; by module and by kernel when not given
    #[arg(long, value_enum)]
    pub group_by: Option<GroupBy>,
    /// Rows of a table; 15 when not given, all with --json
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Timed runs, for medians and their noise
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub repeat: usize,
    /// One timed run alone: without a warm-up, and without the run beside it that tells what profiling costs
    #[arg(long, conflicts_with = "repeat")]
    pub once: bool,
    /// Don't compare with what the device can do at most
    #[arg(long)]
    pub no_roof: bool,
    /// Also write the profile; .html a page, .json a trace for Perfetto, .csv a table, .jsonl for `ratel profile diff`,
    /// .folded stacks for flame graphs
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The file's format, where its name does not say
    #[arg(long, value_enum, requires = "output")]
    pub format: Option<FormatArg>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GroupBy {
    /// The module, by diffusers' name
    Module,
    /// The kernel
    Kernel,
    /// The kernel and the sizes it ran on
    Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    /// Chrome's trace events, for Perfetto
    Trace,
    /// A line for each dispatch
    Csv,
    /// A JSON object for each dispatch, for `ratel profile diff`
    Jsonl,
    /// Folded stacks, for flame graphs
    Folded,
    /// A page with the roofline, a table and the memory
    Html,
}

#[derive(Debug, Args)]
pub(crate) struct ProfileDiffArgs {
    /// A profile
    pub a: PathBuf,
    /// What it is compared with
    pub b: PathBuf,
    /// Rows of a table; 15 when not given, all with --json
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RooflineArgs {
    /// auto, cpu, a number or a part of a name from `ratel devices`
    #[arg(short, long, default_value = "auto")]
    pub device: String,
    /// Measure anew, whatever was measured before
    #[arg(long)]
    pub fresh: bool,
    /// Load microkernels from a copy of shaders/ instead of the program's own
    #[arg(long, value_name = "DIR")]
    pub shaders: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct KernelsArgs {
    #[command(subcommand)]
    pub bench: Option<KernelsCommand>,
    #[command(flatten)]
    pub list: KernelListArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KernelsCommand {
    /// Check and time every kernel of an op, in every variant that the device can run
    Bench(KernelBenchArgs),
}

#[derive(Debug, Args)]
pub(crate) struct KernelListArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub arch: ArchArgs,
    #[command(flatten)]
    pub size: SizeArgs,
    #[command(flatten)]
    pub run: RunArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KernelBenchArgs {
    /// An op, for all of its kernels, or one kernel, as `ratel kernels` lists them; a plain kernel has its op's name
    pub name: String,
    /// The op's sizes by name, such as m=4096,n=320,k=320,bias,act=silu; without it and --layer, the first case that
    /// its kernels are tested on
    #[arg(long, value_name = "NAME=VALUE,...", conflicts_with = "layer")]
    pub shape: Option<String>,
    /// The sizes that the op has in this layer of the model, such as unet.conv_in
    #[arg(long, value_name = "MODULE")]
    pub layer: Option<String>,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub arch: ArchArgs,
    #[command(flatten)]
    pub size: SizeArgs,
    /// auto, cpu, a number or a part of a name from `ratel devices`
    #[arg(short, long, default_value = "auto")]
    pub device: String,
    /// Load kernels from a copy of shaders/ instead of the program's own
    #[arg(long, value_name = "DIR")]
    pub shaders: Option<PathBuf>,
    /// Seconds that each kernel is timed for
    #[arg(long, default_value_t = 0.5)]
    pub seconds: f64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub arch: ArchArgs,
    /// Pixels across, one or several; what the model was trained on when not given
    #[arg(short = 'W', long, value_delimiter = ',')]
    pub width: Vec<usize>,
    /// Pixels down, one for each width or one for all; as many as across when not given
    #[arg(short = 'H', long, value_delimiter = ',')]
    pub height: Vec<usize>,
    /// Only these
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<BenchPart>,
    /// Denoising steps of the whole picture; when not given, what the model's ratel.json says, else 20
    #[arg(long)]
    pub steps: Option<usize>,
    /// How often each is timed, after once to warm up
    #[arg(long, default_value_t = 5)]
    pub runs: usize,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub tune: TuneArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Md)]
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchPart {
    /// Both prompts of a guided run
    TextEncoder,
    /// One guided step: a batch of two
    Unet,
    /// From latents to a picture
    Vae,
    /// Everything, weights loaded anew
    Picture,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Md,
    Csv,
    Json,
}
