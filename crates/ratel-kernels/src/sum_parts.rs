//! The end of a matrix product or convolution whose sums were computed in parts (split-K).

use crate::activation::Act;
use crate::matmul::epilogue;
use crate::values::named;
use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use rayon::prelude::*;

/// `y[m, n] = act(sum_s parts[s, m, n] + bias[n] + image_bias[m / image_rows, n]) + residual[m, n]`.
///
/// With a matrix product or convolution whose `parts` is set before it, this is one whose is not. Where the result is
/// small and the sums are long, the parts keep more of a device at work than the few blocks of the result would.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SumParts {
    /// Parts.
    pub parts: usize,
    /// Rows of `y`.
    pub m: usize,
    /// Columns of `y`.
    pub n: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// Rows of `y` that share a row of `image_bias`; `None` when there is none.
    pub image_rows: Option<usize>,
    /// What is applied to the sum.
    pub act: Act,
    /// Whether a residual is added after that.
    pub residual: bool,
}

impl SumParts {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        let case = |parts, m, n| SumParts { parts, m, n, bias: true, ..SumParts::default() };
        vec![
            SumParts { image_rows: Some(64), ..case(4, 128, 1280) },
            SumParts { residual: true, ..case(8, 64, 320) },
            SumParts { image_rows: Some(5), residual: true, act: Act::Gelu, ..case(3, 15, 7) },
            SumParts { bias: false, ..case(2, 1, 1) },
        ]
    }
}

impl Operation for SumParts {
    fn name(&self) -> &'static str {
        SUM_PARTS.name
    }

    fn operands(&self) -> Vec<Operand> {
        let SumParts { parts, m, n, .. } = *self;
        let mut all = vec![Operand::vector("parts", parts * m * n)];
        if self.bias {
            all.push(Operand::vector("bias", n));
        }
        if let Some(rows) = self.image_rows {
            all.push(Operand::activation("image_bias", m / rows * n));
        }
        if self.residual {
            all.push(Operand::activation("residual", m * n));
        }
        all.push(Operand::activation("y", m * n));
        all
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        let image_rows = self.image_rows.unwrap_or(self.m);
        vec![("parts", size(self.parts)), ("m", size(self.m)), ("n", size(self.n)), ("image_rows", size(image_rows))]
    }

    fn flops(&self) -> f64 {
        (self.parts * self.m * self.n) as f64
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let SumParts { m: rows, n: columns, .. } = *self;
        let named = named(self, inputs);
        let parts = named("parts").expect("parts").f32();
        let [bias, image_bias, residual] = ["bias", "image_bias", "residual"].map(|name| named(name).map(Values::f32));
        let image_rows = self.image_rows.unwrap_or(rows);
        output.f32().par_iter_mut().enumerate().for_each(|(i, y)| {
            let (m, n) = (i / columns, i % columns);
            let sum: f32 = parts.iter().skip(i).step_by(rows * columns).sum();
            let biased = sum + bias.map_or(0.0, |b| b[n]) + image_bias.map_or(0.0, |b| b[m / image_rows * columns + n]);
            *y = self.act.of(biased) + residual.map_or(0.0, |r| r[i]);
        });
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&SUM_PARTS]
    }
}

/// One invocation per value of `y`.
pub static SUM_PARTS: Kernel = kernel!("pointwise", "sum_parts", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::SumParts(op) = op else { return None };
    let workgroups = grid_1d((op.m * op.n).div_ceil(64), &target.limits)?;
    let constants = epilogue(op.act, op.bias, op.image_rows.is_some(), op.residual);
    Some(Schedule { constants, extents: vec![], workgroups, merit: 1.0 })
}
