//! The layers: each method of a tensor says one op, infers its shape, and checks the parameters it takes.

use crate::graph::{GraphError, Module, Node, NodeKind, Tensor};
use ratel_kernels::activation::{Act, Activation};
use ratel_kernels::add::Add;
use ratel_kernels::attention::Attention;
use ratel_kernels::concat::Concat;
use ratel_kernels::conv2d::Conv2d;
use ratel_kernels::embedding::Embedding;
use ratel_kernels::geglu::Geglu;
use ratel_kernels::group_norm::GroupNorm;
use ratel_kernels::group_norm_stats::{GroupNormStats, chunk_for};
use ratel_kernels::index_select::IndexSelect;
use ratel_kernels::layer_norm::LayerNorm;
use ratel_kernels::matmul::Matmul;
use ratel_kernels::rgb8::Rgb8;
use ratel_kernels::scale_latents::ScaleLatents;
use ratel_kernels::time_embedding::TimeEmbedding;
use ratel_kernels::to_vector::ToVector;
use ratel_kernels::upsample::Upsample;
use ratel_kernels::{Op, Role};
use ratel_tensor::{Layout, Shape};

/// How a convolution steps over its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stride {
    /// Pixels between windows.
    pub step: usize,
    /// Zeros above, below, to the left and to the right.
    pub pad: [usize; 4],
}

impl Stride {
    /// Every pixel, the size kept by a window of 3x3.
    pub const SAME: Stride = Stride { step: 1, pad: [1; 4] };
    /// Every second pixel, as the UNet goes down.
    pub const HALF: Stride = Stride { step: 2, pad: [1; 4] };
    /// Every second pixel, as the VAE's encoder goes down: zeros below and to the right only.
    pub const HALF_VAE: Stride = Stride { step: 2, pad: [0, 1, 0, 1] };
}

impl<'g> Tensor<'g> {
    /// A computed tensor, of what `inputs` give by operand name. Checks that every operand is there in its size, so that no
    /// shape, however hostile the file it came from, reaches a kernel unchecked.
    fn op(self, label: String, op: impl Into<Op>, inputs: &[(&'static str, Tensor)], shape: Shape) -> Self {
        let op = op.into();
        let role = op.output().role;
        let operands = op.operands();
        for operand in &operands[..operands.len() - 1] {
            let given = inputs.iter().find(|(name, _)| *name == operand.name).map(|(_, t)| t.shape.count());
            if given != Some(operand.count) {
                let problem =
                    format!("{} takes {} values of {}, not {given:?}", op.name(), operand.count, operand.name);
                self.graph.fail(GraphError::Invalid { label: label.clone(), problem });
            }
        }
        let inputs = inputs.iter().map(|(name, tensor)| (*name, tensor.node)).collect();
        self.graph.push(Node { kind: NodeKind::Op(op), inputs, label, role, shape })
    }

    fn invalid(self, label: &str, problem: String) {
        self.graph.fail(GraphError::Invalid { label: label.to_owned(), problem });
    }

    /// `x W^T + b` over the last axis (`torch.nn.Linear`; also a 1x1 convolution, which is the same on NHWC).
    pub fn linear(self, w: &Module<'g>) -> Self {
        self.product(w).bias(w).named(w)
    }

    /// `x W^T` over the last axis (`torch.nn.Linear` with `bias=False`).
    pub fn linear_without_bias(self, w: &Module<'g>) -> Self {
        self.product(w).named(w)
    }

    fn product(self, w: &Module<'g>) -> Self {
        let k = self.shape.last();
        let fits = |s: &[usize]| matches!(*s, [_, i] | [_, i, 1, 1] if i == k);
        let weight = w.parameter("weight", Layout::Linear, Role::Weight, fits, || format!("an input of {k} channels"));
        let n = weight.shape.first().copied().unwrap_or(1);
        let op = Matmul { m: self.shape.rows(), n, k, k1: k, ..Matmul::default() };
        self.op(w.label(), op, &[("x", self), ("w", weight)], self.shape.with_last(n))
    }

    /// Convolution of `(N, H, W, C)` (`torch.nn.Conv2d`).
    pub fn conv2d(self, w: &Module<'g>, stride: Stride) -> Self {
        let [batch, h, width, c] = self.feature_map(&w.label());
        let fits = |s: &[usize]| matches!(*s, [_, i, r, q] if i == c && r > 0 && q > 0);
        let weight = w.parameter("weight", Layout::Conv, Role::Weight, fits, || format!("an input of {c} channels"));
        let [n, window_h, window_w] = match *weight.shape {
            [n, _, r, q] => [n, r, q],
            _ => [1, 1, 1],
        };
        let [top, bottom, left, right] = stride.pad;
        let steps = |size: usize, window: usize| size.checked_sub(window).map(|rest| rest / stride.step + 1);
        let (out_h, out_w) = (steps(h + top + bottom, window_h), steps(width + left + right, window_w));
        let (Some(out_h), Some(out_w)) = (out_h, out_w) else {
            self.invalid(
                &w.label(),
                format!("a window of {window_h}x{window_w} is larger than an input of {h}x{width}"),
            );
            return self;
        };
        let op = Conv2d {
            batch,
            h,
            w: width,
            c,
            c1: c,
            n,
            window: [window_h, window_w],
            stride: stride.step,
            pad: [top as isize, left as isize],
            out_h,
            out_w,
            ..Conv2d::default()
        };
        let y = self.op(w.label(), op, &[("x", self), ("w", weight)], [batch, out_h, out_w, n].into());
        y.bias(w).named(w)
    }

    /// Adds the module's bias.
    fn bias(self, w: &Module<'g>) -> Self {
        let n = self.shape.last();
        let bias =
            w.parameter("bias", Layout::AsIs, Role::Vector, |s| *s == [n], || format!("an output of {n} channels"));
        self.plus(w.label(), bias, self.shape.count())
    }

    /// Group norm over the channels of `(N, H, W, C)` (`torch.nn.GroupNorm`).
    pub fn group_norm(self, w: &Module<'g>, groups: usize, eps: f32) -> Self {
        let [batch, h, width, c] = self.feature_map(&w.label());
        if groups == 0 || !c.is_multiple_of(groups) {
            self.invalid(&w.label(), format!("{c} channels do not fall into {groups} groups"));
            return self;
        }
        let (gamma, beta) = self.scale_and_shift(w);
        let pixels = h * width;
        let chunk = chunk_for(pixels, c);
        let op = Op::from(GroupNormStats { batch, pixels, c, c1: c, groups, chunk });
        let count = op.output().count;
        let stats = self.op(w.label(), op, &[("x", self)], [count].into());
        let op = GroupNorm { batch, rows: pixels, pixels, c, c1: c, groups, chunk, eps, act: Act::None };
        self.op(w.label(), op, &[("x", self), ("stats", stats), ("gamma", gamma), ("beta", beta)], self.shape).named(w)
    }

    /// Layer norm over the last axis (`torch.nn.LayerNorm`).
    pub fn layer_norm(self, w: &Module<'g>, eps: f32) -> Self {
        let (gamma, beta) = self.scale_and_shift(w);
        let op = LayerNorm { rows: self.shape.rows(), c: self.shape.last(), eps };
        self.op(w.label(), op, &[("x", self), ("gamma", gamma), ("beta", beta)], self.shape).named(w)
    }

    fn scale_and_shift(self, w: &Module<'g>) -> (Self, Self) {
        let c = self.shape.last();
        let vector =
            |name| w.parameter(name, Layout::AsIs, Role::Vector, |s| *s == [c], || format!("an input of {c} channels"));
        (vector("weight"), vector("bias"))
    }

    /// An activation function.
    pub fn act(self, act: Act) -> Self {
        let op = Activation { count: self.shape.count(), act };
        self.op(self.label(), op, &[("x", self)], self.shape)
    }

    /// `x sigmoid(x)`.
    pub fn silu(self) -> Self {
        self.act(Act::Silu)
    }

    /// First half of the last axis times the GELU of the second.
    pub fn geglu(self) -> Self {
        let c = self.shape.last();
        if !c.is_multiple_of(2) {
            self.invalid(&self.label(), format!("{c} channels have no halves"));
            return self;
        }
        let op = Geglu { rows: self.shape.rows(), n: c / 2 };
        self.op(self.label(), op, &[("x", self)], self.shape.with_last(c / 2))
    }

    /// Attention of `(N, T, C)` queries over keys and values of `(N, T', C)`, the heads side by side in C.
    pub fn attention(self, k: Self, v: Self, heads: usize, causal: bool, module: &Module<'g>) -> Self {
        let row = self.shape.last();
        let [batch, queries, keys] = match (&*self.shape, &*k.shape) {
            (&[n, t, c], &[n2, t2, c2]) if n == n2 && c == c2 && k.shape == v.shape => [n, t, t2],
            _ => {
                let problem = format!("queries of {}, keys of {}, values of {}", self.shape, k.shape, v.shape);
                self.invalid(&module.label(), problem);
                return self;
            }
        };
        if heads == 0 || !row.is_multiple_of(heads) {
            self.invalid(&module.label(), format!("{row} channels do not fall into {heads} heads"));
            return self;
        }
        let op = Attention { batch, heads, dim: row / heads, queries, keys, causal };
        self.op(module.label(), op, &[("q", self), ("k", k), ("v", v)], self.shape)
    }

    /// The channels of this, then those of `other`.
    pub fn concat(self, other: Self) -> Self {
        let (c1, c2) = (self.shape.last(), other.shape.last());
        if self.shape.with_last(0) != other.shape.with_last(0) || self.shape.len() != other.shape.len() {
            self.invalid(&self.label(), format!("{} and {} can't lie side by side", self.shape, other.shape));
            return self;
        }
        let op = Concat { rows: self.shape.rows(), c1, c2 };
        self.op(self.label(), op, &[("a", self), ("b", other)], self.shape.with_last(c1 + c2))
    }

    /// Enlarged to `size` (rows, columns) by nearest neighbour.
    pub fn upsample(self, size: [usize; 2], module: &Module<'g>) -> Self {
        let [batch, h, w, c] = self.feature_map(&module.label());
        let [out_h, out_w] = size;
        let op = Upsample { batch, h, w, c, out_h, out_w };
        self.op(module.label(), op, &[("x", self)], [batch, out_h, out_w, c].into())
    }

    /// Adds one row of `(N, C)` to every pixel or token of its image.
    pub fn add_per_image(self, rows: Self) -> Self {
        let [n, c] = [self.shape.first().copied().unwrap_or(1), self.shape.last()];
        if *rows.shape != [n, c] || n == 0 {
            self.invalid(&self.label(), format!("rows of {} can't be added to images of {}", rows.shape, self.shape));
            return self;
        }
        self.plus(self.label(), rows, self.shape.count() / n)
    }

    /// The sum with `b`, which is repeated within each `span` values and moves on after it.
    fn plus(self, label: String, b: Self, span: usize) -> Self {
        let spans = self.shape.count() / span.max(1);
        let op = Add { count: self.shape.count(), span, period: b.shape.count() / spans.max(1) };
        self.op(label, op, &[("a", self), ("b", b)], self.shape)
    }

    /// Sinusoidal embeddings of `(N)` timesteps: `(N, dim)`.
    pub fn time_embedding(self, dim: usize, cos_first: bool, shift: f32) -> Self {
        let count = self.shape.count();
        if dim < 2 || !dim.is_multiple_of(2) {
            self.invalid(&self.label(), format!("timesteps can't be embedded in {dim} channels"));
            return self;
        }
        let op = TimeEmbedding { count, dim, cos_first, shift, max_period: 10_000.0 };
        self.op(self.label(), op, &[("t", self)], [count, dim].into())
    }

    /// Rows of the module's table (`torch.nn.Embedding`): `(N, T)` ids to `(N, T, C)`.
    pub fn embedding(self, w: &Module<'g>) -> Self {
        let fits = |s: &[usize]| matches!(*s, [rows, c] if rows > 0 && c > 0);
        let table = w.parameter("weight", Layout::AsIs, Role::Weight, fits, || "an embedding".to_owned());
        let [rows, c] = match *table.shape {
            [rows, c] => [rows, c],
            _ => [1, 1],
        };
        let [batch, tokens] = match *self.shape {
            [n, t] => [n, t],
            _ => [1, self.shape.count()],
        };
        let op = Embedding { count: batch * tokens, c, first: 0, rows, vocabulary: rows };
        self.op(w.label(), op, &[("ids", self), ("table", table)], [batch, tokens, c].into()).named(w)
    }

    /// Rows `index` `(N)` of `(M, C)`: `(N, C)` (`torch.index_select`).
    pub fn index_select(self, index: Self) -> Self {
        let [rows, c] = match *self.shape {
            [rows, c] => [rows, c],
            _ => [1, self.shape.count()],
        };
        let op = IndexSelect { count: index.shape.count(), c, rows };
        self.op(self.label(), op, &[("x", self), ("index", index)], [op.count, c].into())
    }

    /// Adds the first rows of the module's table to `(N, T, C)`: learned positions.
    pub fn add_positions(self, w: &Module<'g>) -> Self {
        let [_, tokens, c] = match *self.shape {
            [n, t, c] => [n, t, c],
            _ => [1, 1, self.shape.last()],
        };
        let fits = |s: &[usize]| *s == [tokens, c];
        let needed = || format!("{tokens} tokens of {c} channels");
        let positions = w.parameter("weight", Layout::AsIs, Role::Activation, fits, needed);
        self.plus(w.label(), positions, self.shape.count())
    }

    /// Latents (`f32`) as activations, scaled and shifted.
    pub fn scale_latents(self, scale: f32, shift: f32) -> Self {
        let op = ScaleLatents { count: self.shape.count(), copies: 1, scale, shift };
        self.op(self.label(), op, &[("x", self)], self.shape)
    }

    /// Activations as `f32`.
    pub fn to_vector(self) -> Self {
        let op = ToVector { count: self.shape.count() };
        self.op(self.label(), op, &[("x", self)], self.shape)
    }

    /// A picture in -1 to 1 as bytes.
    pub fn rgb8(self) -> Self {
        let op = Rgb8 { count: self.shape.count() };
        self.op(self.label(), op, &[("x", self)], self.shape)
    }

    /// The extents of a feature map; a mistake kept, and ones, for anything else.
    fn feature_map(self, label: &str) -> [usize; 4] {
        match *self.shape {
            [n, h, w, c] => [n, h, w, c],
            _ => {
                self.invalid(label, format!("a feature map has four axes, not {}", self.shape));
                [1, 1, 1, self.shape.count()]
            }
        }
    }
}

impl<'g> std::ops::Add for Tensor<'g> {
    type Output = Tensor<'g>;
    /// The sum of two tensors of one shape.
    fn add(self, b: Self) -> Self {
        if self.shape != b.shape {
            self.invalid(&self.label(), format!("{} can't be added to {}", b.shape, self.shape));
            return self;
        }
        self.plus(self.label(), b, self.shape.count())
    }
}
