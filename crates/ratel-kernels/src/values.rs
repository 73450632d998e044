use crate::Operation;
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::borrow::Cow;
use std::ops::Range;

/// The values of one operand as a CPU twin reads them.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Activations, vectors, and weights kept at full width.
    F32(&'a [f32]),
    /// Weights kept in half precision; a twin widens them a row at a time.
    F16(&'a [f16]),
    /// Token ids.
    U32(&'a [u32]),
}

impl<'a> Values<'a> {
    /// The values as `f32`.
    ///
    /// # Panics
    /// If they are of another type: the plan gives activations and vectors to twins as `f32`.
    pub fn f32(self) -> &'a [f32] {
        match self {
            Values::F32(values) => values,
            _ => panic!("a twin asked for f32 values of an operand that holds others"),
        }
    }

    /// The values as `u32`.
    ///
    /// # Panics
    /// If they are of another type.
    pub fn u32(self) -> &'a [u32] {
        match self {
            Values::U32(values) => values,
            _ => panic!("a twin asked for u32 values of an operand that holds others"),
        }
    }

    /// Values `range`.
    pub(crate) fn slice(self, range: Range<usize>) -> Values<'a> {
        match self {
            Values::F32(values) => Values::F32(&values[range]),
            Values::F16(values) => Values::F16(&values[range]),
            Values::U32(values) => Values::U32(&values[range]),
        }
    }

    /// Values `range` as `f32`, widened if they are kept in half precision.
    pub fn widened(self, range: Range<usize>) -> Cow<'a, [f32]> {
        match self {
            Values::F32(values) => Cow::Borrowed(&values[range]),
            Values::F16(values) => Cow::Owned(values[range].iter().map(|v| v.to_f32()).collect()),
            Values::U32(_) => panic!("a twin asked for the weights of an operand that holds ids"),
        }
    }

    /// Copies the values from `start` on to `out`, widened if they are kept in half precision.
    pub fn widen(self, start: usize, out: &mut [f32]) {
        let range = start..start + out.len();
        match self {
            Values::F32(values) => out.copy_from_slice(&values[range]),
            Values::F16(values) => values[range].convert_to_f32_slice(out),
            Values::U32(_) => panic!("a twin asked for the weights of an operand that holds ids"),
        }
    }

    /// How many there are.
    pub fn len(self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::F16(values) => values.len(),
            Values::U32(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Looks up the inputs of an op by the names of its operands.
pub(crate) fn named<'a>(op: &impl Operation, inputs: &'a [Values<'a>]) -> impl Fn(&str) -> Option<Values<'a>> {
    let names: Vec<_> = op.operands().iter().map(|operand| operand.name).collect();
    move |name| names.iter().position(|known| *known == name).map(|i| inputs[i])
}

/// Where a CPU twin writes its result.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// Activations.
    F32(&'a mut [f32]),
    /// Four bytes a word: pictures.
    U32(&'a mut [u32]),
}

impl<'a> ValuesMut<'a> {
    /// The result as `f32`.
    ///
    /// # Panics
    /// If the operand is of another type.
    pub fn f32(self) -> &'a mut [f32] {
        match self {
            ValuesMut::F32(values) => values,
            ValuesMut::U32(_) => panic!("a twin writes f32 values to an operand that holds words"),
        }
    }

    /// The result as `u32`.
    ///
    /// # Panics
    /// If the operand is of another type.
    pub fn u32(self) -> &'a mut [u32] {
        match self {
            ValuesMut::U32(values) => values,
            ValuesMut::F32(_) => panic!("a twin writes words to an operand that holds f32 values"),
        }
    }
}
