//! Curves of sigma, and the way from a sigma back to a timestep.

use super::NoiseSchedule;
use super::beta_quantile::beta_quantile;
use super::spacing::linspace;

/// How a run's sigmas fall, where they are not simply those of its timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigmaCurve {
    /// The sigmas of the spaced timesteps.
    Timesteps,
    /// Even in sigma^(1/7) (arXiv:2206.00364, equation 5): diffusers' `use_karras_sigmas`.
    Karras,
    /// Even in log sigma: diffusers' `use_exponential_sigmas`.
    Exponential,
    /// Quantiles of Beta(0.6, 0.6), dense at both ends (arXiv:2407.12173): diffusers' `use_beta_sigmas`.
    Beta,
    /// Even in log sigma, with whole timesteps: diffusers' `use_lu_lambdas`.
    Lu,
}

impl SigmaCurve {
    /// `count` sigmas from `most` down to `least`. `Timesteps` has no curve of its own and gives `None`.
    pub fn sigmas(self, most: f64, least: f64, count: usize) -> Option<Vec<f64>> {
        const RHO: f64 = 7.0;
        let sigmas = match self {
            SigmaCurve::Timesteps => return None,
            SigmaCurve::Karras => {
                let (high, low) = (most.powf(1.0 / RHO), least.powf(1.0 / RHO));
                linspace(0.0, 1.0, count).into_iter().map(|ramp| (high + ramp * (low - high)).powf(RHO)).collect()
            }
            SigmaCurve::Exponential | SigmaCurve::Lu => {
                linspace(most.ln(), least.ln(), count).into_iter().map(f64::exp).collect()
            }
            SigmaCurve::Beta => {
                let places = linspace(0.0, 1.0, count).into_iter();
                places.map(|place| least + beta_quantile(0.6, 1.0 - place) * (most - least)).collect()
            }
        };
        Some(sigmas)
    }
}

/// The sigma of every training timestep, and lookups both ways.
#[derive(Debug, Clone)]
pub struct SigmaTable {
    sigmas: Vec<f32>,
    logs: Vec<f32>,
}

impl SigmaTable {
    /// The table of a schedule, two timesteps or more, every sigma finite.
    pub fn new(schedule: &NoiseSchedule) -> SigmaTable {
        let sigmas = schedule.sigmas();
        SigmaTable { logs: sigmas.iter().map(|sigma| sigma.ln()).collect(), sigmas }
    }

    /// The smallest sigma, that of timestep 0.
    pub fn least(&self) -> f64 {
        f64::from(self.sigmas[0])
    }

    /// The largest sigma, that of the last timestep.
    pub fn most(&self) -> f64 {
        f64::from(self.sigmas[self.sigmas.len() - 1])
    }

    /// The sigma at a timestep: between whole timesteps linear in sigma (k-diffusion interpolates log sigma), beyond
    /// the ends constant.
    pub fn sigma_at(&self, timestep: f64) -> f64 {
        let below = (timestep.max(0.0) as usize).min(self.sigmas.len() - 1);
        let above = (below + 1).min(self.sigmas.len() - 1);
        let (low, high) = (f64::from(self.sigmas[below]), f64::from(self.sigmas[above]));
        low + (high - low) * (timestep - below as f64).clamp(0.0, 1.0)
    }

    /// The timestep of a sigma, with fraction: linear in log sigma, which is not the inverse of
    /// [`sigma_at`](SigmaTable::sigma_at) between whole timesteps. diffusers has it so too.
    pub fn timestep_of(&self, sigma: f64) -> f64 {
        let log = sigma.max(1e-10).ln();
        let below = self.logs.iter().rposition(|&other| f64::from(other) <= log).unwrap_or(0);
        let below = below.min(self.logs.len() - 2);
        let (low, high) = (self.logs[below], self.logs[below + 1]);
        let share = ((f64::from(low) - log) / f64::from(low - high)).clamp(0.0, 1.0);
        (1.0 - share) * below as f64 + share * (below + 1) as f64
    }
}
