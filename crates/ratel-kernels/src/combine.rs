//! The update of every sampler: a linear combination of latents.

use crate::{Kernel, Operand, Operation, Param, Values, ValuesMut};

/// `y[i] = clamp(sum_j coefficients[j] x_j[i])`, over 1 to [`Combine::MAX_TERMS`] latents `x0 ... x5` of `count` values.
/// Every sampler's step is a few of these: the host computes coefficients, the device applies them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Combine {
    /// Values of each operand.
    pub count: usize,
    /// One coefficient for each input.
    pub coefficients: Vec<f32>,
    /// The result is kept within plus and minus this.
    pub clamp: Option<f32>,
}

impl Combine {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        vec![]
    }
}

impl Operation for Combine {
    fn name(&self) -> &'static str {
        "combine"
    }

    fn operands(&self) -> Vec<Operand> {
        let names = ["x0", "x1", "x2", "x3", "x4", "x5"];
        let mut all: Vec<_> = names[..self.coefficients.len()].iter().map(|n| Operand::vector(n, self.count)).collect();
        all.push(Operand::vector("y", self.count));
        all
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("count", size(self.count)),
            ("terms", size(self.coefficients.len())),
            ("c0", self.coefficient(0)),
            ("c1", self.coefficient(1)),
            ("c2", self.coefficient(2)),
            ("c3", self.coefficient(3)),
            ("c4", self.coefficient(4)),
            ("c5", self.coefficient(5)),
            ("limit", Param::F32(self.clamp.unwrap_or(f32::MAX))),
        ]
    }

    fn flops(&self) -> f64 {
        2.0 * (self.count * self.coefficients.len()) as f64
    }

    fn twin(&self, _inputs: &[Values], _output: ValuesMut) {}

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![]
    }
}

impl Combine {
    /// The most inputs there can be: with the output they stay under WebGPU's eight storage buffers.
    pub const MAX_TERMS: usize = 6;

    fn coefficient(&self, i: usize) -> Param {
        Param::F32(self.coefficients.get(i).copied().unwrap_or(0.0))
    }
}
