//! Second half of a group norm: each value by its group's statistics, and SiLU if asked.

use crate::activation::Act;
use crate::group_norm_stats::{COLUMN_LANES, Columns, Sources, chunk_for, lanes};
use crate::values::named;
use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use multiversion::multiversion;
use rayon::prelude::*;

/// `y = act(gamma[c] (x - mean) / sqrt(var + eps) + beta[c])`, with mean and variance of the value's group merged from
/// the chunks of [`crate::group_norm_stats::GroupNormStats`]; the input is `x`, then `x2` for channels from `c1` on.
///
/// Statistics and normalisation together are exact to an NMSE of 1e-14 on values about zero, and of 1e-13 on values whose
/// mean is a hundred times their deviation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GroupNorm {
    /// Images.
    pub batch: usize,
    /// Pixels of one image that are written; fewer than `pixels` when a plan works in bands.
    pub rows: usize,
    /// Pixels of one image that the statistics are of.
    pub pixels: usize,
    /// Channels, `c1` of them in `x` and the rest in `x2`.
    pub c: usize,
    /// Channels of `x`; `c` when there is no `x2`.
    pub c1: usize,
    /// Groups that the channels fall into.
    pub groups: usize,
    /// Pixels of one chunk of the statistics.
    pub chunk: usize,
    /// Added to the variance.
    pub eps: f32,
    /// What is applied to the result.
    pub act: Act,
}

impl GroupNorm {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        let case = |batch, pixels, c, c1, groups, chunk| {
            let (eps, act) = (1e-5, Act::None);
            GroupNorm { batch, rows: pixels, pixels, c, c1, groups, chunk, eps, act }
        };
        let model = |pixels, c, c1| GroupNorm { act: Act::Silu, ..case(2, pixels, c, c1, 32, chunk_for(pixels, c)) };
        vec![
            model(1024, 320, 320),
            model(256, 640, 640),
            model(256, 1920, 1280),
            model(64, 2560, 1280),
            GroupNorm { eps: 1e-6, act: Act::None, ..model(64, 1280, 1280) },
            model(256, 960, 640),
            GroupNorm { rows: 1500, ..model(4096, 128, 128) },
            case(3, 50, 96, 56, 32, 16), // groups of three channels; one lies in both x and x2
            case(2, 70, 40, 22, 4, 33),  // ten channels; a border that is no multiple of four
            case(3, 9, 7, 7, 7, 4),      // one channel
            case(1, 33, 520, 520, 2, 33), // 260 channels, one chunk
            case(1, 1, 1, 1, 1, 1),
        ]
    }
}

impl Operation for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn operands(&self) -> Vec<Operand> {
        let pixels = self.batch * self.rows;
        let mut all = Operand::side_by_side(pixels, self.c, self.c1);
        all.push(Operand::vector("stats", self.batch * self.pixels.div_ceil(self.chunk) * self.groups * 2));
        all.push(Operand::vector("gamma", self.c));
        all.push(Operand::vector("beta", self.c));
        all.push(Operand::activation("y", pixels * self.c));
        all
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("batch", size(self.batch)),
            ("rows", size(self.rows)),
            ("pixels", size(self.pixels)),
            ("c", size(self.c)),
            ("c1", size(self.c1)),
            ("groups", size(self.groups)),
            ("chunk", size(self.chunk)),
            ("eps", Param::F32(self.eps)),
        ]
    }

    fn flops(&self) -> f64 {
        5.0 * (self.batch * self.rows * self.c) as f64
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let named = named(self, inputs);
        let input = Sources::new(named("x"), named("x2"), self.c, self.c1);
        let [stats, gamma, beta] = ["stats", "gamma", "beta"].map(|name| named(name).map_or(&[][..], Values::f32));
        let images: Vec<_> = (0..self.batch).map(|image| self.normalisation(image, stats, gamma)).collect();
        output.f32().par_chunks_exact_mut(self.c).enumerate().for_each(|(row, y)| {
            images[row / self.rows].apply(&input, row, beta, self.act, y);
        });
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&GROUP_NORM, &GROUP_NORM_COLUMNS]
    }
}

/// What makes a value of each channel of an image normal: `(x - mean[c]) scale[c] + beta[c]`.
pub(crate) struct Normalisation {
    mean: Vec<f64>,
    scale: Vec<f64>,
}

impl Normalisation {
    /// By the mean and the variance of each group, to which `eps` is added.
    pub(crate) fn new(groups: &[(f64, f64)], eps: f32, gamma: &[f32]) -> Self {
        let width = gamma.len() / groups.len();
        let of = |c: usize| groups[c / width];
        let scale = |c: usize| 1.0 / (of(c).1 + f64::from(eps)).sqrt() * f64::from(gamma[c]);
        let channels = 0..gamma.len();
        Normalisation { mean: channels.clone().map(|c| of(c).0).collect(), scale: channels.map(scale).collect() }
    }

    /// One row of the result.
    pub(crate) fn apply(&self, input: &Sources, row: usize, beta: &[f32], act: Act, y: &mut [f32]) {
        let Normalisation { mean, scale } = self;
        input.each(row, |first, x| normalise(&mut y[first..], x, &mean[first..], &scale[first..], &beta[first..]));
        if act != Act::None {
            y.iter_mut().for_each(|y| *y = act.of(*y));
        }
    }
}

impl GroupNorm {
    /// Merges an image's chunks.
    fn normalisation(&self, image: usize, stats: &[f32], gamma: &[f32]) -> Normalisation {
        let width = self.c / self.groups;
        let chunks = self.pixels.div_ceil(self.chunk);
        let groups: Vec<(f64, f64)> = (0..self.groups)
            .map(|g| {
                let chunk = |k: usize| {
                    let n = (self.chunk.min(self.pixels - k * self.chunk) * width) as f64;
                    let at = ((image * chunks + k) * self.groups + g) * 2;
                    (n, f64::from(stats[at]), f64::from(stats[at + 1]))
                };
                let values = (self.pixels * width) as f64;
                let mean = (0..chunks).map(chunk).map(|(n, mean, _)| n * mean).sum::<f64>() / values;
                let square = (0..chunks).map(chunk).map(|(n, m, square)| square + n * (m - mean).powi(2)).sum::<f64>();
                (mean, square / values)
            })
            .collect();
        Normalisation::new(&groups, self.eps, gamma)
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn normalise(y: &mut [f32], x: &[f32], mean: &[f64], scale: &[f64], beta: &[f32]) {
    for ((((y, x), mean), scale), beta) in y.iter_mut().zip(x).zip(mean).zip(scale).zip(beta) {
        *y = ((f64::from(*x) - mean) * scale) as f32 + beta;
    }
}

/// One workgroup per block of pixels and group.
pub static GROUP_NORM: Kernel = kernel!("norm", "group_norm", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::GroupNorm(op) = op else { return None };
    let block = 256;
    let workgroups = grid_1d(op.batch * op.rows.div_ceil(block) * op.groups, &target.limits)?;
    let constants = vec![lanes(target), ("BLOCK", block as f64), ("ACT", op.act as u32 as f64)];
    Some(Schedule { constants, extents: vec![], workgroups, merit: 0.01 })
}

/// One workgroup per block of pixels and some groups, whose lanes lie side by side along the channels, four channels each.
pub static GROUP_NORM_COLUMNS: Kernel = kernel!("norm", "group_norm_columns", schedule_columns);

fn schedule_columns(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::GroupNorm(op) = op else { return None };
    let Columns { columns, rows } = Columns::new(op.c, op.c1, op.groups)?;
    // each workgroup merges the chunks anew, so it should have some pixels to normalise, where there are enough
    let (share, most) = if target.software { (8, 1024 * rows) } else { (32, 128 * rows) };
    let block = op.rows.div_ceil(share).clamp(16 * rows, most);
    let blocks = op.batch * op.rows.div_ceil(block) * (op.c / 4 / columns);
    Some(Schedule {
        constants: vec![
            ("WG", COLUMN_LANES as f64),
            ("COLUMNS", columns as f64),
            ("STEP", rows as f64),
            ("BLOCK", block as f64),
            ("ACT", op.act as u32 as f64),
        ],
        extents: vec![],
        workgroups: grid_1d(blocks, &target.limits)?,
        merit: 0.5,
    })
}
