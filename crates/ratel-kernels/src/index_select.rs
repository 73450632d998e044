//! Rows of a tensor by number: of what was computed for every step, what belongs to one.

use crate::{Kernel, Op, Operand, Operation, Param, Role, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use ratel_tensor::Elem;

/// `y[i, c] = x[index[i], c]` (`torch.index_select` along the first axis).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct IndexSelect {
    /// Rows of `y`.
    pub count: usize,
    /// Values of a row.
    pub c: usize,
    /// Rows of `x`.
    pub rows: usize,
}

impl IndexSelect {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        let case = |count, c, rows| IndexSelect { count, c, rows };
        vec![case(2, 1280, 20), case(8, 320, 50), case(5, 7, 3), case(1, 1, 1)]
    }
}

impl Operation for IndexSelect {
    fn name(&self) -> &'static str {
        INDEX_SELECT.name
    }

    fn operands(&self) -> Vec<Operand> {
        let (count, selected) = (self.count, self.count * self.c);
        let all = self.rows * self.c;
        vec![
            Operand { touched: selected.min(all), ..Operand::activation("x", all) },
            Operand { name: "index", role: Role::Ids { bound: self.rows as u32 }, count, touched: count },
            Operand::activation("y", selected),
        ]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![("count", size(self.count)), ("c", size(self.c)), ("rows", size(self.rows))]
    }

    fn flops(&self) -> f64 {
        0.0
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let (x, index) = (inputs[0].f32(), inputs[1].u32());
        for (row, y) in index.iter().zip(output.f32().chunks_exact_mut(self.c)) {
            let row = (*row as usize).min(self.rows - 1);
            y.copy_from_slice(&x[row * self.c..(row + 1) * self.c]);
        }
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&INDEX_SELECT]
    }

    fn tolerance(&self, _: Elem) -> f64 {
        1e-9 // values are copied, but a device may take halves under 6e-5 for zeros
    }
}

/// One invocation per value of `y`.
pub static INDEX_SELECT: Kernel = kernel!("pointwise", "index_select", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::IndexSelect(op) = op else { return None };
    let workgroups = grid_1d((op.count * op.c).div_ceil(64), &target.limits)?;
    Some(Schedule { constants: vec![], extents: vec![], workgroups, merit: 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_the_order_of_the_index() {
        let op = IndexSelect { count: 3, c: 2, rows: 2 };
        let mut y = [0.0; 6];
        op.twin(&[Values::F32(&[1.0, 2.0, 3.0, 4.0]), Values::U32(&[1, 0, 1])], ValuesMut::F32(&mut y));
        assert_eq!(y, [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
    }
}
