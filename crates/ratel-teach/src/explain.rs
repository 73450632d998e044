//! One element of an op's output, taken apart into every multiply and add that made it, in the order in which the CPU twin
//! takes them. What is added up in `f64` by the twin is added up in `f64` here.

use ratel_kernels::Op;
use ratel_kernels::activation::Act;
use ratel_kernels::attention::Attention;
use ratel_kernels::conv2d::Conv2d;
use ratel_kernels::group_norm::GroupNorm;
use ratel_kernels::group_norm_stats::GroupNormStats;
use ratel_kernels::group_norm_whole::GroupNormWhole;
use ratel_kernels::layer_norm::LayerNorm;
use ratel_kernels::matmul::Matmul;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How one element came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Its place among the output's values, counted through.
    pub element: usize,
    /// What is added up, in order.
    pub terms: Vec<Term>,
    /// What happens before and after that, line by line.
    pub lines: Vec<Line>,
    /// The element: the last line's value.
    pub value: f32,
}

/// A term of a sum: a product of its factors, or the one factor itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Term {
    /// Operand, place among its values, value. `share` is the softmax's for that key.
    pub factors: Vec<(String, usize, f32)>,
    /// Their product.
    pub value: f32,
}

/// A line of arithmetic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// What is done.
    pub text: String,
    /// What comes out.
    pub value: f32,
}

/// Takes element number `element` of the op's output apart. `inputs` are its inputs' values in the order of its operands,
/// each in the order of its extents ([`crate::in_order`]), weights widened to `f32`. `None` for ops that are not explained (embeddings, samplers, products in parts, pictures as
/// bytes), and where an operand is missing or too short.
pub fn explain(op: &Op, inputs: &[&[f32]], element: usize) -> Option<Explanation> {
    let operands = op.operands();
    let (output, needed) = operands.split_last()?;
    let whole = inputs.len() == needed.len() && needed.iter().zip(inputs).all(|(o, values)| values.len() >= o.count);
    if !whole || element >= output.count {
        return None;
    }
    let names: Vec<&str> = needed.iter().map(|operand| operand.name).collect();
    let mut work = Work { names: &names, inputs, terms: vec![], lines: vec![] };
    match op {
        Op::Conv2d(op) if op.parts.is_whole() => work.conv2d(op, element),
        Op::Matmul(op) if op.parts.is_whole() => work.matmul(op, element),
        Op::GroupNorm(op) => work.group_norm(op, element),
        Op::GroupNormWhole(op) => work.group_norm_whole(op, element),
        Op::GroupNormStats(op) => work.group_norm_stats(op, element),
        Op::LayerNorm(op) => work.layer_norm(op, element),
        Op::Attention(op) => work.attention(op, element),
        Op::Geglu(op) => {
            let (row, column) = (element / op.n, element % op.n);
            let gate = work.at("x", row * 2 * op.n + op.n + column);
            let open = work.line("gelu(gate)", Act::Gelu.of(gate));
            let x = work.at("x", row * 2 * op.n + column);
            work.terms.push(Term {
                factors: vec![
                    ("x".into(), row * 2 * op.n + column, x),
                    ("gelu of x".into(), row * 2 * op.n + op.n + column, open),
                ],
                value: x * open,
            });
            work.line("x gelu(gate)", x * open);
        }
        Op::Activation(op) => {
            let x = work.take("x", element);
            work.activation(op.act, x);
        }
        Op::Add(op) => {
            let sum = work.take("a", element) + work.take("b", element / op.span * op.period + element % op.period);
            work.line("a + b", sum);
        }
        Op::IndexSelect(op) => {
            let (row, c) = (element / op.c, element % op.c);
            let from = (work.at("index", row) as usize).min(op.rows - 1);
            let value = work.take("x", from * op.c + c);
            work.line(format!("copied from row index[{row}] = {from}"), value);
        }
        Op::Concat(op) => {
            let (row, c) = (element / (op.c1 + op.c2), element % (op.c1 + op.c2));
            let value = match c.checked_sub(op.c1) {
                None => work.take("a", row * op.c1 + c),
                Some(c) => work.take("b", row * op.c2 + c),
            };
            work.line("copied", value);
        }
        Op::Upsample(op) => {
            let [i, v, u, c] = unravel(element, [op.out_h, op.out_w, op.c]);
            let at = ((i * op.h + v * op.h / op.out_h) * op.w + u * op.w / op.out_w) * op.c + c;
            let value = work.take("x", at);
            work.line("copied from the nearest pixel", value);
        }
        _ => return None,
    }
    let Work { terms, lines, .. } = work;
    let value = lines.last()?.value;
    Some(Explanation { element, terms, lines, value })
}

/// Indices of an element along four axes, the first as large as need be.
fn unravel(element: usize, [b, c, d]: [usize; 3]) -> [usize; 4] {
    [element / d / c / b, element / d / c % b, element / d % c, element % d]
}

/// An explanation on its way.
struct Work<'a> {
    names: &'a [&'a str],
    inputs: &'a [&'a [f32]],
    terms: Vec<Term>,
    lines: Vec<Line>,
}

impl Work<'_> {
    fn values(&self, name: &str) -> Option<&[f32]> {
        self.names.iter().position(|known| *known == name).map(|at| self.inputs[at])
    }

    /// A value of an operand; 0 of one that is not there.
    fn at(&self, name: &str, index: usize) -> f32 {
        self.values(name).and_then(|values| values.get(index)).copied().unwrap_or(0.0)
    }

    /// A value as a term by itself.
    fn take(&mut self, name: &str, index: usize) -> f32 {
        let value = self.at(name, index);
        self.terms.push(Term { factors: vec![(name.to_owned(), index, value)], value });
        value
    }

    /// A product of two operands' values as a term.
    fn product(&mut self, a: (&str, usize), b: (&str, usize)) -> f32 {
        let (x, w) = (self.at(a.0, a.1), self.at(b.0, b.1));
        let factors = vec![(a.0.to_owned(), a.1, x), (b.0.to_owned(), b.1, w)];
        self.terms.push(Term { factors, value: x * w });
        x * w
    }

    fn line(&mut self, text: impl Into<String>, value: f32) -> f32 {
        self.lines.push(Line { text: text.into(), value });
        value
    }

    fn activation(&mut self, act: Act, x: f32) -> f32 {
        let name = match act {
            Act::None => return x,
            Act::Silu => "silu: x / (1 + exp(-x))",
            Act::Gelu => "gelu: x (1 + erf(x / sqrt 2)) / 2",
            Act::QuickGelu => "quick gelu: x / (1 + exp(-1.702 x))",
        };
        self.line(name, act.of(x))
    }

    /// A value of an input whose channels from `c1` on lie in `x2`: its operand and place.
    fn source(row: usize, channel: usize, c: usize, c1: usize) -> (&'static str, usize) {
        match channel.checked_sub(c1) {
            None => ("x", row * c1 + channel),
            Some(rest) => ("x2", row * (c - c1) + rest),
        }
    }

    /// A sum of products, and a value of an operand added to it if that is there.
    fn added(&mut self, value: f32, name: &str, index: usize) -> f32 {
        match self.values(name).map(|values| values[index]) {
            Some(added) => self.line(format!("+ {name}[{index}] = {added:?}"), value + added),
            None => value,
        }
    }

    /// What matmul and conv2d do with their sum and its bias.
    fn epilogue(&mut self, value: f32, image_bias: usize, act: Act, element: usize) {
        let value = self.added(value, "image_bias", image_bias);
        let value = self.activation(act, value);
        if let Some(added) = self.values("residual").map(|values| values[element]) {
            self.line(format!("+ residual = {added:?}"), value + added);
        }
    }

    fn conv2d(&mut self, op: &Conv2d, element: usize) {
        let [i, v, u, n] = unravel(element, [op.out_h, op.out_w, op.n]);
        let [up_h, up_w] = op.upsample.unwrap_or([op.h, op.w]);
        let inside = |at: usize, tap: usize, pad: isize, size: usize| {
            let place = (at * op.stride + tap) as isize - pad;
            usize::try_from(place).ok().filter(|place| *place < size)
        };
        let mut sum = 0.0;
        for r in 0..op.window[0] {
            for s in 0..op.window[1] {
                let (row, column) = (inside(v, r, op.pad[0], up_h), inside(u, s, op.pad[1], up_w));
                let (Some(row), Some(column)) = (row, column) else { continue };
                let pixel = (i * op.h + row * op.h / up_h) * op.w + column * op.w / up_w;
                for c in 0..op.c {
                    let w = ((r * op.window[1] + s) * op.c + c) * op.n + n;
                    sum += self.product(Self::source(pixel, c, op.c, op.c1), ("w", w));
                }
            }
        }
        let sum = self.line(format!("sum of {} products", self.terms.len()), sum);
        let value = self.added(sum, "bias", n);
        self.epilogue(value, i * op.n + n, op.act, element);
    }

    fn matmul(&mut self, op: &Matmul, element: usize) {
        let (layer, place) = (element / (op.m * op.n), element % (op.m * op.n));
        let (m, n, columns) = (place / op.n, place % op.n, op.w_columns());
        let mut column = |at: usize, which: &str| {
            let mut sum = 0.0;
            for k in 0..op.k {
                sum += self.product(Self::source(m, k, op.k, op.k1), ("w", (layer * op.k + k) * columns + at));
            }
            let sum = self.line(format!("sum of {} products{which}", op.k), sum);
            self.added(sum, "bias", layer * columns + at)
        };
        let value = if op.gated {
            let (value, gate) = (column(n, ": the value"), column(n + op.n, ": its gate"));
            let open = self.line("gelu(gate)", Act::Gelu.of(gate));
            self.line("value gelu(gate)", value * open)
        } else {
            column(n, "")
        };
        let image = m / op.image_rows.unwrap_or(op.m).max(1);
        self.epilogue(value, image * op.n + n, op.act, place);
    }

    fn group_norm(&mut self, op: &GroupNorm, element: usize) {
        let (row, c) = (element / op.c, element % op.c);
        let (image, width) = (row / op.rows, op.c / op.groups);
        let (g, chunks) = (c / width, op.pixels.div_ceil(op.chunk));
        let chunk = |k: usize| {
            let n = (op.chunk.min(op.pixels - k * op.chunk) * width) as f64;
            let at = ((image * chunks + k) * op.groups + g) * 2;
            (n, f64::from(self.at("stats", at)), f64::from(self.at("stats", at + 1)))
        };
        let values = (op.pixels * width) as f64;
        let mean = (0..chunks).map(chunk).map(|(n, mean, _)| n * mean).sum::<f64>() / values;
        let square = (0..chunks).map(chunk).map(|(n, m, square)| square + n * (m - mean).powi(2)).sum::<f64>();
        let deviation = (square / values + f64::from(op.eps)).sqrt();
        self.line(format!("mean of group {g}: {} values, from {chunks} chunks", op.pixels * width), mean as f32);
        let (operand, index) = Self::source(row, c, op.c, op.c1);
        let x = self.take(operand, index);
        self.normal(x, mean, deviation, c, op.act);
    }

    fn group_norm_whole(&mut self, op: &GroupNormWhole, element: usize) {
        let (row, c) = (element / op.c, element % op.c);
        let (image, width) = (row / op.pixels, op.c / op.groups);
        let g = c / width;
        let rows = image * op.pixels..(image + 1) * op.pixels;
        let (mean, square) = self.group(rows, g * width..(g + 1) * width, op.c, op.c1);
        let values = op.pixels * width;
        let deviation = (square / values as f64 + f64::from(op.eps)).sqrt();
        self.line(format!("mean of the {values} values of group {g}"), mean as f32);
        let (operand, index) = Self::source(row, c, op.c, op.c1);
        let x = self.at(operand, index);
        self.normal(x, mean, deviation, c, op.act);
    }

    /// The end of a group norm.
    fn normal(&mut self, x: f32, mean: f64, deviation: f64, c: usize, act: Act) {
        self.line("standard deviation: sqrt(variance + eps)", deviation as f32);
        let (gamma, beta) = (self.at("gamma", c), self.at("beta", c));
        let scaled = ((f64::from(x) - mean) * (1.0 / deviation * f64::from(gamma))) as f32;
        self.line(format!("(x - mean) / deviation * gamma[{c}] = {gamma:?}"), scaled);
        let value = self.line(format!("+ beta[{c}] = {beta:?}"), scaled + beta);
        self.activation(act, value);
    }

    /// One of the two figures of a chunk of a group: the mean, or the sum of squared differences from it.
    fn group_norm_stats(&mut self, op: &GroupNormStats, element: usize) {
        let [number, g, which] = [element / 2 / op.groups, element / 2 % op.groups, element % 2];
        let (chunks, width) = (op.pixels.div_ceil(op.chunk), op.c / op.groups);
        let (image, k) = (number / chunks, number % chunks);
        let rows = image * op.pixels + k * op.chunk..image * op.pixels + op.pixels.min((k + 1) * op.chunk);
        let count = rows.len() * width;
        let (mean, square) = self.group(rows, g * width..(g + 1) * width, op.c, op.c1);
        self.line(format!("mean of the {count} values of group {g} in chunk {k}"), mean as f32);
        if which == 1 {
            self.line("sum of their squared differences from it", square as f32);
        }
    }

    /// Takes the values of some channels in some rows: their mean, and the sum of their squared differences from it.
    fn group(&mut self, rows: Range<usize>, channels: Range<usize>, c: usize, c1: usize) -> (f64, f64) {
        let by_channel = |f: &dyn Fn(f64) -> f64| -> f64 {
            let x = |row, channel| {
                let (operand, index) = Self::source(row, channel, c, c1);
                f64::from(self.at(operand, index))
            };
            channels.clone().map(|channel| rows.clone().map(|row| f(x(row, channel))).sum::<f64>()).sum()
        };
        let mean = by_channel(&|x| x) / (rows.len() * channels.len()) as f64;
        let square = by_channel(&|x| (x - mean) * (x - mean));
        for row in rows {
            for channel in channels.clone() {
                let (operand, index) = Self::source(row, channel, c, c1);
                self.take(operand, index);
            }
        }
        (mean, square)
    }

    fn layer_norm(&mut self, op: &LayerNorm, element: usize) {
        let (row, c) = (element / op.c, element % op.c);
        let values: Vec<f64> = (0..op.c).map(|c| f64::from(self.take("x", row * op.c + c))).collect();
        let share = op.c as f64;
        let mean = in_eights(&values, |x| x) / share;
        let deviation = (in_eights(&values, |x| (x - mean) * (x - mean)) / share + f64::from(op.eps)).sqrt();
        self.line(format!("mean of the {} values of row {row}", op.c), mean as f32);
        self.line("standard deviation: sqrt(variance + eps)", deviation as f32);
        let scaled = ((values[c] - mean) * (1.0 / deviation)) as f32;
        self.line("(x - mean) / deviation", scaled);
        let (gamma, beta) = (self.at("gamma", c), self.at("beta", c));
        self.line(format!("* gamma[{c}] = {gamma:?}"), scaled * gamma);
        self.line(format!("+ beta[{c}] = {beta:?}"), scaled * gamma + beta);
    }

    fn attention(&mut self, op: &Attention, element: usize) {
        let Attention { heads, dim, queries, keys, causal, .. } = *op;
        let row = heads * dim;
        let (query, column) = (element / row, element % row);
        let (image, head, scale) = (query / queries, column / dim, (dim as f32).sqrt().recip());
        let seen = if causal { keys.min(query % queries + 1) } else { keys };
        let q = |d: usize| self.at("q", query * row + head * dim + d) * scale;
        let k = |j: usize, d: usize| self.at("k", (image * keys + j) * row + head * dim + d);
        let scores: Vec<f32> = (0..seen).map(|j| (0..dim).map(|d| q(d) * k(j, d)).sum()).collect();
        let (best, greatest) = scores.iter().enumerate().fold((0, f32::NEG_INFINITY), |(at, most), (j, score)| {
            if *score > most { (j, *score) } else { (at, most) }
        });
        let all: f32 = scores.iter().map(|score| (score - greatest).exp()).sum();
        self.line(format!("greatest of {seen} scores q . k / sqrt {dim} in head {head}: key {best}"), greatest);
        self.line("sum of exp(score - greatest)", all);
        let mut sum = 0.0;
        for (j, score) in scores.iter().enumerate() {
            let share = (score - greatest).exp() / all;
            let at = (image * keys + j) * row + column;
            let v = self.at("v", at);
            let factors = vec![("share".to_owned(), j, share), ("v".to_owned(), at, v)];
            self.terms.push(Term { factors, value: share * v });
            sum += share * v;
        }
        self.line(format!("sum of {seen} shares times values"), sum);
    }
}

/// A sum in the twin's order: eight sums side by side.
fn in_eights(values: &[f64], f: impl Fn(f64) -> f64) -> f64 {
    let (eights, rest) = values.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for eight in eights {
        sums.iter_mut().zip(eight).for_each(|(sum, value)| *sum += f(*value));
    }
    sums.iter().sum::<f64>() + rest.iter().map(|value| f(*value)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratel_kernels::{Role, Values, ValuesMut};

    /// Deterministic values between -1 and 1.
    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(747_796_405);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn an_explanation_ends_in_the_twins_element() {
        let mut explained = std::collections::BTreeSet::new();
        for op in Op::all_cases().into_iter().filter(|op| op.flops() < 5e7 && !op.name().starts_with("roof")) {
            let operands = op.operands();
            let (output, inputs) = operands.split_last().expect("every op has an output");
            let mut data: Vec<Vec<f32>> = inputs.iter().zip(1..).map(|(o, seed)| noise(o.count, seed)).collect();
            for (operand, values) in inputs.iter().zip(&mut data) {
                if let (Role::Ids { .. }, Op::IndexSelect(op)) = (operand.role, &op) {
                    values.iter_mut().zip(1..).for_each(|(id, i)| *id = (i * 7 % op.rows) as f32);
                }
                if operand.name == "stats" {
                    values.iter_mut().skip(1).step_by(2).for_each(|square| *square = 3.0 + square.abs());
                }
            }
            let on_device = data.clone();
            data = data.into_iter().enumerate().map(|(i, values)| crate::in_order(&op, i, values)).collect();
            let given: Vec<&[f32]> = data.iter().map(Vec::as_slice).collect();
            let middle = output.count / 2;
            let elements = [0, 1, middle, output.count / 3, output.count - 1];
            if explain(&op, &given, 0).is_none() {
                continue;
            }
            let mut y = vec![f32::NAN; output.count];
            let ids: Vec<Vec<u32>> = data.iter().map(|values| values.iter().map(|id| *id as u32).collect()).collect();
            let values =
                inputs.iter().zip(on_device.iter().zip(&ids)).map(|(operand, (values, ids))| match operand.role {
                    Role::Ids { .. } => Values::U32(ids),
                    _ => Values::F32(values),
                });
            let values: Vec<Values> = values.collect();
            op.twin(&values, ValuesMut::F32(&mut y));
            for element in elements.into_iter().filter(|element| *element < output.count) {
                let found = explain(&op, &given, element).expect("it was explained before");
                assert_eq!(found.element, element);
                explained.insert(op.name());
                // the twin of attention has an exponential of its own and goes through the keys in blocks
                let tolerance = if op.name() == "attention" { 2e-6 } else { 0.0 };
                let near = (found.value - y[element]).abs() <= tolerance;
                assert!(near, "{op:?} at {element}: {} is not the twin's {}", found.value, y[element]);
                if let Op::Matmul(Matmul { k, .. }) | Op::Conv2d(Conv2d { c: k, .. }) = op {
                    // a gated product has two sums
                    let gated = matches!(op, Op::Matmul(Matmul { gated: true, .. }));
                    let each = if gated { k } else { found.terms.len().max(1) };
                    let sums =
                        found.terms.chunks(each).map(|terms| terms.iter().fold(0.0, |sum, term| sum + term.value));
                    let lines: Vec<f32> = found
                        .lines
                        .iter()
                        .filter(|line| line.text.starts_with("sum of"))
                        .map(|line| line.value)
                        .collect();
                    let sums: Vec<f32> = if found.terms.is_empty() { vec![0.0] } else { sums.collect() };
                    assert_eq!(sums, lines, "the terms of {op:?} at {element}");
                }
                // a window may lie outside the picture as a whole
                assert!(!found.terms.is_empty() || matches!(op, Op::Conv2d(_)), "{op:?} at {element}");
            }
        }
        let needed = [
            "activation",
            "add",
            "attention",
            "concat",
            "conv2d",
            "geglu",
            "group_norm",
            "group_norm_stats",
            "group_norm_whole",
            "index_select",
            "layer_norm",
            "matmul",
            "upsample",
        ];
        assert_eq!(explained.into_iter().collect::<Vec<_>>(), needed);
    }

    #[test]
    fn what_is_not_there_is_not_explained() {
        let op = Op::from(Matmul { m: 2, n: 2, k: 3, k1: 3, ..Matmul::default() });
        let (x, w) = (noise(6, 1), noise(6, 2));
        assert!(explain(&op, &[&x, &w], 3).is_some());
        assert!(explain(&op, &[&x, &w], 4).is_none(), "beyond the output");
        assert!(explain(&op, &[&x], 0).is_none(), "an operand is missing");
        assert!(explain(&op, &[&x, &w[..5]], 0).is_none(), "an operand is short");
    }
}
