//! First half of a group norm: the statistics of each group.

use crate::values::named;
use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use multiversion::multiversion;
use rayon::prelude::*;

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

/// Pixels of one chunk for an image of `pixels` pixels and `c` channels: enough chunks to fill a device, few enough to be
/// merged quickly, and some thousands of values in each.
pub fn chunk_for(pixels: usize, c: usize) -> usize {
    pixels.div_ceil(128).max(4096_usize.div_ceil(c.max(1))).max(4)
}

impl Operation for GroupNormStats {
    fn name(&self) -> &'static str {
        "group_norm_stats"
    }

    fn operands(&self) -> Vec<Operand> {
        let pixels = self.batch * self.pixels;
        let mut all = vec![Operand::activation("x", pixels * self.c1)];
        if self.c1 < self.c {
            all.push(Operand::activation("x2", pixels * (self.c - self.c1)));
        }
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
        let (chunks, width) = (pixels.div_ceil(chunk), c / groups);
        output.f32().par_chunks_exact_mut(groups * 2).enumerate().for_each(|(number, stats)| {
            let (image, k) = (number / chunks, number % chunks);
            let rows = image * pixels + k * chunk..image * pixels + pixels.min((k + 1) * chunk);
            let values = (rows.len() * width) as f64;

            let mut sums = vec![0.0; c];
            rows.clone().for_each(|row| input.each(row, |first, x| add(&mut sums[first..], x)));
            let group_means: Vec<f64> = sums.chunks_exact(width).map(|s| s.iter().sum::<f64>() / values).collect();
            let means: Vec<f64> = (0..c).map(|c| group_means[c / width]).collect();

            let mut squares = vec![0.0; c];
            rows.for_each(|row| input.each(row, |first, x| add_squares(&mut squares[first..], x, &means[first..])));
            for (g, stats) in stats.chunks_exact_mut(2).enumerate() {
                stats[0] = group_means[g] as f32;
                stats[1] = squares[g * width..(g + 1) * width].iter().sum::<f64>() as f32;
            }
        });
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&GROUP_NORM_STATS]
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
