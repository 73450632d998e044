//! Samplers that step through abar = alphas_cumprod at whole timesteps: ddim, ddpm, lcm, tcd.

use super::levels::{Abar, whole_timesteps};
use super::program::{Linear, Recorder, Reg, Run};
use super::{SamplerConfig, SamplerError, Variance};

/// The predicted image, in a register of its own where it must be cut off.
fn clipped(recorder: &mut Recorder, config: &SamplerConfig, x0: Linear) -> Linear {
    match config.clip_sample {
        Some(limit) => recorder.set_clamped(Reg::Scratch(0), x0, Some(limit)),
        None => x0,
    }
}

/// DDIM (arXiv:2010.02502, formulas 12 and 16). Source: scheduling_ddim.py.
pub(super) fn ddim(config: &SamplerConfig, steps: usize, start: usize) -> Result<Run, SamplerError> {
    let abar = Abar::new(config)?;
    let stride = (config.betas.train_steps / steps) as i64;
    let mut recorder = Recorder::default();
    for &timestep in &whole_timesteps(config, steps)?[start..] {
        let (here, next) = (abar.at(timestep), abar.at(timestep - stride));
        recorder.step(here.sqrt(), (1.0 - here).sqrt());
        recorder.model(Reg::X, 1.0, timestep as f64);
        let halves = config.prediction.split(Reg::X.into(), Reg::Model.into(), here.sqrt(), (1.0 - here).sqrt());
        let x0 = clipped(&mut recorder, config, halves.x0);
        let noise_variance = config.eta.powi(2) * (1.0 - next) / (1.0 - here) * (1.0 - here / next);
        let mut value = next.sqrt() * x0 + (1.0 - next - noise_variance).max(0.0).sqrt() * halves.epsilon;
        if config.eta > 0.0 {
            value = value + noise_variance.sqrt() * recorder.noise();
        }
        recorder.set(Reg::X, value);
    }
    recorder.finish(1.0)
}

/// DDPM (arXiv:2006.11239, formula 7). Source: scheduling_ddpm.py. Every step but one at timestep 0 draws noise, also
/// where next to none of it is used.
pub(super) fn ddpm(config: &SamplerConfig, steps: usize, start: usize) -> Result<Run, SamplerError> {
    // Unlike ddim's, the last step always ends at abar = 1.
    let abar = Abar::new(&SamplerConfig { set_alpha_to_one: true, ..config.clone() })?;
    let timesteps = whole_timesteps(config, steps)?;
    let mut recorder = Recorder::default();
    for (index, &timestep) in timesteps.iter().enumerate().skip(start) {
        let (here, next) = (abar.at(timestep), abar.at(timesteps.get(index + 1).copied().unwrap_or(-1)));
        recorder.step(here.sqrt(), (1.0 - here).sqrt());
        recorder.model(Reg::X, 1.0, timestep as f64);
        let halves = config.prediction.split(Reg::X.into(), Reg::Model.into(), here.sqrt(), (1.0 - here).sqrt());
        let x0 = clipped(&mut recorder, config, halves.x0);
        let alpha = here / next;
        let beta = 1.0 - alpha;
        let mut value =
            next.sqrt() * beta / (1.0 - here) * x0 + alpha.sqrt() * (1.0 - next) / (1.0 - here) * Linear::from(Reg::X);
        if timestep > 0 {
            let posterior = ((1.0 - next) / (1.0 - here) * beta).max(1e-20);
            let noise_variance = match config.variance {
                Variance::FixedSmall | Variance::FixedSmallLog => posterior,
                Variance::FixedLarge => beta,
            };
            value = value + noise_variance.sqrt() * recorder.noise();
        }
        recorder.set(Reg::X, value);
    }
    recorder.finish(1.0)
}

/// Latent consistency sampling (arXiv:2310.04378): jump to the image, add noise, jump again.
/// Source: scheduling_lcm.py.
pub(super) fn lcm(config: &SamplerConfig, steps: usize, start: usize) -> Result<Run, SamplerError> {
    const SIGMA_DATA: f64 = 0.5;
    let abar = Abar::new(config)?;
    let timesteps = distilled_timesteps(config, steps)?;
    let mut recorder = Recorder::default();
    for (index, &timestep) in timesteps.iter().enumerate().skip(start) {
        let here = abar.at(timestep);
        recorder.step(here.sqrt(), (1.0 - here).sqrt());
        recorder.model(Reg::X, 1.0, timestep as f64);
        let halves = config.prediction.split(Reg::X.into(), Reg::Model.into(), here.sqrt(), (1.0 - here).sqrt());
        let x0 = clipped(&mut recorder, config, halves.x0);
        // The boundary condition: at timestep 0 the answer is the input.
        let scaled = timestep as f64 * config.timestep_scaling;
        let skip = SIGMA_DATA.powi(2) / (scaled.powi(2) + SIGMA_DATA.powi(2));
        let image = scaled / scaled.hypot(SIGMA_DATA) * x0 + skip * Linear::from(Reg::X);
        let value = match timesteps.get(index + 1) {
            Some(&next) => {
                let next = abar.at(next);
                next.sqrt() * image + (1.0 - next).sqrt() * recorder.noise()
            }
            None => image,
        };
        recorder.set(Reg::X, value);
    }
    recorder.finish(1.0)
}

/// Trajectory consistency sampling (arXiv:2402.19159): jump to timestep (1 - eta) * next, then add noise up to next.
/// Source: scheduling_tcd.py, where nothing is clipped whatever `clip_sample` says.
pub(super) fn tcd(config: &SamplerConfig, steps: usize, start: usize) -> Result<Run, SamplerError> {
    let abar = Abar::new(config)?;
    let timesteps = distilled_timesteps(config, steps)?;
    let mut recorder = Recorder::default();
    for (index, &timestep) in timesteps.iter().enumerate().skip(start) {
        let next_timestep = timesteps.get(index + 1).copied();
        let target = ((1.0 - config.eta) as f32 * next_timestep.unwrap_or(0) as f32).floor() as i64;
        let (here, between) = (abar.at(timestep), abar.at(target));
        recorder.step(here.sqrt(), (1.0 - here).sqrt());
        recorder.model(Reg::X, 1.0, timestep as f64);
        let halves = config.prediction.split(Reg::X.into(), Reg::Model.into(), here.sqrt(), (1.0 - here).sqrt());
        let mut value = between.sqrt() * halves.x0 + (1.0 - between).sqrt() * halves.epsilon;
        if let (Some(next), true) = (next_timestep, config.eta > 0.0) {
            let ratio = abar.at(next) / between;
            value = ratio.sqrt() * value + (1.0 - ratio).max(0.0).sqrt() * recorder.noise();
        }
        recorder.set(Reg::X, value);
    }
    recorder.finish(1.0)
}

/// An even choice among the timesteps that the model was distilled on; spacing and offset play no part.
fn distilled_timesteps(config: &SamplerConfig, steps: usize) -> Result<Vec<i64>, SamplerError> {
    let trained = config.original_inference_steps;
    if steps > trained {
        return Err(SamplerError::OutOfRange {
            setting: "the number of steps",
            value: steps.to_string(),
            rule: format!("not exceed original_inference_steps, {trained}: a distilled model needs 1 to 8"),
        });
    }
    let stride = config.betas.train_steps / trained;
    let place = |i: usize| (i as f64 * (trained as f64 / steps as f64)).floor() as usize;
    Ok((0..steps).map(|i| ((trained - place(i)) * stride) as i64 - 1).collect())
}
