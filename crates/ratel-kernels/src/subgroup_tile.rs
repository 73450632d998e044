//! The tile of `shaders/lib/subgroup_tile.wgsl`, which matmul_subgroup and conv2d_subgroup share.

use crate::{Constant, Operation, Schedule, Target, grid_1d};

/// The most columns of a tile, and the most rows of one that is quickly compiled. A load serves the whole tile, so the
/// larger the better, until the time to compile the kernel outgrows the gain.
const COLUMNS: usize = 64;
const ROWS: usize = 32;
/// Rows of a tile for ops that are [`worth_compiling`]: a fifth faster on lavapipe, which takes a second to compile it.
const MANY_ROWS: usize = 64;

/// Whether an op has so much work that a kernel which takes long to compile is repaid within the steps of one picture:
/// some milliseconds on a processor.
pub(crate) fn worth_compiling(op: &dyn Operation) -> bool {
    op.flops() >= 2.5e8
}

/// The most rows of a tile of `op`: many where there is enough work, unless tiles so large would compute on more than a
/// sixteenth of `rows` beyond the last one, over what small tiles do.
fn most_rows(rows: usize, op: &dyn Operation) -> usize {
    let beyond = |tile: usize| rows.next_multiple_of(tile) - rows;
    let fits = beyond(MANY_ROWS) <= beyond(ROWS) + rows / 16;
    if fits && worth_compiling(op) { MANY_ROWS } else { ROWS }
}

/// A grid of tiles of `op` over `rows` of `columns` results each, in so many layers, each of `gates` sums. `None` where
/// loading is no problem (on a GPU), or where subgroups are of no one known size.
pub(crate) fn schedule(
    op: &dyn Operation,
    [layers, rows, columns]: [usize; 3],
    gates: usize,
    mut constants: Vec<Constant>,
    two_inputs: bool,
    target: &Target,
) -> Option<Schedule> {
    let lanes = target.subgroup.filter(|lanes| target.software && matches!(lanes, 4 | 8 | 16))? as usize;
    let groups = most_rows(rows, op).min(rows.next_power_of_two()).div_ceil(lanes);
    let pairs = COLUMNS.min(gates * columns).div_ceil(2 * lanes).next_multiple_of(gates);
    let own = pairs / gates;
    let tiles = layers * rows.div_ceil(groups * lanes) * columns.div_ceil(2 * own * lanes);
    constants.push(("TWO_INPUTS", f64::from(u8::from(two_inputs))));
    Some(Schedule {
        constants,
        extents: [("LANES", lanes), ("GROUPS", groups), ("ROWS", groups * lanes), ("PAIRS", pairs), ("OWN", own)]
            .map(|(name, extent)| (name, extent as u32))
            .to_vec(),
        workgroups: grid_1d(tiles, &target.limits)?,
        merit: 0.3,
    })
}
