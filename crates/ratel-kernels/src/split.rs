//! Matrix products in parts (split-K): where the result is small and sums are long, blocks of the result alone would leave
//! most of a GPU idle.

use crate::conv2d::Conv2d;
use crate::matmul::Matmul;
use crate::sum_parts::SumParts;
use crate::{Op, Operand, Target};

/// How many parts the sums of a matrix product are computed in: one by default, the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts(usize);

impl Default for Parts {
    fn default() -> Self {
        Parts(1)
    }
}

impl Parts {
    /// So many parts; one at least.
    pub fn new(count: usize) -> Parts {
        Parts(count.max(1))
    }

    /// How many.
    pub fn count(self) -> usize {
        self.0
    }

    /// Whether there is only the whole.
    pub fn is_whole(self) -> bool {
        self.0 == 1
    }

    /// Products in a part, of `k` in all: whole steps of every kernel. The last part may be shorter, or empty.
    pub fn length(self, k: usize) -> usize {
        k.div_ceil(self.0).next_multiple_of(32)
    }

    /// What a product of `count` values writes: results, or sums of each part.
    pub(crate) fn output(self, count: usize) -> Operand {
        match self.0 {
            1 => Operand::activation("y", count),
            parts => Operand::vector("y", parts * count),
        }
    }

    /// As an extent of kernels.
    pub(crate) fn extent(self) -> (&'static str, u32) {
        ("PARTS", self.0 as u32)
    }
}

/// So many workgroups keep a large GPU busy.
const ENOUGH: usize = 128;

/// Rows and columns of a block that is large enough to be computed well.
const BLOCK: usize = 64;

/// A shorter sum is not worth its way through memory.
const SHORTEST: usize = 256;

/// The two ops that do a matrix product or a convolution in parts, where that is likely to be faster: on a GPU, when there
/// are few blocks and long sums. The first has the inputs `x`, `x2` and `w`; the second its result as `parts`, and the
/// other inputs.
pub fn split(op: &Op, target: &Target) -> Option<(Op, Op)> {
    let ([rows, columns], k, sides) = match op {
        Op::Matmul(op) if op.parts.is_whole() && op.layers.count() == 1 && !op.gated => {
            ([op.m, op.n], op.k, [op.k1, op.k, op.n])
        }
        Op::Conv2d(op) if op.parts.is_whole() => ([op.pixels(), op.n], op.sum_length(), [op.c1, op.c, op.n]),
        _ => return None,
    };
    // that is what the kernels in blocks take, and with fewer rows they are no use
    let suits = sides.iter().all(|side| side.is_multiple_of(4)) && rows >= BLOCK / 2;
    if target.twins || target.software || !suits {
        return None;
    }
    let blocks = rows.div_ceil(BLOCK) * columns.div_ceil(BLOCK);
    let most = [16, 8, 4, 2].into_iter().find(|parts| k / parts >= SHORTEST)?;
    let count = [2, 4, 8, 16].into_iter().find(|parts| blocks * parts >= ENOUGH).unwrap_or(most).min(most);
    (blocks < ENOUGH).then(|| in_parts(op, Parts::new(count)))?
}

/// An op as the two that do it in parts; `None` for one that has no parts.
fn in_parts(op: &Op, parts: Parts) -> Option<(Op, Op)> {
    let (first, sum): (Op, SumParts) = match *op {
        Op::Matmul(op) => {
            let Matmul { m, n, bias, image_rows, act, residual, .. } = op;
            let first = Matmul { parts, k: op.k, k1: op.k1, m, n, ..Matmul::default() };
            (first.into(), SumParts { parts: parts.count(), m, n, bias, image_rows, act, residual })
        }
        Op::Conv2d(op) => {
            let Conv2d { n, bias, act, residual, .. } = op;
            let image_rows = op.image_bias.then_some(op.out_h * op.out_w);
            let first =
                Conv2d { parts, bias: false, image_bias: false, act: Default::default(), residual: false, ..op };
            let m = op.pixels();
            (first.into(), SumParts { parts: parts.count(), m, n, bias, image_rows, act, residual })
        }
        _ => return None,
    };
    Some((first, sum.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Operation, Values, ValuesMut};

    /// Runs an op's twin on inputs made up from their names.
    fn run(op: &Op, parts: Option<&[f32]>) -> Vec<f32> {
        let operands = op.operands();
        let (output, inputs) = operands.split_last().expect("an output");
        // of no sign in the mean: what rounding does to sums in another order stays small
        let made_up = |operand: &Operand| -> Vec<f32> {
            let mut state =
                operand.name.bytes().fold(7u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(u32::from(byte)));
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            };
            (0..operand.count).map(|_| next()).collect()
        };
        let data: Vec<Vec<f32>> = inputs.iter().map(made_up).collect();
        let given = inputs.iter().zip(&data).map(|(operand, data)| match (operand.name, parts) {
            ("parts", Some(parts)) => Values::F32(parts),
            _ => Values::F32(data),
        });
        let values: Vec<Values> = given.collect();
        let mut y = vec![f32::NAN; output.count];
        op.twin(&values, ValuesMut::F32(&mut y));
        y
    }

    #[test]
    fn parts_add_up() {
        let whole = Op::all_cases().into_iter().filter(|op| match op {
            Op::Matmul(op) => op.parts.is_whole() && op.layers.count() == 1 && !op.gated && op.flops() < 3e7,
            Op::Conv2d(op) => op.parts.is_whole() && op.flops() < 3e7,
            _ => false,
        });
        for op in whole {
            for count in [2, 3, 8] {
                let (first, second) = in_parts(&op, Parts::new(count)).expect("a product has parts");
                let expected = run(&op, None);
                let found = run(&second, Some(&run(&first, None)));
                let squares: f32 = expected.iter().map(|e| e * e).sum();
                let error: f32 = expected.iter().zip(&found).map(|(e, f)| (e - f).powi(2)).sum();
                assert!(error <= 1e-11 * squares, "{op:?} in {count} parts: {error} of {squares}");
            }
        }
    }

    #[test]
    fn only_small_results_of_long_sums_are_split() {
        let product = |m, n, k| Op::from(Matmul { m, n, k, k1: k, bias: true, ..Matmul::default() });
        let parts = |op: &Op, target: &Target| match split(op, target) {
            Some((Op::Matmul(first), Op::SumParts(_))) => first.parts.count(),
            _ => 1,
        };
        let gpu = Target::PLAIN;
        assert_eq!(parts(&product(128, 1280, 5120), &gpu), 4);
        assert_eq!(parts(&product(128, 1280, 600), &gpu), 2);
        assert_eq!(parts(&product(128, 1280, 320), &gpu), 1, "short sums");
        assert_eq!(parts(&product(4096, 320, 1280), &gpu), 1, "many blocks");
        assert_eq!(parts(&product(2, 1280, 1280), &gpu), 1, "next to no rows");
        assert_eq!(parts(&product(128, 1279, 5120), &gpu), 1, "no multiple of four");
        assert_eq!(parts(&product(128, 1280, 5120), &Target { software: true, ..gpu }), 1);
        let (first, _) = split(&product(128, 1280, 5120), &gpu).expect("parts");
        assert!(split(&first, &gpu).is_none(), "a part is not split again");
    }
}
