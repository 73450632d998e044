use crate::Op;
use ratel_tensor::Elem;

/// How the matrices of layers lie in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightStorage {
    /// Full width.
    F32,
    /// Half precision, on a device that has the type.
    F16,
    /// Half precision, two in a `u32`, on a device that has not. The bytes are those of [`WeightStorage::F16`].
    PackedF16,
}

impl WeightStorage {
    /// The element type, however it is packed.
    pub const fn elem(self) -> Elem {
        match self {
            WeightStorage::F32 => Elem::F32,
            WeightStorage::F16 | WeightStorage::PackedF16 => Elem::F16,
        }
    }
}

/// What a device allows; the names are WebGPU's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `maxStorageBufferBindingSize`, bytes.
    pub binding_bytes: u64,
    /// `maxBufferSize`, bytes.
    pub buffer_bytes: u64,
    /// `maxComputeWorkgroupStorageSize`, bytes.
    pub workgroup_bytes: u32,
    /// `maxComputeInvocationsPerWorkgroup`.
    pub invocations: u32,
    /// `maxComputeWorkgroupsPerDimension`.
    pub workgroups: u32,
    /// `minStorageBufferOffsetAlignment`, bytes.
    pub offset_alignment: u32,
}

impl Limits {
    /// What every WebGPU device has: the plan of a machine that is not at hand.
    pub const WEBGPU: Limits = Limits {
        binding_bytes: 128 << 20,
        buffer_bytes: 256 << 20,
        workgroup_bytes: 16 << 10,
        invocations: 256,
        workgroups: 65_535,
        offset_alignment: 256,
    };
}

/// What kernels are chosen for: a device and the precision of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Whether ops run as their CPU twins, without a device.
    pub twins: bool,
    /// The type of activations.
    pub elem: Elem,
    /// The storage of layers' matrices.
    pub weight: WeightStorage,
    /// Whether the device has 16-bit floats.
    pub f16: bool,
    /// Subgroup operations, if the device has them: the size, when every subgroup is sure to be of that one size.
    pub subgroup: Option<u32>,
    /// The edge of the square matrices that a subgroup multiplies as one operation, halves in and `f32` sums out, if the
    /// device has such: 8 or 16.
    pub cooperative: Option<u32>,
    /// Whether the driver is a program on the CPU (lavapipe, SwiftShader): other kernels are fast there.
    pub software: bool,
    /// What the device allows.
    pub limits: Limits,
}

impl Target {
    /// A device of which only WebGPU's guarantees are known, at full precision.
    pub const PLAIN: Target = Target {
        twins: false,
        elem: Elem::F32,
        weight: WeightStorage::F32,
        f16: false,
        subgroup: None,
        cooperative: None,
        software: false,
        limits: Limits::WEBGPU,
    };
}

impl Target {
    /// The CPU twins, over weights of this type.
    pub const fn twins(weight: WeightStorage) -> Target {
        let limits = Limits { binding_bytes: u64::MAX, buffer_bytes: u64::MAX, ..Limits::WEBGPU };
        Target { twins: true, weight, limits, ..Target::PLAIN }
    }
}

/// A value for one of a kernel's `override` declarations.
pub type Constant = (&'static str, f64);

/// How one kernel does one op: everything but the data.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Values of `override`s.
    pub constants: Vec<Constant>,
    /// Values of the generated `spec` module: extents of arrays in functions, which WGSL wants constant when parsed.
    pub extents: Vec<(&'static str, u32)>,
    /// Workgroups along x, y, z.
    pub workgroups: [u32; 3],
    /// The share of the device's peak that this kernel is expected to reach on this op, 0 to 1: the kernel with the
    /// largest is chosen. A guess for want of a measurement, so only its order matters.
    pub merit: f32,
}

/// A language that naga writes WGSL as, for some kind of driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Vulkan's.
    Spirv,
    /// Metal's.
    Msl,
    /// DX12's.
    Hlsl,
}

impl Language {
    /// Every language.
    pub const ALL: &'static [Language] = &[Language::Spirv, Language::Msl, Language::Hlsl];
}

/// One WGSL file under `shaders/`, and when it can be used.
#[derive(Debug)]
pub struct Kernel {
    /// File stem, entry point, module in this crate, label, profiler row.
    pub name: &'static str,
    /// The file below `shaders/`.
    pub path: &'static str,
    /// The file's text.
    pub source: &'static str,
    /// How it would do an op on a target; `None` where it can't.
    pub schedule: fn(&Op, &Target) -> Option<Schedule>,
    /// The languages it can be translated to: all, but for what uses a feature that only some drivers have.
    pub languages: &'static [Language],
}

/// Declares a [`Kernel`] from its family's folder and its name; and the languages it can be translated to, if not all.
#[macro_export]
macro_rules! kernel {
    ($family:literal, $name:literal, $schedule:expr) => {
        $crate::kernel!($family, $name, $schedule, $crate::Language::ALL)
    };
    ($family:literal, $name:literal, $schedule:expr, $languages:expr) => {
        $crate::Kernel {
            name: $name,
            path: concat!($family, "/", $name, ".wgsl"),
            source: include_str!(concat!("../../../shaders/", $family, "/", $name, ".wgsl")),
            schedule: $schedule,
            languages: $languages,
        }
    };
}

/// The grid of a kernel that needs `count` workgroups in a row: rows of at most the device's limit, so the kernel
/// recovers its number as `wg.y * num_workgroups.x + wg.x` and must ignore those from `count` on.
pub fn grid_1d(count: usize, limits: &Limits) -> Option<[u32; 3]> {
    let limit = limits.workgroups as usize;
    let y = count.div_ceil(limit).max(1);
    let x = count.div_ceil(y).max(1);
    (y <= limit).then_some([x as u32, y as u32, 1])
}

/// A grid of `x` by `y` by `z` workgroups, where the device allows it.
pub fn grid_2d(x: usize, y: usize, z: usize, limits: &Limits) -> Option<[u32; 3]> {
    let limit = limits.workgroups as usize;
    (x <= limit && y <= limit && z <= limit).then_some([x as u32, y as u32, z as u32])
}
