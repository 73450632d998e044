//! Classifier-free guidance, with its rescaling.

use crate::{Kernel, Operand, Operation, Param, Values, ValuesMut};

/// With `g = uncond + scale (cond - uncond)`: `y = g (rescale std(cond) / std(g) + 1 - rescale)`, the standard
/// deviations over each image (Ho & Salimans 2022, arXiv:2207.12598; Lin et al. 2024, arXiv:2305.08891, section 3.4).
/// `model` holds the predictions for the images of the batch without the prompt, then with it; the result is `f32`.
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
        vec![]
    }
}

impl Operation for Guidance {
    fn name(&self) -> &'static str {
        "guidance"
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
        3.0 * (self.batch * self.count) as f64
    }

    fn twin(&self, _inputs: &[Values], _output: ValuesMut) {}

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![]
    }
}
