//! The tile of `shaders/lib/subgroup_tile.wgsl`, which matmul_subgroup and conv2d_subgroup share.

use crate::{Constant, Schedule, Target, grid_1d};

/// The most rows and columns of a tile. A load serves the whole tile, so the larger the better, until the time to compile
/// the kernel outgrows the gain: lavapipe takes 0.3 s for 32x32, 0.5 s for 32x64 and 1.5 s for 64x64.
const ROWS: usize = 32;
const COLUMNS: usize = 64;

/// A grid of tiles over `rows` of `columns` results each, in so many layers, each of `gates` sums. `None` where loading is no
/// problem (on a GPU), or where subgroups are of no one known size.
pub(crate) fn schedule(
    [layers, rows, columns]: [usize; 3],
    gates: usize,
    mut constants: Vec<Constant>,
    two_inputs: bool,
    target: &Target,
) -> Option<Schedule> {
    let lanes = target.subgroup.filter(|lanes| target.software && matches!(lanes, 4 | 8 | 16))? as usize;
    let groups = ROWS.min(rows.next_power_of_two()).div_ceil(lanes);
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
