//! Activations as `f32`, for what reads them outside a model.

use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use ratel_tensor::Elem;

/// `y[i] = x[i]`, from the type of activations to `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ToVector {
    /// Values.
    pub count: usize,
}

impl ToVector {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        [2 * 64 * 64 * 4, 77 * 768, 7, 1].map(|count| ToVector { count }).to_vec()
    }
}

impl Operation for ToVector {
    fn name(&self) -> &'static str {
        TO_VECTOR.name
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::activation("x", self.count), Operand::vector("y", self.count)]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![("count", size(self.count))]
    }

    fn flops(&self) -> f64 {
        0.0
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        output.f32().copy_from_slice(&inputs[0].f32()[..self.count]);
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&TO_VECTOR]
    }

    fn tolerance(&self, elem: Elem) -> f64 {
        match elem {
            Elem::F32 => 0.0, // values are copied
            _ => 1e-9,        // but a device may take halves under 6e-5 for zeros
        }
    }
}

/// One invocation per value.
pub static TO_VECTOR: Kernel = kernel!("sampling", "to_vector", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::ToVector(op) = op else { return None };
    let workgroups = grid_1d(op.count.div_ceil(64), &target.limits)?;
    Some(Schedule { constants: vec![], extents: vec![], workgroups, merit: 1.0 })
}
