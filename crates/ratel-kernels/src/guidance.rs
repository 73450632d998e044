//! Classifier-free guidance, with its rescaling.

use crate::group_norm_stats::lanes;
use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_2d, kernel};
use rayon::prelude::*;

/// With `g = uncond + scale (cond - uncond)`: `y = g (rescale std(cond) / std(g) + 1 - rescale)`, the standard
/// deviations over each image (Ho & Salimans 2022, arXiv:2207.12598; Lin et al. 2024, arXiv:2305.08891, section 3.4).
/// An image whose `g` is the same everywhere keeps it. `model` holds the predictions for the images of the batch without the prompt, then with it; the result is `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Guidance {
    /// Images.
    pub batch: usize,
    /// Values of one image.
    pub count: usize,
    /// `cfg_scale`.
    pub scale: f32,
    /// `guidance_rescale`, 0 to 1.
    pub rescale: f32,
}

impl Guidance {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        let case = |batch, count, rescale| Guidance { batch, count, scale: 7.5, rescale };
        vec![
            case(1, 64 * 64 * 4, 0.0),
            case(2, 64 * 64 * 4, 0.7),
            case(3, 35, 0.0),
            case(3, 35, 1.0),
            case(1, 1, 0.5), // without deviation
        ]
    }
}

impl Operation for Guidance {
    fn name(&self) -> &'static str {
        GUIDANCE.name
    }

    fn operands(&self) -> Vec<Operand> {
        let values = self.batch * self.count;
        vec![Operand::activation("model", 2 * values), Operand::vector("y", values)]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("batch", size(self.batch)),
            ("count", size(self.count)),
            ("scale", Param::F32(self.scale)),
            ("rescale", Param::F32(self.rescale)),
        ]
    }

    fn flops(&self) -> f64 {
        let per_value = if self.rescale == 0.0 { 3.0 } else { 15.0 };
        per_value * (self.batch * self.count) as f64
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let (uncond, cond) = inputs[0].f32().split_at(self.batch * self.count);
        let images = uncond.par_chunks_exact(self.count).zip(cond.par_chunks_exact(self.count));
        output.f32().par_chunks_exact_mut(self.count).zip(images).for_each(|(y, (uncond, cond))| {
            for i in 0..self.count {
                y[i] = uncond[i] + self.scale * (cond[i] - uncond[i]);
            }
            let (square_cond, square_g) = (square(cond), square(y));
            if self.rescale != 0.0 && square_g > 0.0 {
                let rescale = f64::from(self.rescale);
                let factor = (rescale * (square_cond / square_g).sqrt() + 1.0 - rescale) as f32;
                y.iter_mut().for_each(|y| *y *= factor);
            }
        });
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&GUIDANCE]
    }
}

/// The sum of squared differences from the mean.
fn square(values: &[f32]) -> f64 {
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
    values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum()
}

/// Some workgroups per image; one, which finds the deviations first, when they are needed.
pub static GUIDANCE: Kernel = kernel!("sampling", "guidance", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Guidance(op) = op else { return None };
    let rescale = op.rescale != 0.0;
    let lanes = lanes(target);
    let per_image = if rescale { 1 } else { op.count.div_ceil(lanes.1 as usize).min(1024) };
    Some(Schedule {
        constants: vec![lanes, ("RESCALE", f64::from(u8::from(rescale)))],
        extents: vec![],
        workgroups: grid_2d(per_image, op.batch, 1, &target.limits)?,
        merit: 1.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of diffusers' `rescale_noise_cfg`.
    #[test]
    fn twin_equals_diffusers() {
        let uncond = [0.1, -0.3, 0.5, 0.2, 1.0, 2.0, -1.0, 0.5];
        let cond = [0.4, 0.1, -0.6, 0.3, -0.5, 0.25, 0.75, 1.0];
        let model = [uncond, cond].concat();
        let expected = [
            (0.0, [2.35, 2.7, -7.75, 0.95, -10.25, -11.125, 12.125, 4.25]),
            (0.7, [0.8553606, 0.9827548, -2.8208702, 0.3457841, -3.492492, -3.7906317, 4.131362, 1.4481065]),
        ];
        for (rescale, expected) in expected {
            let mut y = [0.0; 8];
            let op = Guidance { batch: 2, count: 4, scale: 7.5, rescale };
            op.twin(&[Values::F32(&model)], ValuesMut::F32(&mut y));
            for (y, e) in y.iter().zip(expected) {
                assert!((y - e).abs() < 1e-5, "{y} for {e}, rescale {rescale}");
            }
        }
    }
}
