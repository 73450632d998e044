//! Latents on their way into a model: scaled, repeated, and in the type of activations.

use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};

/// `y[i] = scale x[i mod count] + shift` for `i < copies count`: `copies` is 2 for a guided step, whose batch holds every
/// image twice.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ScaleLatents {
    /// Values of `x`.
    pub count: usize,
    /// How often they are repeated.
    pub copies: usize,
    /// The factor.
    pub scale: f32,
    /// What is added.
    pub shift: f32,
}

impl ScaleLatents {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        let case = |count, copies, scale, shift| ScaleLatents { count, copies, scale, shift };
        vec![
            case(64 * 64 * 4, 2, 0.068, 0.0),         // into a guided step
            case(64 * 64 * 4, 1, 1.0 / 0.18215, 0.0), // into the VAE
            case(35, 3, 2.0, -0.5),
            case(1, 1, 1.0, 0.0),
        ]
    }
}

impl Operation for ScaleLatents {
    fn name(&self) -> &'static str {
        SCALE_LATENTS.name
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::vector("x", self.count), Operand::activation("y", self.copies * self.count)]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("count", size(self.count)),
            ("copies", size(self.copies)),
            ("scale", Param::F32(self.scale)),
            ("shift", Param::F32(self.shift)),
        ]
    }

    fn flops(&self) -> f64 {
        2.0 * (self.copies * self.count) as f64
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let (x, y) = (inputs[0].f32(), output.f32());
        for i in 0..self.copies * self.count {
            y[i] = self.scale * x[i % self.count] + self.shift;
        }
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&SCALE_LATENTS]
    }
}

/// One invocation per value of `y`.
pub static SCALE_LATENTS: Kernel = kernel!("sampling", "scale_latents", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::ScaleLatents(op) = op else { return None };
    let workgroups = grid_1d((op.copies * op.count).div_ceil(64), &target.limits)?;
    Some(Schedule { constants: vec![], extents: vec![], workgroups, merit: 1.0 })
}
