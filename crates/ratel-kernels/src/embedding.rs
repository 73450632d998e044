//! Embedding gather: rows of a table by token id.

use crate::{Kernel, Op, Operand, Operation, Param, Role, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use ratel_tensor::Elem;

/// `y[t, c] = table[ids[t] - first, c]` for ids of `first .. first + rows`; other rows of `y` are left alone, so a table
/// larger than a binding is looked up in part by part.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Embedding {
    /// Ids.
    pub count: usize,
    /// Values of a row.
    pub c: usize,
    /// The id of the table's first row here.
    pub first: usize,
    /// Rows of the table here.
    pub rows: usize,
    /// Rows of the whole table.
    pub vocabulary: usize,
}

impl Embedding {
    /// The models' own sizes, and odd ones.
    pub fn cases() -> Vec<Self> {
        let case = |count, c, first, rows, vocabulary| Embedding { count, c, first, rows, vocabulary };
        vec![
            case(2 * 77, 768, 0, 4096, 4096),
            case(77, 1024, 100, 50, 200), // a part of a table
            case(7, 3, 0, 5, 5),
            case(1, 1, 0, 1, 1),
        ]
    }
}

impl Operation for Embedding {
    fn name(&self) -> &'static str {
        EMBEDDING.name
    }

    fn operands(&self) -> Vec<Operand> {
        let touched = self.count * self.c;
        vec![
            Operand {
                name: "ids",
                role: Role::Ids { bound: self.vocabulary as u32 },
                count: self.count,
                touched: self.count,
            },
            Operand { touched, ..Operand::weight("table", self.rows * self.c) },
            Operand::activation("y", self.count * self.c),
        ]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![("count", size(self.count)), ("c", size(self.c)), ("first", size(self.first)), ("rows", size(self.rows))]
    }

    fn flops(&self) -> f64 {
        0.0
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let (ids, table) = (inputs[0].u32(), inputs[1]);
        for (id, y) in ids.iter().zip(output.f32().chunks_exact_mut(self.c)) {
            let row = (*id as usize).checked_sub(self.first).filter(|row| *row < self.rows);
            if let Some(row) = row {
                table.widen(row * self.c, y);
            }
        }
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&EMBEDDING]
    }

    fn tolerance(&self, _: Elem) -> f64 {
        1e-9 // values are copied, but a device may take halves under 6e-5 for zeros
    }
}

/// One invocation per value of `y`.
pub static EMBEDDING: Kernel = kernel!("pointwise", "embedding", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::Embedding(op) = op else { return None };
    let workgroups = grid_1d((op.count * op.c).div_ceil(64), &target.limits)?;
    Some(Schedule { constants: vec![], extents: vec![], workgroups, merit: 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_other_parts_are_left_alone() {
        let op = Embedding { count: 4, c: 2, first: 10, rows: 2, vocabulary: 20 };
        let mut y = [-1.0; 8];
        let inputs = [Values::U32(&[11, 9, 12, 10]), Values::F32(&[1.0, 2.0, 3.0, 4.0])];
        op.twin(&inputs, ValuesMut::F32(&mut y));
        assert_eq!(y, [3.0, 4.0, -1.0, -1.0, -1.0, -1.0, 1.0, 2.0]);
    }
}
