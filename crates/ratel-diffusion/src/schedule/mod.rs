//! Noise schedules: how much of the image is left at each training timestep, and at which timesteps a run looks.
//!
//! Training mixes an image with noise at T = `num_train_timesteps` levels: x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) n.
//! [`NoiseSchedule`] holds abar, diffusers' `alphas_cumprod`. Samplers that work in "sigma space" divide x_t by
//! sqrt(abar_t), so that x = x0 + sigma n with sigma = sqrt((1 - abar) / abar).
//!
//! A run visits few of the levels. [`Spacing`] chooses them by timestep; [`SigmaCurve`] chooses them by sigma and asks
//! for the timestep of each afterwards.
//!
//! The tables are f32 because diffusers' are, down to the rounding of each operation.

mod beta_quantile;
mod betas;
mod curves;
mod spacing;

pub use betas::{BetaCurve, Betas};
pub use curves::{SigmaCurve, SigmaTable};
pub use spacing::{Points, Spacing};

/// What makes a noise schedule impossible.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// `num_train_timesteps` is out of range.
    #[error("num_train_timesteps is {0}, but must lie between 2 and {MOST_TRAIN_STEPS}")]
    TrainSteps(usize),
    /// `trained_betas` has the wrong length.
    #[error("trained_betas has {given} entries, but num_train_timesteps is {expected}")]
    TrainedBetas {
        /// Entries in `trained_betas`.
        given: usize,
        /// `num_train_timesteps`.
        expected: usize,
    },
    /// A beta lies outside [0, 1].
    #[error("beta at timestep {timestep} is {beta}, but must lie between 0 and 1: check beta_start and beta_end")]
    Beta {
        /// The training timestep.
        timestep: usize,
        /// Its beta.
        beta: f32,
    },
    /// No signal is left at the very first timestep, or an abar underflows.
    #[error("alphas_cumprod at timestep {timestep} is {value}: too little of the image is left to divide by")]
    NoSignal {
        /// The training timestep.
        timestep: usize,
        /// Its abar.
        value: f32,
    },
}

/// A bound on the tables' size; no known model comes near it.
pub const MOST_TRAIN_STEPS: usize = 100_000;

/// The levels of noise that a model was trained at.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    /// abar_t for t = 0 .. T-1, falling from near 1: the share of the image in x_t's variance.
    pub alphas_cumprod: Vec<f32>,
}

impl NoiseSchedule {
    /// Computes the schedule of a list of betas: abar_t = product of (1 - beta_s) over s <= t.
    pub fn new(betas: &Betas) -> Result<NoiseSchedule, ScheduleError> {
        let alphas_cumprod = betas::cumulative_alphas(&betas.values()?);
        let (last, others) = match alphas_cumprod.split_last() {
            Some((last, others)) => (*last, others),
            None => return Err(ScheduleError::TrainSteps(0)),
        };
        let unusable = |value: f32| !value.is_finite() || value < f32::MIN_POSITIVE;
        if let Some(timestep) = others.iter().position(|&value| unusable(value)) {
            return Err(ScheduleError::NoSignal { timestep, value: others[timestep] });
        }
        if unusable(last) && !betas.zero_terminal_snr {
            return Err(ScheduleError::NoSignal { timestep: others.len(), value: last });
        }
        Ok(NoiseSchedule { alphas_cumprod })
    }

    /// How many training timesteps there are.
    pub fn train_steps(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// sigma_t = sqrt((1 - abar_t) / abar_t), rising with t; infinite where abar is zero.
    pub fn sigmas(&self) -> Vec<f32> {
        self.alphas_cumprod.iter().map(|&abar| ((1.0 - abar) / abar).sqrt()).collect()
    }

    /// The signal-to-noise ratio abar_t / (1 - abar_t), falling with t.
    pub fn snr(&self) -> Vec<f64> {
        self.alphas_cumprod.iter().map(|&abar| f64::from(abar) / (1.0 - f64::from(abar))).collect()
    }

    /// The same schedule with its last level kept just above zero, so that every sigma is finite. diffusers' samplers
    /// in sigma space do this after rescaling to zero terminal SNR; 2^-24 gives a sigma of 4096.
    pub fn with_finite_sigmas(mut self) -> NoiseSchedule {
        if let Some(last) = self.alphas_cumprod.last_mut() {
            *last = 2.0_f32.powi(-24);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{BetaCurve, Betas, NoiseSchedule, SigmaTable};

    fn stable_diffusion() -> NoiseSchedule {
        let curve = BetaCurve::ScaledLinear;
        let betas =
            Betas { train_steps: 1000, start: 0.00085, end: 0.012, curve, trained: None, zero_terminal_snr: false };
        NoiseSchedule::new(&betas).expect("a schedule")
    }

    #[test]
    fn stable_diffusion_has_its_published_numbers() {
        let schedule = stable_diffusion();
        assert!((schedule.alphas_cumprod[0] - 0.99915).abs() < 1e-6);
        assert!((schedule.alphas_cumprod[999] - 0.004_660_1).abs() < 1e-7);
        let table = SigmaTable::new(&schedule);
        assert!((table.least() - 0.029_167_2).abs() < 1e-6, "{}", table.least());
        assert!((table.most() - 14.614_641_2).abs() < 1e-5, "{}", table.most());
        for (sigma, snr) in schedule.sigmas().into_iter().zip(schedule.snr()) {
            assert!((f64::from(sigma).powi(-2) / snr - 1.0).abs() < 1e-6, "SNR = 1 / sigma^2");
        }
    }

    #[test]
    fn whole_timesteps_come_back_from_their_sigmas() {
        let table = SigmaTable::new(&stable_diffusion());
        for timestep in 0..1000 {
            let back = table.timestep_of(table.sigma_at(f64::from(timestep)));
            assert!((back - f64::from(timestep)).abs() < 1e-2, "{timestep} became {back}");
        }
        assert_eq!((table.timestep_of(1e9), table.timestep_of(0.0)), (999.0, 0.0));
    }
}
