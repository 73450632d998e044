//! conv2d in blocks whose subgroups multiply cooperative matrices, for GPUs that have them.

use crate::cooperative_tile::{self, LANGUAGES};
use crate::{Kernel, Op, Schedule, Target, kernel};

/// One workgroup per block of `y`; takes channel counts that are multiples of four, activations and matrix in `f16`.
pub static CONV2D_COOPERATIVE: Kernel = kernel!("conv", "conv2d_cooperative", schedule, LANGUAGES);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Conv2d(op) = op else { return None };
    let quads = [op.c1, op.c, op.n].iter().all(|size| size.is_multiple_of(4));
    quads.then(|| cooperative_tile::schedule([1, op.pixels(), op.n], 1, op.parts, op.epilogue(), target))?
}
