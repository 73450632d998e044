//! Nearest-neighbour enlargement, where it is not fused into the convolution after it.

use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use ratel_tensor::Elem;
use rayon::prelude::*;

/// `y[i, v, u, c] = x[i, v h / out_h, u w / out_w, c]` (`torch.nn.functional.interpolate`, mode nearest).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Upsample {
    /// Images.
    pub batch: usize,
    /// Rows of `x`.
    pub h: usize,
    /// Columns of `x`.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Rows of `y`.
    pub out_h: usize,
    /// Columns of `y`.
    pub out_w: usize,
}

impl Upsample {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        let case = |batch, [h, w]: [usize; 2], c, [out_h, out_w]: [usize; 2]| Upsample { batch, h, w, c, out_h, out_w };
        vec![
            case(2, [16, 16], 640, [32, 32]),
            case(1, [9, 5], 20, [17, 10]), // to a skip connection's odd size
            case(3, [3, 4], 1, [7, 4]),
            case(1, [1, 1], 1, [1, 1]),
        ]
    }
}

impl Operation for Upsample {
    fn name(&self) -> &'static str {
        UPSAMPLE.name
    }

    fn operands(&self) -> Vec<Operand> {
        vec![
            Operand::activation("x", self.batch * self.h * self.w * self.c),
            Operand::activation("y", self.batch * self.out_h * self.out_w * self.c),
        ]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("batch", size(self.batch)),
            ("h", size(self.h)),
            ("w", size(self.w)),
            ("c", size(self.c)),
            ("out_h", size(self.out_h)),
            ("out_w", size(self.out_w)),
        ]
    }

    fn flops(&self) -> f64 {
        0.0
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let Upsample { h, w, c, out_h, out_w, .. } = *self;
        let x = inputs[0].f32();
        output.f32().par_chunks_exact_mut(out_w * c).enumerate().for_each(|(row, y)| {
            let (i, v) = (row / out_h, row % out_h);
            for u in 0..out_w {
                let at = ((i * h + v * h / out_h) * w + u * w / out_w) * c;
                y[u * c..(u + 1) * c].copy_from_slice(&x[at..at + c]);
            }
        });
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&UPSAMPLE]
    }

    fn tolerance(&self, elem: Elem) -> f64 {
        match elem {
            Elem::F32 => 0.0, // values are copied
            _ => 1e-9,        // but a device may take halves under 6e-5 for zeros
        }
    }
}

/// One invocation per value of `y`.
pub static UPSAMPLE: Kernel = kernel!("pointwise", "upsample", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Upsample(op) = op else { return None };
    let workgroups = grid_1d((op.batch * op.out_h * op.out_w * op.c).div_ceil(64), &target.limits)?;
    Some(Schedule { constants: vec![], extents: vec![], workgroups, merit: 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against `torch.nn.functional.interpolate`.
    #[test]
    fn odd_sizes_take_the_pixels_that_torch_takes() {
        for (w, out_w, expected) in
            [(5, 9, &[0., 0., 1., 1., 2., 2., 3., 3., 4.][..]), (5, 8, &[0., 0., 1., 1., 2., 3., 3., 4.])]
        {
            let x: Vec<f32> = (0..w).map(|i| i as f32).collect();
            let mut y = vec![0.0; out_w];
            let op = Upsample { batch: 1, h: 1, w, c: 1, out_h: 1, out_w };
            op.twin(&[Values::F32(&x)], ValuesMut::F32(&mut y));
            assert_eq!(y, expected);
        }
    }
}
