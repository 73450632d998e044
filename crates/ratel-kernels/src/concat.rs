//! Concatenation along the channels, where the consumer does not read two inputs.

use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use ratel_tensor::Elem;
use rayon::prelude::*;

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
        let case = |rows, c1, c2| Concat { rows, c1, c2 };
        vec![case(1024, 640, 320), case(64, 1280, 1280), case(5, 3, 4), case(1, 1, 1)]
    }
}

impl Operation for Concat {
    fn name(&self) -> &'static str {
        CONCAT.name
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

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let Concat { c1, c2, .. } = *self;
        let (a, b) = (inputs[0].f32(), inputs[1].f32());
        output.f32().par_chunks_exact_mut(c1 + c2).enumerate().for_each(|(r, y)| {
            y[..c1].copy_from_slice(&a[r * c1..(r + 1) * c1]);
            y[c1..].copy_from_slice(&b[r * c2..(r + 1) * c2]);
        });
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&CONCAT]
    }

    fn tolerance(&self, elem: Elem) -> f64 {
        match elem {
            Elem::F32 => 0.0, // values are copied
            _ => 1e-9,        // but a device may take halves under 6e-5 for zeros
        }
    }
}

/// One invocation per value of `y`.
pub static CONCAT: Kernel = kernel!("pointwise", "concat", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Concat(op) = op else { return None };
    let workgroups = grid_1d((op.rows * (op.c1 + op.c2)).div_ceil(64), &target.limits)?;
    Some(Schedule { constants: vec![], extents: vec![], workgroups, merit: 1.0 })
}
