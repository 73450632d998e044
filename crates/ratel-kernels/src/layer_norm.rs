//! Layer norm over the last axis.

use crate::group_norm_stats::lanes;
use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use multiversion::multiversion;
use rayon::prelude::*;

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
        let case = |rows, c| LayerNorm { rows, c, eps: 1e-5 };
        vec![
            case(2048, 320),
            case(512, 640),
            case(128, 1280),
            case(154, 768),
            case(77, 1024),
            case(5, 2052),
            case(3, 33),
            case(7, 4),
            case(1, 1),
        ]
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

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let LayerNorm { c, eps, .. } = *self;
        let [x, gamma, beta] = [0, 1, 2].map(|i| inputs[i].f32());
        output.f32().par_chunks_exact_mut(c).zip(x.par_chunks_exact(c)).for_each(|(y, x)| {
            normalise_row(y, x, gamma, beta, f64::from(eps));
        });
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&LAYER_NORM]
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn normalise_row(y: &mut [f32], x: &[f32], gamma: &[f32], beta: &[f32], eps: f64) {
    let c = x.len() as f64;
    let mean = sum(x, |x| x) / c;
    let scale = 1.0 / (sum(x, |x| (x - mean) * (x - mean)) / c + eps).sqrt();
    for (((y, x), gamma), beta) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
        *y = ((f64::from(*x) - mean) * scale) as f32 * gamma + beta;
    }
}

/// The sum of `f(x)`, eight sums side by side.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let (eights, rest) = x.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for eight in eights {
        for (sum, x) in sums.iter_mut().zip(eight) {
            *sum += f(f64::from(*x));
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|x| f(f64::from(*x))).sum::<f64>()
}

/// One workgroup per row.
pub static LAYER_NORM: Kernel = kernel!("norm", "layer_norm", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::LayerNorm(op) = op else { return None };
    let workgroups = grid_1d(op.rows, &target.limits)?;
    Some(Schedule { constants: vec![lanes(target)], extents: vec![], workgroups, merit: 0.01 })
}
