//! Nearest-neighbour enlargement, where it is not fused into the convolution after it.

use crate::{Kernel, Operand, Operation, Param, Values, ValuesMut};

/// `y[i, v, u, c] = x[i, v h / out_h, u w / out_w, c]` (`torch.nn.functional.interpolate`, mode nearest).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Upsample {
    /// Images.
    pub batch: usize,
    /// Rows of `x`.
    pub h: usize,
    /// Columns of `x`.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Rows of `y`.
    pub out_h: usize,
    /// Columns of `y`.
    pub out_w: usize,
}

impl Upsample {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        vec![]
    }
}

impl Operation for Upsample {
    fn name(&self) -> &'static str {
        "upsample"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![
            Operand::activation("x", self.batch * self.h * self.w * self.c),
            Operand::activation("y", self.batch * self.out_h * self.out_w * self.c),
        ]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("batch", size(self.batch)),
            ("h", size(self.h)),
            ("w", size(self.w)),
            ("c", size(self.c)),
            ("out_h", size(self.out_h)),
            ("out_w", size(self.out_w)),
        ]
    }

    fn flops(&self) -> f64 {
        0.0
    }

    fn twin(&self, _inputs: &[Values], _output: ValuesMut) {}

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![]
    }
}
