//! The timesteps and noise levels that a run visits.

use super::{FinalSigma, SamplerConfig, SamplerError};
use crate::schedule::{BetaCurve, NoiseSchedule, Points, SigmaCurve, SigmaTable, Spacing};

/// A run in sigma space: one timestep a step, and one sigma more than that, the last being where the run ends.
pub(super) struct Levels {
    pub(super) timesteps: Vec<f64>,
    /// f32 values, as diffusers keeps them.
    pub(super) sigmas: Vec<f64>,
    pub(super) table: SigmaTable,
}

/// What to make of a curve's fractional timesteps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fractions {
    /// Leave them: samplers from k-diffusion.
    Keep,
    /// Karras and Lu to the nearest, others down: the solvers, which count whole timesteps.
    Drop,
    /// Karras to the nearest, others left: dpm2.
    RoundKarras,
}

impl Levels {
    /// Levels of the samplers from k-diffusion: a curve's ends are those of the spaced timesteps.
    pub(super) fn spaced(config: &SamplerConfig, steps: usize, fractions: Fractions) -> Result<Levels, SamplerError> {
        let table = SigmaTable::new(&schedule(config)?);
        let train_steps = config.betas.train_steps;
        let mut timesteps = config.spacing.timesteps(Points::Steps, train_steps, steps, config.steps_offset);
        if config.sampler != super::Sampler::DpmppSde {
            timesteps.iter_mut().for_each(|timestep| *timestep = f64::from(*timestep as f32));
        }
        let sigmas: Vec<f64> = timesteps.iter().map(|&timestep| table.sigma_at(timestep)).collect();
        let ends = (sigmas[0], sigmas[steps - 1]);
        Ok(Levels::place(config, table, timesteps, sigmas, ends, fractions))
    }

    /// Levels of the solvers (dpm++, unipc, deis): a curve's ends are the whole schedule's.
    pub(super) fn whole(config: &SamplerConfig, steps: usize) -> Result<Levels, SamplerError> {
        let table = SigmaTable::new(&schedule(config)?);
        let train_steps = config.betas.train_steps;
        // log SNR / 2 = -ln sigma: levels noisier than the clip are left out of the run.
        let clip = config.lambda_min_clipped;
        let noisier = (0..train_steps).rev().take_while(|&t| -table.sigma_at(t as f64).ln() < clip).count();
        let used = train_steps - noisier;
        if used < 2 {
            return Err(SamplerError::OutOfRange {
                setting: "lambda_min_clipped",
                value: clip.to_string(),
                rule: "leave some levels of noise to sample from".into(),
            });
        }
        let mut timesteps = config.spacing.timesteps(Points::StepsAndEnd, used, steps, config.steps_offset);
        if config.spacing == Spacing::Linspace {
            timesteps.iter_mut().for_each(|timestep| *timestep = timestep.round_ties_even());
        }
        let sigmas = timesteps.iter().map(|&timestep| table.sigma_at(timestep)).collect();
        let ends = (table.most(), table.least());
        Ok(Levels::place(config, table, timesteps, sigmas, ends, Fractions::Drop))
    }

    fn place(
        config: &SamplerConfig,
        table: SigmaTable,
        mut timesteps: Vec<f64>,
        mut sigmas: Vec<f64>,
        ends: (f64, f64),
        fractions: Fractions,
    ) -> Levels {
        let (most, least) = (config.sigma_max.unwrap_or(ends.0), config.sigma_min.unwrap_or(ends.1));
        if let Some(curved) = config.curve.sigmas(most, least, timesteps.len()) {
            // The multistep solver cuts these off too where the schedule is a cosine; unipc and deis never do.
            let cosine = config.sampler.is_dpm_multistep() && config.betas.curve == BetaCurve::SquaredcosCapV2;
            let evenly = matches!(config.curve, SigmaCurve::Karras | SigmaCurve::Lu) && !cosine;
            let whole = |timestep: f64| match fractions {
                Fractions::Keep => timestep,
                Fractions::Drop | Fractions::RoundKarras if evenly => timestep.round_ties_even(),
                Fractions::Drop => timestep.trunc(),
                Fractions::RoundKarras => timestep,
            };
            timesteps = curved.iter().map(|&sigma| whole(table.timestep_of(sigma))).collect();
            sigmas = curved;
        }
        sigmas.push(match config.final_sigma {
            FinalSigma::Zero => 0.0,
            FinalSigma::SigmaMin => table.least(),
        });
        sigmas.iter_mut().for_each(|sigma| *sigma = f64::from(*sigma as f32));
        Levels { timesteps, sigmas, table }
    }

    /// diffusers' `init_noise_sigma` of the samplers from k-diffusion.
    pub(super) fn initial_noise_scale(&self, config: &SamplerConfig) -> f64 {
        let most = self.sigmas.iter().copied().fold(0.0, f64::max);
        match config.spacing {
            Spacing::Leading => most.hypot(1.0),
            Spacing::Linspace | Spacing::Trailing | Spacing::Simple => most,
        }
    }
}

/// The factor that brings a latent in sigma space to the variance that the model was trained on.
pub(super) fn input_scale(sigma: f64) -> f64 {
    1.0 / sigma.hypot(1.0)
}

/// A level in the terms of the solvers: x = alpha x0 + sigma noise with alpha^2 + sigma^2 = 1.
#[derive(Clone, Copy)]
pub(super) struct Vp {
    pub(super) alpha: f64,
    pub(super) sigma: f64,
    /// ln(alpha / sigma), half the log SNR; infinite at the end of a run to zero.
    pub(super) lambda: f64,
}

impl Vp {
    /// The level whose sigma in sigma space is this.
    pub(super) fn at(sigma: f64) -> Vp {
        let alpha = 1.0 / sigma.hypot(1.0);
        Vp { alpha, sigma: sigma * alpha, lambda: -sigma.ln() }
    }
}

fn schedule(config: &SamplerConfig) -> Result<NoiseSchedule, SamplerError> {
    let schedule = NoiseSchedule::new(&config.betas)?;
    Ok(if config.betas.zero_terminal_snr { schedule.with_finite_sigmas() } else { schedule })
}

/// abar and whole timesteps, for the samplers that step through alphas_cumprod.
pub(super) struct Abar {
    values: Vec<f32>,
    /// What is left of the image after the last step.
    last: f64,
}

impl Abar {
    pub(super) fn new(config: &SamplerConfig) -> Result<Abar, SamplerError> {
        let values = NoiseSchedule::new(&config.betas)?.alphas_cumprod;
        let last = if config.set_alpha_to_one { 1.0 } else { f64::from(values[0]) };
        Ok(Abar { values, last })
    }

    /// abar at a timestep; a negative one stands for the end of the run.
    pub(super) fn at(&self, timestep: i64) -> f64 {
        usize::try_from(timestep).map_or(self.last, |t| f64::from(self.values[t.min(self.values.len() - 1)]))
    }
}

/// The whole timesteps of a run, first to last.
pub(super) fn whole_timesteps(config: &SamplerConfig, steps: usize) -> Result<Vec<i64>, SamplerError> {
    let train_steps = config.betas.train_steps;
    let places = config.spacing.timesteps(Points::Steps, train_steps, steps, config.steps_offset);
    let timesteps: Vec<i64> = places.into_iter().map(|place| place.round_ties_even() as i64).collect();
    match timesteps.iter().max() {
        Some(&most) if most >= train_steps as i64 => Err(SamplerError::OutOfRange {
            setting: "the first timestep",
            value: most.to_string(),
            rule: format!("be below {train_steps}: take fewer steps, trailing spacing or a smaller steps_offset"),
        }),
        _ => Ok(timesteps),
    }
}
