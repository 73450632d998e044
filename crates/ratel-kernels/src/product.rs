//! The matrix product under the twins of matmul and conv2d, fast enough to be the fallback where there is no GPU.
//!
//! The sum over k is taken in order, one addition after the other, as a plain loop would: blocks of rows and columns
//! only decide what stays in registers and caches. So a result does not depend on the machine or its number of cores.

use crate::{Parts, Values};
use multiversion::multiversion;
use ratel_tensor::panel_index;
use rayon::prelude::*;
use std::array;
use std::ops::Range;

/// Rows of a tile, which one thread computes: so many share the widening of some weights.
pub(crate) const TILE_ROWS: usize = 128;
/// Columns of a tile, all of one panel of weights: their sums are two AVX-512 registers or four of AVX2 for each row.
pub(crate) const COLUMNS: usize = 32;
/// Rows whose sums are in registers at a time.
pub(crate) const ROWS: usize = 4;
/// Rows of weights that are widened to `f32` at a time: 32 KiB.
const DEPTH: usize = 256;

/// `y[m, n] = sum_k x[m, k] w[k, n]`, where row m of x lies in memory as several runs of consecutive values.
pub(crate) struct Product<'a> {
    /// The matrix, `(K, N)`, in panels.
    pub w: Values<'a>,
    /// K.
    pub k: usize,
    /// N.
    pub n: usize,
    /// The lengths of a row's runs, in order; their sum is K, unless only part of the sum is wanted.
    pub runs: Vec<usize>,
    /// The first k that is added up: 0, unless only part of the sum is wanted.
    pub first: usize,
}

impl Product<'_> {
    /// Computes `y`, given `x(m, i)`, run i of row m, and `finish(m, n, sum)`, what is to be written for a sum.
    pub(crate) fn compute<'x>(
        &self,
        y: &mut [f32],
        x: impl Fn(usize, usize) -> &'x [f32] + Sync,
        finish: impl Fn(usize, usize, f32) -> f32 + Sync,
    ) {
        if y.is_empty() {
            return;
        }
        y.par_chunks_mut(TILE_ROWS * self.n).enumerate().for_each(|(chunk, y)| {
            let first = chunk * TILE_ROWS;
            let rows = first..first + y.len() / self.n;
            let columns: Vec<usize> = (0..self.n).step_by(COLUMNS).collect();
            let tile = |&column: &usize| (column, self.tile(rows.clone(), column, &x));
            let tiles: Vec<_> = columns.par_iter().map(tile).collect();
            for (m, y) in rows.clone().zip(y.chunks_exact_mut(self.n)) {
                for (column, sums) in &tiles {
                    for (n, (y, sum)) in (*column..).zip(y[*column..].iter_mut().zip(sums[m - first])) {
                        *y = finish(m, n, sum);
                    }
                }
            }
        });
    }

    /// Computes `y[s, m, n]`, the sum over the k of part s.
    pub(crate) fn compute_parts<'x>(&self, y: &mut [f32], parts: Parts, x: impl Fn(usize, usize) -> &'x [f32] + Sync) {
        let k = self.k;
        let length = parts.length(k);
        let values = y.len() / parts.count();
        for (part, y) in y.chunks_exact_mut(values).enumerate() {
            let range = (part * length).min(k)..((part + 1) * length).min(k);
            // what of each run lies in the part
            let mut start = 0;
            let cut = |&length: &usize| {
                let run = start..start + length;
                start = run.end;
                let inside = |k: usize| k.clamp(run.start, run.end) - run.start;
                inside(range.start)..inside(range.end)
            };
            let pieces: Vec<Range<usize>> = self.runs.iter().map(cut).collect();
            let runs = pieces.iter().map(ExactSizeIterator::len).collect();
            let product = Product { runs, first: range.start, ..*self };
            product.compute(y, |m, run| &x(m, run)[pieces[run].clone()], |_, _, sum| sum);
        }
    }

    /// The sums for some rows and the columns from `column` on; as many rows as fill the last block, of which those
    /// beyond `rows` mean nothing.
    fn tile<'x>(
        &self,
        rows: Range<usize>,
        column: usize,
        x: &impl Fn(usize, usize) -> &'x [f32],
    ) -> Vec<[f32; COLUMNS]> {
        let width = COLUMNS.min(self.n - column);
        let mut sums = vec![[0.0; COLUMNS]; rows.len().next_multiple_of(ROWS)];
        let mut weights = vec![[0.0; COLUMNS]; DEPTH];
        let mut k = self.first;
        for (run, &length) in self.runs.iter().enumerate() {
            for start in (0..length).step_by(DEPTH) {
                let weights = &mut weights[..DEPTH.min(length - start)];
                for w in weights.iter_mut() {
                    self.w.widen(panel_index(k, column, self.k, self.n), &mut w[..width]);
                    k += 1;
                }
                for (block, sums) in sums.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
                    let row = |i: usize| (rows.start + block * ROWS + i).min(rows.end - 1);
                    let x = array::from_fn(|i| &x(row(i), run)[start..start + weights.len()]);
                    multiply_add(sums, x, weights);
                }
            }
        }
        sums
    }
}

/// `sums[i, j] += sum_k x[i, k] w[k, j]`. Products are rounded before they are added: with fused multiply-adds the result
/// would depend on the machine.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn multiply_add(sums: &mut [[f32; COLUMNS]; ROWS], x: [&[f32]; ROWS], w: &[[f32; COLUMNS]]) {
    let mut sum = *sums; // a copy of its own is what the compiler keeps in registers
    let x = x.map(|row| &row[..w.len()]);
    for k in 0..w.len() {
        for i in 0..ROWS {
            for j in 0..COLUMNS {
                sum[i][j] += x[i][k] * w[k][j];
            }
        }
    }
    *sums = sum;
}
