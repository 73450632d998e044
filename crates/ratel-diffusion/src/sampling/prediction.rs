//! What the model predicts, and what that says about the image and the noise.

use super::program::{Linear, NoiseLevel, Reg};

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

/// The image and the noise in a latent, each as a factor of the latent and one of the model's answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors {
    /// The image is `x0[0] * latent + x0[1] * answer`.
    pub x0: [f64; 2],
    /// The noise, likewise.
    pub epsilon: [f64; 2],
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

    /// The image and the noise in a latent x of this level, whatever the sampler's scaling, as factors of x and of the
    /// model's answer. Zero SNR leaves nothing to divide by: the factors are then infinite unless the model predicts v.
    pub fn factors(self, level: NoiseLevel) -> Factors {
        // the model sees x / size = alpha x0 + sigma epsilon with alpha^2 + sigma^2 = 1
        let size = level.signal.hypot(level.noise);
        let seen = 1.0 / size * Linear::from(Reg::X);
        let Halves { x0, epsilon } = self.split(seen, Reg::Model.into(), level.signal / size, level.noise / size);
        Factors {
            x0: [x0.factor(Reg::X), x0.factor(Reg::Model)],
            epsilon: [epsilon.factor(Reg::X), epsilon.factor(Reg::Model)],
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

#[cfg(test)]
mod tests {
    use super::{NoiseLevel, Prediction};

    /// Of a latent that is made of a known image and known noise, each kind of answer gives both back, in either scaling.
    #[test]
    fn image_and_noise_come_back() {
        let (image, epsilon) = (0.7, -1.3);
        for (signal, noise) in [(1.0, 14.6), (1.0, 0.03), (0.8, 0.6), (0.07, 0.9975)] {
            let latent = signal * image + noise * epsilon;
            // as the model sees it, signal^2 + noise^2 = 1
            let (alpha, sigma) = (signal / f64::hypot(signal, noise), noise / f64::hypot(signal, noise));
            for (prediction, answer) in [
                (Prediction::Epsilon, epsilon),
                (Prediction::V, alpha * epsilon - sigma * image),
                (Prediction::Sample, image),
            ] {
                let factors = prediction.factors(NoiseLevel { signal, noise });
                let of = |[of_latent, of_answer]: [f64; 2]| of_latent * latent + of_answer * answer;
                let found = (of(factors.x0), of(factors.epsilon));
                let near = (found.0 - image).abs() < 1e-9 && (found.1 - epsilon).abs() < 1e-9;
                assert!(near, "{prediction:?} at {signal}, {noise}: {found:?}");
            }
        }
    }
}
