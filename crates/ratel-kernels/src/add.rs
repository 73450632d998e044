//! Sums: residuals, biases, position and time embeddings, where they are not fused into the op before them.

use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use ratel_tensor::Elem;
use rayon::prelude::*;

/// `y[i] = a[i] + b[i / span * period + i % period]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Add {
    /// Values of `a` and `y`.
    pub count: usize,
    /// After so many values of `a`, `b` moves on by a period; divides `count`.
    pub span: usize,
    /// After so many values of `a`, `b` repeats; divides `span`.
    pub period: usize,
}

impl Add {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        let case = |count, span, period| Add { count, span, period };
        vec![
            case(2 * 64 * 64 * 320, 2 * 64 * 64 * 320, 2 * 64 * 64 * 320),
            case(3 * 9 * 17 * 96, 9 * 17 * 96, 96),
            case(2 * 77 * 768, 2 * 77 * 768, 77 * 768),
            case(35, 35, 7),
            case(1, 1, 1),
        ]
    }
}

impl Operation for Add {
    fn name(&self) -> &'static str {
        ADD.name
    }

    fn operands(&self) -> Vec<Operand> {
        let count = self.count / self.span * self.period;
        vec![
            Operand::activation("a", self.count),
            Operand::activation("b", count),
            Operand::activation("y", self.count),
        ]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![("count", size(self.count)), ("span", size(self.span)), ("period", size(self.period))]
    }

    fn flops(&self) -> f64 {
        self.count as f64
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let (a, b, y) = (inputs[0].f32(), inputs[1].f32(), output.f32());
        y.par_iter_mut().enumerate().for_each(|(i, y)| *y = a[i] + b[i / self.span * self.period + i % self.period]);
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&ADD]
    }

    fn tolerance(&self, elem: Elem) -> f64 {
        match elem {
            Elem::F32 => 0.0, // one addition, correctly rounded
            _ => 1e-6,
        }
    }
}

/// One invocation per value.
pub static ADD: Kernel = kernel!("pointwise", "add", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Add(op) = op else { return None };
    let workgroups = grid_1d(op.count.div_ceil(64), &target.limits)?;
    Some(Schedule { constants: vec![], extents: vec![], workgroups, merit: 1.0 })
}
