//! Attention over cooperative matrices, for GPUs that have them.

use crate::attention::Attention;
use crate::cooperative_tile::{Cooperation, LANGUAGES};
use crate::{Kernel, Op, Schedule, Target, grid_1d, kernel};

/// One workgroup for a block of queries; takes heads whose width is a multiple of four, activations in `f16`.
pub static ATTENTION_COOPERATIVE: Kernel = kernel!("attention", "attention_cooperative", schedule, LANGUAGES);

/// Rows of matrices whose queries a subgroup has, and keys of a block, the best first: with two rows keys and values are
/// read from workgroup memory half as often.
const BLOCKS: [[u32; 2]; 4] = [[2, 32], [1, 64], [1, 32], [1, 16]];

/// Only this many workgroups keep a large GPU busy.
const ENOUGH: usize = 128;

/// Registers of a lane that results may take: beside those of the queries, and with one row beside little else.
const RESULTS: [u32; 2] = [160, 80];

/// What a software driver compiles in seconds.
const SOFTWARE_RESULTS: u32 = 80;

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Attention(op) = op else { return None };
    let cooperation = Cooperation::of(target).filter(|_| op.dim.is_multiple_of(4))?;
    let fitting = |[rows, keys]: [u32; 2]| Block::new(op, cooperation, rows, keys, target);
    let mut blocks = BLOCKS.into_iter().filter_map(fitting);
    let block = blocks.find(|block| block.rows == 1 || block.count(op) >= ENOUGH)?;
    let (width, queries) = (block.dims * cooperation.edge, block.queries() as usize);
    let filled = op.dim as f32 / width as f32 * op.queries as f32 / (op.queries.div_ceil(queries) * queries) as f32;
    Some(Schedule {
        constants: vec![],
        extents: block.extents(),
        workgroups: grid_1d(block.count(op), &target.limits)?,
        merit: if target.software { 0.005 } else { 0.8 * filled },
    })
}

/// How a workgroup's queries and keys are shared out.
struct Block {
    cooperation: Cooperation,
    /// Rows of matrices whose queries a subgroup has.
    rows: u32,
    /// Keys at a time.
    keys: u32,
    /// Matrices side by side that make a head.
    dims: u32,
}

impl Block {
    fn new(op: &Attention, cooperation: Cooperation, rows: u32, keys: u32, target: &Target) -> Option<Block> {
        let Cooperation { edge, lanes, .. } = cooperation;
        let dims = u32::try_from(op.dim).ok()?.div_ceil(edge);
        let block = Block { cooperation, rows, keys, dims };
        let lanes_fit = (keys / 4).is_multiple_of(block.across());
        let results = rows * dims * edge * edge / lanes;
        let fits = keys.is_multiple_of(edge)
            && results <= if target.software { SOFTWARE_RESULTS } else { RESULTS[rows as usize - 1] }
            && block.bytes() <= target.limits.workgroup_bytes
            && cooperation.workgroup() <= target.limits.invocations;
        (lanes_fit && fits).then_some(block)
    }

    /// Lanes that share a query's scores. All sizes are powers of two, so the others have whole queries, one or several.
    fn across(&self) -> u32 {
        (self.cooperation.lanes / (self.cooperation.edge * self.rows)).max(1)
    }

    /// Queries of a workgroup.
    fn queries(&self) -> u32 {
        self.cooperation.subgroups * self.rows * self.cooperation.edge
    }

    fn count(&self, op: &Attention) -> usize {
        op.batch * op.heads * op.queries.div_ceil(self.queries() as usize)
    }

    /// Bytes of workgroup memory: rows of queries, keys or values; of scores; of weights.
    fn bytes(&self) -> u32 {
        let queries = self.queries();
        let tile = queries.max(self.keys) * (self.dims * self.cooperation.edge / 4 + 2);
        8 * tile + queries * (16 * (self.keys / 4 + 1) + 8 * (self.keys / 4 + 2))
    }

    fn extents(&self) -> Vec<(&'static str, u32)> {
        let (edge, across) = (self.cooperation.edge, self.across());
        vec![
            ("EDGE", edge),
            ("ROWS", self.rows),
            ("DIMS", self.dims),
            ("BLOCK_QUERIES", self.queries()),
            ("BLOCK_KEYS", self.keys),
            ("KEY_EDGES", self.keys / edge),
            ("TX", across),
            ("OWN", self.keys / 4 / across),
            ("HELD", self.queries() * across / self.cooperation.workgroup()),
            ("WG", self.cooperation.workgroup()),
        ]
    }
}
