//! matmul in register tiles of one subgroup each, for drivers that run on a CPU.

use crate::{Kernel, Op, Schedule, Target, kernel, subgroup_tile};

/// One subgroup per tile of `y`; takes even sizes.
pub static MATMUL_SUBGROUP: Kernel = kernel!("matmul", "matmul_subgroup", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Matmul(op) = op else { return None };
    let even = [op.k1, op.k, op.n].iter().all(|size| size.is_multiple_of(2));
    (even && op.parts.is_whole()).then(|| {
        subgroup_tile::schedule(op, [op.layers.count(), op.m, op.n], op.gates(), op.epilogue(), op.k1 < op.k, target)
    })?
}
