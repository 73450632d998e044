//! Product with a layer's matrix: linear layers, and 1x1 convolutions, which are the same thing on NHWC.

use crate::activation::Act;
use crate::matmul_cooperative::MATMUL_COOPERATIVE;
use crate::matmul_subgroup::MATMUL_SUBGROUP;
use crate::matmul_tiled::MATMUL_TILED;
use crate::product::{Product, TILE_ROWS};
use crate::values::named;
use crate::{
    Constant, Kernel, Op, Operand, Operation, Param, Parts, Schedule, Target, Values, ValuesMut, grid_1d, kernel,
};
use rayon::prelude::*;

/// `y[l, m, n] = act(sum_k x[m, k] w[l, k, n] + bias[l, n] + image_bias[m / image_rows, n]) + residual[m, n]`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Matmul {
    /// Layers of one size over one input, whose results lie one after the other: the projections to queries, keys and values.
    pub layers: Layers,
    /// Rows of `x` and `y`.
    pub m: usize,
    /// Columns of `y`.
    pub n: usize,
    /// Columns of the input, `k1` of `x` and the rest of `x2`.
    pub k: usize,
    /// Columns of `x`; `k` when there is no `x2`.
    pub k1: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// Rows of `y` that share a row of `image_bias`; `None` when there is none.
    pub image_rows: Option<usize>,
    /// Whether `w` has twice as many columns, values and then gates: the sum is then the value's with its bias, times the
    /// GELU of the gate's with its own (Shazeer 2020, arXiv:2002.05202).
    pub gated: bool,
    /// What is applied to the sum.
    pub act: Act,
    /// Whether a residual is added after that.
    pub residual: bool,
    /// If there are several, `y` has the sum over each part of k, in `f32`, and [`crate::sum_parts`] does the rest.
    pub parts: Parts,
}

/// How many layers a matrix product is of: one by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers(usize);

impl Default for Layers {
    fn default() -> Self {
        Layers(1)
    }
}

impl Layers {
    /// So many layers; one at least.
    pub fn new(count: usize) -> Layers {
        Layers(count.max(1))
    }

    /// How many.
    pub fn count(self) -> usize {
        self.0
    }
}

impl Matmul {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        let plain = |m, n, k| Matmul { m, n, k, k1: k, ..Matmul::default() };
        vec![
            Matmul { bias: true, ..plain(256, 320, 320) },
            Matmul { bias: true, residual: true, ..plain(64, 320, 1280) },
            Matmul { bias: true, act: Act::QuickGelu, ..plain(77, 3072, 768) },
            Matmul { k1: 640, bias: true, ..plain(64, 320, 960) },
            Matmul { bias: true, act: Act::Silu, ..plain(2, 1280, 320) },
            Matmul { image_rows: Some(9), bias: true, residual: true, act: Act::Gelu, ..plain(27, 36, 20) },
            Matmul { k1: 3, bias: true, residual: true, ..plain(5, 7, 10) },
            Matmul { parts: Parts::new(4), ..plain(64, 320, 1280) },
            Matmul { k1: 20, parts: Parts::new(3), ..plain(27, 36, 76) },
            Matmul { layers: Layers::new(3), ..plain(128, 320, 320) },
            Matmul { layers: Layers::new(2), bias: true, act: Act::Silu, ..plain(77, 96, 64) },
            Matmul { layers: Layers::new(3), k1: 3, bias: true, residual: true, ..plain(5, 7, 10) },
            Matmul { layers: Layers::new(2), parts: Parts::new(2), ..plain(40, 36, 76) },
            // feed-forward layers
            Matmul { gated: true, bias: true, ..plain(256, 1280, 320) },
            Matmul { gated: true, bias: true, ..plain(70, 52, 36) },
            Matmul { gated: true, k1: 8, residual: true, ..plain(33, 12, 20) },
            Matmul { gated: true, layers: Layers::new(2), bias: true, ..plain(3, 5, 7) },
            plain(1, 1, 1),
            // enough work for what takes long to compile
            Matmul { image_rows: Some(125), bias: true, residual: true, act: Act::Silu, ..plain(250, 320, 1600) },
        ]
    }
}

impl Operation for Matmul {
    fn name(&self) -> &'static str {
        MATMUL.name
    }

    fn operands(&self) -> Vec<Operand> {
        let Matmul { m, n, k, k1, .. } = *self;
        let (layers, columns) = (self.layers.count(), self.w_columns());
        let mut all = Operand::side_by_side(m, k, k1);
        all.push(Operand::weight("w", layers * k * columns));
        if self.bias {
            all.push(Operand::vector("bias", layers * columns));
        }
        if let Some(rows) = self.image_rows {
            all.push(Operand::activation("image_bias", m / rows * n));
        }
        if self.residual {
            all.push(Operand::activation("residual", m * n));
        }
        all.push(self.parts.output(layers * m * n));
        all
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("layers", size(self.layers.count())),
            ("m", size(self.m)),
            ("n", size(self.n)),
            ("w_n", size(self.w_columns())),
            ("k", size(self.k)),
            ("k1", size(self.k1)),
            ("image_rows", size(self.image_rows.unwrap_or(self.m))),
            ("parts", size(self.parts.count())),
            ("k_part", size(self.parts.length(self.k))),
        ]
    }

    fn flops(&self) -> f64 {
        2.0 * self.layers.count() as f64 * self.m as f64 * self.w_columns() as f64 * self.k as f64
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let Matmul { n, k, k1, .. } = *self;
        let named = named(self, inputs);
        let (x, w) = (named("x").expect("x").f32(), named("w").expect("w"));
        let x2 = named("x2").map_or(&[][..], Values::f32);
        let [bias, image_bias, residual] = ["bias", "image_bias", "residual"].map(|name| named(name).map(Values::f32));
        let image_rows = self.image_rows.unwrap_or(self.m);

        let row = |m: usize, run: usize| match run {
            0 => &x[m * k1..(m + 1) * k1],
            _ => &x2[m * (k - k1)..(m + 1) * (k - k1)],
        };
        let columns = self.w_columns();
        let layers = output.f32().chunks_exact_mut(self.parts.count() * self.m * n).enumerate();
        for (layer, y) in layers {
            let bias = bias.map(|bias| &bias[layer * columns..]);
            let biased = |n: usize, sum: f32| sum + bias.map_or(0.0, |b| b[n]);
            let finish = |m: usize, n: usize, biased: f32| {
                let of_image = image_bias.map_or(0.0, |b| b[m / image_rows * self.n + n]);
                self.act.of(biased + of_image) + residual.map_or(0.0, |r| r[m * self.n + n])
            };
            let w = w.slice(layer * k * columns..(layer + 1) * k * columns);
            let product = Product { w, k, n: columns, runs: vec![k1, k - k1], first: 0 };
            if self.gated {
                // values and gates are wider than y: some rows of them at a time
                y.par_chunks_mut(TILE_ROWS * n).enumerate().for_each(|(tile, y)| {
                    let first = tile * TILE_ROWS;
                    let mut wide = vec![0.0; y.len() / n * columns];
                    product.compute(&mut wide, |m, run| row(first + m, run), |_, n, sum| biased(n, sum));
                    for ((m, y), wide) in (first..).zip(y.chunks_exact_mut(n)).zip(wide.chunks_exact(columns)) {
                        let (values, gates) = wide.split_at(n);
                        let gated = |n: usize| finish(m, n, values[n] * Act::Gelu.of(gates[n]));
                        y.iter_mut().enumerate().for_each(|(n, y)| *y = gated(n));
                    }
                });
            } else if self.parts.is_whole() {
                product.compute(y, row, |m, n, sum| finish(m, n, biased(n, sum)));
            } else {
                product.compute_parts(y, self.parts, row);
            }
        }
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&MATMUL, &MATMUL_TILED, &MATMUL_SUBGROUP, &MATMUL_COOPERATIVE]
    }
}

impl Matmul {
    /// Columns of a layer's matrix: `n`, or twice that of a gated layer.
    pub fn w_columns(&self) -> usize {
        self.gates() * self.n
    }

    /// Columns of `w` for one of `y`.
    pub(crate) fn gates(&self) -> usize {
        if self.gated { 2 } else { 1 }
    }

    /// The switches of the epilogue, which every kernel of this op has.
    pub(crate) fn epilogue(&self) -> Vec<Constant> {
        let mut all = epilogue(self.act, self.bias, self.image_rows.is_some(), self.residual);
        all.push(("GATED", f64::from(u8::from(self.gated))));
        all
    }
}

/// The switches of the epilogue that matmul and conv2d share.
pub(crate) fn epilogue(act: Act, bias: bool, image_bias: bool, residual: bool) -> Vec<Constant> {
    let switch = |on: bool| f64::from(u8::from(on));
    vec![
        ("ACT", f64::from(act as u32)),
        ("BIAS", switch(bias)),
        ("IMAGE_BIAS", switch(image_bias)),
        ("RESIDUAL", switch(residual)),
    ]
}

/// One invocation per value of `y`.
pub static MATMUL: Kernel = kernel!("matmul", "matmul", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Matmul(op) = op else { return None };
    op.parts.is_whole().then_some(())?;
    let workgroups = grid_1d((op.layers.count() * op.m * op.n).div_ceil(64), &target.limits)?;
    Some(Schedule { constants: op.epilogue(), extents: vec![], workgroups, merit: 0.01 })
}
