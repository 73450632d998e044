//! Products of cooperative matrices in registers, bound by arithmetic. For `ratel roofline`; no model uses it.

use crate::cooperative_tile::{Cooperation, LANGUAGES};
use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use ratel_tensor::Elem;

/// `y[s, c] = rounds x[0] x[1 + c]`, matrices of `edge` by `edge`, by adding up the same product; once for each subgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoofMatrix {
    /// Subgroups that compute the same.
    pub count: usize,
    /// Rows and columns of a matrix, 8 or 16.
    pub edge: usize,
    /// Sums that each subgroup holds.
    pub chains: usize,
    /// Products that each sum is of, a multiple of 8.
    pub rounds: usize,
}

impl RoofMatrix {
    /// Whole and broken workgroups, of both sizes of matrices.
    pub fn cases() -> Vec<Self> {
        let case = |count, edge, chains, rounds| RoofMatrix { count, edge, chains, rounds };
        vec![case(16, 16, 4, 64), case(3, 16, 1, 8), case(16, 8, 4, 64), case(3, 8, 1, 8)]
    }
}

impl Operation for RoofMatrix {
    fn name(&self) -> &'static str {
        ROOF_MATRIX.name
    }

    fn operands(&self) -> Vec<Operand> {
        let (values, chains) = (self.edge * self.edge, self.chains);
        vec![Operand::activation("x", (chains + 1) * values), Operand::vector("y", self.count * chains * values)]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![
            ("count", size(self.count)),
            ("edge", size(self.edge)),
            ("chains", size(self.chains)),
            ("rounds", size(self.rounds)),
        ]
    }

    fn flops(&self) -> f64 {
        2.0 * (self.chains * self.rounds * self.count) as f64 * (self.edge as f64).powi(3)
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let (x, edge) = (inputs[0].f32(), self.edge);
        let product = |c: usize, row: usize, column: usize| {
            let right = &x[(1 + c) * edge * edge..];
            let terms = (0..edge).map(|k| f64::from(x[row * edge + k]) * f64::from(right[k * edge + column]));
            (self.rounds as f64 * terms.sum::<f64>()) as f32
        };
        for (i, y) in output.f32().iter_mut().enumerate() {
            *y = product(i / (edge * edge) % self.chains, i / edge % edge, i % edge);
        }
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&ROOF_MATRIX]
    }

    /// Each of many additions may lose a bit of a sum that grows all the time.
    fn tolerance(&self, _: Elem) -> f64 {
        1e-11_f64.max((self.rounds as f64 * 2.0_f64.powi(-23)).powi(2))
    }
}

/// One workgroup for a few subgroups.
pub static ROOF_MATRIX: Kernel = kernel!("roofline", "roof_matrix", schedule, LANGUAGES);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::RoofMatrix(op) = op else { return None };
    let cooperation = Cooperation::of(target).filter(|cooperation| cooperation.edge as usize == op.edge)?;
    let (edge, subgroups, chains) = (cooperation.edge, cooperation.subgroups, op.chains as u32);
    let bytes = edge * edge * (2 * (chains + 1) + 4 * subgroups);
    let (limits, workgroup) = (target.limits, cooperation.workgroup());
    if !op.rounds.is_multiple_of(8) || bytes > limits.workgroup_bytes || workgroup > limits.invocations {
        return None;
    }
    Some(Schedule {
        constants: vec![],
        extents: vec![("EDGE", edge), ("CHAINS", chains), ("SUBGROUPS", subgroups), ("WG", workgroup)],
        workgroups: grid_1d(op.count.div_ceil(subgroups as usize), &limits)?,
        merit: 1.0,
    })
}
