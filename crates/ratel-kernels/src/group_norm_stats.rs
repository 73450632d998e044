//! First half of a group norm: the statistics of each group.

use crate::{Kernel, Operand, Operation, Param, Values, ValuesMut};

/// Over the input (`x`, then `x2` for channels from `c1` on) of `(batch, pixels, c)`: for chunk `k` of an image's pixels
/// and group `g` of its channels, `stats[image, k, g] = (mean, sum of squared differences from the mean)`.
///
/// Chunks have `chunk` pixels, the last one fewer. Means and squares of chunks merge exactly and without cancellation
/// (Chan, Golub & LeVeque 1979), which [`crate::group_norm`] does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GroupNormStats {
    /// Images.
    pub batch: usize,
    /// Pixels of one image.
    pub pixels: usize,
    /// Channels, `c1` of them in `x` and the rest in `x2`.
    pub c: usize,
    /// Channels of `x`; `c` when there is no `x2`.
    pub c1: usize,
    /// Groups that the channels fall into.
    pub groups: usize,
    /// Pixels of one chunk.
    pub chunk: usize,
}

impl GroupNormStats {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        vec![]
    }
}

impl Operation for GroupNormStats {
    fn name(&self) -> &'static str {
        "group_norm_stats"
    }

    fn operands(&self) -> Vec<Operand> {
        let pixels = self.batch * self.pixels;
        let mut all = vec![Operand::activation("x", pixels * self.c1)];
        if self.c1 < self.c {
            all.push(Operand::activation("x2", pixels * (self.c - self.c1)));
        }
        all.push(Operand::vector("stats", self.batch * self.pixels.div_ceil(self.chunk) * self.groups * 2));
        all
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("batch", size(self.batch)),
            ("pixels", size(self.pixels)),
            ("c", size(self.c)),
            ("c1", size(self.c1)),
            ("groups", size(self.groups)),
            ("chunk", size(self.chunk)),
        ]
    }

    fn flops(&self) -> f64 {
        4.0 * (self.batch * self.pixels * self.c) as f64
    }

    fn twin(&self, _inputs: &[Values], _output: ValuesMut) {}

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![]
    }
}
