//! Product with a layer's matrix: linear layers, and 1x1 convolutions, which are the same thing on NHWC.

use crate::activation::Act;
use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use rayon::prelude::*;

/// `y[m, n] = act(sum_k x[m, k] w[k, n] + bias[n] + image_bias[m / image_rows, n]) + residual[m, n]`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Matmul {
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
    /// What is applied to the sum.
    pub act: Act,
    /// Whether a residual is added after that.
    pub residual: bool,
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
            plain(1, 1, 1),
        ]
    }
}

impl Operation for Matmul {
    fn name(&self) -> &'static str {
        MATMUL.name
    }

    fn operands(&self) -> Vec<Operand> {
        let Matmul { m, n, k, k1, .. } = *self;
        let mut all = vec![Operand::activation("x", m * k1)];
        if k1 < k {
            all.push(Operand::activation("x2", m * (k - k1)));
        }
        all.push(Operand::weight("w", k * n));
        if self.bias {
            all.push(Operand::vector("bias", n));
        }
        if let Some(rows) = self.image_rows {
            all.push(Operand::activation("image_bias", m / rows * n));
        }
        if self.residual {
            all.push(Operand::activation("residual", m * n));
        }
        all.push(Operand::activation("y", m * n));
        all
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("m", size(self.m)),
            ("n", size(self.n)),
            ("k", size(self.k)),
            ("k1", size(self.k1)),
            ("image_rows", size(self.image_rows.unwrap_or(self.m))),
        ]
    }

    fn flops(&self) -> f64 {
        2.0 * self.m as f64 * self.n as f64 * self.k as f64
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let Matmul { n, k, k1, .. } = *self;
        let named = self.named(inputs);
        let (x, w) = (named("x").expect("x").f32(), named("w").expect("w"));
        let x2 = named("x2").map_or(&[][..], Values::f32);
        let w = w.widened(0..k * n);
        output.f32().par_chunks_mut(n).enumerate().for_each(|(m, y)| {
            y.fill(0.0);
            for k in 0..k {
                let x = if k < k1 { x[m * k1 + k] } else { x2[m * (self.k - k1) + k - k1] };
                for n in 0..n {
                    y[n] += x * w[k * self.n + n];
                }
            }
            for n in 0..n {
                if let Some(bias) = named("bias") {
                    y[n] += bias.f32()[n];
                }
                if let (Some(rows), Some(image_bias)) = (self.image_rows, named("image_bias")) {
                    y[n] += image_bias.f32()[m / rows * self.n + n];
                }
                y[n] = self.act.of(y[n]);
                if let Some(residual) = named("residual") {
                    y[n] += residual.f32()[m * self.n + n];
                }
            }
        });
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&MATMUL]
    }
}

impl Matmul {
    /// Looks an operand up by name.
    fn named<'a>(&self, inputs: &'a [Values<'a>]) -> impl Fn(&str) -> Option<Values<'a>> {
        let names: Vec<_> = self.operands().iter().map(|operand| operand.name).collect();
        move |name| names.iter().position(|known| *known == name).map(|i| inputs[i])
    }

    /// The switches of the epilogue, which every kernel of this op has.
    pub(crate) fn epilogue(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("ACT", self.act as u32 as f64),
            ("BIAS", f64::from(u8::from(self.bias))),
            ("IMAGE_BIAS", f64::from(u8::from(self.image_rows.is_some()))),
            ("RESIDUAL", f64::from(u8::from(self.residual))),
        ]
    }
}

/// One invocation per value of `y`.
pub static MATMUL: Kernel = kernel!("matmul", "matmul", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Matmul(op) = op else { return None };
    let workgroups = grid_1d((op.m * op.n).div_ceil(64), &target.limits)?;
    Some(Schedule { constants: op.epilogue(), extents: vec![], workgroups, merit: 0.01 })
}
