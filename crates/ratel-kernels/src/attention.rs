//! Attention: self, cross and causal, in one pass over the keys; the scores never reach memory.

use crate::attention_cooperative::ATTENTION_COOPERATIVE;
use crate::group_norm_stats::lanes;
use crate::product::{COLUMNS, ROWS, multiply_add};
use crate::subgroup_tile::worth_compiling;
use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use multiversion::multiversion;
use rayon::prelude::*;
use std::array;
use std::ops::Range;

/// For each image, head and query i: `y_i = sum_j softmax_j(scale q_i . k_j) v_j`, over all keys, or over those up to i
/// when causal. Heads lie side by side in a row: value d of head h is column `h dim + d`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Attention {
    /// Images.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Values of one head.
    pub dim: usize,
    /// Queries of one image.
    pub queries: usize,
    /// Keys, and values, of one image.
    pub keys: usize,
    /// Whether query i sees only keys 0 to i.
    pub causal: bool,
}

impl Attention {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        let case = |batch, heads, dim, queries, keys| Attention { batch, heads, dim, queries, keys, causal: false };
        let causal = |heads, dim, queries| Attention { causal: true, ..case(1, heads, dim, queries, queries) };
        vec![
            case(2, 2, 40, 256, 256),
            case(1, 2, 64, 300, 300),
            case(2, 8, 40, 64, 77),
            case(1, 2, 80, 96, 96),
            case(2, 2, 160, 64, 64),
            case(1, 2, 160, 64, 77),
            case(1, 1, 512, 100, 100),
            case(1, 2, 512, 33, 77),
            causal(4, 64, 77),
            causal(2, 20, 130),
            case(3, 3, 12, 35, 41),
            case(1, 2, 33, 19, 70),
            case(2, 1, 10, 7, 3),
            case(1, 2, 36, 1, 50),
            case(1, 3, 40, 50, 1),
            case(2, 3, 1, 9, 5),
            causal(1, 1, 1),
            // enough work for what takes long to compile
            case(2, 8, 40, 384, 250),
            case(1, 8, 80, 310, 311),
        ]
    }
}

impl Operation for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn operands(&self) -> Vec<Operand> {
        let row = self.heads * self.dim;
        vec![
            Operand::activation("q", self.batch * self.queries * row),
            Operand::activation("k", self.batch * self.keys * row),
            Operand::activation("v", self.batch * self.keys * row),
            Operand::activation("y", self.batch * self.queries * row),
        ]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("batch", size(self.batch)),
            ("heads", size(self.heads)),
            ("dim", size(self.dim)),
            ("queries", size(self.queries)),
            ("keys", size(self.keys)),
            ("causal", size(usize::from(self.causal))),
            ("scale", Param::F32((self.dim as f32).sqrt().recip())),
        ]
    }

    fn flops(&self) -> f64 {
        (4.0 * self.dim as f64 + 5.0) * (self.batch * self.heads * self.queries * self.keys) as f64
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let Attention { batch, heads, dim, queries, keys, .. } = *self;
        let row = heads * dim;
        let [q, k, v] = [0, 1, 2].map(|i| inputs[i].f32());
        // value d of key j of head h of an image, at ((image heads + h) dim + d) keys + j
        let mut v_turned = vec![0.0; batch * row * keys];
        v_turned.par_chunks_exact_mut(keys).enumerate().for_each(|(column, turned)| {
            let v = &v[column / row * keys * row..];
            (0..keys).for_each(|j| turned[j] = v[j * row + column % row]);
        });
        output.f32().par_chunks_exact_mut(queries * row).enumerate().for_each(|(image, y)| {
            y.par_chunks_mut(COLUMNS * row).enumerate().for_each(|(block, y)| {
                let first = block * COLUMNS;
                let results: Vec<_> = (0..heads)
                    .into_par_iter()
                    .map(|h| {
                        let q = &q[image * queries * row + h * dim..];
                        let k = &k[image * keys * row + h * dim..];
                        let v = &v_turned[(image * heads + h) * dim * keys..][..dim * keys];
                        self.columns(first..first + y.len() / row, q, k, v)
                    })
                    .collect();
                for (i, y) in y.chunks_exact_mut(row).enumerate() {
                    for (result, y) in results.iter().zip(y.chunks_exact_mut(dim)) {
                        y.iter_mut().zip(result).for_each(|(y, values)| *y = values[i]);
                    }
                }
            });
        });
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&ATTENTION, &ATTENTION_TILED, &ATTENTION_SUBGROUP, &ATTENTION_SUBGROUP_WIDE, &ATTENTION_COOPERATIVE]
    }
}

/// Keys whose scores are held at a time.
const KEYS: usize = 64;

impl Attention {
    /// The results of one head for up to [`COLUMNS`] queries: value d of query i at `[d][i]`. Queries are the columns of
    /// both matrix products: scores are keys by queries, results are values by queries.
    ///
    /// One pass over the keys with a running maximum (Milakov & Gimelshein 2018, arXiv:1805.02867). `q` and `k` begin at
    /// the head's first value of query or key 0; `v` is the head's, turned.
    fn columns(&self, range: Range<usize>, q: &[f32], k: &[f32], v: &[f32]) -> Vec<[f32; COLUMNS]> {
        let Attention { dim, keys, .. } = *self;
        let row = self.heads * dim;
        let scale = (dim as f32).sqrt().recip();
        // columns beyond the last query repeat it
        let query = |i: usize| (range.start + i).min(range.end - 1);
        let q: Vec<[f32; COLUMNS]> = (0..dim).map(|d| array::from_fn(|i| scale * q[query(i) * row + d])).collect();
        let k = |j: usize| &k[j.min(keys - 1) * row..][..dim];
        let keys = if self.causal { keys.min(range.end) } else { keys };

        let mut greatest = [f32::NEG_INFINITY; COLUMNS];
        let mut sums = [0.0; COLUMNS];
        let mut results = vec![[0.0; COLUMNS]; dim.next_multiple_of(ROWS)];
        let mut weights = vec![[0.0; COLUMNS]; KEYS];
        for first in (0..keys).step_by(KEYS) {
            let block = first..keys.min(first + KEYS);
            weights.fill([0.0; COLUMNS]);
            for (j, scores) in (first..block.end).step_by(ROWS).zip(weights.as_chunks_mut::<ROWS>().0) {
                multiply_add(scores, array::from_fn(|r| k(j + r)), &q);
            }
            let weights = &mut weights[..block.len()];
            if self.causal {
                for (j, scores) in block.clone().zip(&mut *weights) {
                    (0..COLUMNS).filter(|i| query(*i) < j).for_each(|i| scores[i] = f32::NEG_INFINITY);
                }
            }
            let factors = softmax(weights, &mut greatest, &mut sums);
            for (d, results) in (0..).step_by(ROWS).zip(results.as_chunks_mut::<ROWS>().0) {
                let v = |d: usize| &v[d.min(dim - 1) * self.keys..][block.clone()];
                results.as_flattened_mut().chunks_exact_mut(COLUMNS).for_each(|values| scale_by(values, &factors));
                multiply_add(results, array::from_fn(|r| v(d + r)), weights);
            }
        }
        let shares = sums.map(f32::recip);
        results.truncate(dim);
        results.iter_mut().for_each(|values| scale_by(values, &shares));
        results
    }
}

fn scale_by(values: &mut [f32], factors: &[f32; COLUMNS]) {
    values.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
}

/// Makes weights of scores, relative to the greatest score so far, and adds them to `sums`. Returns what everything
/// that was computed relative to the greatest score before has to be multiplied by; `sums` already is.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn softmax(scores: &mut [[f32; COLUMNS]], greatest: &mut [f32; COLUMNS], sums: &mut [f32; COLUMNS]) -> [f32; COLUMNS] {
    let mut new = *greatest;
    for scores in scores.iter() {
        for i in 0..COLUMNS {
            new[i] = new[i].max(scores[i]);
        }
    }
    let mut factors = [0.0; COLUMNS];
    for i in 0..COLUMNS {
        factors[i] = exp(greatest[i] - new[i]);
        sums[i] *= factors[i];
    }
    for scores in scores.iter_mut() {
        for i in 0..COLUMNS {
            scores[i] = exp(scores[i] - new[i]);
            sums[i] += scores[i];
        }
    }
    *greatest = new;
    factors
}

/// `e^x` for `x` up to 0, in operations that compilers turn into vector instructions. Within 1e-7 of the value,
/// relatively; 0 where the value is below the smallest normal number. (The polynomial is that of Cephes' expf.)
#[inline(always)]
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves no bits for a fraction
    const COEFFICIENTS: [f32; 6] = [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let clamped = if x < -87.0 { -87.0 } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * 0.693_359_4 - n * -2.121_944_4e-4; // ln 2 in two parts, the first with few bits
    let poly = COEFFICIENTS.iter().fold(0.0, |sum, c| sum * r + c);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.0 { 0.0 } else { (poly * r * r + r + 1.0) * power }
}

/// One workgroup per query and head.
pub static ATTENTION: Kernel = kernel!("attention", "attention", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Attention(op) = op else { return None };
    let (name, lanes) = lanes(target);
    Some(Schedule {
        constants: vec![(name, lanes)],
        extents: vec![("DIMS", op.dim.div_ceil(lanes as usize) as u32)],
        workgroups: grid_1d(op.batch * op.queries * op.heads, &target.limits)?,
        merit: 0.01,
    })
}

/// One workgroup for a block of queries, for GPUs.
pub static ATTENTION_TILED: Kernel = kernel!("attention", "attention_tiled", schedule_tiled);

fn schedule_tiled(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Attention(op) = op else { return None };
    (op.dim % 4 == 0 && op.dim <= 512).then_some(())?;
    let columns = op.dim as u32 / 4;
    // registers hold the results of 4 queries by own_columns columns of four values, and 4 by own_keys scores
    let (tx, own_keys, tys) = match columns {
        0..=20 => (4, 8, &[16, 8][..]),
        21..=40 => (8, 4, &[16, 8][..]),
        _ => (16, 2, &[8, 4][..]),
    };
    let (own_columns, depth, block_keys) = (columns.div_ceil(tx), 8, tx * own_keys);
    let fitting = |ty: u32| {
        let room = (4 * ty + block_keys) * (depth + 1);
        let values = block_keys.min(1 << (room / (tx * own_columns)).checked_ilog2()?);
        let bytes = 16 * (room + block_keys * ty + tx * ty);
        (bytes <= target.limits.workgroup_bytes && tx * ty <= target.limits.invocations).then_some((ty, values, room))
    };
    let (ty, values, tile) = tys.iter().copied().find_map(fitting)?;
    let blocks = op.queries.div_ceil(4 * ty as usize);
    Some(Schedule {
        constants: vec![],
        extents: vec![
            ("TX", tx),
            ("TY", ty),
            ("OWN_KEYS", own_keys),
            ("OWN_COLUMNS", own_columns),
            ("DEPTH", depth),
            ("VALUES", values),
            ("TILE", tile),
        ],
        workgroups: grid_1d(op.batch * op.heads * blocks, &target.limits)?,
        merit: if target.software { 0.05 } else { 0.3 },
    })
}

/// One subgroup for a few queries a lane, of drivers that load memory lane by lane.
pub static ATTENTION_SUBGROUP: Kernel = kernel!("attention", "attention_subgroup", schedule_subgroup);

fn schedule_subgroup(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Attention(op) = op else { return None };
    let lanes = target.subgroup.filter(|lanes| target.software && [8, 16].contains(lanes))?;
    let chunks = (op.dim as u32).div_ceil(lanes);
    // what a driver compiles in seconds, if there is so much to compute; wider heads leave room for fewer queries
    let own = match chunks * lanes {
        0..=64 if worth_compiling(op) => 4,
        0..=64 => 1,
        65..=96 if worth_compiling(op) => 2,
        _ => return None,
    };
    let blocks = op.queries.div_ceil((own * lanes) as usize);
    Some(Schedule {
        constants: vec![],
        extents: vec![("LANES", lanes), ("OWN", own), ("CHUNKS", chunks), ("BLOCK", 4)],
        workgroups: grid_1d(op.batch * op.heads * blocks, &target.limits)?,
        merit: 0.2,
    })
}

/// As [`ATTENTION_SUBGROUP`], for heads of any width.
pub static ATTENTION_SUBGROUP_WIDE: Kernel = kernel!("attention", "attention_subgroup_wide", schedule_wide);

fn schedule_wide(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Attention(op) = op else { return None };
    let lanes = target.subgroup.filter(|lanes| target.software && [8, 16].contains(lanes))?;
    let dim = (op.dim as u32).next_multiple_of(lanes);
    let own = [2, 1].into_iter().find(|own| 4 * dim * own * lanes <= target.limits.workgroup_bytes)?;
    let blocks = op.queries.div_ceil((own * lanes) as usize);
    Some(Schedule {
        constants: vec![],
        extents: vec![("LANES", lanes), ("OWN", own), ("BLOCK", 16), ("RESULTS", dim * own)],
        workgroups: grid_1d(op.batch * op.heads * blocks, &target.limits)?,
        merit: 0.15,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_a_few_roundings() {
        for i in 0..=87_000 {
            let x = -(i as f32) / 1000.0;
            let right = f64::from(x).exp();
            assert!((f64::from(exp(x)) - right).abs() < 1.2e-7 * right, "{x}: {} {right}", exp(x));
        }
        assert_eq!((exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
    }

    /// A definition in f64, with an n x n matrix.
    fn definition(op: &Attention, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f64> {
        let Attention { batch, heads, dim, queries, keys, causal } = *op;
        let row = heads * dim;
        let mut y = vec![0.0; batch * queries * row];
        for (image, i, h) in (0..batch).flat_map(|b| (0..queries * heads).map(move |n| (b, n / heads, n % heads))) {
            let at = |t: usize, count: usize| (image * count + t) * row + h * dim;
            let dot =
                |j| (0..dim).map(|d| f64::from(q[at(i, queries) + d]) * f64::from(k[at(j, keys) + d])).sum::<f64>();
            let seen = if causal { keys.min(i + 1) } else { keys };
            let scores: Vec<f64> = (0..seen).map(|j| dot(j) / (dim as f64).sqrt()).collect();
            let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - greatest).exp()).collect();
            for d in 0..dim {
                let sum: f64 = weights.iter().enumerate().map(|(j, w)| w * f64::from(v[at(j, keys) + d])).sum();
                y[at(i, queries) + d] = sum / weights.iter().sum::<f64>();
            }
        }
        y
    }

    #[test]
    fn twin_is_the_definition_even_for_large_scores() {
        for scale in [1.0, 300.0] {
            for (number, op) in Attention::cases().into_iter().enumerate() {
                let mut state = number as u32 + 1;
                let mut random = |n: usize| -> Vec<f32> {
                    let mut next = || {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (state >> 8) as f32 / 8_388_608.0 - 1.0
                    };
                    (0..n).map(|_| next()).collect()
                };
                let [q, k, v] = [0, 1, 2].map(|i| random(op.operands()[i].count));
                let q: Vec<f32> = q.iter().map(|q| q * scale).collect();
                let mut y = vec![f32::NAN; op.operands()[3].count];
                op.twin(&[Values::F32(&q), Values::F32(&k), Values::F32(&v)], ValuesMut::F32(&mut y));
                let right = definition(&op, &q, &k, &v);
                let error: f64 = y.iter().zip(&right).map(|(y, r)| (f64::from(*y) - r).powi(2)).sum();
                let nmse = error / right.iter().map(|r| r * r).sum::<f64>();
                // a score of some hundreds is known to 1e-5 in f32, and so is its weight, relatively
                assert!(nmse < if scale > 1.0 { 1e-8 } else { 1e-12 }, "{op:?} x {scale}: {nmse:e}");
            }
        }
    }
}
