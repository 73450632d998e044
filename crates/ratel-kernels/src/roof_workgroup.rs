//! Reads of workgroup memory, and nothing but an addition for each. For `ratel roofline`; no model uses it.

use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use multiversion::multiversion;
use ratel_tensor::Elem;
use rayon::prelude::*;

/// `y[i] = sum_{r < rounds / 8, s < 8}` of the four values `x[(i + 8 r) mod 512 + s]`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoofWorkgroup {
    /// Values of `y`.
    pub count: usize,
    /// Reads for each of them, a multiple of 8.
    pub rounds: usize,
}

/// After so many reads they begin again at the first place.
const PERIOD: usize = 512;
/// Reads at consecutive places.
const STEPS: usize = 8;

impl RoofWorkgroup {
    /// Values of `x`: fours at each place that is read.
    pub const SIZE: usize = 4 * (PERIOD + STEPS);

    /// Whole and broken workgroups.
    pub fn cases() -> Vec<Self> {
        let case = |count, rounds| RoofWorkgroup { count, rounds };
        vec![case(512, 1024), case(300, 64), case(1, 8)]
    }

    /// Bytes of workgroup memory that are read.
    pub fn workgroup_bytes(&self) -> f64 {
        16.0 * self.rounds as f64 * self.count as f64
    }
}

/// Values of `y` that the twin computes side by side: reads for them are consecutive.
const LANES: usize = STEPS;

/// The sums for [`LANES`] values from number `first` on, a multiple of it.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn lanes(x: &[f32], first: usize, rounds: usize) -> [f32; LANES] {
    // those of even and of odd steps, so that one need not wait for the other
    let mut sums = [[0.0; 4 * LANES]; 2];
    for round in (0..rounds).step_by(STEPS) {
        let x = &x[4 * ((first + round) % PERIOD)..][..4 * (STEPS + LANES)];
        for step in 0..STEPS {
            let read = &x[4 * step..4 * (step + LANES)];
            let sum = &mut sums[step % 2];
            for i in 0..4 * LANES {
                sum[i] += read[i];
            }
        }
    }
    std::array::from_fn(|lane| (4 * lane..4 * lane + 4).map(|i| sums[0][i] + sums[1][i]).sum())
}

impl Operation for RoofWorkgroup {
    fn name(&self) -> &'static str {
        ROOF_WORKGROUP.name
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::vector("x", Self::SIZE), Operand::vector("y", self.count)]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![("count", size(self.count)), ("rounds", size(self.rounds)), ("size", size(Self::SIZE))]
    }

    fn flops(&self) -> f64 {
        4.0 * self.rounds as f64 * self.count as f64
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let x = inputs[0].f32();
        output.f32().par_chunks_mut(LANES).enumerate().for_each(|(block, y)| {
            y.copy_from_slice(&lanes(x, block * LANES, self.rounds)[..y.len()]);
        });
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&ROOF_WORKGROUP]
    }

    /// Additions are many, and each is off by half a bit at most: the square of the error grows with their number.
    fn tolerance(&self, _: Elem) -> f64 {
        2e-14 * self.rounds.max(500) as f64
    }
}

/// One invocation per value of `y`.
pub static ROOF_WORKGROUP: Kernel = kernel!("roofline", "roof_workgroup", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::RoofWorkgroup(op) = op else { return None };
    if !op.rounds.is_multiple_of(STEPS) {
        return None;
    }
    let workgroups = grid_1d(op.count.div_ceil(256), &target.limits)?;
    Some(Schedule { constants: vec![], extents: vec![], workgroups, merit: 1.0 })
}
