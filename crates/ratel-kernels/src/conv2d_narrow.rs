//! conv2d with few output channels, which leave most of a tile empty: what models end with.

use crate::{Kernel, Op, Schedule, Target, grid_1d, kernel};

/// One invocation per strip of pixels; takes up to four output channels, input channels in fours and steps of one pixel.
pub static CONV2D_NARROW: Kernel = kernel!("conv", "conv2d_narrow", schedule);

/// Pixels of a strip where loads are dear; a GPU loads neighbouring pixels side by side.
const STRIP: usize = 4;

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Conv2d(op) = op else { return None };
    let columns = op.window[1];
    let suits = op.n <= 4 && op.c1 == op.c && op.c.is_multiple_of(4) && op.stride == 1 && op.upsample.is_none();
    (suits && columns <= 5 && op.parts.is_whole()).then_some(())?;
    let strip = if target.software { STRIP } else { 1 };
    let extents = [("N", op.n), ("COLUMNS", columns), ("STRIP", strip), ("INPUTS", strip + columns - 1)];
    Some(Schedule {
        constants: op.epilogue(),
        extents: extents.map(|(name, extent)| (name, extent as u32)).to_vec(),
        workgroups: grid_1d((op.batch * op.out_h * op.out_w.div_ceil(strip)).div_ceil(64), &target.limits)?,
        merit: if target.software { 0.35 } else { 0.05 },
    })
}
