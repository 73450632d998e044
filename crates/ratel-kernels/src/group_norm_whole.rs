//! A whole group norm in one read, and SiLU if asked, for groups that fit in workgroup memory.

use crate::activation::Act;
use crate::group_norm::Normalisation;
use crate::group_norm_stats::{COLUMN_LANES, Sources, lanes};
use crate::values::named;
use crate::{Constant, Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use rayon::prelude::*;

/// `y = act(gamma[c] (x - mean) / sqrt(var + eps) + beta[c])`, with mean and variance of the value's group; the input is
/// `x`, then `x2` for channels from `c1` on.
///
/// What [`crate::group_norm_stats`] and [`crate::group_norm`] do together, for small pictures: there a second dispatch
/// costs more than the few workgroups, one per image and group, that this one has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GroupNormWhole {
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
    /// Added to the variance.
    pub eps: f32,
    /// What is applied to the result.
    pub act: Act,
}

impl GroupNormWhole {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        let case = |batch, pixels, c, c1, groups| {
            let (eps, act) = (1e-5, Act::None);
            GroupNormWhole { batch, pixels, c, c1, groups, eps, act }
        };
        let model = |pixels, c, c1| GroupNormWhole { act: Act::Silu, ..case(2, pixels, c, c1, 32) };
        vec![
            model(64, 1280, 1280),
            GroupNormWhole { eps: 1e-6, act: Act::None, ..model(64, 1280, 1280) },
            model(64, 2560, 1280), // too large for some devices
            model(256, 640, 640),  // too
            model(16, 1920, 1280),
            case(3, 50, 96, 56, 32), // groups of three channels; one lies in both x and x2
            case(2, 70, 40, 22, 4),  // ten channels; a border that is no multiple of four
            case(3, 9, 7, 7, 7),     // one channel
            case(1, 9, 260, 260, 2), // 130 channels
            case(1, 1, 1, 1, 1),
        ]
    }

    /// Channels of a group.
    const fn width(&self) -> usize {
        self.c / self.groups
    }

    /// Values of a group of an image.
    const fn values(&self) -> usize {
        self.pixels * self.width()
    }
}

impl Operation for GroupNormWhole {
    fn name(&self) -> &'static str {
        GROUP_NORM_WHOLE.name
    }

    fn operands(&self) -> Vec<Operand> {
        let pixels = self.batch * self.pixels;
        let mut all = Operand::side_by_side(pixels, self.c, self.c1);
        all.push(Operand::vector("gamma", self.c));
        all.push(Operand::vector("beta", self.c));
        all.push(Operand::activation("y", pixels * self.c));
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
            ("eps", Param::F32(self.eps)),
        ]
    }

    fn flops(&self) -> f64 {
        9.0 * (self.batch * self.pixels * self.c) as f64
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let GroupNormWhole { pixels, c, groups, eps, act, .. } = *self;
        let named = named(self, inputs);
        let input = Sources::new(named("x"), named("x2"), c, self.c1);
        let [gamma, beta] = ["gamma", "beta"].map(|name| named(name).map_or(&[][..], Values::f32));
        output.f32().par_chunks_exact_mut(pixels * c).enumerate().for_each(|(image, y)| {
            let first = image * pixels;
            let mut statistics = input.statistics(first..first + pixels, groups);
            statistics.iter_mut().for_each(|(_, square)| *square /= self.values() as f64);
            let norm = Normalisation::new(&statistics, eps, gamma);
            let rows = y.par_chunks_exact_mut(c).enumerate();
            rows.for_each(|(row, y)| norm.apply(&input, first + row, beta, act, y));
        });
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&GROUP_NORM_WHOLE, &GROUP_NORM_WHOLE_COLUMNS]
    }
}

/// One workgroup per image and group.
pub static GROUP_NORM_WHOLE: Kernel = kernel!("norm", "group_norm_whole", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::GroupNormWhole(op) = op else { return None };
    let lanes = if target.software { lanes(target) } else { ("WG", GPU_LANES as f64) };
    let constants =
        vec![lanes, ("WIDTH", op.width() as f64), ("VALUES", op.values() as f64), ("ACT", op.act as u32 as f64)];
    op.scheduled(constants, 1, 0.01, target)
}

/// One workgroup per image and group, whose lanes lie side by side along the channels, four channels each.
pub static GROUP_NORM_WHOLE_COLUMNS: Kernel = kernel!("norm", "group_norm_whole_columns", schedule_columns);

fn schedule_columns(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::GroupNormWhole(op) = op else { return None };
    let columns = op.width() / 4;
    let whole = op.width().is_multiple_of(4) && op.c1.is_multiple_of(4);
    (whole && columns <= COLUMN_LANES).then_some(())?;
    // where barriers are slow, the fewest lanes that are nearly all of use
    let busy = |lanes: &usize| lanes % columns * 10 <= *lanes && *lanes >= columns;
    let few = || [8, 16, 32].into_iter().find(busy).unwrap_or(COLUMN_LANES);
    let lanes = if target.software { few() } else { GPU_LANES };
    let constants = vec![
        ("WG", lanes as f64),
        ("COLUMNS", columns as f64),
        ("STEP", (lanes / columns) as f64),
        ("VALUES", (op.values() / 4) as f64),
        ("ACT", op.act as u32 as f64),
    ];
    op.scheduled(constants, 4, 0.5, target)
}

/// Lanes of a workgroup on a GPU: it has all of a group to itself.
const GPU_LANES: usize = 256;

/// The most loads of a lane on a GPU, a guess: the few workgroups wait for them, where two ops would have many.
const MOST_LOADS: usize = 8;

impl GroupNormWhole {
    /// Where a group fits in workgroup memory, beside a number of each lane, and is read quickly, some values at a time.
    fn scheduled(&self, constants: Vec<Constant>, at_once: usize, merit: f32, target: &Target) -> Option<Schedule> {
        let bytes = self.values() * target.elem.size() + GPU_LANES * size_of::<f32>();
        let quick = target.software || self.values() <= MOST_LOADS * GPU_LANES * at_once;
        (quick && bytes <= target.limits.workgroup_bytes as usize).then_some(())?;
        let workgroups = grid_1d(self.batch * self.groups, &target.limits)?;
        Some(Schedule { constants, extents: vec![], workgroups, merit })
    }
}
