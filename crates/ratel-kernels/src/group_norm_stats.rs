//! First half of a group norm: the statistics of each group.

use crate::values::named;
use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use multiversion::multiversion;
use rayon::prelude::*;
use std::ops::Range;

/// Over the input (`x`, then `x2` for channels from `c1` on) of `(batch, pixels, c)`: for chunk `k` of an image's pixels
/// and group `g` of its channels, `stats[image, k, g] = (mean, sum of squared differences from the mean)`.
///
/// Chunks have `chunk` pixels, the last one fewer. Means and squares of chunks merge exactly and without cancellation
/// (Chan, Golub & LeVeque 1979), which [`crate::group_norm`] does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GroupNormStats {
    /// Images.
    pub batch: usize,
    /// Pixels of one image.
    pub pixels: usize,
    /// Channels, `c1` of them in `x` and the rest in `x2`.
    pub c: usize,
    /// Channels of `x`; `c` when there is no `x2`.
    pub c1: usize,
    /// Groups that the channels fall into.
    pub groups: usize,
    /// Pixels of one chunk.
    pub chunk: usize,
}

impl GroupNormStats {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        let case = |batch, pixels, c, c1, groups, chunk| GroupNormStats { batch, pixels, c, c1, groups, chunk };
        let model = |pixels, c, c1| case(2, pixels, c, c1, 32, chunk_for(pixels, c));
        vec![
            model(1024, 320, 320),
            model(256, 640, 640),
            model(256, 1920, 1280),
            model(64, 2560, 1280),
            model(64, 1280, 1280),
            model(256, 960, 640),
            case(1, 4096, 128, 128, 32, 1000),
            case(3, 50, 96, 56, 32, 16), // groups of three channels; one lies in both x and x2
            case(2, 70, 40, 22, 4, 33),  // ten channels; a border that is no multiple of four
            case(3, 9, 7, 7, 7, 4),      // one channel
            case(1, 33, 520, 520, 2, 33), // 260 channels, one chunk
            case(1, 1, 1, 1, 1, 1),
        ]
    }
}

/// Pixels of one chunk for an image of `pixels` pixels and `c` channels: enough chunks to fill a device, the fewer the
/// more channels there are, since those are shared out too; few enough to be merged quickly.
pub fn chunk_for(pixels: usize, c: usize) -> usize {
    let chunks = (20_480 / c.max(1)).clamp(16, 128);
    pixels.div_ceil(chunks).max(16)
}

impl Operation for GroupNormStats {
    fn name(&self) -> &'static str {
        "group_norm_stats"
    }

    fn operands(&self) -> Vec<Operand> {
        let pixels = self.batch * self.pixels;
        let mut all = Operand::side_by_side(pixels, self.c, self.c1);
        all.push(Operand::vector("stats", self.batch * self.pixels.div_ceil(self.chunk) * self.groups * 2));
        all
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("batch", size(self.batch)),
            ("pixels", size(self.pixels)),
            ("c", size(self.c)),
            ("c1", size(self.c1)),
            ("groups", size(self.groups)),
            ("chunk", size(self.chunk)),
        ]
    }

    fn flops(&self) -> f64 {
        4.0 * (self.batch * self.pixels * self.c) as f64
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let GroupNormStats { pixels, c, groups, chunk, .. } = *self;
        let named = named(self, inputs);
        let input = Sources::new(named("x"), named("x2"), c, self.c1);
        let chunks = pixels.div_ceil(chunk);
        output.f32().par_chunks_exact_mut(groups * 2).enumerate().for_each(|(number, stats)| {
            let (image, k) = (number / chunks, number % chunks);
            let rows = image * pixels + k * chunk..image * pixels + pixels.min((k + 1) * chunk);
            for (stats, (mean, square)) in stats.chunks_exact_mut(2).zip(input.statistics(rows, groups)) {
                stats.copy_from_slice(&[mean as f32, square as f32]);
            }
        });
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&GROUP_NORM_STATS, &GROUP_NORM_STATS_COLUMNS]
    }
}

/// Rows of channels that lie in `x`, then in `x2`.
pub(crate) struct Sources<'a> {
    x: &'a [f32],
    x2: &'a [f32],
    c1: usize,
    c2: usize,
}

impl<'a> Sources<'a> {
    pub(crate) fn new(x: Option<Values<'a>>, x2: Option<Values<'a>>, c: usize, c1: usize) -> Self {
        Sources { x: x.map_or(&[], Values::f32), x2: x2.map_or(&[], Values::f32), c1, c2: c - c1 }
    }

    /// Calls `f` with each part of a row, and the channel that the part begins with.
    pub(crate) fn each(&self, row: usize, mut f: impl FnMut(usize, &'a [f32])) {
        f(0, &self.x[row * self.c1..(row + 1) * self.c1]);
        if self.c2 > 0 {
            f(self.c1, &self.x2[row * self.c2..(row + 1) * self.c2]);
        }
    }

    /// The mean of each group's values in some rows, and the sum of their squared differences from it.
    pub(crate) fn statistics(&self, rows: Range<usize>, groups: usize) -> Vec<(f64, f64)> {
        let c = self.c1 + self.c2;
        let width = c / groups;
        let values = (rows.len() * width) as f64;
        let mut sums = vec![0.0; c];
        rows.clone().for_each(|row| self.each(row, |first, x| add(&mut sums[first..], x)));
        let group_means: Vec<f64> = sums.chunks_exact(width).map(|s| s.iter().sum::<f64>() / values).collect();
        let means: Vec<f64> = (0..c).map(|c| group_means[c / width]).collect();

        let mut squares = vec![0.0; c];
        rows.for_each(|row| self.each(row, |first, x| add_squares(&mut squares[first..], x, &means[first..])));
        group_means.into_iter().zip(squares.chunks_exact(width).map(|s| s.iter().sum())).collect()
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn add(sums: &mut [f64], x: &[f32]) {
    for (sum, x) in sums.iter_mut().zip(x) {
        *sum += f64::from(*x);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn add_squares(squares: &mut [f64], x: &[f32], means: &[f64]) {
    for ((square, x), mean) in squares.iter_mut().zip(x).zip(means) {
        let d = f64::from(*x) - mean;
        *square += d * d;
    }
}

/// One workgroup per chunk and group.
pub static GROUP_NORM_STATS: Kernel = kernel!("norm", "group_norm_stats", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::GroupNormStats(op) = op else { return None };
    let workgroups = grid_1d(op.batch * op.pixels.div_ceil(op.chunk) * op.groups, &target.limits)?;
    Some(Schedule { constants: vec![lanes(target)], extents: vec![], workgroups, merit: 0.01 })
}

/// The workgroup of a plain norm or attention kernel: where barriers are slow, no more lanes than run together.
pub(crate) fn lanes(target: &Target) -> crate::Constant {
    ("WG", if target.software { f64::from(target.subgroup.unwrap_or(8)) } else { 64.0 })
}

/// One workgroup per chunk and some groups, whose lanes lie side by side along the channels, four channels each.
pub static GROUP_NORM_STATS_COLUMNS: Kernel = kernel!("norm", "group_norm_stats_columns", schedule_columns);

fn schedule_columns(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::GroupNormStats(op) = op else { return None };
    let Columns { columns, rows } = Columns::new(op.c, op.c1, op.groups)?;
    let blocks = op.batch * op.pixels.div_ceil(op.chunk) * (op.c / 4 / columns);
    Some(Schedule {
        constants: vec![("WG", COLUMN_LANES as f64), ("COLUMNS", columns as f64), ("ROWS", rows as f64)],
        extents: vec![],
        workgroups: grid_1d(blocks, &target.limits)?,
        merit: 0.5,
    })
}

/// Lanes of the workgroups that [`Columns`] shares out.
pub(crate) const COLUMN_LANES: usize = 64;

/// How the lanes of a workgroup lie over columns of four channels.
pub(crate) struct Columns {
    /// Columns of a workgroup: whole groups, and an even share of all columns.
    pub(crate) columns: usize,
    /// Rows of so many lanes.
    pub(crate) rows: usize,
}

impl Columns {
    /// The narrowest row that reads 16 columns or more in one piece, of those that leave few lanes idle; `None` where
    /// columns would lie across two inputs, or a group is too wide.
    pub(crate) fn new(c: usize, c1: usize, groups: usize) -> Option<Columns> {
        (c.is_multiple_of(4) && c1.is_multiple_of(4)).then_some(())?;
        let all = c / 4;
        let fits = |columns: &usize| all.is_multiple_of(*columns) && (4 * columns).is_multiple_of(c / groups);
        let columns = (1..=COLUMN_LANES.min(all)).filter(fits);
        let used = |columns: usize| COLUMN_LANES / columns * columns;
        let columns = columns.max_by_key(|&n| (n >= 16.min(all), used(n) * 10 / COLUMN_LANES, usize::MAX - n))?;
        Some(Columns { columns, rows: COLUMN_LANES / columns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_the_models_leave_few_lanes_idle() {
        for c in [128, 256, 320, 512, 640, 960, 1280, 1920, 2560] {
            let Columns { columns, rows } = Columns::new(c, c, 32).expect("a model's width");
            assert!(columns >= 16 && columns * rows >= 60, "{c}: {rows} rows of {columns}");
        }
        assert!(Columns::new(96, 54, 32).is_none(), "a column across two inputs");
        assert!(Columns::new(520, 520, 2).is_none(), "a group wider than a row");
    }

    /// The statistics of values whose mean is a hundred times their deviation, and what they are normalised to. The mean
    /// of a chunk is rounded to 4e-6 there; chunks' errors average out when they merge.
    #[test]
    fn an_offset_costs_nothing() {
        use crate::group_norm::GroupNorm;
        let (pixels, c, groups, eps) = (1024, 64, 4, 1e-5);
        let chunk = chunk_for(pixels, c);
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let x: Vec<f32> = (0..pixels * c).map(|_| 100.0 + next() * 3.0_f32.sqrt()).collect();
        let op = GroupNormStats { batch: 1, pixels, c, c1: c, groups, chunk };
        let mut stats = vec![0.0; op.operands()[1].count];
        op.twin(&[Values::F32(&x)], ValuesMut::F32(&mut stats));
        let op = GroupNorm { batch: 1, rows: pixels, pixels, c, c1: c, groups, chunk, eps, ..GroupNorm::default() };
        let (gamma, beta, mut y) = (vec![1.0; c], vec![0.0; c], vec![0.0; pixels * c]);
        op.twin(&[&x, &stats, &gamma, &beta].map(|v| Values::F32(v)), ValuesMut::F32(&mut y));

        let of_group = |g: usize| (0..pixels * c).filter(move |i| i % c / (c / groups) == g);
        let (mut error, mut total) = (0.0, 0.0);
        for g in 0..groups {
            let values: Vec<f64> = of_group(g).map(|i| f64::from(x[i])).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
            for (i, v) in of_group(g).zip(&values) {
                let right = (v - mean) / (variance + f64::from(eps)).sqrt();
                error += (f64::from(y[i]) - right).powi(2);
                total += right * right;
            }
        }
        assert!(error / total < 1e-12, "{:e}", error / total);
    }
}
