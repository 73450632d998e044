//! The shapes of ops as text: `m=4096,n=320,k=320,bias=1,act=silu`. The names are those of the ops' fields, which
//! `ratel kernels` lists for each op; a name that is left out has its default, if it has one.

use crate::Failure;
use ratel_kernels::Op;
use ratel_kernels::activation::{Act, Activation};
use ratel_kernels::add::Add;
use ratel_kernels::attention::Attention;
use ratel_kernels::combine::Combine;
use ratel_kernels::concat::Concat;
use ratel_kernels::conv2d::Conv2d;
use ratel_kernels::embedding::Embedding;
use ratel_kernels::geglu::Geglu;
use ratel_kernels::group_norm::GroupNorm;
use ratel_kernels::group_norm_stats::GroupNormStats;
use ratel_kernels::group_norm_whole::GroupNormWhole;
use ratel_kernels::guidance::Guidance;
use ratel_kernels::index_select::IndexSelect;
use ratel_kernels::layer_norm::LayerNorm;
use ratel_kernels::matmul::{Layers, Matmul};
use ratel_kernels::posterior::Posterior;
use ratel_kernels::rgb8::Rgb8;
use ratel_kernels::roof_copy::RoofCopy;
use ratel_kernels::roof_empty::RoofEmpty;
use ratel_kernels::roof_fma::RoofFma;
use ratel_kernels::roof_matrix::RoofMatrix;
use ratel_kernels::roof_workgroup::RoofWorkgroup;
use ratel_kernels::scale_latents::ScaleLatents;
use ratel_kernels::sum_parts::SumParts;
use ratel_kernels::time_embedding::TimeEmbedding;
use ratel_kernels::to_vector::ToVector;
use ratel_kernels::upsample::Upsample;
use std::collections::BTreeMap;

/// No size of an op is beyond this, and no product of them beyond [`MOST_VALUES`]: what is larger can't be meant.
const MOST: usize = 1 << 24;
/// Values of all operands of an op together: 4 GiB in `f32`.
const MOST_VALUES: usize = 1 << 30;

/// The op of a name in a shape.
///
/// # Errors
/// A name that no op has; a size that is missing, unknown, not a number, or does not go with the others. The message
/// says what the op takes.
pub(crate) fn op(name: &str, shape: &str) -> Result<Op, Failure> {
    let mut fields = Fields::parse(shape)?;
    let op = build(name, &mut fields);
    let takes = fields.asked.join(", ");
    let usage = |why: String| Failure::Usage(format!("--shape {shape}: {why}; {name} takes {takes}"));
    let op = op.ok_or_else(|| {
        let mut known: Vec<_> = Op::all_cases().iter().map(|op| op.name()).collect();
        known.dedup();
        Failure::Usage(format!("there is no op `{name}`; there are {}", known.join(", ")))
    })?;
    if let Some(name) = fields.given.keys().next() {
        return Err(usage(format!("`{name}` is no size of it")));
    }
    if let Some(why) = fields.wrong {
        return Err(usage(why));
    }
    // each operand is a product of some of the sizes, and of a window's other side
    let product = fields.sizes.iter().try_fold(16u64, |product, size| product.checked_mul((*size).max(1) as u64));
    if product.is_none_or(|product| product > 1 << 62) {
        return Err(usage("that is larger than any model's".to_owned()));
    }
    fits(&op).map_err(usage)?;
    let values: usize = op.operands().iter().map(|operand| operand.count).sum();
    if values > MOST_VALUES {
        return Err(usage(format!("that is {values} values, and {MOST_VALUES} are the most")));
    }
    Ok(op)
}

/// What the fields of an op may be besides each of a size.
fn fits(op: &Op) -> Result<(), String> {
    let demand = |held: bool, why: &str| if held { Ok(()) } else { Err(why.to_owned()) };
    match op {
        Op::Matmul(op) => {
            demand(op.k1 <= op.k, "k1 is a part of k")?;
            demand(op.image_rows.is_none_or(|rows| op.m.is_multiple_of(rows)), "m is a multiple of image_rows")
        }
        Op::SumParts(op) => {
            demand(op.image_rows.is_none_or(|rows| op.m.is_multiple_of(rows)), "m is a multiple of image_rows")
        }
        Op::Conv2d(op) => {
            demand(op.c1 <= op.c, "c1 is a part of c")?;
            demand(op.window.iter().all(|side| (1..=16).contains(side)), "windows are of 1 to 16")
        }
        Op::GroupNorm(op) => {
            demand(op.c1 <= op.c && op.c.is_multiple_of(op.groups), "c is a multiple of groups, and c1 a part of it")?;
            demand(op.rows <= op.pixels, "rows are at most pixels")
        }
        Op::GroupNormStats(GroupNormStats { c, c1, groups, .. })
        | Op::GroupNormWhole(GroupNormWhole { c, c1, groups, .. }) => {
            demand(c1 <= c && c.is_multiple_of(*groups), "c is a multiple of groups, and c1 a part of it")
        }
        Op::Attention(op) => demand(!op.causal || op.queries == op.keys, "causal has as many keys as queries"),
        Op::Add(op) => demand(
            op.count.is_multiple_of(op.span) && op.span.is_multiple_of(op.period),
            "count is a multiple of span, and span of period",
        ),
        Op::Embedding(op) => demand(op.rows == op.vocabulary, "rows are vocabulary"),
        Op::TimeEmbedding(op) => demand(op.dim >= 4, "dim is 4 at least"),
        Op::Combine(op) => demand(op.coefficients.len() <= Combine::MAX_TERMS, "inputs are 1 to 6"),
        Op::RoofCopy(op) => demand(op.count.is_multiple_of(4), "count is a multiple of 4"),
        Op::RoofFma(op) => {
            demand(op.rounds.is_multiple_of(8) && op.chains <= 16, "rounds are a multiple of 8, and chains 16 at most")
        }
        Op::RoofMatrix(op) => demand(
            op.rounds.is_multiple_of(8) && op.chains <= 16 && matches!(op.edge, 8 | 16),
            "rounds are a multiple of 8, chains 16 at most, and edge is 8 or 16",
        ),
        Op::RoofWorkgroup(op) => demand(op.rounds.is_multiple_of(8), "rounds are a multiple of 8"),
        _ => Ok(()),
    }
}

/// What `--shape` of each op takes, the defaults with it.
pub(crate) fn takes(name: &str) -> String {
    let mut fields = Fields::default();
    build(name, &mut fields);
    fields.asked.join(", ")
}

/// The op of a name; `None` for a name that no op has.
fn build(name: &str, f: &mut Fields) -> Option<Op> {
    Some(match name {
        "matmul" => {
            let [m, n, k] = ["m", "n", "k"].map(|name| f.size(name));
            let k1 = f.size_or("k1", k, "k");
            let layers = Layers::new(f.size_or("layers", 1, "1"));
            let image_rows = f.some_size("image_rows");
            let (bias, residual) = (f.switch("bias"), f.switch("residual"));
            let gated = f.switch("gated");
            let op = Matmul { layers, m, n, k, k1, gated, ..Matmul::default() };
            Matmul { bias, image_rows, act: f.act(), residual, ..op }.into()
        }
        "conv2d" => {
            let [batch, h, w, c, n] = ["batch", "h", "w", "c", "n"].map(|name| f.size(name));
            let c1 = f.size_or("c1", c, "c");
            let side = f.size_or("window", 3, "3");
            let stride = f.size_or("stride", 1, "1");
            let grow = f.size_or("upsample", 1, "1");
            let upsample = (grow > 1).then_some([h * grow, w * grow]);
            let [out_h, out_w] = [h, w].map(|size| (size * grow).div_ceil(stride));
            let pad = [(side / 2) as isize; 2];
            let (bias, image_bias, residual) = (f.switch("bias"), f.switch("image_bias"), f.switch("residual"));
            let act = f.act();
            let window = [side; 2];
            let op = Conv2d { batch, h, w, c, c1, n, window, stride, pad, upsample, out_h, out_w, ..Conv2d::default() };
            Conv2d { bias, image_bias, act, residual, ..op }.into()
        }
        "sum_parts" => {
            let [parts, m, n] = ["parts", "m", "n"].map(|name| f.size(name));
            let image_rows = f.some_size("image_rows");
            let (bias, residual) = (f.switch("bias"), f.switch("residual"));
            SumParts { parts, m, n, bias, image_rows, act: f.act(), residual }.into()
        }
        "attention" => {
            let [batch, heads, dim, queries] = ["batch", "heads", "dim", "queries"].map(|name| f.size(name));
            let keys = f.size_or("keys", queries, "queries");
            Attention { batch, heads, dim, queries, keys, causal: f.switch("causal") }.into()
        }
        "group_norm" => {
            let [batch, pixels, c] = ["batch", "pixels", "c"].map(|name| f.size(name));
            let (rows, c1) = (f.size_or("rows", pixels, "pixels"), f.size_or("c1", c, "c"));
            let (groups, chunk) = (f.size_or("groups", 32, "32"), f.size_or("chunk", 64, "64"));
            GroupNorm { batch, rows, pixels, c, c1, groups, chunk, eps: 1e-5, act: f.act() }.into()
        }
        "group_norm_stats" => {
            let [batch, pixels, c] = ["batch", "pixels", "c"].map(|name| f.size(name));
            let c1 = f.size_or("c1", c, "c");
            let (groups, chunk) = (f.size_or("groups", 32, "32"), f.size_or("chunk", 64, "64"));
            GroupNormStats { batch, pixels, c, c1, groups, chunk }.into()
        }
        "group_norm_whole" => {
            let [batch, pixels, c] = ["batch", "pixels", "c"].map(|name| f.size(name));
            let (c1, groups) = (f.size_or("c1", c, "c"), f.size_or("groups", 32, "32"));
            GroupNormWhole { batch, pixels, c, c1, groups, eps: 1e-5, act: f.act() }.into()
        }
        "layer_norm" => LayerNorm { rows: f.size("rows"), c: f.size("c"), eps: 1e-5 }.into(),
        "geglu" => Geglu { rows: f.size("rows"), n: f.size("n") }.into(),
        "activation" => Activation { count: f.size("count"), act: f.act() }.into(),
        "add" => {
            let count = f.size("count");
            let span = f.size_or("span", count, "count");
            Add { count, span, period: f.size_or("period", span, "span") }.into()
        }
        "embedding" => {
            let [count, c, rows] = ["count", "c", "vocabulary"].map(|name| f.size(name));
            Embedding { count, c, first: 0, rows, vocabulary: rows }.into()
        }
        "index_select" => {
            let [count, c, rows] = ["count", "c", "rows"].map(|name| f.size(name));
            IndexSelect { count, c, rows }.into()
        }
        "time_embedding" => {
            let [count, dim] = ["count", "dim"].map(|name| f.size(name));
            TimeEmbedding { count, dim, cos_first: true, shift: 0.0, max_period: 10_000.0 }.into()
        }
        "concat" => Concat { rows: f.size("rows"), c1: f.size("c1"), c2: f.size("c2") }.into(),
        "upsample" => {
            let [batch, h, w, c] = ["batch", "h", "w", "c"].map(|name| f.size(name));
            Upsample { batch, h, w, c, out_h: 2 * h, out_w: 2 * w }.into()
        }
        "combine" => {
            let (count, inputs) = (f.size("count"), f.size_or("inputs", 2, "2"));
            Combine { count, coefficients: vec![0.5; inputs.min(Combine::MAX_TERMS + 1)], clamp: None }.into()
        }
        "guidance" => {
            let [batch, count] = ["batch", "count"].map(|name| f.size(name));
            Guidance { batch, count, scale: 7.5, rescale: 0.0 }.into()
        }
        "scale_latents" => {
            let (count, copies) = (f.size("count"), f.size_or("copies", 2, "2"));
            ScaleLatents { count, copies, scale: 0.5, shift: 0.0 }.into()
        }
        "posterior" => {
            let (pixels, channels) = (f.size("pixels"), f.size_or("channels", 4, "4"));
            Posterior { pixels, channels, scale: 0.18215, shift: 0.0 }.into()
        }
        "rgb8" => Rgb8 { count: f.size("count") }.into(),
        "to_vector" => ToVector { count: f.size("count") }.into(),
        "roof_copy" => RoofCopy { count: f.size("count") }.into(),
        "roof_fma" => {
            let (count, chains) = (f.size("count"), f.size_or("chains", 4, "4"));
            RoofFma { count, chains, rounds: f.size_or("rounds", 512, "512") }.into()
        }
        "roof_matrix" => {
            let (count, edge) = (f.size("count"), f.size_or("edge", 16, "16"));
            let chains = f.size_or("chains", 4, "4");
            RoofMatrix { count, edge, chains, rounds: f.size_or("rounds", 512, "512") }.into()
        }
        "roof_workgroup" => RoofWorkgroup { count: f.size("count"), rounds: f.size_or("rounds", 512, "512") }.into(),
        "roof_empty" => RoofEmpty.into(),
        _ => return None,
    })
}

/// What `--shape` says, taken name by name. What goes wrong is kept, so that every name is asked for and can be listed.
#[derive(Default)]
struct Fields {
    given: BTreeMap<String, String>,
    /// What was asked for, with its default.
    asked: Vec<String>,
    sizes: Vec<usize>,
    wrong: Option<String>,
}

impl Fields {
    fn parse(text: &str) -> Result<Fields, Failure> {
        let mut given = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            // a switch by itself is on
            let (name, value) = part.split_once('=').unwrap_or((part, "1"));
            if given.insert(name.trim().to_owned(), value.trim().to_owned()).is_some() {
                return Err(Failure::Usage(format!("--shape {text}: `{name}` is there twice")));
            }
        }
        Ok(Fields { given, ..Fields::default() })
    }

    fn blame(&mut self, why: String) {
        self.wrong.get_or_insert(why);
    }

    fn number(&mut self, name: &str) -> Option<usize> {
        let text = self.given.remove(name)?;
        let size = text.parse().ok().filter(|size| (1..=MOST).contains(size));
        if size.is_none() {
            self.blame(format!("{name}={text} is no number from 1 to {MOST}"));
        }
        // something goes on being built, which nobody sees
        let size = size.unwrap_or(1);
        self.sizes.push(size);
        Some(size)
    }

    /// A size that must be given.
    fn size(&mut self, name: &str) -> usize {
        self.asked.push(name.to_owned());
        self.number(name).unwrap_or_else(|| {
            self.blame(format!("`{name}` is missing"));
            1
        })
    }

    /// A size, or its default, which is also called something.
    fn size_or(&mut self, name: &str, default: usize, called: &str) -> usize {
        self.asked.push(format!("{name} (or {called})"));
        self.number(name).unwrap_or(default)
    }

    fn some_size(&mut self, name: &str) -> Option<usize> {
        self.asked.push(format!("{name} (or none)"));
        self.number(name)
    }

    /// Something that is there or not: not, when it is not named.
    fn switch(&mut self, name: &str) -> bool {
        self.asked.push(format!("{name} (0 or 1)"));
        match self.given.remove(name).as_deref() {
            None | Some("0" | "false") => false,
            Some("1" | "true") => true,
            Some(other) => {
                self.blame(format!("{name}={other} is neither 0 nor 1"));
                false
            }
        }
    }

    fn act(&mut self) -> Act {
        self.asked.push("act (none, silu, gelu or quick_gelu)".to_owned());
        match self.given.remove("act").as_deref() {
            None | Some("none") => Act::None,
            Some("silu") => Act::Silu,
            Some("gelu") => Act::Gelu,
            Some("quick_gelu") => Act::QuickGelu,
            Some(other) => {
                self.blame(format!("act={other} is no activation"));
                Act::None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_op_can_be_asked_for() {
        for case in Op::all_cases() {
            let name = case.name();
            assert!(build(name, &mut Fields::default()).is_some(), "{name}");
        }
    }

    #[test]
    fn names_and_defaults() {
        let matmul = Matmul { m: 64, n: 32, k: 16, k1: 16, bias: true, act: Act::Silu, ..Matmul::default() };
        assert_eq!(op("matmul", "m=64, n=32,k=16,bias,act=silu").expect("a shape"), Op::from(matmul));
        let Ok(Op::Conv2d(conv)) = op("conv2d", "batch=2,h=9,w=8,c=4,n=6,stride=2,bias=1") else { panic!("a shape") };
        assert_eq!((conv.out_h, conv.out_w, conv.pad, conv.window, conv.c1), (5, 4, [1, 1], [3, 3], 4));
        let Ok(Op::Attention(attention)) = op("attention", "batch=1,heads=2,dim=8,queries=5") else {
            panic!("a shape")
        };
        assert_eq!((attention.keys, attention.causal), (5, false));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_way_out() {
        for (name, shape, parts) in [
            ("matmul", "m=64,n=32", &["`k` is missing", "matmul takes m, n, k, k1 (or k)"][..]),
            ("matmul", "m=64,n=32,k=16,q=1", &["`q` is no size", "takes m"]),
            ("matmul", "m=64,n=32,k=x", &["k=x is no number"]),
            ("matmul", "m=0,n=32,k=1", &["m=0"]),
            ("matmul", "m=1,m=2", &["twice"]),
            ("matmul", "m=5,n=4,k=4,image_rows=2", &["multiple of image_rows"]),
            ("matmul", "m=5,n=4,k=4,k1=8", &["k1"]),
            ("matmul", "m=16777216,n=16777216,k=16777216", &["larger"]),
            ("matmul", "m=1048576,n=4096,k=1", &["values"]),
            ("group_norm", "batch=1,pixels=64,c=33", &["multiple of groups"]),
            ("add", "count=10,span=4", &["multiple of span"]),
            ("activation", "count=10,act=tanh", &["act=tanh", "quick_gelu"]),
            ("matmult", "m=1", &["no op `matmult`", "matmul, conv2d"]),
            ("attention", "batch=1,heads=1,dim=8,queries=5,keys=4,causal=yes", &["causal=yes"]),
        ] {
            let error = op(name, shape).expect_err(shape).to_string();
            for part in parts {
                assert!(error.contains(part), "{name} {shape}: {error}");
            }
            assert!(!error.contains('\n'));
        }
    }
}
