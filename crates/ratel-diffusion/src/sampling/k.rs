//! The samplers of k-diffusion (arXiv:2206.00364), in sigma space: x = x0 + sigma * noise.
//!
//! They follow d = dx/dsigma = (x - x0) / sigma, the direction in which noise grows; for a model that predicts the
//! noise, d is its answer.

use super::levels::{Fractions, Levels, input_scale};
use super::program::{Linear, Recorder, Reg, Run};
use super::{SamplerConfig, SamplerError};

/// The point between two levels where second-order samplers ask the model again.
const MIDDLE: Reg = Reg::Scratch(0);
const CLIPPED: Reg = Reg::Scratch(1);

struct Walk<'a> {
    config: &'a SamplerConfig,
    levels: Levels,
    recorder: Recorder,
}

impl<'a> Walk<'a> {
    fn new(config: &'a SamplerConfig, steps: usize, fractions: Fractions) -> Result<Walk<'a>, SamplerError> {
        let levels = Levels::spaced(config, steps, fractions)?;
        Ok(Walk { config, levels, recorder: Recorder::default() })
    }

    /// Begins step `index`; its timestep and the sigmas that it goes from and to.
    fn begin(&mut self, index: usize) -> (f64, f64, f64) {
        let (from, to) = (self.levels.sigmas[index], self.levels.sigmas[index + 1]);
        self.recorder.step(1.0, from);
        (self.levels.timesteps[index], from, to)
    }

    /// Asks the model about a latent at this sigma; the image that it sees there.
    fn x0(&mut self, latent: Reg, sigma: f64, timestep: f64) -> Linear {
        self.recorder.model(latent, input_scale(sigma), timestep);
        let x0 = self.config.prediction.x0_in_sigma_space(latent.into(), Reg::Model.into(), sigma);
        match self.config.clip_sample {
            Some(limit) => self.recorder.set_clamped(CLIPPED, x0, Some(limit)),
            None => x0,
        }
    }

    /// The same as a direction.
    fn direction(&mut self, latent: Reg, sigma: f64, timestep: f64) -> Linear {
        (Linear::from(latent) - self.x0(latent, sigma, timestep)) / sigma
    }

    fn timestep_of(&self, sigma: f64) -> f64 {
        self.levels.table.timestep_of(sigma)
    }

    fn finish(self) -> Result<Run, SamplerError> {
        let scale = self.levels.initial_noise_scale(self.config);
        self.recorder.finish(scale)
    }
}

/// An ancestral step goes down to `down` and adds noise of deviation `up`; up^2 + down^2 = to^2.
fn ancestral(from: f64, to: f64) -> (f64, f64) {
    let ratio = to / from;
    (to * ratio, to * (1.0 - ratio * ratio).max(0.0).sqrt())
}

/// Euler's method. Source: scheduling_euler_discrete.py, without churn.
pub(super) fn euler(config: &SamplerConfig, steps: usize, start: usize) -> Result<Run, SamplerError> {
    let mut walk = Walk::new(config, steps, Fractions::Keep)?;
    for index in start..steps {
        let (timestep, from, to) = walk.begin(index);
        let direction = walk.direction(Reg::X, from, timestep);
        walk.recorder.set(Reg::X, Linear::from(Reg::X) + (to - from) * direction);
    }
    walk.finish()
}

/// Euler with ancestral noise. Source: scheduling_euler_ancestral_discrete.py. The last step draws noise that it does
/// not use. diffusers has no curves for it; they are placed here as for euler.
pub(super) fn euler_a(config: &SamplerConfig, steps: usize, start: usize) -> Result<Run, SamplerError> {
    let mut walk = Walk::new(config, steps, Fractions::Keep)?;
    for index in start..steps {
        let (timestep, from, to) = walk.begin(index);
        let direction = walk.direction(Reg::X, from, timestep);
        let (down, up) = ancestral(from, to);
        let noise = walk.recorder.noise();
        walk.recorder.set(Reg::X, Linear::from(Reg::X) + (down - from) * direction + up * noise);
    }
    walk.finish()
}

/// Heun's method: an Euler step, then again with the mean of the directions at both ends. The last step is Euler's.
/// Source: scheduling_heun_discrete.py.
pub(super) fn heun(config: &SamplerConfig, steps: usize, start: usize) -> Result<Run, SamplerError> {
    let mut walk = Walk::new(config, steps, Fractions::Keep)?;
    for index in start..steps {
        let (timestep, from, to) = walk.begin(index);
        let x = Linear::from(Reg::X);
        let first = walk.direction(Reg::X, from, timestep);
        let first = walk.recorder.set(Reg::History(0), first);
        if index + 1 == steps {
            walk.recorder.set(Reg::X, x + (to - from) * first);
            break;
        }
        walk.recorder.set(MIDDLE, x.clone() + (to - from) * first.clone());
        let next_timestep = walk.levels.timesteps[index + 1];
        let second = walk.direction(MIDDLE, to, next_timestep);
        walk.recorder.set(Reg::X, x + 0.5 * (to - from) * (first + second));
    }
    walk.finish()
}

/// DPM-Solver-2 with the midpoint in log sigma, and its ancestral form, which aims at the lower level and then adds
/// noise. The last step is Euler's. Sources: scheduling_k_dpm_2_discrete.py, scheduling_k_dpm_2_ancestral_discrete.py.
pub(super) fn dpm2(config: &SamplerConfig, steps: usize, start: usize, with_noise: bool) -> Result<Run, SamplerError> {
    let mut walk = Walk::new(config, steps, Fractions::RoundKarras)?;
    for index in start..steps {
        let (timestep, from, to) = walk.begin(index);
        let x = Linear::from(Reg::X);
        let direction = walk.direction(Reg::X, from, timestep);
        if index + 1 == steps {
            walk.recorder.set(Reg::X, x + (to - from) * direction);
            break;
        }
        let (down, up) = if with_noise { ancestral(from, to) } else { (to, 0.0) };
        let middle = (from * down).sqrt();
        walk.recorder.set(MIDDLE, x.clone() + (middle - from) * direction);
        let middle_timestep = walk.timestep_of(middle);
        let mut value = x + (down - from) * walk.direction(MIDDLE, middle, middle_timestep);
        if with_noise {
            value = value + up * walk.recorder.noise();
        }
        walk.recorder.set(Reg::X, value);
    }
    walk.finish()
}

/// DPM-Solver++ SDE: an ancestral step to the middle in log sigma, then one over the whole step from the image seen
/// there. The last step is Euler's. Source: scheduling_dpmsolver_sde.py.
///
/// diffusers takes the noise of both from one Brownian path in sigma: the whole step's is the sum of what the path
/// does from the start to the middle, already seen by the first, and from there to the end. A path's increments are
/// independent normals, so drawing one for each part and adding them with the roots of their shares gives exactly the
/// same distribution, without a tree to keep.
pub(super) fn dpmpp_sde(config: &SamplerConfig, steps: usize, start: usize) -> Result<Run, SamplerError> {
    let mut walk = Walk::new(config, steps, Fractions::Keep)?;
    for index in start..steps {
        let (timestep, from, to) = walk.begin(index);
        let x = Linear::from(Reg::X);
        let x0 = walk.x0(Reg::X, from, timestep);
        if index + 1 == steps {
            walk.recorder.set(Reg::X, x.clone() + (to - from) / from * (x - x0));
            break;
        }
        let middle = (from * to).sqrt();
        let (down, up) = ancestral(from, middle);
        let drawn = walk.recorder.noise();
        let first_part = walk.recorder.set(Reg::History(0), drawn);
        let kept = down / from;
        walk.recorder.set(MIDDLE, kept * x.clone() + (1.0 - kept) * x0 + up * first_part.clone());

        let middle_timestep = walk.timestep_of(middle);
        let x0 = walk.x0(MIDDLE, middle, middle_timestep);
        let (down, up) = ancestral(from, to);
        let share = (from - middle) / (from - to);
        let noise = share.sqrt() * first_part + (1.0 - share).sqrt() * walk.recorder.noise();
        let kept = down / from;
        walk.recorder.set(Reg::X, kept * x + (1.0 - kept) * x0 + up * noise);
    }
    walk.finish()
}

/// Linear multistep: the integral over the step of the polynomial through the last four directions.
/// Source: scheduling_lms_discrete.py.
pub(super) fn lms(config: &SamplerConfig, steps: usize, start: usize) -> Result<Run, SamplerError> {
    const ORDER: usize = 4;
    let history = |index: usize| Reg::History((index % ORDER) as u8);
    let mut walk = Walk::new(config, steps, Fractions::Keep)?;
    for index in start..steps {
        let (timestep, from, _) = walk.begin(index);
        let direction = walk.direction(Reg::X, from, timestep);
        walk.recorder.set(history(index), direction);
        // A run that starts from an image has fewer directions than `order` at first. diffusers takes the order from
        // the index all the same and leaves out the terms that it cannot have; so does this.
        let order = ORDER.min(index + 1);
        let present = order.min(index - start + 1);
        let sigmas = &walk.levels.sigmas;
        let change: Linear = (0..present)
            .map(|back| lagrange_integral(sigmas, index, order, back) * Linear::from(history(index - back)))
            .sum();
        walk.recorder.set(Reg::X, Linear::from(Reg::X) + change);
    }
    walk.finish()
}

/// Integral from sigmas[index] to sigmas[index + 1] of the polynomial that is 1 at sigmas[index - which] and 0 at the
/// other `order - 1` sigmas up to sigmas[index]. Three Gauss-Legendre points are exact up to degree 5.
fn lagrange_integral(sigmas: &[f64], index: usize, order: usize, which: usize) -> f64 {
    let (from, to) = (sigmas[index], sigmas[index + 1]);
    let at = |sigma: f64| -> f64 {
        let others = (0..order).filter(|&back| back != which);
        let here = sigmas[index - which];
        others.map(|back| (sigma - sigmas[index - back]) / (here - sigmas[index - back])).product()
    };
    let (center, half) = ((from + to) / 2.0, (to - from) / 2.0);
    let reach = half * 0.6_f64.sqrt();
    half / 9.0 * (5.0 * at(center - reach) + 8.0 * at(center) + 5.0 * at(center + reach))
}
