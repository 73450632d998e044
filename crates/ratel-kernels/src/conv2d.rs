//! Convolution, as an implicit matrix product over NHWC: no patches are copied.

use crate::activation::Act;
use crate::{Kernel, Operand, Operation, Param, Values, ValuesMut};

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
}

impl Conv2d {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        vec![]
    }
}

impl Operation for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn operands(&self) -> Vec<Operand> {
        let (pixels, out) = (self.batch * self.h * self.w, self.batch * self.out_h * self.out_w * self.n);
        let mut all = vec![Operand::activation("x", pixels * self.c1)];
        if self.c1 < self.c {
            all.push(Operand::activation("x2", pixels * (self.c - self.c1)));
        }
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
        all.push(Operand::activation("y", out));
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
        ]
    }

    fn flops(&self) -> f64 {
        2.0 * (self.batch * self.out_h * self.out_w * self.n) as f64 * (self.window[0] * self.window[1] * self.c) as f64
    }

    fn twin(&self, _inputs: &[Values], _output: ValuesMut) {}

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![]
    }
}
