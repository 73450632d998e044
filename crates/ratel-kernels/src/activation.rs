//! SiLU, GELU, quick GELU, by themselves; most are fused into the op before them.

use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use ratel_tensor::Elem;
use rayon::prelude::*;
use std::f32::consts::FRAC_1_SQRT_2;

/// An activation function. The numbers are those of `shaders/lib/act.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Act {
    /// The identity.
    #[default]
    None = 0,
    /// `x sigmoid(x)` (`torch.nn.functional.silu`).
    Silu = 1,
    /// `x (1 + erf(x / sqrt 2)) / 2` (`torch.nn.functional.gelu`, the exact form).
    Gelu = 2,
    /// `x sigmoid(1.702 x)` (transformers' `QuickGELUActivation`).
    QuickGelu = 3,
}

impl Act {
    /// The function's value.
    pub fn of(self, x: f32) -> f32 {
        match self {
            Act::None => x,
            Act::Silu => x / (1.0 + (-x).exp()),
            Act::Gelu => 0.5 * x * (1.0 + libm::erff(x * FRAC_1_SQRT_2)),
            Act::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        }
    }
}

/// `y[i] = act(x[i])`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activation {
    /// Values.
    pub count: usize,
    /// The function.
    pub act: Act,
}

impl Activation {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        let case = |count, act| Activation { count, act };
        vec![case(2 * 1280, Act::Silu), case(77 * 3072, Act::QuickGelu), case(77 * 4096, Act::Gelu), case(1, Act::Silu)]
    }
}

impl Operation for Activation {
    fn name(&self) -> &'static str {
        ACTIVATION.name
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::activation("x", self.count), Operand::activation("y", self.count)]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        vec![("count", Param::U32(self.count as u32))]
    }

    fn flops(&self) -> f64 {
        8.0 * self.count as f64
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let (x, y) = (inputs[0].f32(), output.f32());
        y.par_iter_mut().zip(x).for_each(|(y, x)| *y = self.act.of(*x));
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&ACTIVATION]
    }

    fn tolerance(&self, elem: Elem) -> f64 {
        match elem {
            Elem::F32 => 1e-12, // the shader's erf is a fit, off by 1.5e-7
            _ => 1e-6,
        }
    }
}

/// One invocation per value.
pub static ACTIVATION: Kernel = kernel!("pointwise", "activation", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Activation(op) = op else { return None };
    Some(Schedule {
        constants: vec![("ACT", op.act as u32 as f64)],
        extents: vec![],
        workgroups: grid_1d(op.count.div_ceil(64), &target.limits)?,
        merit: 1.0,
    })
}
