//! Activations as `f32`, for what reads them outside a model.

use crate::{Kernel, Operand, Operation, Param, Values, ValuesMut};

/// `y[i] = x[i]`, from the type of activations to `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ToVector {
    /// Values.
    pub count: usize,
}

impl ToVector {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        vec![]
    }
}

impl Operation for ToVector {
    fn name(&self) -> &'static str {
        "to_vector"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::activation("x", self.count), Operand::vector("y", self.count)]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![("count", size(self.count))]
    }

    fn flops(&self) -> f64 {
        0.0
    }

    fn twin(&self, _inputs: &[Values], _output: ValuesMut) {}

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![]
    }
}
