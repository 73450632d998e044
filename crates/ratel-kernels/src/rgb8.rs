//! A decoded picture as bytes.

use crate::{Kernel, Op, Operand, Operation, Param, Role, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use ratel_tensor::Elem;
use rayon::prelude::*;

/// `y[i] = round(255 clamp(x[i] / 2 + 1/2, 0, 1))`, half to even as `numpy.round` has it (diffusers'
/// `VaeImageProcessor.postprocess`): three channels in -1 to 1 become bytes, four in a `u32`, the first lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rgb8 {
    /// Values: pixels times three.
    pub count: usize,
}

impl Rgb8 {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        [512 * 512 * 3, 7 * 5 * 3, 4, 1].map(|count| Rgb8 { count }).to_vec()
    }
}

impl Operation for Rgb8 {
    fn name(&self) -> &'static str {
        RGB8.name
    }

    fn operands(&self) -> Vec<Operand> {
        vec![
            Operand::activation("x", self.count),
            Operand { name: "y", role: Role::Bytes, count: self.count, touched: self.count },
        ]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![("count", size(self.count))]
    }

    fn flops(&self) -> f64 {
        4.0 * self.count as f64
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let byte = |x: f32| (255.0 * (x * 0.5 + 0.5).clamp(0.0, 1.0)).round_ties_even() as u8;
        let x = inputs[0].f32()[..self.count].par_chunks(4);
        output.u32().par_iter_mut().zip(x).for_each(|(word, x)| {
            let mut bytes = [0; 4];
            for (i, x) in x.iter().enumerate() {
                bytes[i] = byte(*x);
            }
            *word = u32::from_le_bytes(bytes);
        });
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&RGB8]
    }

    fn tolerance(&self, _: Elem) -> f64 {
        0.0 // every operation is correctly rounded
    }
}

/// One invocation per four bytes.
pub static RGB8: Kernel = kernel!("sampling", "rgb8", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Rgb8(op) = op else { return None };
    let workgroups = grid_1d(op.count.div_ceil(4).div_ceil(64), &target.limits)?;
    Some(Schedule { constants: vec![], extents: vec![], workgroups, merit: 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of diffusers' `VaeImageProcessor`.
    #[test]
    fn twin_equals_diffusers() {
        let x = [-1.2, -1.0, -0.5, 0.0, 0.003, 0.0039216, 0.3, 0.99, 1.0, 1.5];
        let mut y = [u32::MAX; 3];
        Rgb8 { count: x.len() }.twin(&[Values::F32(&x)], ValuesMut::U32(&mut y));
        let bytes = y.map(u32::to_le_bytes).concat();
        assert_eq!(bytes, [0, 0, 64, 128, 128, 128, 166, 254, 255, 255, 0, 0]);
    }
}
