//! Sinusoidal embedding of the timestep.

use crate::{Kernel, Operand, Operation, Param, Values, ValuesMut};

/// With `half = dim / 2` and `f_j = exp(-ln(max_period) j / (half - shift))`: `y[i] = [cos(t_i f_j) | sin(t_i f_j)]`, or
/// the other way round when not flipped (diffusers' `get_timestep_embedding`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeEmbedding {
    /// Timesteps.
    pub count: usize,
    /// Values of one embedding.
    pub dim: usize,
    /// Whether the cosines come first (`flip_sin_to_cos`).
    pub cos_first: bool,
    /// `freq_shift`.
    pub shift: f32,
    /// `max_period`.
    pub max_period: f32,
}

impl TimeEmbedding {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        vec![]
    }
}

impl Operation for TimeEmbedding {
    fn name(&self) -> &'static str {
        "time_embedding"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::vector("t", self.count), Operand::activation("y", self.count * self.dim)]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("count", size(self.count)),
            ("dim", size(self.dim)),
            ("cos_first", size(usize::from(self.cos_first))),
            ("shift", Param::F32(self.shift)),
            ("max_period", Param::F32(self.max_period)),
        ]
    }

    fn flops(&self) -> f64 {
        8.0 * (self.count * self.dim) as f64
    }

    fn twin(&self, _inputs: &[Values], _output: ValuesMut) {}

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![]
    }
}
