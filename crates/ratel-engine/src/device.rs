//! Which devices there are, what they can do, and which one to take.

use crate::EngineError;
use ratel_kernels::Limits;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// Which device to run on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first there is of: a discrete GPU, an integrated one, a software driver, the CPU twins.
    #[default]
    Auto,
    /// The CPU twins, which need no driver.
    Cpu,
    /// By its place in [`crate::Engine::devices`].
    Index(usize),
    /// By a part of its name, backend or driver, in any case: `nvidia`, `lavapipe`, `vulkan`.
    Name(String),
}

impl FromStr for DeviceChoice {
    type Err = Infallible;

    /// `auto`, `cpu`, a number, or a part of a name.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "auto" => DeviceChoice::Auto,
            "cpu" => DeviceChoice::Cpu,
            _ => text.parse().map_or_else(|_| DeviceChoice::Name(text.to_owned()), DeviceChoice::Index),
        })
    }
}

/// What kind of device a driver drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the host's memory.
    Integrated,
    /// A GPU lent by a hypervisor.
    Virtual,
    /// The driver does not say (most GL drivers).
    Unknown,
    /// No GPU: the driver is a program on the CPU, such as lavapipe or SwiftShader.
    Software,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceKind::Discrete => "discrete GPU",
            DeviceKind::Integrated => "integrated GPU",
            DeviceKind::Virtual => "virtual GPU",
            DeviceKind::Unknown => "unknown",
            DeviceKind::Software => "software",
        })
    }
}

/// A size of matrix product that the device does as one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CooperativeMatrix {
    /// Rows of the result, columns of the result, length of the sum.
    pub size: [u32; 3],
    /// Element type of the factors: `f16`.
    pub factors: String,
    /// Element type of the sum: `f32`.
    pub sum: String,
}

/// A device and what it can do, as plain data.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceInfo {
    /// The device's name.
    pub name: String,
    /// `vulkan`, `metal`, `dx12`, `gl`.
    pub backend: String,
    /// The driver's name and version.
    pub driver: String,
    /// What kind of device it is.
    pub kind: DeviceKind,
    /// Whether it has 16-bit floats.
    pub f16: bool,
    /// The smallest and the largest subgroup, if it has subgroup operations.
    pub subgroup: Option<[u32; 2]>,
    /// Bytes of immediates (push constants); 0 when it has none.
    pub immediate_bytes: u32,
    /// Whether it can time single dispatches.
    pub timestamps: bool,
    /// Whether compiled pipelines can be kept.
    pub pipeline_cache: bool,
    /// Sizes of cooperative matrices.
    pub cooperative: Vec<CooperativeMatrix>,
    /// `maxStorageBuffersPerShaderStage`.
    pub storage_buffers: u32,
    /// What kernels are scheduled by.
    pub limits: Limits,
}

impl DeviceInfo {
    /// The edge of the largest square matrices, halves in and `f32` sums out, that kernels can be scheduled for. Metal's
    /// are left alone: kernels that use them exist for Vulkan only. So are those of a software driver whose subgroups
    /// are not of 8: lavapipe 26.1 reports matrices whatever its width, and fails where it is another.
    pub fn cooperative_edge(&self) -> Option<u32> {
        let usable = |m: &&CooperativeMatrix| {
            m.factors == "f16" && m.sum == "f32" && m.size.iter().all(|side| *side == m.size[0])
        };
        let edges = self.cooperative.iter().filter(usable).map(|m| m.size[0]);
        let works = self.kind != DeviceKind::Software || self.subgroup == Some([8, 8]);
        edges.max().filter(|_| works && self.backend == "vulkan" && self.f16)
    }

    /// Whether `part` is in the name, the backend or the driver, in any case.
    fn matches(&self, part: &str) -> bool {
        format!("{} {} {}", self.name, self.backend, self.driver).to_lowercase().contains(&part.to_lowercase())
    }

    /// Devices in the order in which they are tried: GPUs before software, GL after what is made for computing.
    fn rank(&self) -> (bool, bool, DeviceKind) {
        (self.kind == DeviceKind::Software, self.backend == "gl", self.kind)
    }
}

impl fmt::Display for DeviceInfo {
    /// `llvmpipe (LLVM 15.0.6, 256 bits) (vulkan, software)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.backend, self.kind)
    }
}

/// The adapters that can compute, with what they can do. GL is asked only where nothing better is there: it would show the
/// same devices again. (`WGPU_BACKEND=gl`, which wgpu reads, asks for it alone.)
pub(crate) fn adapters() -> Vec<(wgpu::Adapter, DeviceInfo)> {
    let allowed = wgpu::InstanceDescriptor::new_without_display_handle_from_env().backends;
    let found = adapters_of(allowed - wgpu::Backends::GL);
    if found.is_empty() { adapters_of(allowed & wgpu::Backends::GL) } else { found }
}

fn adapters_of(backends: wgpu::Backends) -> Vec<(wgpu::Adapter, DeviceInfo)> {
    if !backends.intersects(wgpu::Instance::enabled_backend_features()) {
        return vec![];
    }
    let descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor { backends, ..descriptor });
    let adapters = pollster::block_on(instance.enumerate_adapters(backends));
    let computes = |adapter: &wgpu::Adapter| {
        adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
    };
    adapters.into_iter().filter(computes).map(|adapter| (adapter.clone(), describe(&adapter))).collect()
}

/// The places in `known` to try for `choice`, best first. Empty for the CPU twins.
pub(crate) fn candidates(choice: &DeviceChoice, known: &[DeviceInfo]) -> Result<Vec<usize>, EngineError> {
    let mut order: Vec<usize> = (0..known.len()).collect();
    order.sort_by_key(|&i| known[i].rank());
    let none = |wanted: String| {
        let list: Vec<_> = known.iter().enumerate().map(|(i, info)| format!("{i}: {info}")).collect();
        let known = if list.is_empty() { "only `cpu`".to_owned() } else { list.join(", ") + ", and `cpu`" };
        EngineError::NoSuchDevice { wanted, known }
    };
    match choice {
        DeviceChoice::Auto => Ok(order),
        DeviceChoice::Cpu => Ok(vec![]),
        DeviceChoice::Index(i) if *i < known.len() => Ok(vec![*i]),
        DeviceChoice::Index(i) => Err(none(i.to_string())),
        DeviceChoice::Name(part) => {
            let found = order.into_iter().find(|&i| known[i].matches(part));
            found.map(|i| vec![i]).ok_or_else(|| none(part.clone()))
        }
    }
}

fn describe(adapter: &wgpu::Adapter) -> DeviceInfo {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let has = |feature| features.contains(feature);
    let scalar = |kind: &dyn fmt::Debug| format!("{kind:?}").to_lowercase();
    DeviceInfo {
        name: info.name,
        backend: info.backend.to_str().to_owned(),
        driver: [info.driver, info.driver_info].join(" ").trim().to_owned(),
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => DeviceKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => DeviceKind::Integrated,
            wgpu::DeviceType::VirtualGpu => DeviceKind::Virtual,
            wgpu::DeviceType::Cpu => DeviceKind::Software,
            wgpu::DeviceType::Other => DeviceKind::Unknown,
        },
        f16: has(wgpu::Features::SHADER_F16),
        subgroup: has(wgpu::Features::SUBGROUP).then_some([info.subgroup_min_size, info.subgroup_max_size]),
        immediate_bytes: if has(wgpu::Features::IMMEDIATES) { limits.max_immediate_size } else { 0 },
        timestamps: has(wgpu::Features::TIMESTAMP_QUERY),
        pipeline_cache: has(wgpu::Features::PIPELINE_CACHE),
        cooperative: adapter
            .cooperative_matrix_properties()
            .iter()
            .map(|p| CooperativeMatrix {
                size: [p.m_size, p.n_size, p.k_size],
                factors: scalar(&p.ab_type),
                sum: scalar(&p.cr_type),
            })
            .collect(),
        storage_buffers: limits.max_storage_buffers_per_shader_stage,
        limits: Limits {
            binding_bytes: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
            buffer_bytes: limits.max_buffer_size,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            invocations: limits.max_compute_invocations_per_workgroup,
            workgroups: limits.max_compute_workgroups_per_dimension,
            offset_alignment: limits.min_storage_buffer_offset_alignment,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, backend: &str, kind: DeviceKind) -> DeviceInfo {
        DeviceInfo {
            name: name.to_owned(),
            backend: backend.to_owned(),
            driver: String::new(),
            kind,
            f16: false,
            subgroup: None,
            immediate_bytes: 0,
            timestamps: false,
            pipeline_cache: false,
            cooperative: vec![],
            storage_buffers: 8,
            limits: Limits::WEBGPU,
        }
    }

    #[test]
    fn takes_the_best_or_the_named() {
        let known = [
            info("llvmpipe", "vulkan", DeviceKind::Software),
            info("Radeon", "gl", DeviceKind::Unknown),
            info("Radeon", "vulkan", DeviceKind::Integrated),
            info("GeForce", "vulkan", DeviceKind::Discrete),
        ];
        let choose = |text: &str| candidates(&text.parse().expect("infallible"), &known);
        assert_eq!(choose("auto").expect("auto"), [3, 2, 1, 0]);
        assert_eq!(choose("radeon").expect("by name"), [2]);
        assert_eq!(choose("1").expect("by index"), [1]);
        assert_eq!(choose("cpu").expect("twins"), [0usize; 0]);
        let error = choose("9").expect_err("there is no tenth device").to_string();
        assert!(error.contains("`9`") && error.contains("3: GeForce"), "{error}");
    }
}
