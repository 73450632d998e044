//! Embedding gather: rows of a table by token id.

use crate::{Kernel, Operand, Operation, Param, Role, Values, ValuesMut};

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
        vec![]
    }
}

impl Operation for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
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

    fn twin(&self, _inputs: &[Values], _output: ValuesMut) {}

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![]
    }
}
