//! From scheduler_config.json and the command line to the settings of one sampler.
//!
//! diffusers' `SchedulerClass.from_config(config)` takes the keys that the class knows, ignores the others and fills
//! in the class's own defaults, which differ from class to class. [`SamplerConfig::resolve`] does the same.

use serde::Deserialize;
use serde_json::Value;

use super::names::{parse_prediction, parse_spacing};
use super::{Prediction, Sampler, SamplerError, Schedule};
use crate::schedule::{BetaCurve, Betas, SigmaCurve, Spacing};

/// The keys of scheduler_config.json that Ratel reads, under diffusers' names; `None` where the file has none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are diffusers', documented there")]
pub struct SchedulerFile {
    #[serde(rename = "_class_name")]
    pub class_name: Option<String>,
    pub num_train_timesteps: Option<usize>,
    pub beta_start: Option<f64>,
    pub beta_end: Option<f64>,
    pub beta_schedule: Option<String>,
    pub trained_betas: Option<Vec<f32>>,
    pub rescale_betas_zero_snr: Option<bool>,
    pub prediction_type: Option<String>,
    pub timestep_spacing: Option<String>,
    pub steps_offset: Option<usize>,
    pub use_karras_sigmas: Option<bool>,
    pub use_exponential_sigmas: Option<bool>,
    pub use_beta_sigmas: Option<bool>,
    pub use_lu_lambdas: Option<bool>,
    pub use_flow_sigmas: Option<bool>,
    pub sigma_min: Option<f64>,
    pub sigma_max: Option<f64>,
    pub final_sigmas_type: Option<String>,
    pub interpolation_type: Option<String>,
    pub timestep_type: Option<String>,
    pub clip_sample: Option<bool>,
    pub clip_sample_range: Option<f64>,
    pub thresholding: Option<bool>,
    pub set_alpha_to_one: Option<bool>,
    pub skip_prk_steps: Option<bool>,
    pub variance_type: Option<String>,
    pub algorithm_type: Option<String>,
    pub solver_order: Option<usize>,
    pub solver_type: Option<String>,
    pub lower_order_final: Option<bool>,
    pub euler_at_final: Option<bool>,
    pub lambda_min_clipped: Option<f64>,
    pub predict_x0: Option<bool>,
    pub disable_corrector: Option<Vec<usize>>,
    pub solver_p: Option<Value>,
    pub original_inference_steps: Option<usize>,
    pub timestep_scaling: Option<f64>,
}

impl SchedulerFile {
    /// Reads a scheduler_config.json. Keys that Ratel does not know are ignored.
    pub fn from_value(mut value: Value) -> Result<SchedulerFile, SamplerError> {
        // diffusers lists here the keys that were never set; another class puts in its own default for them.
        let unset = value.get("_use_default_values").and_then(Value::as_array).cloned().unwrap_or_default();
        if let Some(keys) = value.as_object_mut() {
            unset.iter().filter_map(Value::as_str).for_each(|key| drop(keys.remove(key)));
        }
        Ok(serde_json::from_value(value)?)
    }

    /// What Stable Diffusion 1 ships, the prediction type left open: 2 and XL use the same noise schedule. For checkpoints
    /// in a single file, which say nothing of it.
    pub fn stable_diffusion() -> SchedulerFile {
        SchedulerFile {
            class_name: Some("PNDMScheduler".to_owned()),
            num_train_timesteps: Some(1000),
            beta_start: Some(0.00085),
            beta_end: Some(0.012),
            beta_schedule: Some("scaled_linear".to_owned()),
            steps_offset: Some(1),
            set_alpha_to_one: Some(false),
            skip_prk_steps: Some(true),
            clip_sample: Some(false),
            ..SchedulerFile::default()
        }
    }
}

/// What the command line says; `None` leaves it to the file, and there to the class's default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplerChoice {
    /// Instead of the file's `_class_name`.
    pub sampler: Option<Sampler>,
    /// Instead of the file's `use_..._sigmas`, and for some names of its `timestep_spacing`.
    pub schedule: Option<Schedule>,
    /// Instead of the file's `timestep_spacing`.
    pub spacing: Option<Spacing>,
    /// Instead of the file's `prediction_type`.
    pub prediction: Option<Prediction>,
    /// Instead of the file's `rescale_betas_zero_snr`.
    pub zero_terminal_snr: Option<bool>,
    /// How much noise ddim (default 0) and tcd (default 0.3) add back: 0 none, 1 all.
    pub eta: Option<f64>,
}

/// The last sigma of a run: diffusers' `final_sigmas_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalSigma {
    /// No noise is left.
    Zero,
    /// The noise of timestep 0 is left.
    SigmaMin,
}

/// How much noise ddpm adds: diffusers' `variance_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variance {
    /// The posterior's variance.
    FixedSmall,
    /// The same, taken through logarithms.
    FixedSmallLog,
    /// Beta.
    FixedLarge,
}

/// The second-order formula of DPM-Solver, and the B(h) of UniPC: diffusers' `solver_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SolverType {
    /// DPM-Solver's default.
    Midpoint,
    /// DPM-Solver's other.
    Heun,
    /// UniPC with B(h) = h.
    Bh1,
    /// UniPC with B(h) = e^h - 1, its default.
    Bh2,
}

/// Everything that a run depends on but its number of steps. Fields that a sampler has no use for are ignored.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerConfig {
    /// How steps are taken.
    pub sampler: Sampler,
    /// The noise schedule.
    pub betas: Betas,
    /// What the model predicts.
    pub prediction: Prediction,
    /// How timesteps are placed.
    pub spacing: Spacing,
    /// Added to leading timesteps.
    pub steps_offset: usize,
    /// How sigmas are placed.
    pub curve: SigmaCurve,
    /// Lower end of the curve, if not the schedule's.
    pub sigma_min: Option<f64>,
    /// Upper end of the curve, if not the schedule's.
    pub sigma_max: Option<f64>,
    /// Where the run ends.
    pub final_sigma: FinalSigma,
    /// Cuts the predicted image off at ± this; diffusers' `clip_sample` and `clip_sample_range`.
    pub clip_sample: Option<f64>,
    /// ddim, pndm, lcm, tcd: after the last step nothing but image is left, instead of what timestep 0 has.
    pub set_alpha_to_one: bool,
    /// pndm: begin with linear multisteps instead of twelve Runge-Kutta calls.
    pub skip_prk_steps: bool,
    /// ddpm.
    pub variance: Variance,
    /// ddim, tcd.
    pub eta: f64,
    /// dpm++, unipc, deis: 1, 2 or 3.
    pub solver_order: usize,
    /// dpm++, unipc.
    pub solver_type: SolverType,
    /// dpm++, unipc, deis: fall back to lower orders at the end of runs under 15 steps.
    pub lower_order_final: bool,
    /// dpm++: the last step is of order 1.
    pub euler_at_final: bool,
    /// dpm++: the least log SNR / 2 that a run starts from.
    pub lambda_min_clipped: f64,
    /// unipc: work on the image (default) or on the noise.
    pub predict_x0: bool,
    /// unipc: the steps whose result is not corrected.
    pub disable_corrector: Vec<usize>,
    /// lcm, tcd: the number of timesteps that the model was distilled on.
    pub original_inference_steps: usize,
    /// lcm.
    pub timestep_scaling: f64,
}

impl SamplerConfig {
    /// The settings that diffusers would run with: the choice's where it says something, else the file's, else the
    /// defaults of the sampler's class.
    pub fn resolve(file: &SchedulerFile, choice: &SamplerChoice) -> Result<SamplerConfig, SamplerError> {
        let sampler = match choice.sampler {
            Some(sampler) => sampler,
            None => sampler_of(file)?,
        };
        let class = sampler.class();
        refuse_unsupported(file, sampler)?;
        let prediction = match (choice.prediction, &file.prediction_type) {
            (Some(prediction), _) => prediction,
            (None, Some(name)) => parse_prediction(name)?,
            (None, None) => Prediction::Epsilon,
        };
        if prediction == Prediction::Sample && !class.predicts_sample {
            return Err(SamplerError::Incompatible {
                sampler: sampler.name(),
                setting: "a model that predicts the sample".into(),
                instead: "take ddim, euler, dpm++2m or unipc".into(),
            });
        }
        let (curve, spacing) = levels(file, choice, sampler)?;
        let zero_terminal_snr = match choice.zero_terminal_snr {
            Some(true) if !class.zero_snr => {
                return Err(SamplerError::Incompatible {
                    sampler: sampler.name(),
                    setting: "zero terminal SNR".into(),
                    instead: "take ddim, ddpm, euler, euler_a, dpm++2m or unipc".into(),
                });
            }
            Some(wanted) => wanted,
            None => class.zero_snr && file.rescale_betas_zero_snr.unwrap_or(false),
        };
        let betas = Betas {
            train_steps: file.num_train_timesteps.unwrap_or(1000),
            start: file.beta_start.unwrap_or(class.beta_start),
            end: file.beta_end.unwrap_or(class.beta_end),
            curve: file.beta_schedule.as_deref().map_or(Ok(class.beta_curve), beta_curve)?,
            trained: file.trained_betas.clone(),
            zero_terminal_snr,
        };
        let clips = class.clip_sample.is_some_and(|default| file.clip_sample.unwrap_or(default));
        let config = SamplerConfig {
            sampler,
            betas,
            prediction,
            spacing,
            steps_offset: file.steps_offset.unwrap_or(0),
            curve,
            sigma_min: file.sigma_min,
            sigma_max: file.sigma_max,
            final_sigma: final_sigma(file, sampler)?,
            clip_sample: clips.then_some(file.clip_sample_range.unwrap_or(1.0)),
            set_alpha_to_one: file.set_alpha_to_one.unwrap_or(class.set_alpha_to_one),
            skip_prk_steps: file.skip_prk_steps.unwrap_or(false),
            variance: variance(file, sampler)?,
            eta: choice.eta.unwrap_or(if sampler == Sampler::Tcd { 0.3 } else { 0.0 }),
            solver_order: match sampler {
                Sampler::Dpmpp3mSde => 3,
                Sampler::Dpmpp2s => 2,
                _ => file.solver_order.unwrap_or(2),
            },
            solver_type: solver_type(file, sampler)?,
            lower_order_final: file.lower_order_final.unwrap_or(true),
            euler_at_final: file.euler_at_final.unwrap_or(false),
            lambda_min_clipped: file.lambda_min_clipped.unwrap_or(f64::NEG_INFINITY),
            predict_x0: file.predict_x0.unwrap_or(true),
            disable_corrector: file.disable_corrector.clone().unwrap_or_default(),
            original_inference_steps: file.original_inference_steps.unwrap_or(50),
            timestep_scaling: file.timestep_scaling.unwrap_or(10.0),
        };
        config.check()?;
        Ok(config)
    }

    /// Refuses numbers that no run can use.
    pub(super) fn check(&self) -> Result<(), SamplerError> {
        let rule = |ok: bool, setting, value: &dyn std::fmt::Debug, rule: &str| match ok {
            true => Ok(()),
            false => Err(SamplerError::OutOfRange { setting, value: format!("{value:?}"), rule: rule.into() }),
        };
        let positive = |value: Option<f64>| value.is_none_or(|value| value > 0.0 && value < 1e6);
        let train_steps = self.betas.train_steps;
        rule((1..=3).contains(&self.solver_order), "solver_order", &self.solver_order, "be 1, 2 or 3")?;
        rule((0.0..=1.0).contains(&self.eta), "eta", &self.eta, "lie between 0 and 1")?;
        rule(positive(self.sigma_min), "sigma_min", &self.sigma_min, "be positive and below 1e6")?;
        rule(positive(self.sigma_max), "sigma_max", &self.sigma_max, "be positive and below 1e6")?;
        rule(positive(self.clip_sample), "clip_sample_range", &self.clip_sample, "be positive and below 1e6")?;
        rule(!self.lambda_min_clipped.is_nan(), "lambda_min_clipped", &self.lambda_min_clipped, "be a number")?;
        rule(self.steps_offset <= train_steps, "steps_offset", &self.steps_offset, "not exceed num_train_timesteps")?;
        rule(
            (1..=train_steps).contains(&self.original_inference_steps),
            "original_inference_steps",
            &self.original_inference_steps,
            "lie between 1 and num_train_timesteps",
        )
    }
}

/// What distinguishes diffusers' classes: defaults, and which keys they know.
#[derive(Clone, Copy)]
struct Class {
    beta_start: f64,
    beta_end: f64,
    beta_curve: BetaCurve,
    spacing: Spacing,
    /// Whether the class has `timestep_spacing` and `steps_offset`.
    spaced: bool,
    /// Whether it has `use_karras_sigmas` and its like.
    curves: bool,
    /// Whether it has `rescale_betas_zero_snr`.
    zero_snr: bool,
    /// Whether it takes `prediction_type` "sample".
    predicts_sample: bool,
    /// Whether it has `final_sigmas_type`.
    final_sigma: bool,
    /// Whether it has `thresholding`.
    thresholds: bool,
    /// The default of `clip_sample`, if it has that.
    clip_sample: Option<bool>,
    set_alpha_to_one: bool,
}

/// What most classes of the sigma family have.
const SIGMA_CLASS: Class = Class {
    beta_start: 0.0001,
    beta_end: 0.02,
    beta_curve: BetaCurve::Linear,
    spacing: Spacing::Linspace,
    spaced: true,
    curves: true,
    zero_snr: false,
    predicts_sample: true,
    final_sigma: false,
    thresholds: false,
    clip_sample: None,
    set_alpha_to_one: false,
};

/// What most classes that step through abar have.
const ABAR_CLASS: Class = Class {
    spacing: Spacing::Leading,
    curves: false,
    zero_snr: true,
    thresholds: true,
    clip_sample: Some(true),
    set_alpha_to_one: true,
    ..SIGMA_CLASS
};

const K_CLASS: Class = Class { beta_start: 0.00085, beta_end: 0.012, predicts_sample: false, ..SIGMA_CLASS };

const DISTILLED_CLASS: Class = Class {
    beta_start: 0.00085,
    beta_end: 0.012,
    beta_curve: BetaCurve::ScaledLinear,
    clip_sample: Some(false),
    ..ABAR_CLASS
};

const SOLVER_CLASS: Class = Class { zero_snr: true, final_sigma: true, thresholds: true, ..SIGMA_CLASS };

impl Sampler {
    fn class(self) -> Class {
        match self {
            Sampler::Ddim | Sampler::Ddpm => ABAR_CLASS,
            Sampler::Pndm => Class {
                zero_snr: false,
                predicts_sample: false,
                thresholds: false,
                clip_sample: None,
                set_alpha_to_one: false,
                ..ABAR_CLASS
            },
            Sampler::Lcm | Sampler::Tcd => DISTILLED_CLASS,
            Sampler::Lms => SIGMA_CLASS,
            Sampler::Euler => Class { zero_snr: true, final_sigma: true, ..SIGMA_CLASS },
            Sampler::EulerA => Class { zero_snr: true, curves: false, predicts_sample: false, ..SIGMA_CLASS },
            Sampler::Heun => Class { predicts_sample: true, clip_sample: Some(false), ..K_CLASS },
            Sampler::Dpm2 | Sampler::Dpm2A | Sampler::DpmppSde => K_CLASS,
            Sampler::Dpmpp2m | Sampler::Dpmpp2mSde | Sampler::Dpmpp3mSde | Sampler::Unipc => SOLVER_CLASS,
            Sampler::Dpmpp2s => Class { zero_snr: false, spaced: false, ..SOLVER_CLASS },
            Sampler::Deis => Class { zero_snr: false, final_sigma: false, ..SOLVER_CLASS },
        }
    }

    /// Whether diffusers' class is DPMSolverMultistepScheduler.
    pub(super) fn is_dpm_multistep(self) -> bool {
        matches!(self, Sampler::Dpmpp2m | Sampler::Dpmpp2mSde | Sampler::Dpmpp3mSde)
    }

    /// Whether its levels are sigmas, which a curve can place.
    fn has_sigmas(self) -> bool {
        !matches!(self, Sampler::Ddim | Sampler::Ddpm | Sampler::Pndm | Sampler::Lcm | Sampler::Tcd)
    }
}

fn sampler_of(file: &SchedulerFile) -> Result<Sampler, SamplerError> {
    let Some(name) = &file.class_name else { return Ok(Sampler::Pndm) };
    let (sampler, _) = Sampler::parse(name)?;
    match (sampler, file.algorithm_type.as_deref()) {
        (Sampler::Dpmpp2m, Some("sde-dpmsolver++")) => Ok(Sampler::Dpmpp2mSde),
        (Sampler::Dpmpp2m | Sampler::Dpmpp2s, Some(other)) if !matches!(other, "dpmsolver++" | "deis") => {
            Err(unsupported("algorithm_type", other, "name the sampler instead: dpm++2m or dpm++2m_sde"))
        }
        _ => Ok(sampler),
    }
}

/// Curve and spacing. The schedules beyond diffusers' flags are spacings.
fn levels(
    file: &SchedulerFile,
    choice: &SamplerChoice,
    sampler: Sampler,
) -> Result<(SigmaCurve, Spacing), SamplerError> {
    let class = sampler.class();
    let file_spacing = match &file.timestep_spacing {
        Some(name) if class.spaced => parse_spacing(name)?,
        _ => class.spacing,
    };
    let spacing = choice.spacing.unwrap_or(file_spacing);
    let (curve, spacing) = match choice.schedule {
        Some(Schedule::Normal) => (SigmaCurve::Timesteps, spacing),
        Some(Schedule::Karras) => (SigmaCurve::Karras, spacing),
        Some(Schedule::Exponential) => (SigmaCurve::Exponential, spacing),
        Some(Schedule::Beta) => (SigmaCurve::Beta, spacing),
        Some(Schedule::Lu) => (SigmaCurve::Lu, spacing),
        Some(Schedule::SgmUniform) => (SigmaCurve::Timesteps, Spacing::Trailing),
        Some(Schedule::Simple) => (SigmaCurve::Timesteps, Spacing::Simple),
        Some(Schedule::DdimUniform) => (SigmaCurve::Timesteps, Spacing::Leading),
        None if !class.curves => (SigmaCurve::Timesteps, spacing),
        None => (file_curve(file, sampler)?, spacing),
    };
    if curve != SigmaCurve::Timesteps && !sampler.has_sigmas() {
        return Err(SamplerError::Incompatible {
            sampler: sampler.name(),
            setting: format!("schedule {}", choice.schedule.map_or("", Schedule::name)),
            instead: "its steps are whole timesteps: normal, sgm_uniform, simple or ddim_uniform".into(),
        });
    }
    Ok((curve, spacing))
}

fn file_curve(file: &SchedulerFile, sampler: Sampler) -> Result<SigmaCurve, SamplerError> {
    let has_lu = sampler.is_dpm_multistep();
    let flags = [
        (file.use_karras_sigmas, SigmaCurve::Karras),
        (file.use_exponential_sigmas, SigmaCurve::Exponential),
        (file.use_beta_sigmas, SigmaCurve::Beta),
    ];
    let mut chosen = flags.into_iter().filter(|(flag, _)| *flag == Some(true)).map(|(_, curve)| curve);
    match (chosen.next(), chosen.next()) {
        (Some(_), Some(_)) => {
            Err(unsupported("use_karras_sigmas", "true, with another like it", "only one of them can hold"))
        }
        (Some(SigmaCurve::Karras), None) => Ok(SigmaCurve::Karras),
        (_, None) if has_lu && file.use_lu_lambdas == Some(true) => Ok(SigmaCurve::Lu),
        (one, None) | (None, one) => Ok(one.unwrap_or(SigmaCurve::Timesteps)),
    }
}

fn refuse_unsupported(file: &SchedulerFile, sampler: Sampler) -> Result<(), SamplerError> {
    let class = sampler.class();
    if class.thresholds && file.thresholding == Some(true) {
        return Err(unsupported("thresholding", "true", "it is meant for models in pixel space: set it to false"));
    }
    if class.curves && file.use_flow_sigmas == Some(true) {
        return Err(unsupported("use_flow_sigmas", "true", "flow-matching models are not Stable Diffusion 1, 2 or XL"));
    }
    let only = |key, value: &Option<String>, known: &str| match value.as_deref() {
        Some(other) if other != known => Err(unsupported(key, other, &format!("only `{known}` is"))),
        _ => Ok(()),
    };
    if sampler == Sampler::Euler {
        only("interpolation_type", &file.interpolation_type, "linear")?;
        only("timestep_type", &file.timestep_type, "discrete")?;
    }
    match &file.solver_p {
        Some(other) if sampler == Sampler::Unipc && !other.is_null() => {
            Err(unsupported("solver_p", &other.to_string(), "remove it"))
        }
        _ => Ok(()),
    }
}

fn beta_curve(name: &str) -> Result<BetaCurve, SamplerError> {
    match name {
        "linear" => Ok(BetaCurve::Linear),
        "scaled_linear" => Ok(BetaCurve::ScaledLinear),
        "squaredcos_cap_v2" => Ok(BetaCurve::SquaredcosCapV2),
        other => Err(unsupported("beta_schedule", other, "linear, scaled_linear and squaredcos_cap_v2 are")),
    }
}

fn final_sigma(file: &SchedulerFile, sampler: Sampler) -> Result<FinalSigma, SamplerError> {
    let class = sampler.class();
    match file.final_sigmas_type.as_deref() {
        _ if sampler == Sampler::Deis => Ok(FinalSigma::SigmaMin),
        Some("sigma_min") if class.final_sigma => Ok(FinalSigma::SigmaMin),
        Some("zero") | None => Ok(FinalSigma::Zero),
        Some(_) if !class.final_sigma => Ok(FinalSigma::Zero),
        Some(other) => Err(unsupported("final_sigmas_type", other, "zero and sigma_min are")),
    }
}

fn variance(file: &SchedulerFile, sampler: Sampler) -> Result<Variance, SamplerError> {
    let learns = sampler == Sampler::Ddpm || sampler.is_dpm_multistep();
    match file.variance_type.as_deref() {
        Some(other @ ("learned" | "learned_range")) if learns => {
            Err(unsupported("variance_type", other, "Stable Diffusion's models do not predict a variance"))
        }
        Some("fixed_small") | None => Ok(Variance::FixedSmall),
        Some("fixed_small_log") => Ok(Variance::FixedSmallLog),
        Some("fixed_large") => Ok(Variance::FixedLarge),
        Some(_) if sampler != Sampler::Ddpm => Ok(Variance::FixedSmall),
        Some(other) => Err(unsupported("variance_type", other, "fixed_small, fixed_small_log and fixed_large are")),
    }
}

/// Each solver reads the other's names as its own default, as diffusers does.
fn solver_type(file: &SchedulerFile, sampler: Sampler) -> Result<SolverType, SamplerError> {
    let unipc = sampler == Sampler::Unipc;
    match file.solver_type.as_deref() {
        Some("heun") if !unipc => Ok(SolverType::Heun),
        Some("bh1") if unipc => Ok(SolverType::Bh1),
        Some("midpoint" | "heun" | "logrho" | "bh1" | "bh2") | None => {
            Ok(if unipc { SolverType::Bh2 } else { SolverType::Midpoint })
        }
        Some(other) => Err(unsupported("solver_type", other, "midpoint, heun, bh1 and bh2 are")),
    }
}

fn unsupported(key: &'static str, value: &str, instead: &str) -> SamplerError {
    SamplerError::Unsupported { key, value: value.chars().take(64).collect(), instead: instead.into() }
}
