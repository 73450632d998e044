//! GEGLU: the gate of a feed-forward layer.

use crate::{Kernel, Operand, Operation, Param, Values, ValuesMut};

/// `y[r, c] = x[r, c] gelu(x[r, n + c])` for `c < n` (Shazeer 2020, arXiv:2002.05202; diffusers' `GEGLU`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Geglu {
    /// Rows.
    pub rows: usize,
    /// Columns of `y`, half of those of `x`.
    pub n: usize,
}

impl Geglu {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        vec![]
    }
}

impl Operation for Geglu {
    fn name(&self) -> &'static str {
        "geglu"
    }

    fn operands(&self) -> Vec<Operand> {
        let count = self.rows * self.n;
        vec![Operand::activation("x", 2 * count), Operand::activation("y", count)]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![("rows", size(self.rows)), ("n", size(self.n))]
    }

    fn flops(&self) -> f64 {
        9.0 * (self.rows * self.n) as f64
    }

    fn twin(&self, _inputs: &[Values], _output: ValuesMut) {}

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![]
    }
}
