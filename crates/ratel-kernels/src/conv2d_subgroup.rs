//! conv2d in register tiles of one subgroup each, for drivers that run on a CPU.

use crate::{Kernel, Op, Schedule, Target, kernel, subgroup_tile};

/// One subgroup per tile of `y`; takes even channel counts.
pub static CONV2D_SUBGROUP: Kernel = kernel!("conv", "conv2d_subgroup", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Conv2d(op) = op else { return None };
    let even = [op.c1, op.c, op.n].iter().all(|size| size.is_multiple_of(2));
    (even && op.parts.is_whole())
        .then(|| subgroup_tile::schedule(op, [1, op.pixels(), op.n], 1, op.epilogue(), op.c1 < op.c, target))?
}
