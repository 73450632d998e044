//! Second half of a group norm: each value by its group's statistics, and SiLU if asked.

use crate::activation::Act;
use crate::{Kernel, Operand, Operation, Param, Values, ValuesMut};

/// `y = act(gamma[c] (x - mean) / sqrt(var + eps) + beta[c])`, with mean and variance of the value's group merged from
/// the chunks of [`crate::group_norm_stats::GroupNormStats`]; the input is `x`, then `x2` for channels from `c1` on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GroupNorm {
    /// Images.
    pub batch: usize,
    /// Pixels of one image that are written; fewer than `pixels` when a plan works in bands.
    pub rows: usize,
    /// Pixels of one image that the statistics are of.
    pub pixels: usize,
    /// Channels, `c1` of them in `x` and the rest in `x2`.
    pub c: usize,
    /// Channels of `x`; `c` when there is no `x2`.
    pub c1: usize,
    /// Groups that the channels fall into.
    pub groups: usize,
    /// Pixels of one chunk of the statistics.
    pub chunk: usize,
    /// Added to the variance.
    pub eps: f32,
    /// What is applied to the result.
    pub act: Act,
}

impl GroupNorm {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        vec![]
    }
}

impl Operation for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn operands(&self) -> Vec<Operand> {
        let pixels = self.batch * self.rows;
        let mut all = vec![Operand::activation("x", pixels * self.c1)];
        if self.c1 < self.c {
            all.push(Operand::activation("x2", pixels * (self.c - self.c1)));
        }
        all.push(Operand::vector("stats", self.batch * self.pixels.div_ceil(self.chunk) * self.groups * 2));
        all.push(Operand::vector("gamma", self.c));
        all.push(Operand::vector("beta", self.c));
        all.push(Operand::activation("y", pixels * self.c));
        all
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("batch", size(self.batch)),
            ("rows", size(self.rows)),
            ("pixels", size(self.pixels)),
            ("c", size(self.c)),
            ("c1", size(self.c1)),
            ("groups", size(self.groups)),
            ("chunk", size(self.chunk)),
            ("eps", Param::F32(self.eps)),
        ]
    }

    fn flops(&self) -> f64 {
        5.0 * (self.batch * self.rows * self.c) as f64
    }

    fn twin(&self, _inputs: &[Values], _output: ValuesMut) {}

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![]
    }
}
