//! Latents drawn from what the VAE's encoder says of a picture.

use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use rayon::prelude::*;

/// `y = scale (mean + exp(clamp(logvar, -30, 20) / 2) noise - shift)`: a sample of the encoder's normal distribution, or
/// its mode where `noise` is zero, scaled for the UNet. `moments` holds the means of a latent pixel's channels, then the
/// logarithms of their variances (diffusers' `DiagonalGaussianDistribution`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Posterior {
    /// Pixels of the latents.
    pub pixels: usize,
    /// Channels of the latents.
    pub channels: usize,
    /// `scaling_factor`.
    pub scale: f32,
    /// `shift_factor`.
    pub shift: f32,
}

impl Posterior {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        let case = |pixels, channels, scale, shift| Posterior { pixels, channels, scale, shift };
        vec![case(64 * 64, 4, 0.18215, 0.0), case(5 * 3, 3, 1.5, -0.25), case(1, 1, 1.0, 0.0)]
    }
}

impl Operation for Posterior {
    fn name(&self) -> &'static str {
        POSTERIOR.name
    }

    fn operands(&self) -> Vec<Operand> {
        let count = self.pixels * self.channels;
        vec![Operand::activation("moments", 2 * count), Operand::vector("noise", count), Operand::vector("y", count)]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("pixels", size(self.pixels)),
            ("channels", size(self.channels)),
            ("scale", Param::F32(self.scale)),
            ("shift", Param::F32(self.shift)),
        ]
    }

    fn flops(&self) -> f64 {
        8.0 * (self.pixels * self.channels) as f64
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let (moments, noise) = (inputs[0].f32(), inputs[1].f32());
        output.f32().par_iter_mut().enumerate().for_each(|(i, y)| {
            let first = i / self.channels * 2 * self.channels + i % self.channels;
            let (mean, logvar) = (moments[first], moments[first + self.channels].clamp(-30.0, 20.0));
            *y = self.scale * (mean + (0.5 * logvar).exp() * noise[i] - self.shift);
        });
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&POSTERIOR]
    }
}

/// One invocation per value of `y`.
pub static POSTERIOR: Kernel = kernel!("sampling", "posterior", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Posterior(op) = op else { return None };
    let workgroups = grid_1d((op.pixels * op.channels).div_ceil(64), &target.limits)?;
    Some(Schedule { constants: vec![], extents: vec![], workgroups, merit: 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of diffusers' `DiagonalGaussianDistribution`: also where the variance is beyond its limits.
    #[test]
    fn twin_equals_diffusers() {
        let moments = [0.5, -1.0, 0.0, 2.0, 3.0, 1.0, -80.0, 50.0];
        let noise = [1.0, -1.0, 2.0, 0.5];
        let mut y = [0.0; 4];
        let op = Posterior { pixels: 2, channels: 2, scale: 0.5, shift: 0.25 };
        op.twin(&[Values::F32(&moments), Values::F32(&noise)], ValuesMut::F32(&mut y));
        // exp(0) = 1, exp(1), exp(-15), exp(10)
        let expected = [0.625, -1.984_141, 1.375, 5_506.991];
        for (y, e) in y.iter().zip(expected) {
            assert!((y - e).abs() < 1e-5 * e.abs().max(1.0), "{y} for {e}");
        }
    }
}
