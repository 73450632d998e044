//! The names people type, in Ratel, diffusers, stable-diffusion.cpp, ComfyUI and AUTOMATIC1111.
//!
//! Case, spaces, dashes, underscores and the spelling of "++" do not matter. A schedule may follow a sampler's name,
//! as in AUTOMATIC1111's "DPM++ 2M Karras".

use super::{Prediction, SamplerError};
use crate::random::RandomSource;
use crate::schedule::Spacing;

/// How a step is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampler {
    /// DDIM (arXiv:2010.02502): diffusers' DDIMScheduler.
    Ddim,
    /// DDPM (arXiv:2006.11239): DDPMScheduler.
    Ddpm,
    /// PNDM (arXiv:2202.09778), PLMS where `skip_prk_steps` is set: PNDMScheduler.
    Pndm,
    /// Linear multistep, four derivatives: LMSDiscreteScheduler.
    Lms,
    /// Euler's method (arXiv:2206.00364): EulerDiscreteScheduler.
    Euler,
    /// Euler with ancestral noise: EulerAncestralDiscreteScheduler.
    EulerA,
    /// Heun's method, two model calls a step: HeunDiscreteScheduler.
    Heun,
    /// DPM-Solver-2 as in k-diffusion, two calls a step: KDPM2DiscreteScheduler.
    Dpm2,
    /// The same with ancestral noise: KDPM2AncestralDiscreteScheduler.
    Dpm2A,
    /// DPM-Solver++ single-step, order 2 (arXiv:2211.01095): DPMSolverSinglestepScheduler.
    Dpmpp2s,
    /// DPM-Solver++ multistep: DPMSolverMultistepScheduler.
    Dpmpp2m,
    /// Its stochastic form: `algorithm_type` sde-dpmsolver++.
    Dpmpp2mSde,
    /// The same of order 3.
    Dpmpp3mSde,
    /// DPM-Solver++ SDE, two calls a step: DPMSolverSDEScheduler.
    DpmppSde,
    /// UniPC (arXiv:2302.04867): UniPCMultistepScheduler.
    Unipc,
    /// DEIS in log rho (arXiv:2204.13902): DEISMultistepScheduler.
    Deis,
    /// Latent consistency (arXiv:2310.04378): LCMScheduler. Needs a model distilled for it.
    Lcm,
    /// Trajectory consistency (arXiv:2402.19159): TCDScheduler. Likewise.
    Tcd,
}

/// How a run's noise levels are placed: the field's "scheduler" beside the sampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// By timestep, as `timestep_spacing` says.
    Normal,
    /// [`SigmaCurve::Karras`](crate::schedule::SigmaCurve::Karras).
    Karras,
    /// [`SigmaCurve::Exponential`](crate::schedule::SigmaCurve::Exponential).
    Exponential,
    /// [`SigmaCurve::Beta`](crate::schedule::SigmaCurve::Beta).
    Beta,
    /// [`Spacing::Trailing`], which diffusers' documentation gives for it. ComfyUI's own is
    /// linspace(999, 0, steps + 1) without its end, unrounded: at twenty steps 999, 949.05 against 999, 949 here.
    SgmUniform,
    /// [`Spacing::Simple`].
    Simple,
    /// ComfyUI's `ddim_uniform`: [`Spacing::Leading`].
    DdimUniform,
    /// [`SigmaCurve::Lu`](crate::schedule::SigmaCurve::Lu).
    Lu,
}

type Names<T> = &'static [(T, &'static [&'static str])];

/// The first name is Ratel's own; the last, where it ends in "Scheduler", is diffusers' class.
const SAMPLERS: Names<Sampler> = &[
    (Sampler::Ddim, &["ddim", "ddim_trailing", "DDIMScheduler"]),
    (Sampler::Ddpm, &["ddpm", "DDPMScheduler"]),
    (Sampler::Pndm, &["pndm", "plms", "PNDMScheduler"]),
    (Sampler::Lms, &["lms", "LMSDiscreteScheduler"]),
    (Sampler::Euler, &["euler", "EulerDiscreteScheduler"]),
    (Sampler::EulerA, &["euler_a", "euler_ancestral", "EulerAncestralDiscreteScheduler"]),
    (Sampler::Heun, &["heun", "HeunDiscreteScheduler"]),
    (Sampler::Dpm2, &["dpm2", "dpm_2", "KDPM2DiscreteScheduler"]),
    (Sampler::Dpm2A, &["dpm2_a", "dpm_2_ancestral", "dpm2_ancestral", "KDPM2AncestralDiscreteScheduler"]),
    (Sampler::Dpmpp2s, &["dpm++2s", "DPMSolverSinglestepScheduler"]),
    (Sampler::Dpmpp2m, &["dpm++2m", "DPMSolverMultistepScheduler"]),
    (Sampler::Dpmpp2mSde, &["dpm++2m_sde", "dpmpp_2m_sde_gpu"]),
    (Sampler::Dpmpp3mSde, &["dpm++3m_sde", "dpmpp_3m_sde_gpu"]),
    (Sampler::DpmppSde, &["dpm++sde", "dpmpp_sde_gpu", "DPMSolverSDEScheduler"]),
    (Sampler::Unipc, &["unipc", "uni_pc_bh2", "UniPCMultistepScheduler"]),
    (Sampler::Deis, &["deis", "DEISMultistepScheduler"]),
    (Sampler::Lcm, &["lcm", "LCMScheduler"]),
    (Sampler::Tcd, &["tcd", "TCDScheduler"]),
];

/// Names of samplers that Ratel lacks, and what comes closest.
const ABSENT: &[(&[&str], &str)] = &[
    (&["dpm++2s_a", "dpmpp_2s_ancestral", "dpm++2s_ancestral"], "dpm++sde and dpm2_a come closest"),
    (&["dpm++2mv2"], "take dpm++2m, of which it is a variant"),
    (&["ipndm"], "take pndm, the same multistep formula after a different start"),
    (&["ipndm_v"], "take lms, which is exact for uneven steps"),
    (&["dpm_fast", "dpm_adaptive"], "take dpm++2m"),
    (&["restart", "heunpp2", "res_multistep", "er_sde", "seeds_2", "sa_solver"], "take heun or dpm++2m"),
];

const SCHEDULES: Names<Schedule> = &[
    (Schedule::Normal, &["normal", "discrete", "default", "uniform", "automatic"]),
    (Schedule::Karras, &["karras"]),
    (Schedule::Exponential, &["exponential"]),
    (Schedule::Beta, &["beta"]),
    (Schedule::SgmUniform, &["sgm_uniform"]),
    (Schedule::Simple, &["simple"]),
    (Schedule::DdimUniform, &["ddim_uniform"]),
    (Schedule::Lu, &["lu"]),
];

const SPACINGS: Names<Spacing> = &[
    (Spacing::Leading, &["leading"]),
    (Spacing::Trailing, &["trailing"]),
    (Spacing::Linspace, &["linspace"]),
    (Spacing::Simple, &["simple"]),
];

const PREDICTIONS: Names<Prediction> = &[
    (Prediction::Epsilon, &["epsilon", "eps"]),
    (Prediction::V, &["v_prediction", "v"]),
    (Prediction::Sample, &["sample", "x0"]),
];

const RANDOM_SOURCES: Names<RandomSource> =
    &[(RandomSource::Torch, &["torch", "cpu"]), (RandomSource::Philox, &["philox", "nv", "cuda", "gpu"])];

impl Sampler {
    /// Reads a sampler's name, and the schedule that its writer put behind it.
    ///
    /// `ddim_trailing` and names such as "Euler a SGM Uniform" carry a schedule; most do not.
    pub fn parse(name: &str) -> Result<(Sampler, Option<Schedule>), SamplerError> {
        let squashed = squash(name);
        if squashed == "ddimtrailing" {
            return Ok((Sampler::Ddim, Some(Schedule::SgmUniform)));
        }
        for prefix in ["", "sample", "k"] {
            let Some(core) = squashed.strip_prefix(prefix) else { continue };
            if let Some(sampler) = find(SAMPLERS, core) {
                return Ok((sampler, None));
            }
            for (schedule, names) in SCHEDULES {
                let before = names.iter().find_map(|name| core.strip_suffix(squash(name).as_str()));
                if let Some(sampler) = before.and_then(|core| find(SAMPLERS, core)) {
                    return Ok((sampler, Some(*schedule)));
                }
            }
        }
        if let Some((_, instead)) = ABSENT.iter().find(|(names, _)| names.iter().any(|n| squash(n) == squashed)) {
            return Err(SamplerError::Absent { name: name.into(), instead, valid: valid(SAMPLERS) });
        }
        Err(unknown("sampler", name, SAMPLERS))
    }

    /// Every sampler, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Sampler> {
        SAMPLERS.iter().map(|(sampler, _)| *sampler)
    }

    /// Ratel's name, which is sd.cpp's where it has one.
    pub fn name(self) -> &'static str {
        name_of(SAMPLERS, &self)
    }
}

impl Schedule {
    /// Reads a schedule's name.
    pub fn parse(name: &str) -> Result<Schedule, SamplerError> {
        find(SCHEDULES, &squash(name)).ok_or_else(|| unknown("schedule", name, SCHEDULES))
    }

    /// Every schedule.
    pub fn all() -> impl Iterator<Item = Schedule> {
        SCHEDULES.iter().map(|(schedule, _)| *schedule)
    }

    /// Ratel's name, which is ComfyUI's where it has one.
    pub fn name(self) -> &'static str {
        name_of(SCHEDULES, &self)
    }
}

/// Reads diffusers' `timestep_spacing`.
pub fn parse_spacing(name: &str) -> Result<Spacing, SamplerError> {
    find(SPACINGS, &squash(name)).ok_or_else(|| unknown("timestep spacing", name, SPACINGS))
}

/// Reads diffusers' `prediction_type`.
pub fn parse_prediction(name: &str) -> Result<Prediction, SamplerError> {
    find(PREDICTIONS, &squash(name)).ok_or_else(|| unknown("prediction type", name, PREDICTIONS))
}

/// Reads a source of noise: `torch` (A1111's "CPU") or `philox` (A1111's "NV").
pub fn parse_random_source(name: &str) -> Result<RandomSource, SamplerError> {
    find(RANDOM_SOURCES, &squash(name)).ok_or_else(|| unknown("random source", name, RANDOM_SOURCES))
}

/// Small letters and digits only, "++" as "pp".
fn squash(name: &str) -> String {
    name.to_lowercase().replace("++", "pp").chars().filter(char::is_ascii_alphanumeric).collect()
}

fn find<T: Copy>(table: Names<T>, squashed: &str) -> Option<T> {
    table.iter().find(|(_, names)| names.iter().any(|name| squash(name) == squashed)).map(|(value, _)| *value)
}

fn name_of<T: PartialEq>(table: Names<T>, value: &T) -> &'static str {
    table.iter().find(|(other, _)| other == value).and_then(|(_, names)| names.first()).copied().unwrap_or_default()
}

fn valid<T>(table: Names<T>) -> String {
    let names: Vec<&str> = table.iter().filter_map(|(_, names)| names.first().copied()).collect();
    names.join(", ")
}

fn unknown<T>(kind: &'static str, name: &str, table: Names<T>) -> SamplerError {
    // A typed name may be of any length, and the distance takes time in proportion to it.
    let typed: String = squash(name).chars().take(64).collect();
    let candidates = table.iter().flat_map(|(_, names)| names.iter().copied());
    let nearest = candidates.min_by_key(|candidate| edit_distance(&typed, &squash(candidate)));
    let shown: String = name.chars().take(64).collect();
    SamplerError::UnknownName { kind, name: shown, nearest: nearest.unwrap_or_default().into(), valid: valid(table) }
}

/// The least number of insertions, deletions and replacements between two words (Levenshtein).
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let replace = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
