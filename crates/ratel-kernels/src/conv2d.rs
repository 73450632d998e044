//! Convolution, as an implicit matrix product over NHWC: no patches are copied.

use crate::activation::Act;
use crate::conv2d_cooperative::CONV2D_COOPERATIVE;
use crate::conv2d_narrow::CONV2D_NARROW;
use crate::conv2d_subgroup::CONV2D_SUBGROUP;
use crate::conv2d_tiled::CONV2D_TILED;
use crate::matmul::epilogue;
use crate::product::Product;
use crate::values::named;
use crate::{
    Constant, Kernel, Op, Operand, Operation, Param, Parts, Schedule, Target, Values, ValuesMut, grid_1d, kernel,
};

/// `y[i, v, u, n] = act(sum_{r, s, c} x[i, v stride + r - pad_top, u stride + s - pad_left, c] w[r, s, c, n] + bias[n] +
/// image_bias[i, n]) + residual[i, v, u, n]`, the input zero outside its bounds.
///
/// The input is `x` and, for channels from `c1` on, `x2`; if `upsample` is set, it is first enlarged to that size by
/// nearest neighbour (`torch.nn.functional.interpolate`): row `v` of the enlarged picture is row `v * h / enlarged_h`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Conv2d {
    /// Images.
    pub batch: usize,
    /// Rows of `x`.
    pub h: usize,
    /// Columns of `x`.
    pub w: usize,
    /// Input channels, `c1` of them in `x` and the rest in `x2`.
    pub c: usize,
    /// Channels of `x`; `c` when there is no `x2`.
    pub c1: usize,
    /// Output channels.
    pub n: usize,
    /// Rows and columns of the window.
    pub window: [usize; 2],
    /// Step between windows.
    pub stride: usize,
    /// Rows of zeros above, columns of zeros to the left. Negative: rows or columns left out. What is below and to the
    /// right follows from the size of `y`.
    pub pad: [isize; 2],
    /// The size the input is enlarged to first.
    pub upsample: Option<[usize; 2]>,
    /// Rows of `y`.
    pub out_h: usize,
    /// Columns of `y`.
    pub out_w: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// Whether a row per image is added.
    pub image_bias: bool,
    /// What is applied to the sum.
    pub act: Act,
    /// Whether a residual is added after that.
    pub residual: bool,
    /// If there are several, `y` has the sum over each part of (r, s, c), in `f32`, and [`crate::sum_parts`] does the
    /// rest.
    pub parts: Parts,
}

impl Conv2d {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        let same = |batch, [h, w]: [usize; 2], c, n| {
            let (window, pad) = ([3, 3], [1, 1]);
            Conv2d { batch, h, w, c, c1: c, n, window, stride: 1, pad, out_h: h, out_w: w, ..Conv2d::default() }
        };
        let half = |batch, [h, w]: [usize; 2], pad, c, n| Conv2d {
            stride: 2,
            pad: [pad, pad],
            out_h: h.div_ceil(2),
            out_w: w.div_ceil(2),
            ..same(batch, [h, w], c, n)
        };
        let enlarged = |batch, [h, w]: [usize; 2], [up_h, up_w]: [usize; 2], c, n| Conv2d {
            upsample: Some([up_h, up_w]),
            out_h: up_h,
            out_w: up_w,
            ..same(batch, [h, w], c, n)
        };
        vec![
            // the UNet: in, resnets, down, up beside a skip connection, up in size, out
            Conv2d { bias: true, ..same(2, [16, 16], 4, 320) },
            Conv2d { bias: true, ..same(1, [16, 16], 9, 320) },
            Conv2d { bias: true, image_bias: true, ..same(2, [8, 8], 320, 320) },
            Conv2d { bias: true, residual: true, ..same(2, [4, 4], 640, 640) },
            Conv2d { bias: true, ..half(2, [16, 16], 1, 320, 320) },
            Conv2d { c1: 640, bias: true, image_bias: true, ..same(2, [4, 8], 960, 320) },
            Conv2d { bias: true, ..enlarged(1, [4, 4], [8, 8], 640, 640) },
            Conv2d { bias: true, ..enlarged(1, [3, 5], [5, 9], 320, 320) },
            Conv2d { window: [1, 1], pad: [0, 0], bias: true, ..same(1, [8, 8], 640, 320) },
            Conv2d { bias: true, ..same(2, [16, 16], 320, 4) },
            // the UNet's smallest, in parts
            Conv2d { parts: Parts::new(4), ..same(2, [4, 4], 320, 320) },
            Conv2d { c1: 8, parts: Parts::new(3), ..half(1, [9, 7], 1, 20, 36) },
            // the VAE: in, down with zeros below and to the right only, out
            Conv2d { bias: true, ..same(1, [24, 24], 3, 128) },
            Conv2d { bias: true, ..half(1, [32, 32], 0, 128, 128) },
            Conv2d { bias: true, ..same(1, [32, 32], 128, 3) },
            // few output channels, with all that can be added to them
            Conv2d {
                window: [5, 3],
                pad: [3, -1],
                bias: true,
                image_bias: true,
                residual: true,
                act: Act::Silu,
                ..same(3, [7, 10], 12, 3)
            },
            Conv2d { window: [1, 2], pad: [0, 1], bias: true, ..same(2, [3, 5], 8, 1) },
            // a band of rows, from the third on
            Conv2d { pad: [-2, 1], out_h: 4, bias: true, residual: true, ..same(1, [12, 16], 64, 64) },
            // everything at once, in sizes that nothing divides
            Conv2d {
                window: [5, 3],
                pad: [3, -1],
                c1: 3,
                bias: true,
                image_bias: true,
                residual: true,
                act: Act::Silu,
                ..enlarged(3, [5, 7], [11, 9], 5, 7)
            },
            Conv2d {
                c1: 4,
                bias: true,
                image_bias: true,
                residual: true,
                act: Act::Gelu,
                ..enlarged(3, [5, 7], [11, 9], 20, 36)
            },
            Conv2d { window: [2, 2], stride: 3, pad: [0, 0], out_h: 2, out_w: 3, ..same(3, [5, 8], 8, 12) },
            Conv2d { window: [1, 1], pad: [0, 0], act: Act::QuickGelu, ..same(1, [1, 1], 1, 1) },
            // enough work for what takes long to compile
            Conv2d { c1: 128, bias: true, image_bias: true, residual: true, ..same(2, [7, 9], 320, 352) },
        ]
    }
}

impl Operation for Conv2d {
    fn name(&self) -> &'static str {
        CONV2D.name
    }

    fn operands(&self) -> Vec<Operand> {
        let (pixels, out) = (self.batch * self.h * self.w, self.output_count());
        let mut all = Operand::side_by_side(pixels, self.c, self.c1);
        all.push(Operand::weight("w", self.window[0] * self.window[1] * self.c * self.n));
        if self.bias {
            all.push(Operand::vector("bias", self.n));
        }
        if self.image_bias {
            all.push(Operand::activation("image_bias", self.batch * self.n));
        }
        if self.residual {
            all.push(Operand::activation("residual", out));
        }
        all.push(self.parts.output(out));
        all
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("batch", size(self.batch)),
            ("h", size(self.h)),
            ("w", size(self.w)),
            ("c", size(self.c)),
            ("c1", size(self.c1)),
            ("n", size(self.n)),
            ("window_h", size(self.window[0])),
            ("window_w", size(self.window[1])),
            ("stride", size(self.stride)),
            ("pad_top", Param::I32(self.pad[0] as i32)),
            ("pad_left", Param::I32(self.pad[1] as i32)),
            ("up_h", size(self.upsample.map_or(self.h, |size| size[0]))),
            ("up_w", size(self.upsample.map_or(self.w, |size| size[1]))),
            ("out_h", size(self.out_h)),
            ("out_w", size(self.out_w)),
            ("parts", size(self.parts.count())),
            ("k_part", size(self.parts.length(self.sum_length()))),
        ]
    }

    fn flops(&self) -> f64 {
        2.0 * self.output_count() as f64 * (self.window[0] * self.window[1] * self.c) as f64
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let Conv2d { h, w: width, c, c1, n, window, stride, pad, out_h, out_w, .. } = *self;
        let [up_h, up_w] = self.upsample.unwrap_or([h, width]);
        let named = named(self, inputs);
        let (x, w) = (named("x").expect("x").f32(), named("w").expect("w"));
        let x2 = named("x2").map_or(&[][..], Values::f32);
        let [bias, image_bias, residual] = ["bias", "image_bias", "residual"].map(|name| named(name).map(Values::f32));
        let zeros = vec![0.0; c];

        // a row of the product is a pixel of y; each place in the window gives a run of channels from x and one from x2
        let run = |m: usize, run: usize| {
            let (image, v, u) = (m / (out_h * out_w), m / out_w % out_h, m % out_w);
            let (r, s) = (run / 2 / window[1], run / 2 % window[1]);
            let row = (v * stride + r).checked_add_signed(-pad[0]).filter(|row| *row < up_h);
            let column = (u * stride + s).checked_add_signed(-pad[1]).filter(|column| *column < up_w);
            let pixel =
                row.zip(column).map(|(row, column)| (image * h + row * h / up_h) * width + column * width / up_w);
            match (pixel, run % 2) {
                (Some(pixel), 0) => &x[pixel * c1..][..c1],
                (Some(pixel), _) => &x2[pixel * (c - c1)..][..c - c1],
                (None, _) => &zeros,
            }
        };
        let finish = |m: usize, n: usize, sum: f32| {
            let image = m / (out_h * out_w);
            let biased = sum + bias.map_or(0.0, |b| b[n]) + image_bias.map_or(0.0, |b| b[image * self.n + n]);
            self.act.of(biased) + residual.map_or(0.0, |r| r[m * self.n + n])
        };
        let runs = [c1, c - c1].repeat(window[0] * window[1]);
        let product = Product { w, k: self.sum_length(), n, runs, first: 0 };
        match self.parts.is_whole() {
            true => product.compute(output.f32(), run, finish),
            false => product.compute_parts(output.f32(), self.parts, run),
        }
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&CONV2D, &CONV2D_TILED, &CONV2D_SUBGROUP, &CONV2D_NARROW, &CONV2D_COOPERATIVE]
    }
}

impl Conv2d {
    /// Pixels of `y`: rows of the matrix product that a convolution is.
    pub(crate) fn pixels(&self) -> usize {
        self.batch * self.out_h * self.out_w
    }

    /// How many products a value of `y` is the sum of.
    pub(crate) fn sum_length(&self) -> usize {
        self.window[0] * self.window[1] * self.c
    }

    /// Values of `y`.
    fn output_count(&self) -> usize {
        self.pixels() * self.n
    }

    /// The switches of the epilogue, which every kernel of this op has.
    pub(crate) fn epilogue(&self) -> Vec<Constant> {
        epilogue(self.act, self.bias, self.image_bias, self.residual)
    }
}

/// One invocation per value of `y`.
pub static CONV2D: Kernel = kernel!("conv", "conv2d", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Conv2d(op) = op else { return None };
    op.parts.is_whole().then_some(())?;
    let workgroups = grid_1d(op.output_count().div_ceil(64), &target.limits)?;
    Some(Schedule { constants: op.epilogue(), extents: vec![], workgroups, merit: 0.01 })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use half::f16;
    use ratel_tensor::panel_index;

    /// The definition, as plain loops.
    fn naive(op: &Conv2d, inputs: &[Values]) -> Vec<f32> {
        let Conv2d { batch, h, w: width, c, c1, n: channels, window, stride, pad, out_h, out_w, .. } = *op;
        let [up_h, up_w] = op.upsample.unwrap_or([h, width]);
        let get = named(op, inputs);
        let w = get("w").unwrap();
        let w = w.widened(0..w.len());
        let mut y = Vec::new();
        for (i, v, u, n) in indices([batch, out_h, out_w, channels]) {
            let mut sum = 0.0;
            for (r, s, c_in, _) in indices([window[0], window[1], c, 1]) {
                let row = (v * stride + r) as isize - pad[0];
                let column = (u * stride + s) as isize - pad[1];
                if row < 0 || column < 0 || row as usize >= up_h || column as usize >= up_w {
                    continue;
                }
                let pixel = (i * h + row as usize * h / up_h) * width + column as usize * width / up_w;
                let x = match c_in.checked_sub(c1) {
                    None => get("x").unwrap().f32()[pixel * c1 + c_in],
                    Some(rest) => get("x2").unwrap().f32()[pixel * (c - c1) + rest],
                };
                sum += x * w[panel_index((r * window[1] + s) * c + c_in, n, op.sum_length(), channels)];
            }
            sum += get("bias").map_or(0.0, |b| b.f32()[n]);
            sum += get("image_bias").map_or(0.0, |b| b.f32()[i * channels + n]);
            sum = op.act.of(sum) + get("residual").map_or(0.0, |b| b.f32()[y.len()]);
            y.push(sum);
        }
        y
    }

    fn indices([a, b, c, d]: [usize; 4]) -> impl Iterator<Item = (usize, usize, usize, usize)> {
        (0..a * b * c * d).map(move |i| (i / d / c / b, i / d / c % b, i / d % c, i % d))
    }

    /// Deterministic values between -1 and 1.
    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn the_twin_is_the_definition() {
        for op in Conv2d::cases().into_iter().filter(|op| op.flops() < 3e7 && op.parts.is_whole()) {
            let operands = op.operands();
            let (output, inputs) = operands.split_last().unwrap();
            let data: Vec<_> = inputs.iter().zip(1..).map(|(input, seed)| noise(input.count, seed)).collect();
            let halves: Vec<Vec<f16>> = data.iter().map(|d| d.iter().map(|v| f16::from_f32(*v)).collect()).collect();
            for half in [false, true] {
                let values: Vec<Values> = inputs
                    .iter()
                    .zip(data.iter().zip(&halves))
                    .map(|(input, (full, packed))| match input.name {
                        "w" if half => Values::F16(packed),
                        _ => Values::F32(full),
                    })
                    .collect();
                let mut y = vec![f32::NAN; output.count];
                op.twin(&values, ValuesMut::F32(&mut y));
                let expected = naive(&op, &values);
                let norm: f32 = expected.iter().map(|v| v * v).sum();
                let error: f32 = y.iter().zip(&expected).map(|(a, b)| (a - b).powi(2)).sum();
                assert!(error <= 1e-12 * norm, "{op:?}: {error} of {norm}");
            }
        }
    }
}
