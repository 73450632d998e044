//! matmul in blocks that a workgroup computes from workgroup memory, for GPUs.

use crate::{Kernel, Op, Schedule, Target, block_tile, kernel};

/// One workgroup per block of `y`; takes sizes that are multiples of four.
pub static MATMUL_TILED: Kernel = kernel!("matmul", "matmul_tiled", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Matmul(op) = op else { return None };
    let quads = [op.k1, op.k, op.n].iter().all(|size| size.is_multiple_of(4));
    quads.then(|| block_tile::schedule([op.layers.count(), op.m, op.n], op.gates(), op.parts, op.epilogue(), target))?
}
