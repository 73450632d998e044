//! Sinusoidal embedding of the timestep.

use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};

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
        let case = |count, dim, cos_first, shift| TimeEmbedding { count, dim, cos_first, shift, max_period: 10_000.0 };
        vec![case(2, 320, true, 0.0), case(12, 256, true, 0.0), case(3, 1280, false, 1.0), case(5, 7, false, 1.0)]
    }
}

impl Operation for TimeEmbedding {
    fn name(&self) -> &'static str {
        TIME_EMBEDDING.name
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
            ("ratio", Param::U32(self.ratio())),
        ]
    }

    fn flops(&self) -> f64 {
        8.0 * (self.count * self.dim) as f64
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let half = self.dim / 2;
        let step = f64::from(self.max_period).ln() / (half as f64 - f64::from(self.shift));
        for (t, y) in inputs[0].f32().iter().zip(output.f32().chunks_exact_mut(self.dim)) {
            y.fill(0.0); // the last value, where dim is odd
            for j in 0..half {
                let (sin, cos) = (f64::from(*t) * (-step * j as f64).exp()).sin_cos();
                let (first, second) = if self.cos_first { (cos, sin) } else { (sin, cos) };
                y[j] = first as f32;
                y[half + j] = second as f32;
            }
        }
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&TIME_EMBEDDING]
    }
}

impl TimeEmbedding {
    /// `f_1`, the ratio of a frequency to the one before it, with 32 bits after the point.
    fn ratio(&self) -> u32 {
        let step = f64::from(self.max_period).ln() / ((self.dim / 2) as f64 - f64::from(self.shift));
        ((-step).exp() * 2_f64.powi(32)).round() as u32
    }
}

/// One invocation per value of `y`.
pub static TIME_EMBEDDING: Kernel = kernel!("pointwise", "time_embedding", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::TimeEmbedding(op) = op else { return None };
    let workgroups = grid_1d((op.count * op.dim).div_ceil(64), &target.limits)?;
    Some(Schedule { constants: vec![], extents: vec![], workgroups, merit: 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of diffusers' `get_timestep_embedding`, which rounds frequencies and angles to f32 and so is off by up to
    /// 1e-4 at t = 999.
    #[test]
    fn twin_equals_diffusers() {
        let op = TimeEmbedding { count: 2, dim: 320, cos_first: true, shift: 0.0, max_period: 10_000.0 };
        let mut y = vec![0.0; 640];
        op.twin(&[Values::F32(&[999.0, 500.5])], ValuesMut::F32(&mut y));
        let at = [0, 1, 5, 40, 159, 160, 161, 165, 200, 319];
        let expected = [
            [
                0.9996498, 0.8026775, 0.1252311, 0.8074551, 0.9944063, -0.0264608, 0.5964133, 0.9921276, -0.5899291,
                0.1056221,
            ],
            [
                -0.551389, 0.3024123, -0.098112, 0.9768724, 0.998595, -0.8342483, 0.9531772, -0.9951754, -0.2138232,
                0.0529908,
            ],
        ];
        for (y, expected) in y.chunks_exact(320).zip(expected) {
            for (i, e) in at.into_iter().zip(expected) {
                assert!((y[i] - e).abs() < 1e-4, "value {i}: {} for {e}", y[i]);
            }
        }

        let op = TimeEmbedding { count: 1, dim: 7, cos_first: false, shift: 1.0, max_period: 10_000.0 };
        let mut y = [1.0; 7];
        op.twin(&[Values::F32(&[0.25])], ValuesMut::F32(&mut y));
        for (y, e) in y.into_iter().zip([0.247404, 0.0025, 2.5e-05, 0.9689124, 0.9999969, 1.0, 0.0]) {
            assert!((y - e).abs() < 1e-6, "{y} for {e}");
        }
    }
}
