//! The update of every sampler: a linear combination of latents.

use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use rayon::prelude::*;

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
        let case = |count, coefficients: &[f32]| Combine { count, coefficients: coefficients.to_vec(), clamp: None };
        vec![
            case(2 * 64 * 64 * 4, &[1.0, -0.5]),
            case(64 * 64 * 4, &[1.5, -0.25, 0.125, -3.0]),
            Combine { clamp: Some(1.0), ..case(1001, &[0.5, 1.0, -2.0]) },
            case(77, &[1.0, 2.0, -3.0, 4.0, -5.0, 6.0]),
            case(77, &[1.0, 2.0, -3.0, 4.0, -5.0]),
            case(1, &[2.0]),
        ]
    }
}

impl Operation for Combine {
    fn name(&self) -> &'static str {
        COMBINE.name
    }

    fn operands(&self) -> Vec<Operand> {
        let names = ["x0", "x1", "x2", "x3", "x4", "x5"];
        let mut all: Vec<_> = names[..self.coefficients.len()].iter().map(|n| Operand::vector(n, self.count)).collect();
        all.push(Operand::vector("y", self.count));
        all
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        vec![
            ("count", Param::U32(self.count as u32)),
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

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        output.f32().par_iter_mut().enumerate().for_each(|(i, y)| {
            let sum = self.coefficients.iter().zip(inputs).map(|(c, x)| c * x.f32()[i]).sum::<f32>();
            *y = match self.clamp {
                Some(limit) if sum > limit => limit,
                Some(limit) if sum < -limit => -limit,
                _ => sum,
            };
        });
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&COMBINE]
    }
}

impl Combine {
    /// The most inputs there can be: with the output they stay under WebGPU's eight storage buffers.
    pub const MAX_TERMS: usize = 6;

    fn coefficient(&self, i: usize) -> Param {
        Param::F32(self.coefficients.get(i).copied().unwrap_or(0.0))
    }
}

/// One invocation per value.
pub static COMBINE: Kernel = kernel!("sampling", "combine", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Combine(op) = op else { return None };
    let workgroups = grid_1d(op.count.div_ceil(64), &target.limits)?;
    Some(Schedule {
        constants: vec![("TERMS", op.coefficients.len() as f64), ("CLAMP", f64::from(u8::from(op.clamp.is_some())))],
        extents: vec![],
        workgroups,
        merit: 1.0,
    })
}
