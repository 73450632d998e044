//! Layer norm over the last axis.

use crate::{Kernel, Operand, Operation, Param, Values, ValuesMut};

/// `y[r, c] = gamma[c] (x[r, c] - mean of row r) / sqrt(variance of row r + eps) + beta[c]`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LayerNorm {
    /// Rows.
    pub rows: usize,
    /// Values of a row.
    pub c: usize,
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        vec![]
    }
}

impl Operation for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![
            Operand::activation("x", self.rows * self.c),
            Operand::vector("gamma", self.c),
            Operand::vector("beta", self.c),
            Operand::activation("y", self.rows * self.c),
        ]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![("rows", size(self.rows)), ("c", size(self.c)), ("eps", Param::F32(self.eps))]
    }

    fn flops(&self) -> f64 {
        8.0 * (self.rows * self.c) as f64
    }

    fn twin(&self, _inputs: &[Values], _output: ValuesMut) {}

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![]
    }
}
