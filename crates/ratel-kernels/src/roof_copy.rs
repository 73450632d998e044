//! A copy, bound by memory. For `ratel roofline`; no model uses it.

use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use ratel_tensor::Elem;
use rayon::prelude::*;

/// Values that the twin copies in one piece: 256 KiB.
const PIECE: usize = 64 << 10;

/// `y[i] = x[i]`, four values at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoofCopy {
    /// Values, a multiple of 4.
    pub count: usize,
}

impl RoofCopy {
    /// Whole and broken workgroups.
    pub fn cases() -> Vec<Self> {
        [4096, 4 * 300, 4].map(|count| RoofCopy { count }).to_vec()
    }
}

impl Operation for RoofCopy {
    fn name(&self) -> &'static str {
        ROOF_COPY.name
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::vector("x", self.count), Operand::vector("y", self.count)]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        vec![("count", Param::U32(self.count as u32))]
    }

    fn flops(&self) -> f64 {
        0.0
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let pieces = inputs[0].f32().par_chunks(PIECE).zip(output.f32().par_chunks_mut(PIECE));
        pieces.for_each(|(x, y)| y.copy_from_slice(x));
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&ROOF_COPY]
    }

    fn tolerance(&self, _: Elem) -> f64 {
        0.0
    }
}

/// One invocation per four values.
pub static ROOF_COPY: Kernel = kernel!("roofline", "roof_copy", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::RoofCopy(op) = op else { return None };
    if !op.count.is_multiple_of(4) {
        return None;
    }
    let workgroups = grid_1d((op.count / 4).div_ceil(256), &target.limits)?;
    Some(Schedule { constants: vec![], extents: vec![], workgroups, merit: 1.0 })
}
