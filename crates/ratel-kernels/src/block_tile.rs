//! The blocks of `shaders/lib/block_tile.wgsl`, which matmul_tiled and conv2d_tiled share.

use crate::{Constant, Parts, Schedule, Target, grid_1d};

/// How a block is shared out: each invocation has `rows` rows and `quads` quads of columns, and the workgroup is so many
/// invocations high and wide.
struct Block {
    rows: usize,
    quads: usize,
    wg_rows: usize,
    wg_quads: usize,
}

/// The blocks there are, the largest first: 128x128, 64x64, 32x32.
const BLOCKS: [Block; 3] = [
    Block { rows: 8, quads: 2, wg_rows: 16, wg_quads: 16 },
    Block { rows: 8, quads: 1, wg_rows: 8, wg_quads: 16 },
    Block { rows: 4, quads: 1, wg_rows: 8, wg_quads: 8 },
];

/// Blocks whose invocations have the gate of each of their values.
const GATED_BLOCKS: [Block; 3] = [
    Block { rows: 8, quads: 2, wg_rows: 16, wg_quads: 16 },
    Block { rows: 8, quads: 2, wg_rows: 8, wg_quads: 8 },
    Block { rows: 4, quads: 2, wg_rows: 8, wg_quads: 4 },
];

/// Quads of k in workgroup memory at a time; the kernels' STEP.
const STEP: usize = 4;

/// A large block needs the fewest loads, but only this many blocks keep a large GPU busy.
const ENOUGH: usize = 128;

impl Block {
    fn invocations(&self) -> usize {
        self.wg_rows * self.wg_quads
    }

    /// Rows and quads of the block.
    fn size(&self) -> [usize; 2] {
        [self.rows * self.wg_rows, self.quads * self.wg_quads]
    }

    /// Blocks over `rows` of `columns` sums each.
    fn count(&self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.size()[0]) * columns.div_ceil(4 * self.size()[1])
    }

    /// Quads in workgroup memory: of inputs, and of weights.
    fn staged(&self) -> [usize; 2] {
        [self.size()[0] * STEP, 4 * STEP * self.size()[1]]
    }

    fn fits(&self, target: &Target) -> bool {
        let bytes = 16 * self.staged().iter().sum::<usize>();
        self.invocations() <= target.limits.invocations as usize && bytes <= target.limits.workgroup_bytes as usize
    }

    fn extents(&self, gates: usize) -> Vec<(&'static str, u32)> {
        let ([block_rows, block_quads], [inputs, weights]) = (self.size(), self.staged());
        let extents = [
            ("ROWS", self.rows),
            ("QUADS", self.quads),
            ("OWN", self.quads / gates),
            ("OWN_QUADS", block_quads / gates),
            ("WG_ROWS", self.wg_rows),
            ("WG_QUADS", self.wg_quads),
            ("BLOCK_ROWS", block_rows),
            ("BLOCK_QUADS", block_quads),
            ("INPUT_LOADS", inputs / self.invocations()),
            ("WEIGHT_LOADS", weights / self.invocations()),
        ];
        extents.map(|(name, extent)| (name, extent as u32)).to_vec()
    }
}

/// A grid of blocks over `rows` of `columns` results each, each of `gates` sums: of the largest blocks that are enough, or
/// else of the smallest.
/// With several layers or parts, each is computed by blocks of its own.
pub(crate) fn schedule(
    [layers, rows, columns]: [usize; 3],
    gates: usize,
    parts: Parts,
    constants: Vec<Constant>,
    target: &Target,
) -> Option<Schedule> {
    let blocks = if gates == 2 { &GATED_BLOCKS } else { &BLOCKS };
    let fitting: Vec<_> = blocks.iter().filter(|block| block.fits(target)).collect();
    let columns = gates * columns;
    let slabs = layers * parts.count();
    let enough = fitting.iter().find(|block| slabs * block.count(rows, columns) >= ENOUGH);
    let block = enough.or(fitting.last())?;
    let count = block.count(rows, columns);
    let [block_rows, block_quads] = block.size();
    let filled = (rows * columns) as f32 / (count * block_rows * block_quads * 4) as f32;
    Some(Schedule {
        constants,
        extents: [block.extents(gates), vec![parts.extent()]].concat(),
        workgroups: grid_1d(slabs * count, &target.limits)?,
        // with two rows of 32 filled, one invocation a value is as good
        merit: 0.1 * filled,
    })
}
