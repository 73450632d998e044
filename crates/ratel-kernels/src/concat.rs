//! Concatenation along the channels, where the consumer does not read two inputs.

use crate::{Kernel, Operand, Operation, Param, Values, ValuesMut};

/// `y[r] = [a[r] | b[r]]`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Concat {
    /// Rows.
    pub rows: usize,
    /// Columns of `a`.
    pub c1: usize,
    /// Columns of `b`.
    pub c2: usize,
}

impl Concat {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        vec![]
    }
}

impl Operation for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![
            Operand::activation("a", self.rows * self.c1),
            Operand::activation("b", self.rows * self.c2),
            Operand::activation("y", self.rows * (self.c1 + self.c2)),
        ]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![("rows", size(self.rows)), ("c1", size(self.c1)), ("c2", size(self.c2))]
    }

    fn flops(&self) -> f64 {
        0.0
    }

    fn twin(&self, _inputs: &[Values], _output: ValuesMut) {}

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![]
    }
}
