//! The blocks of `shaders/lib/cooperative_tile.wgsl`, which matmul_cooperative and conv2d_cooperative share, and what every
//! kernel over cooperative matrices asks of a device.

use crate::{Constant, Language, Parts, Schedule, Target, WeightStorage, grid_1d};
use ratel_tensor::Elem;

/// What kernels over cooperative matrices can be translated to. HLSL has no such matrices. Metal's are of 8 by 8 and
/// naga's text for them is wrong where memory holds vectors; besides, no subgroup size is sure there.
pub(crate) const LANGUAGES: &[Language] = &[Language::Spirv];

/// Subgroups that multiply matrices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cooperation {
    /// The edge of a matrix.
    pub(crate) edge: u32,
    /// Lanes of a subgroup.
    pub(crate) lanes: u32,
    /// Subgroups of a workgroup: four, or as many as make 64 lanes, since drivers may want that many in full subgroups.
    pub(crate) subgroups: u32,
}

impl Cooperation {
    /// `None` where the device has no such matrices, or subgroups of no one known size, or activations are not `f16`:
    /// the factors would have to be rounded.
    pub(crate) fn of(target: &Target) -> Option<Cooperation> {
        let (edge, lanes) = target.cooperative.zip(target.subgroup)?;
        let known = matches!(edge, 8 | 16) && lanes.is_power_of_two() && (4..=64).contains(&lanes);
        let subgroups = 4.max(64 / lanes.max(1));
        (known && target.elem == Elem::F16).then_some(Cooperation { edge, lanes, subgroups })
    }

    /// Lanes of a workgroup.
    pub(crate) fn workgroup(&self) -> u32 {
        self.subgroups * self.lanes
    }
}

/// The sums that a subgroup holds, in rows and columns of matrices, the most first. On tensor cores the speed of workgroup
/// memory decides: the larger, the fewer loads.
const TILES: [[u32; 2]; 4] = [[4, 4], [4, 2], [2, 2], [1, 1]];

/// Values of k in workgroup memory at a time; four times the kernels' STEP.
const STEP: u32 = 32;

/// Only this many blocks keep a large GPU busy.
const ENOUGH: usize = 128;

/// How a block is shared out.
struct Block {
    cooperation: Cooperation,
    /// Rows and columns of matrices whose sums a subgroup holds.
    tile: [u32; 2],
    /// Subgroups in a column and in a row.
    grid: [u32; 2],
    /// Steps in workgroup memory: two, or one where there is no room for more.
    stages: u32,
    /// Columns of sums for one of results.
    gates: u32,
}

impl Block {
    /// The block with this tile for each subgroup, if it fits the device.
    fn new(cooperation: Cooperation, tile: [u32; 2], gates: u32, target: &Target) -> Option<Block> {
        let width = 1 << (cooperation.subgroups.ilog2() / 2);
        let grid = [cooperation.subgroups / width, width];
        let fitting = [2, 1].map(|stages| Block { cooperation, tile, grid, stages, gates });
        fitting.into_iter().find(|block| tile[1].is_multiple_of(gates) && block.fits(target))
    }

    /// Rows and columns of the block.
    fn size(&self) -> [u32; 2] {
        [0, 1].map(|axis| self.grid[axis] * self.tile[axis] * self.cooperation.edge)
    }

    fn fits(&self, target: &Target) -> bool {
        let [rows, columns] = self.size();
        // rows of inputs and weights in memory are longer by two quads
        let staged = 2 * (rows * (STEP + 8) + STEP * (columns + 8));
        let sums = 4 * self.gates * self.cooperation.subgroups * self.cooperation.edge.pow(2);
        let shared_out = self.loads().iter().all(|quads| quads.is_multiple_of(self.cooperation.workgroup()));
        let lanes = self.cooperation.workgroup();
        shared_out && self.stages * staged + sums <= target.limits.workgroup_bytes && lanes <= target.limits.invocations
    }

    /// Quads of inputs, and of weights, in a step.
    fn loads(&self) -> [u32; 2] {
        self.size().map(|side| side * STEP / 4)
    }

    /// Blocks over `rows` of `columns` sums each.
    fn count(&self, rows: usize, columns: usize) -> usize {
        let [block_rows, block_columns] = self.size();
        rows.div_ceil(block_rows as usize) * columns.div_ceil(block_columns as usize)
    }

    fn extents(&self) -> Vec<(&'static str, u32)> {
        let Cooperation { edge, subgroups, .. } = self.cooperation;
        let ([block_rows, block_columns], workgroup) = (self.size(), self.cooperation.workgroup());
        let [inputs, weights] = self.loads();
        vec![
            ("EDGE", edge),
            ("ROWS", self.tile[0]),
            ("COLUMNS", self.tile[1]),
            ("GATES", self.gates),
            ("OWN", self.tile[1] / self.gates),
            ("SUBGROUPS", subgroups),
            ("SUBGROUP_COLUMNS", self.grid[1]),
            ("WG", workgroup),
            ("BLOCK_ROWS", block_rows),
            ("BLOCK_QUADS", block_columns / 4),
            ("INPUT_LOADS", inputs / workgroup),
            ("WEIGHT_LOADS", weights / workgroup),
            ("STAGES", self.stages),
            ("STEPS", STEP / edge),
        ]
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
    let cooperation = Cooperation::of(target).filter(|_| target.weight == WeightStorage::F16)?;
    let fitting: Vec<_> =
        TILES.iter().filter_map(|tile| Block::new(cooperation, *tile, gates as u32, target)).collect();
    let columns = gates * columns;
    let slabs = layers * parts.count();
    let enough = fitting.iter().find(|block| slabs * block.count(rows, columns) >= ENOUGH);
    let block = enough.or(fitting.last())?;
    let count = block.count(rows, columns);
    let [block_rows, block_columns] = block.size();
    let filled = (rows * columns) as f32 / (count as f32 * (block_rows * block_columns) as f32);
    Some(Schedule {
        constants,
        extents: [block.extents(), vec![parts.extent()]].concat(),
        workgroups: grid_1d(slabs * count, &target.limits)?,
        merit: merit(filled, target),
    })
}

/// The merit of a kernel over cooperative matrices that are filled to this share: above all others on a GPU unless most
/// of the work is wasted, and never the best on a CPU, whose driver takes the matrices apart.
pub(crate) fn merit(filled: f32, target: &Target) -> f32 {
    if target.software { 0.005 } else { 0.6 * filled * filled }
}
