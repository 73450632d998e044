//! Attention: self, cross and causal, in one pass over the keys; the scores never reach memory.

use crate::{Kernel, Operand, Operation, Param, Values, ValuesMut};

/// For each image, head and query i: `y_i = sum_j softmax_j(scale q_i . k_j) v_j`, over all keys, or over those up to i
/// when causal. Heads lie side by side in a row: value d of head h is column `h dim + d`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Attention {
    /// Images.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Values of one head.
    pub dim: usize,
    /// Queries of one image.
    pub queries: usize,
    /// Keys, and values, of one image.
    pub keys: usize,
    /// Whether query i sees only keys 0 to i.
    pub causal: bool,
}

impl Attention {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        vec![]
    }
}

impl Operation for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn operands(&self) -> Vec<Operand> {
        let row = self.heads * self.dim;
        vec![
            Operand::activation("q", self.batch * self.queries * row),
            Operand::activation("k", self.batch * self.keys * row),
            Operand::activation("v", self.batch * self.keys * row),
            Operand::activation("y", self.batch * self.queries * row),
        ]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("batch", size(self.batch)),
            ("heads", size(self.heads)),
            ("dim", size(self.dim)),
            ("queries", size(self.queries)),
            ("keys", size(self.keys)),
            ("causal", size(usize::from(self.causal))),
            ("scale", Param::F32((self.dim as f32).sqrt().recip())),
        ]
    }

    fn flops(&self) -> f64 {
        (4.0 * self.dim as f64 + 5.0) * (self.batch * self.heads * self.queries * self.keys) as f64
    }

    fn twin(&self, _inputs: &[Values], _output: ValuesMut) {}

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![]
    }
}
