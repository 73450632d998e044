//! Ladders of kernels, from the naive one up: what `ratel lesson` climbs on the reader's own device.
//!
//! A rung is a kernel like any other, checked against its op's twin. It is kept plain, so it takes full precision only and
//! nothing of what the op can do besides; and it is not among the op's kernels, so no plan chooses it.

use crate::activation::Act;
use crate::attention::Attention;
use crate::conv2d::Conv2d;
use crate::group_norm_stats::GroupNormStats;
use crate::matmul::Matmul;
use crate::{Choice, Kernel, Op, Schedule, Target, WeightStorage, grid_1d, kernel};
use ratel_tensor::Elem;

/// A ladder, and what there is to say about it.
#[derive(Debug)]
pub struct Lesson {
    /// What readers call it.
    pub name: &'static str,
    /// The op that every rung computes.
    pub op: &'static str,
    /// The kernels, the naive one first. Above them stands the kernel that a plan would choose.
    pub rungs: &'static [&'static Kernel],
    /// The file below `shaders/` that the text is from.
    pub path: &'static str,
    /// Markdown: what the lesson is about, then a section for each rung, and for each kernel that may stand above them,
    /// under its name. What is quoted (`>`) in a section is for devices on which the rung is slower than the one before.
    pub text: &'static str,
    /// Shapes to check rungs on: small ones that nothing divides among them.
    pub cases: fn() -> Vec<Op>,
}

macro_rules! lesson {
    ($name:literal, $op:literal, $rungs:expr, $cases:expr) => {
        Lesson {
            name: $name,
            op: $op,
            rungs: $rungs,
            path: concat!("lessons/", $name, ".md"),
            text: include_str!(concat!("../../../shaders/lessons/", $name, ".md")),
            cases: $cases,
        }
    };
}

/// Every lesson there is.
pub static LESSONS: &[Lesson] = &[
    lesson!("matmul", "matmul", &[&MATMUL_NAIVE, &MATMUL_SHARED, &MATMUL_REGISTERS, &MATMUL_SUBGROUP], matmul_cases),
    lesson!("conv", "conv2d", &[&CONV_NAIVE, &CONV_SHARED, &CONV_REGISTERS, &CONV_SUBGROUP], conv_cases),
    lesson!(
        "attention",
        "attention",
        &[&ATTENTION_NAIVE, &ATTENTION_ONE_PASS, &ATTENTION_REGISTERS, &ATTENTION_SHARED, &ATTENTION_SUBGROUP],
        attention_cases
    ),
    lesson!(
        "group_norm",
        "group_norm_stats",
        &[&GROUP_NORM_NAIVE, &GROUP_NORM_SHARED, &GROUP_NORM_ONE_PASS, &GROUP_NORM_SUBGROUP],
        group_norm_cases
    ),
];

/// Every rung that can do `op` on `target`, of whatever lesson.
pub fn choices(op: &Op, target: &Target) -> Vec<Choice> {
    let rungs = LESSONS.iter().filter(|lesson| lesson.op == op.name()).flat_map(|lesson| lesson.rungs);
    rungs.filter_map(|kernel| Some(Choice { kernel, schedule: (kernel.schedule)(op, target)? })).collect()
}

impl Lesson {
    /// The paragraphs before the first section: what the lesson is about.
    pub fn about(&self) -> Vec<&'static str> {
        let (about, _) = self.text.split_once("\n## ").unwrap_or((self.text, ""));
        about.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.starts_with('#')).collect()
    }

    /// The section of a kernel; empty where there is none.
    pub fn section(&self, kernel: &str) -> Section<'_> {
        let mut sections = self.text.split("\n## ").skip(1);
        let section = sections.find_map(|section| section.strip_prefix(kernel)?.strip_prefix('\n'));
        let paragraphs = section.unwrap_or_default().split("\n\n").map(str::trim).filter(|text| !text.is_empty());
        let (slower, text) = paragraphs.partition(|paragraph| paragraph.starts_with('>'));
        Section { text, slower }
    }

    /// What a rung asks of the device and the shape, in words, for where it can't be used.
    pub fn needs(&self, kernel: &Kernel) -> &'static str {
        match kernel.name {
            "matmul_4_subgroup" | "conv_4_subgroup" | "group_norm_4_subgroup" => SUBGROUPS,
            "attention_5_subgroup" => "subgroups that are sure to be of one size, and heads of 128 values at most",
            "attention_3_registers" => "heads of 128 values at most",
            "attention_4_shared" => "heads of 128 values at most, and workgroup memory for 32 of them",
            _ => "a grid that the device allows",
        }
    }
}

const SUBGROUPS: &str = "subgroups that are sure to be of one size, of 4 to 64 lanes";

/// What a lesson's text says of a rung.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Section<'a> {
    /// Paragraphs.
    pub text: Vec<&'a str>,
    /// Paragraphs for devices on which it is slower than the rung before, with `>` before each line.
    pub slower: Vec<&'a str>,
}

static MATMUL_NAIVE: Kernel = kernel!("lessons", "matmul_1_naive", |op, target| {
    let op = matmul(op, target)?;
    rung(vec![], (op.m * op.n).div_ceil(64), target)
});
static MATMUL_SHARED: Kernel = kernel!("lessons", "matmul_2_shared", |op, target| {
    let op = matmul(op, target)?;
    rung(vec![], op.m.div_ceil(16) * op.n.div_ceil(16), target)
});
static MATMUL_REGISTERS: Kernel = kernel!("lessons", "matmul_3_registers", |op, target| {
    let op = matmul(op, target)?;
    rung(vec![("OWN", 4)], op.m.div_ceil(64) * op.n.div_ceil(64), target)
});
static MATMUL_SUBGROUP: Kernel = kernel!("lessons", "matmul_4_subgroup", |op, target| {
    let op = matmul(op, target)?;
    tile_of_subgroup(op.m, op.n, target)
});

/// A product without an epilogue, in full precision.
fn matmul<'a>(op: &'a Op, target: &Target) -> Option<&'a Matmul> {
    let Op::Matmul(op) = op else { return None };
    let bare = !op.bias && op.image_rows.is_none() && op.act == Act::None && !op.residual;
    let single = op.layers.count() == 1 && !op.gated && op.parts.is_whole();
    (bare && single && op.k1 == op.k && is_full(target)).then_some(op)
}

fn matmul_cases() -> Vec<Op> {
    let case = |m, n, k| Op::from(Matmul { m, n, k, k1: k, ..Matmul::default() });
    vec![case(256, 320, 320), case(77, 130, 50), case(1, 67, 33), case(65, 1, 17), case(1, 1, 1)]
}

static CONV_NAIVE: Kernel = kernel!("lessons", "conv_1_naive", |op, target| {
    let op = conv(op, target)?;
    rung(vec![], (op.pixels() * op.n).div_ceil(64), target)
});
static CONV_SHARED: Kernel = kernel!("lessons", "conv_2_shared", |op, target| {
    let op = conv(op, target)?;
    rung(vec![], op.pixels().div_ceil(16) * op.n.div_ceil(16), target)
});
static CONV_REGISTERS: Kernel = kernel!("lessons", "conv_3_registers", |op, target| {
    let op = conv(op, target)?;
    rung(vec![("OWN", 4)], op.pixels().div_ceil(64) * op.n.div_ceil(64), target)
});
static CONV_SUBGROUP: Kernel = kernel!("lessons", "conv_4_subgroup", |op, target| {
    let op = conv(op, target)?;
    tile_of_subgroup(op.pixels(), op.n, target)
});

/// A convolution of one input in its own size, without an epilogue, in full precision.
fn conv<'a>(op: &'a Op, target: &Target) -> Option<&'a Conv2d> {
    let Op::Conv2d(op) = op else { return None };
    let bare = !op.bias && !op.image_bias && op.act == Act::None && !op.residual;
    (bare && op.c1 == op.c && op.upsample.is_none() && op.parts.is_whole() && is_full(target)).then_some(op)
}

fn conv_cases() -> Vec<Op> {
    let case = |batch, h, w, c, n| {
        let (window, pad, stride) = ([3, 3], [1, 1], 1);
        Conv2d { batch, h, w, c, c1: c, n, window, stride, pad, out_h: h, out_w: w, ..Conv2d::default() }
    };
    let cases = [
        case(1, 16, 16, 64, 64),
        case(2, 7, 9, 20, 70),
        Conv2d { stride: 2, out_h: 5, out_w: 4, ..case(3, 9, 8, 5, 7) },
        Conv2d { window: [5, 2], pad: [3, -1], out_h: 6, out_w: 5, ..case(1, 5, 8, 17, 3) },
        Conv2d { window: [1, 1], pad: [0, 0], ..case(1, 1, 1, 1, 1) },
    ];
    cases.map(Op::from).to_vec()
}

static ATTENTION_NAIVE: Kernel = kernel!("lessons", "attention_1_naive", invocation_of_query);
static ATTENTION_ONE_PASS: Kernel = kernel!("lessons", "attention_2_one_pass", invocation_of_query);
static ATTENTION_REGISTERS: Kernel = kernel!("lessons", "attention_3_registers", |op, target| {
    attention(op, target).filter(|op| op.dim <= IN_REGISTERS)?;
    invocation_of_query(op, target)
});
static ATTENTION_SHARED: Kernel = kernel!("lessons", "attention_4_shared", |op, target| {
    let op = attention(op, target).filter(|op| op.dim <= IN_REGISTERS)?;
    let staged = 2 * 16 * op.dim * size_of::<f32>();
    (staged <= target.limits.workgroup_bytes as usize).then_some(())?;
    rung(vec![("DIM", op.dim)], op.batch * op.heads * op.queries.div_ceil(64), target)
});
static ATTENTION_SUBGROUP: Kernel = kernel!("lessons", "attention_5_subgroup", |op, target| {
    let op = attention(op, target).filter(|op| op.dim <= IN_REGISTERS)?;
    let lanes = lanes(target)?;
    let chunks = op.dim.div_ceil(lanes);
    let extents = vec![("CHUNKS", chunks), ("LANES", lanes), ("WIDTH", chunks * lanes)];
    rung(extents, op.batch * op.heads * op.queries.div_ceil(lanes), target)
});

/// The most values of a head for which loops are written out.
const IN_REGISTERS: usize = 128;

fn invocation_of_query(op: &Op, target: &Target) -> Option<Schedule> {
    let op = attention(op, target)?;
    rung(vec![("DIM", op.dim)], (op.batch * op.heads * op.queries).div_ceil(64), target)
}

/// Attention that sees every key, in full precision.
fn attention<'a>(op: &'a Op, target: &Target) -> Option<&'a Attention> {
    let Op::Attention(op) = op else { return None };
    (!op.causal && op.dim <= 512 && is_full(target)).then_some(op)
}

fn attention_cases() -> Vec<Op> {
    let case = |batch, heads, dim, queries, keys| Attention { batch, heads, dim, queries, keys, causal: false };
    let cases = [
        case(1, 2, 40, 128, 128),
        case(2, 3, 12, 35, 41),
        case(1, 2, 64, 70, 77),
        case(1, 1, 33, 9, 3),
        case(1, 3, 1, 5, 1),
    ];
    cases.map(Op::from).to_vec()
}

static GROUP_NORM_NAIVE: Kernel = kernel!("lessons", "group_norm_1_naive", |op, target| {
    let groups = groups(op, target)?;
    rung(vec![], groups.div_ceil(64), target)
});
static GROUP_NORM_SHARED: Kernel = kernel!("lessons", "group_norm_2_shared", workgroup_of_group);
static GROUP_NORM_ONE_PASS: Kernel = kernel!("lessons", "group_norm_3_one_pass", workgroup_of_group);
static GROUP_NORM_SUBGROUP: Kernel = kernel!("lessons", "group_norm_4_subgroup", |op, target| {
    let groups = groups(op, target)?;
    rung(vec![("LANES", lanes(target)?)], groups, target)
});

fn workgroup_of_group(op: &Op, target: &Target) -> Option<Schedule> {
    let groups = groups(op, target)?;
    rung(vec![], groups, target)
}

/// How many groups of how many chunks there are, of one input in full precision.
fn groups(op: &Op, target: &Target) -> Option<usize> {
    let Op::GroupNormStats(op) = op else { return None };
    (op.c1 == op.c && is_full(target)).then(|| op.batch * op.pixels.div_ceil(op.chunk) * op.groups)
}

fn group_norm_cases() -> Vec<Op> {
    let case = |batch, pixels, c, groups, chunk| GroupNormStats { batch, pixels, c, c1: c, groups, chunk };
    let cases = [case(2, 256, 320, 32, 64), case(3, 50, 96, 32, 16), case(1, 33, 520, 2, 33), case(1, 1, 1, 1, 1)];
    cases.map(Op::from).to_vec()
}

/// Rungs are written in `f32` throughout.
fn is_full(target: &Target) -> bool {
    target.elem == Elem::F32 && target.weight == WeightStorage::F32 && !target.twins
}

/// Lanes of a subgroup, where they are known and not too many to keep a row of sums for each.
fn lanes(target: &Target) -> Option<usize> {
    target.subgroup.map(|lanes| lanes as usize).filter(|lanes| matches!(lanes, 4 | 8 | 16 | 32 | 64))
}

/// One subgroup for a tile of LANES rows and OWN LANES columns, 64 sums a lane at most.
fn tile_of_subgroup(rows: usize, columns: usize, target: &Target) -> Option<Schedule> {
    let lanes = lanes(target)?;
    let own = (64 / lanes).clamp(1, 8);
    let tiles = rows.div_ceil(lanes) * columns.div_ceil(own * lanes);
    rung(vec![("LANES", lanes), ("OWN", own)], tiles, target)
}

/// A schedule of a rung; no plan compares its merit with another's.
fn rung(extents: Vec<(&'static str, usize)>, workgroups: usize, target: &Target) -> Option<Schedule> {
    Some(Schedule {
        constants: vec![],
        extents: extents.into_iter().map(|(name, extent)| (name, extent as u32)).collect(),
        workgroups: grid_1d(workgroups, &target.limits)?,
        merit: 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_has_its_words_and_no_plan_has_a_rung() {
        let chosen: Vec<&str> = crate::kernels().iter().map(|kernel| kernel.name).collect();
        for lesson in LESSONS {
            assert!(!lesson.about().is_empty(), "{} says what it is about", lesson.name);
            for rung in lesson.rungs {
                assert!(!lesson.section(rung.name).text.is_empty(), "{}: a section `{}`", lesson.path, rung.name);
                assert!(!chosen.contains(&rung.name), "{} is among an op's kernels", rung.name);
            }
            let op = (lesson.cases)().into_iter().next().expect("a case");
            assert_eq!(op.name(), lesson.op);
            let names: Vec<_> = lesson.rungs.iter().chain(&op.kernels()).map(|kernel| kernel.name).collect();
            for kernel in op.kernels() {
                assert!(!lesson.section(kernel.name).text.is_empty(), "{}: `{}`", lesson.path, kernel.name);
            }
            let headings = lesson.text.lines().filter_map(|line| line.strip_prefix("## "));
            for heading in headings {
                assert!(names.contains(&heading), "{}: no kernel is called `{heading}`", lesson.path);
            }
        }
    }

    #[test]
    fn sections_tell_what_is_quoted() {
        let text =
            "# one\n\nIntroduction\nof two lines.\n\n## a\n\nFirst.\n\n> Slow\n> here.\n\nSecond.\n\n## b\n\nB.\n";
        let lesson = Lesson { name: "one", op: "", rungs: &[], path: "", text, cases: Vec::new };
        assert_eq!(lesson.about(), ["Introduction\nof two lines."]);
        let a = lesson.section("a");
        assert_eq!((a.text, a.slower), (vec!["First.", "Second."], vec!["> Slow\n> here."]));
        assert_eq!(lesson.section("b").text, ["B."]);
        assert_eq!(lesson.section("one"), Section::default());
    }
}
