//! Compiled kernels: linked, reflected, built once for each combination of kernel, element types and constants.

use crate::EngineError;
use crate::gpu::Gpu;
use ratel_kernels::{Choice, Options, Reflection, Target, WeightStorage, Wrong, link, reflect, whats_wrong};
use ratel_tensor::Elem;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What tells one compiled kernel from another. Sizes are not part of it: they are `Params`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    kernel: &'static str,
    elem: Elem,
    weight: WeightStorage,
    /// `override`s, their values as bits.
    constants: Vec<(&'static str, u64)>,
    extents: Vec<(&'static str, u32)>,
}

impl Key {
    pub(crate) fn new(choice: &Choice, target: &Target) -> Key {
        let Choice { kernel, schedule } = choice;
        Key {
            kernel: kernel.name,
            elem: target.elem,
            weight: target.weight,
            constants: schedule.constants.iter().map(|(name, value)| (*name, value.to_bits())).collect(),
            extents: schedule.extents.clone(),
        }
    }
}

/// A compiled kernel and what it takes.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) raw: wgpu::ComputePipeline,
    pub(crate) operands_layout: wgpu::BindGroupLayout,
    /// The layout of `Params` as a uniform buffer; `None` where they are immediates, or there are none.
    pub(crate) params_layout: Option<wgpu::BindGroupLayout>,
    /// What it takes, without the module.
    pub(crate) reflection: Reflection,
}

/// The compiled kernels of a device.
#[derive(Debug, Default)]
pub(crate) struct Pipelines(Mutex<HashMap<Key, Arc<Pipeline>>>);

impl Pipelines {
    fn get(&self, key: &Key) -> Option<Arc<Pipeline>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn insert(&self, key: Key, pipeline: Arc<Pipeline>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, pipeline);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Gpu {
    /// The compiled kernel for a choice, from the cache if it is there.
    pub(crate) fn pipeline(&self, choice: &Choice, target: &Target) -> Result<Arc<Pipeline>, EngineError> {
        let key = Key::new(choice, target);
        if let Some(pipeline) = self.pipelines.get(&key) {
            return Ok(pipeline);
        }
        let pipeline = Arc::new(self.compile(choice, target)?);
        self.pipelines.insert(key, pipeline.clone());
        Ok(pipeline)
    }

    fn compile(&self, choice: &Choice, target: &Target) -> Result<Pipeline, EngineError> {
        let Choice { kernel, schedule } = choice;
        let options = Options {
            elem: target.elem,
            weight: target.weight,
            immediates: self.immediates,
            unroll: true,
            shaders: self.options.shaders.clone(),
        };
        let wgsl = link(kernel, schedule, &options)?;
        // the user may have written the kernel: say what is wrong with it, not with us
        let blame = |why: String| match whats_wrong(kernel, schedule, &options) {
            Some(Wrong { path, line, column, text, why }) => {
                let (file, text) = (self.options.shaders.file(&path), text.trim());
                EngineError::Shader(format!("{file}:{line}:{column}: {why}; the line is `{text}`"))
            }
            None => EngineError::Shader(why),
        };
        let mut reflection = reflect(&self.options.shaders.file(kernel.path), &wgsl).map_err(blame)?;
        reflection.module = Default::default(); // large, and of no use from here on

        let compiled = self.guarded(kernel.path, || {
            let module = self.module(kernel.path, wgsl);
            let (operands_layout, params_layout) = self.layouts(kernel.name, &reflection);
            let layouts: Vec<_> =
                [Some(&operands_layout), params_layout.as_ref()].into_iter().filter(Option::is_some).collect();
            let layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(kernel.name),
                bind_group_layouts: &layouts,
                immediate_size: if self.immediates { reflection.params_bytes } else { 0 },
            });
            let raw = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel.name),
                layout: Some(&layout),
                module: &module,
                entry_point: Some(kernel.name),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &schedule.constants,
                    zero_initialize_workgroup_memory: false,
                },
                cache: self.kept_pipelines.as_ref().map(|kept| &kept.raw),
            });
            (raw, operands_layout, params_layout)
        });
        match compiled {
            Ok((raw, operands_layout, params_layout)) => {
                Ok(Pipeline { raw, operands_layout, params_layout, reflection })
            }
            Err(EngineError::Validation { what, why }) => Err(blame(format!("{what}: {why}"))),
            Err(other) => Err(other),
        }
    }

    fn module(&self, path: &str, wgsl: String) -> wgpu::ShaderModule {
        let module = wgpu::ShaderModuleDescriptor { label: Some(path), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
        if self.options.checks {
            return self.device.create_shader_module(module);
        }
        // SAFETY: without the checks a kernel may not index out of bounds, divide by zero or loop for ever. Every kernel
        // of the program is run in every variant, over whole and odd sizes, with the checks on and between guard bands,
        // by the test of kernels; a kernel edited on disk runs with the checks on (see `EngineOptions::checks`).
        #[allow(unsafe_code)]
        unsafe {
            self.device.create_shader_module_trusted(module, wgpu::ShaderRuntimeChecks::unchecked())
        }
    }

    fn layouts(&self, name: &str, reflection: &Reflection) -> (wgpu::BindGroupLayout, Option<wgpu::BindGroupLayout>) {
        let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let operands: Vec<_> = reflection
            .bindings
            .iter()
            .map(|binding| entry(binding.index, wgpu::BufferBindingType::Storage { read_only: !binding.writes }))
            .collect();
        let layout = |entries: &[_]| {
            self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(name), entries })
        };
        let params = !self.immediates && reflection.params_bytes > 0;
        (layout(&operands), params.then(|| layout(&[entry(0, wgpu::BufferBindingType::Uniform)])))
    }
}
