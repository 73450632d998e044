//! The tile of `shaders/lib/subgroup_tile.wgsl`, which matmul_subgroup and conv2d_subgroup share.

use crate::{Constant, Schedule, Target, grid_1d};

/// Pairs of columns a lane holds.
const PAIRS: usize = 2;
/// The most rows of a tile. A load gives one value to the whole tile, so the larger the better, while the time to compile
/// the kernel and the share of rows that stay empty grow.
const ROWS: usize = 32;

/// A grid of tiles over `rows` of `columns` sums each. `None` where loading is no problem (on a GPU), or where subgroups
/// are of no one known size.
pub(crate) fn schedule(
    rows: usize,
    columns: usize,
    mut constants: Vec<Constant>,
    two_inputs: bool,
    target: &Target,
) -> Option<Schedule> {
    let lanes = target.subgroup.filter(|lanes| target.software && matches!(lanes, 4 | 8 | 16))? as usize;
    let groups = ROWS.min(rows.next_power_of_two()).div_ceil(lanes);
    let tiles = rows.div_ceil(groups * lanes) * columns.div_ceil(2 * PAIRS * lanes);
    constants.push(("TWO_INPUTS", f64::from(u8::from(two_inputs))));
    Some(Schedule {
        constants,
        extents: vec![
            ("LANES", lanes as u32),
            ("GROUPS", groups as u32),
            ("PAIRS", PAIRS as u32),
            ("ROWS", (groups * lanes) as u32),
        ],
        workgroups: grid_1d(tiles, &target.limits)?,
        merit: 0.3,
    })
}
