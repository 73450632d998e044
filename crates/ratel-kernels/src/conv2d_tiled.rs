//! conv2d in blocks that a workgroup computes from workgroup memory, for GPUs.

use crate::{Kernel, Op, Schedule, Target, block_tile, kernel};

/// One workgroup per block of `y`; takes channel counts that are multiples of four.
pub static CONV2D_TILED: Kernel = kernel!("conv", "conv2d_tiled", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Conv2d(op) = op else { return None };
    let quads = [op.c1, op.c, op.n].iter().all(|size| size.is_multiple_of(4));
    quads.then(|| block_tile::schedule([1, op.pixels(), op.n], 1, op.parts, op.epilogue(), target))?
}
