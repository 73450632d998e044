//! As good as nothing: what a dispatch costs by itself. For `ratel roofline`; no model uses it.

use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, kernel};
use ratel_tensor::Elem;

/// `y[0] = 1`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoofEmpty;

impl RoofEmpty {
    /// There is only one.
    pub fn cases() -> Vec<Self> {
        vec![RoofEmpty]
    }
}

impl Operation for RoofEmpty {
    fn name(&self) -> &'static str {
        ROOF_EMPTY.name
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::vector("y", 1)]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        vec![]
    }

    fn flops(&self) -> f64 {
        0.0
    }

    fn twin(&self, _: &[Values], output: ValuesMut) {
        output.f32().fill(1.0);
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&ROOF_EMPTY]
    }

    fn tolerance(&self, _: Elem) -> f64 {
        0.0
    }
}

/// One invocation.
pub static ROOF_EMPTY: Kernel = kernel!("roofline", "roof_empty", schedule);

fn schedule(op: &Op, _: &Target) -> Option<Schedule> {
    let Op::RoofEmpty(_) = op else { return None };
    Some(Schedule { constants: vec![], extents: vec![], workgroups: [1, 1, 1], merit: 1.0 })
}
