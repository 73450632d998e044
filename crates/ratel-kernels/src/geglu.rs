//! GEGLU: the gate of a feed-forward layer.

use crate::activation::Act;
use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use rayon::prelude::*;

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
        let case = |rows, n| Geglu { rows, n };
        vec![case(1024, 1280), case(2 * 16, 5120), case(5, 7), case(1, 1)]
    }
}

impl Operation for Geglu {
    fn name(&self) -> &'static str {
        GEGLU.name
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

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let n = self.n;
        let (x, y) = (inputs[0].f32(), output.f32());
        y.par_chunks_exact_mut(n).zip(x.par_chunks_exact(2 * n)).for_each(|(y, x)| {
            for c in 0..n {
                y[c] = x[c] * Act::Gelu.of(x[n + c]);
            }
        });
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&GEGLU]
    }
}

/// One invocation per value of `y`.
pub static GEGLU: Kernel = kernel!("pointwise", "geglu", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Geglu(op) = op else { return None };
    let workgroups = grid_1d((op.rows * op.n).div_ceil(64), &target.limits)?;
    Some(Schedule { constants: vec![], extents: vec![], workgroups, merit: 1.0 })
}
