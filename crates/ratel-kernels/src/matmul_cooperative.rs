//! matmul in blocks whose subgroups multiply cooperative matrices, for GPUs that have them.

use crate::cooperative_tile::{self, LANGUAGES};
use crate::{Kernel, Op, Schedule, Target, kernel};

/// One workgroup per block of `y`; takes sizes that are multiples of four, activations and matrix in `f16`.
pub static MATMUL_COOPERATIVE: Kernel = kernel!("matmul", "matmul_cooperative", schedule, LANGUAGES);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Matmul(op) = op else { return None };
    let quads = [op.k1, op.k, op.n].iter().all(|size| size.is_multiple_of(4));
    quads.then(|| {
        cooperative_tile::schedule([op.layers.count(), op.m, op.n], op.gates(), op.parts, op.epilogue(), target)
    })?
}
