//! What a device can do at most, and what that means for a dispatch: the roofline (Williams, Waterman, Patterson 2009).

use serde::{Deserialize, Serialize};

/// What a device can do at most, as measured on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roof {
    /// The device.
    pub device: String,
    /// Its driver.
    pub driver: String,
    /// Floating-point operations a second in `f32`; a multiply-add is two.
    pub f32_flops: f64,
    /// The same in `f16`.
    pub f16_flops: Option<f64>,
    /// The same with cooperative matrices.
    pub matrix_flops: Option<f64>,
    /// Bytes a second of a copy far larger than any cache, read and written ones together.
    pub copy_bytes: f64,
    /// Bytes a second out of workgroup memory.
    pub workgroup_bytes: f64,
    /// Seconds of a dispatch that does nothing.
    pub dispatch_seconds: f64,
}

/// What a kernel's arithmetic is limited by. Sums are `f32` in every kernel, so `f16` is no unit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Multiply-adds in `f32`.
    F32,
    /// Cooperative matrices.
    Matrix,
}

/// What keeps a dispatch from being faster on this device.
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

impl Roof {
    /// Floating-point operations a second of a unit: that of `f32` where the device has no cooperative matrices.
    pub fn flops(&self, unit: Unit) -> f64 {
        match unit {
            Unit::F32 => self.f32_flops,
            Unit::Matrix => self.matrix_flops.unwrap_or(self.f32_flops),
        }
    }

    /// The limit of `flops` operations over `bytes` bytes.
    pub fn limit(&self, flops: f64, bytes: f64, unit: Unit) -> Limit {
        let (compute, memory) = (flops / self.flops(unit), bytes / self.copy_bytes);
        let seconds = compute.max(memory);
        let bound = match compute >= memory {
            _ if self.dispatch_seconds > seconds => Bound::Launch,
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
        let roof = Roof {
            device: String::new(),
            driver: String::new(),
            f32_flops: 1e12,
            f16_flops: None,
            matrix_flops: Some(4e12),
            copy_bytes: 1e11,
            workgroup_bytes: 1e12,
            dispatch_seconds: 5e-6,
        };
        // ten operations a byte are the ridge
        assert_eq!(roof.limit(1e9, 1e7, Unit::F32), Limit { ns: 1e6, bound: Bound::Compute });
        assert_eq!(roof.limit(1e9, 2e8, Unit::F32), Limit { ns: 2e6, bound: Bound::Memory });
        assert_eq!(roof.limit(1e9, 1e7, Unit::Matrix), Limit { ns: 0.25e6, bound: Bound::Compute });
        assert_eq!(roof.limit(0.0, 1e5, Unit::F32), Limit { ns: 1e3, bound: Bound::Launch });
        let without = Roof { matrix_flops: None, ..roof };
        assert_eq!(without.limit(1e9, 1e7, Unit::Matrix).ns, 1e6);
    }
}
