//! Latents on their way into a model: scaled, repeated, and in the type of activations.

use crate::{Kernel, Operand, Operation, Param, Values, ValuesMut};

/// `y[i] = scale x[i mod count] + shift` for `i < copies count`: `copies` is 2 for a guided step, whose batch holds every
/// image twice.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ScaleLatents {
    /// Values of `x`.
    pub count: usize,
    /// How often they are repeated.
    pub copies: usize,
    /// The factor.
    pub scale: f32,
    /// What is added.
    pub shift: f32,
}

impl ScaleLatents {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        vec![]
    }
}

impl Operation for ScaleLatents {
    fn name(&self) -> &'static str {
        "scale_latents"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::vector("x", self.count), Operand::activation("y", self.copies * self.count)]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("count", size(self.count)),
            ("copies", size(self.copies)),
            ("scale", Param::F32(self.scale)),
            ("shift", Param::F32(self.shift)),
        ]
    }

    fn flops(&self) -> f64 {
        2.0 * (self.copies * self.count) as f64
    }

    fn twin(&self, _inputs: &[Values], _output: ValuesMut) {}

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![]
    }
}
