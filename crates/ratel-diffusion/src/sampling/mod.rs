//! Samplers: how a latent of pure noise becomes one of an image in a few calls of the model.
//!
//! A sampler is a recurrence; here it is written as data. Every sampler below is linear in the latent, the model's
//! answers and the noise, and its coefficients depend on nothing but the settings and the number of steps. So
//! [`plan`] computes them all beforehand, in f64, and returns a [`Run`]: a list of model calls, draws of noise and
//! linear combinations of a handful of device-resident latents. One kernel carries the combinations out;
//! [`run_on_host`] does the same on the host and is the reference.
//!
//! Each sampler equals diffusers' scheduler of the same name, given the same model answers and the same noise.
//! Where diffusers has no such thing, or Ratel departs from it, the item's documentation says so.

mod abar;
mod config;
mod dpm;
mod error;
mod k;
mod levels;
mod names;
mod pndm;
mod prediction;
mod program;
mod unipc;

pub use config::{FinalSigma, SamplerChoice, SamplerConfig, SchedulerFile, SolverType, Variance};
pub use error::SamplerError;
pub use names::{Sampler, Schedule, parse_prediction, parse_random_source, parse_spacing};
pub use prediction::{Factors, Prediction};
pub use program::{Action, Combine, MOST_TERMS, ModelCall, NoiseLevel, Reg, Run, Step, run_on_host};

/// Plans a run.
///
/// `steps`: how many steps a run from pure noise would take, 1 to `num_train_timesteps`. `start`: the first of them
/// that is run, 0 from noise; from an image see [`start_for_strength`].
///
/// Errors: settings or numbers of steps that diffusers refuses, or that it would compute with infinities.
pub fn plan(config: &SamplerConfig, steps: usize, start: usize) -> Result<Run, SamplerError> {
    config.check()?;
    let most = config.betas.train_steps;
    if !(1..=most).contains(&steps) {
        return Err(SamplerError::OutOfRange {
            setting: "the number of steps",
            value: steps.to_string(),
            rule: format!("lie between 1 and {most}, the number of timesteps that the model was trained on"),
        });
    }
    if start >= steps {
        return Err(SamplerError::OutOfRange {
            setting: "the first step",
            value: start.to_string(),
            rule: format!("be below {steps}, the number of steps: raise the strength"),
        });
    }
    match config.sampler {
        Sampler::Ddim => abar::ddim(config, steps, start),
        Sampler::Ddpm => abar::ddpm(config, steps, start),
        Sampler::Lcm => abar::lcm(config, steps, start),
        Sampler::Tcd => abar::tcd(config, steps, start),
        Sampler::Pndm => pndm::pndm(config, steps, start),
        Sampler::Lms => k::lms(config, steps, start),
        Sampler::Euler => k::euler(config, steps, start),
        Sampler::EulerA => k::euler_a(config, steps, start),
        Sampler::Heun => k::heun(config, steps, start),
        Sampler::Dpm2 => k::dpm2(config, steps, start, false),
        Sampler::Dpm2A => k::dpm2(config, steps, start, true),
        Sampler::DpmppSde => k::dpmpp_sde(config, steps, start),
        Sampler::Dpmpp2s => dpm::singlestep(config, steps, start),
        Sampler::Dpmpp2m | Sampler::Dpmpp2mSde | Sampler::Dpmpp3mSde => dpm::multistep(config, steps, start),
        Sampler::Deis => dpm::deis(config, steps, start),
        Sampler::Unipc => unipc::unipc(config, steps, start),
    }
}

/// The first step of an image-to-image run: of `steps` steps diffusers runs the last floor(steps * strength).
/// `strength`: 0 keeps the image, 1 replaces it. ComfyUI instead runs all of a schedule of steps / strength steps.
/// Returns `steps`, which [`plan`] refuses, if no step is left.
pub fn start_for_strength(steps: usize, strength: f64) -> usize {
    steps - ((steps as f64 * strength.clamp(0.0, 1.0)) as usize).min(steps)
}
