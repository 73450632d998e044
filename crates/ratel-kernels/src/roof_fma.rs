//! Chains of fused multiply-adds, bound by arithmetic. For `ratel roofline`; no model uses it.

use crate::{Kernel, Op, Operand, Operation, Param, Schedule, Target, Values, ValuesMut, grid_1d, kernel};
use multiversion::multiversion;
use ratel_tensor::Elem;
use rayon::prelude::*;
use std::array;

/// `y[i] = sum_c z[c]`, where `z[c]` is `c / 4` and then, so many rounds, `z[c] x[i] / 2 + x[i]`; in the type of
/// activations, which no other op computes in.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoofFma {
    /// Values of `x` and `y`.
    pub count: usize,
    /// Chains for each value, in fours.
    pub chains: usize,
    /// Multiply-adds of each chain, a multiple of 8.
    pub rounds: usize,
}

impl RoofFma {
    /// Whole and broken workgroups.
    pub fn cases() -> Vec<Self> {
        let case = |count, chains, rounds| RoofFma { count, chains, rounds };
        vec![case(512, 4, 64), case(300, 3, 24), case(1, 1, 8)]
    }
}

/// Values that the twin computes side by side.
const LANES: usize = 32;
/// Values that one thread computes.
const PIECE: usize = 16 * LANES;

/// The sums of four chains, begun at `first`, for each of some values. The twins never fuse a product with a sum, so
/// their results are the same on every machine; the difference to what the op says is in the last bits.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn four_chains(x: &[f32; LANES], first: f32, rounds: usize) -> [f32; LANES] {
    let factor = x.map(|x| x * 0.5);
    let mut z: [[f32; LANES]; 4] = array::from_fn(|c| [first + c as f32 / 4.0; LANES]);
    for _ in 0..rounds {
        for z in &mut z {
            for i in 0..LANES {
                z[i] = z[i] * factor[i] + x[i];
            }
        }
    }
    array::from_fn(|i| z.iter().map(|z| z[i]).sum())
}

impl Operation for RoofFma {
    fn name(&self) -> &'static str {
        ROOF_FMA.name
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::activation("x", self.count), Operand::activation("y", self.count)]
    }

    fn params(&self) -> Vec<(&'static str, Param)> {
        let size = |value: usize| Param::U32(value as u32);
        vec![("count", size(self.count)), ("chains", size(self.chains)), ("rounds", size(self.rounds))]
    }

    fn flops(&self) -> f64 {
        8.0 * (self.chains * self.rounds) as f64 * self.count as f64
    }

    fn twin(&self, inputs: &[Values], output: ValuesMut) {
        let pieces = inputs[0].f32().par_chunks(PIECE).zip(output.f32().par_chunks_mut(PIECE));
        pieces.for_each(|(x, y)| {
            for (x, y) in x.chunks(LANES).zip(y.chunks_mut(LANES)) {
                let mut lanes = [0.0; LANES];
                lanes[..x.len()].copy_from_slice(x);
                y.fill(0.0);
                for chain in 0..self.chains {
                    let sums = four_chains(&lanes, chain as f32, self.rounds);
                    y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
                }
            }
        });
    }

    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![&ROOF_FMA]
    }

    fn tolerance(&self, elem: Elem) -> f64 {
        match elem {
            Elem::F32 => 1e-11,
            // each round is rounded to 11 bits, and the next one halves the error
            Elem::F16 | Elem::BF16 => 1e-5,
        }
    }
}

/// One invocation per value.
pub static ROOF_FMA: Kernel = kernel!("roofline", "roof_fma", schedule);

fn schedule(op: &Op, target: &Target) -> Option<Schedule> {
    let Op::RoofFma(op) = op else { return None };
    if !op.rounds.is_multiple_of(8) {
        return None;
    }
    let workgroups = grid_1d(op.count.div_ceil(256), &target.limits)?;
    Some(Schedule { constants: vec![], extents: vec![("CHAINS", op.chains as u32)], workgroups, merit: 1.0 })
}
