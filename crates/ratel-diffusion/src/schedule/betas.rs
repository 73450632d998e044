//! Betas: the variance of the noise that each training timestep adds.

use super::{MOST_TRAIN_STEPS, ScheduleError};

/// How beta grows from `beta_start` to `beta_end`: diffusers' `beta_schedule`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BetaCurve {
    /// Evenly.
    Linear,
    /// Evenly in sqrt(beta): Stable Diffusion's.
    ScaledLinear,
    /// From abar(t) = cos^2((t + 0.008) / 1.008 * pi / 2), each beta at most 0.999 (arXiv:2102.09672).
    SquaredcosCapV2,
}

/// Everything that fixes a noise schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Betas {
    /// diffusers' `num_train_timesteps`.
    pub train_steps: usize,
    /// diffusers' `beta_start`; [`BetaCurve::SquaredcosCapV2`] does not use it.
    pub start: f64,
    /// diffusers' `beta_end`; likewise.
    pub end: f64,
    /// diffusers' `beta_schedule`.
    pub curve: BetaCurve,
    /// diffusers' `trained_betas`: the betas themselves, instead of the four fields above.
    pub trained: Option<Vec<f32>>,
    /// diffusers' `rescale_betas_zero_snr`: no image at all is left at the last timestep (arXiv:2305.08891).
    pub zero_terminal_snr: bool,
}

impl Betas {
    /// The betas as f32, rounded where torch rounds.
    pub(super) fn values(&self) -> Result<Vec<f32>, ScheduleError> {
        if !(2..=MOST_TRAIN_STEPS).contains(&self.train_steps) {
            return Err(ScheduleError::TrainSteps(self.train_steps));
        }
        let betas = match (&self.trained, self.curve) {
            (Some(trained), _) if trained.len() != self.train_steps => {
                return Err(ScheduleError::TrainedBetas { given: trained.len(), expected: self.train_steps });
            }
            (Some(trained), _) => trained.clone(),
            (None, BetaCurve::Linear) => linspace(self.start, self.end, self.train_steps),
            (None, BetaCurve::ScaledLinear) => {
                let roots = linspace(self.start.sqrt(), self.end.sqrt(), self.train_steps);
                roots.into_iter().map(|root| root * root).collect()
            }
            (None, BetaCurve::SquaredcosCapV2) => squared_cosine(self.train_steps),
        };
        if let Some(timestep) = betas.iter().position(|beta| !(0.0..=1.0).contains(beta)) {
            return Err(ScheduleError::Beta { timestep, beta: betas[timestep] });
        }
        Ok(if self.zero_terminal_snr { rescale_to_zero_terminal_snr(&betas) } else { betas })
    }
}

/// abar: the running product of 1 - beta, accumulated in f64 and stored as f32, as torch's cumprod does.
pub(super) fn cumulative_alphas(betas: &[f32]) -> Vec<f32> {
    let multiply = |product: &mut f64, &beta: &f32| {
        *product *= f64::from(1.0 - beta);
        Some(*product as f32)
    };
    betas.iter().scan(1.0, multiply).collect()
}

/// torch.linspace in f32: it counts up from the start in the first half and down from the end in the second, each
/// with one rounding.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = (end - start) / (count - 1) as f32;
    let value = |i: usize| match i < count / 2 {
        true => step.mul_add(i as f32, start),
        false => (-step).mul_add((count - 1 - i) as f32, end),
    };
    (0..count).map(value).collect()
}

fn squared_cosine(count: usize) -> Vec<f32> {
    let abar = |i: usize| {
        let t = i as f64 / count as f64;
        ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2)
    };
    (0..count).map(|i| (1.0 - abar(i + 1) / abar(i)).min(0.999) as f32).collect()
}

/// Shifts and scales sqrt(abar) so that it ends at zero and starts where it did (arXiv:2305.08891, algorithm 1).
fn rescale_to_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumulative_alphas(betas).into_iter().map(f32::sqrt).collect();
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let scale = first / (first - last);
    let abar: Vec<f32> = roots.into_iter().map(|root| ((root - last) * scale).powi(2)).collect();
    let alphas = std::iter::once(abar[0]).chain(abar.windows(2).map(|pair| pair[1] / pair[0]));
    alphas.map(|alpha| 1.0 - alpha).collect()
}
