//! A decoded picture as bytes.

use crate::{Kernel, Operand, Operation, Param, Role, Values, ValuesMut};

/// `y[i] = round(255 clamp(x[i] / 2 + 1/2, 0, 1))`, half to even as `numpy.round` has it (diffusers'
/// `VaeImageProcessor.postprocess`): three channels in -1 to 1 become bytes, four in a `u32`, the first lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rgb8 {
    /// Values: pixels times three.
    pub count: usize,
}

impl Rgb8 {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        vec![]
    }
}

impl Operation for Rgb8 {
    fn name(&self) -> &'static str {
        "rgb8"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![
            Operand::activation("x", self.count),
            Operand { name: "y", role: Role::Bytes, count: self.count, touched: self.count },
        ]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![("count", size(self.count))]
    }

    fn flops(&self) -> f64 {
        4.0 * self.count as f64
    }

    fn twin(&self, _inputs: &[Values], _output: ValuesMut) {}

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![]
    }
}
