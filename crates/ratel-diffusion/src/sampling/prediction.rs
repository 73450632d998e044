//! What the model predicts, and what that says about the image and the noise.

use super::program::Linear;

/// diffusers' `prediction_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// The noise: SD 1, SD 2 base, SDXL.
    Epsilon,
    /// The velocity v = sqrt(abar) noise - sqrt(1 - abar) image (arXiv:2202.00512): SD 2 at 768.
    V,
    /// The image itself.
    Sample,
}

/// The two halves of a latent x = alpha x0 + sigma epsilon, as the model sees them.
pub(super) struct Halves {
    pub(super) x0: Linear,
    pub(super) epsilon: Linear,
}

impl Prediction {
    /// Splits x, whose level is (alpha, sigma) with alpha^2 + sigma^2 = 1, by the model's output m.
    pub(super) fn split(self, x: Linear, m: Linear, alpha: f64, sigma: f64) -> Halves {
        match self {
            Prediction::Epsilon => Halves { x0: (x - sigma * m.clone()) / alpha, epsilon: m },
            Prediction::Sample => Halves { epsilon: (x - alpha * m.clone()) / sigma, x0: m },
            Prediction::V => Halves { x0: alpha * x.clone() - sigma * m.clone(), epsilon: alpha * m + sigma * x },
        }
    }

    /// The image in x = x0 + sigma epsilon, where the model has seen x / sqrt(sigma^2 + 1).
    pub(super) fn x0_in_sigma_space(self, x: Linear, m: Linear, sigma: f64) -> Linear {
        let variance = sigma * sigma + 1.0;
        match self {
            Prediction::Epsilon => x - sigma * m,
            Prediction::Sample => m,
            Prediction::V => x / variance - sigma / variance.sqrt() * m,
        }
    }
}
