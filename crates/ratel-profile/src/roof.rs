//! What a device's roof means for a dispatch: the roofline (Williams, Waterman & Patterson 2009).

use ratel_engine::Roof;
use ratel_kernels::{Op, Target};
use ratel_tensor::Elem;
use serde::{Deserialize, Serialize};

/// What an op's arithmetic could be done by. Sums are `f32` in every kernel, so that `f16` is no unit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Multiply-adds in `f32`.
    F32,
    /// Cooperative matrices, where the device has them.
    Matrix,
}

impl Unit {
    /// Of an op on a target: products of activations in `f16` could be done by matrices, whatever kernel does them.
    pub fn of(op: &Op, target: &Target) -> Unit {
        let product = matches!(op, Op::Matmul(_) | Op::Conv2d(_) | Op::Attention(_));
        if product && target.elem == Elem::F16 { Unit::Matrix } else { Unit::F32 }
    }

    /// Operations a second at best.
    pub fn flops(self, roof: &Roof) -> f64 {
        match self {
            Unit::F32 => roof.f32_flops,
            Unit::Matrix => roof.flops(),
        }
    }
}

/// What keeps a dispatch from being faster on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Its arithmetic.
    Compute,
    /// The bytes it must move.
    Memory,
    /// Even doing nothing takes longer than its work should: there are too many dispatches, or too small ones.
    Launch,
}

impl Bound {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Compute => "compute",
            Bound::Memory => "memory",
            Bound::Launch => "launch",
        }
    }
}

/// The least time that work can take on a device, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Nanoseconds at the roof min(F, I B): the work's flops over F, or its bytes over B, whichever is longer.
    pub ns: f64,
    /// What binds.
    pub bound: Bound,
}

impl Limit {
    /// Of `flops` operations over `bytes` bytes.
    pub fn of(roof: &Roof, flops: f64, bytes: f64, unit: Unit) -> Limit {
        let (compute, memory) = (flops / unit.flops(roof), bytes / roof.copy_bytes);
        let seconds = compute.max(memory);
        let bound = match compute >= memory {
            _ if roof.dispatch_seconds > seconds => Bound::Launch,
            true => Bound::Compute,
            false => Bound::Memory,
        };
        Limit { ns: seconds * 1e9, bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_of_two_times_binds() {
        let roof = crate::example::roof();
        // ten operations a byte are the ridge
        assert_eq!(Limit::of(&roof, 1e9, 1e7, Unit::F32), Limit { ns: 1e6, bound: Bound::Compute });
        assert_eq!(Limit::of(&roof, 1e9, 2e8, Unit::F32), Limit { ns: 2e6, bound: Bound::Memory });
        assert_eq!(Limit::of(&roof, 0.0, 1e5, Unit::F32), Limit { ns: 1e3, bound: Bound::Launch });
        assert_eq!(Limit::of(&roof, 1e9, 1e7, Unit::Matrix).ns, 1e6, "it has no matrices");
        let with = Roof { matrix_flops: Some(4e12), ..roof };
        assert_eq!(Limit::of(&with, 1e9, 1e7, Unit::Matrix), Limit { ns: 0.25e6, bound: Bound::Compute });
        assert_eq!(Limit::of(&with, 1e9, 1e7, Unit::F32).ns, 1e6);
    }

    #[test]
    fn products_in_f16_could_be_done_by_matrices() {
        let matmul = Op::from(ratel_kernels::matmul::Matmul::default());
        let add = Op::from(ratel_kernels::add::Add { count: 1, span: 1, period: 1 });
        let half = Target { elem: Elem::F16, ..Target::PLAIN };
        assert_eq!(Unit::of(&matmul, &half), Unit::Matrix);
        assert_eq!(Unit::of(&matmul, &Target::PLAIN), Unit::F32);
        assert_eq!(Unit::of(&add, &half), Unit::F32);
    }
}
