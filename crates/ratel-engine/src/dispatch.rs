//! One op on one device: its kernel, its operands bound by name, its params.

use crate::EngineError;
use crate::buffer::{Allocation, Region};
use crate::gpu::Gpu;
use crate::pipeline::Pipeline;
use ratel_kernels::{Choice, Op, Target};
use std::num::NonZeroU64;
use std::sync::Arc;

/// A dispatch ready to be recorded, any number of times.
#[derive(Debug)]
pub(crate) struct Dispatch {
    pipeline: Arc<Pipeline>,
    operands: wgpu::BindGroup,
    params: Params,
    workgroups: [u32; 3],
}

#[derive(Debug)]
enum Params {
    Immediates(Vec<u8>),
    Uniform(wgpu::BindGroup),
}

impl Dispatch {
    /// Binds an op's operands, given in the op's order with the output last.
    pub(crate) fn new(
        gpu: &Gpu,
        op: &Op,
        choice: &Choice,
        target: &Target,
        regions: &[Region],
    ) -> Result<Dispatch, EngineError> {
        check_regions(op, target, regions, gpu.info.limits.binding_bytes)?;
        let pipeline = gpu.pipeline(choice, target)?;
        let wrong = |what: String| EngineError::Operands { op: choice.kernel.path.to_owned(), what };

        let names: Vec<_> = op.operands().iter().map(|operand| operand.name).collect();
        let mut entries = Vec::with_capacity(pipeline.reflection.bindings.len());
        for binding in &pipeline.reflection.bindings {
            let at = names.iter().position(|name| *name == binding.name);
            let is_output = at == Some(names.len() - 1);
            let resource = match at {
                Some(_) if binding.writes != is_output => {
                    return Err(wrong(format!("`{}` must be read_write if it is the output, else read", binding.name)));
                }
                Some(i) => bind(&regions[i])?,
                None if binding.writes => {
                    return Err(wrong(format!("it writes `{}`, which the op lacks", binding.name)));
                }
                None => gpu.absent.as_entire_binding(),
            };
            entries.push(wgpu::BindGroupEntry { binding: binding.index, resource });
        }
        if let Some(name) = names.iter().find(|name| !pipeline.reflection.bindings.iter().any(|b| b.name == **name)) {
            return Err(wrong(format!("it binds no `{name}`")));
        }

        let bytes = pipeline.reflection.pack_params(&op.params()).map_err(wrong)?;
        let name = choice.kernel.name;
        let (operands, params) = gpu.guarded(name, || {
            let group = |layout: &_, entries: &[wgpu::BindGroupEntry]| {
                gpu.device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some(name), layout, entries })
            };
            let params = match &pipeline.params_layout {
                None => Params::Immediates(bytes),
                Some(layout) => {
                    let buffer = uniform(gpu, name, &bytes);
                    let resource = buffer.as_entire_binding();
                    Params::Uniform(group(layout, &[wgpu::BindGroupEntry { binding: 0, resource }]))
                }
            };
            (group(&pipeline.operands_layout, &entries), params)
        })?;
        Ok(Dispatch { pipeline, operands, params, workgroups: choice.schedule.workgroups })
    }

    /// Appends it to a pass.
    pub(crate) fn record(&self, pass: &mut wgpu::ComputePass) {
        pass.set_pipeline(&self.pipeline.raw);
        pass.set_bind_group(0, &self.operands, &[]);
        match &self.params {
            Params::Immediates(bytes) if bytes.is_empty() => {}
            Params::Immediates(bytes) => pass.set_immediates(0, bytes),
            Params::Uniform(group) => pass.set_bind_group(1, group, &[]),
        }
        let [x, y, z] = self.workgroups;
        pass.dispatch_workgroups(x, y, z);
    }
}

/// `Params` as a uniform buffer.
fn uniform(gpu: &Gpu, name: &str, bytes: &[u8]) -> wgpu::Buffer {
    let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(name),
        size: bytes.len().next_multiple_of(16) as u64,
        usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    gpu.queue.write_buffer(&buffer, 0, bytes);
    buffer
}

fn bind<'a>(region: &Region<'a>) -> Result<wgpu::BindingResource<'a>, EngineError> {
    let Allocation::Device { raw, .. } = region.allocation else {
        return Err(EngineError::Buffer("a buffer of the CPU twins was given to a device".to_owned()));
    };
    let (offset, size) = (region.offset, NonZeroU64::new(region.bytes.next_multiple_of(4)));
    Ok(wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: raw, offset, size }))
}

/// Whether these regions can be an op's operands: as many, large enough, and the output none of the inputs.
pub(crate) fn check_regions(op: &Op, target: &Target, regions: &[Region], limit: u64) -> Result<(), EngineError> {
    let wrong = |what: String| EngineError::Operands { op: op.name().to_owned(), what };
    let operands = op.operands();
    if operands.len() != regions.len() {
        return Err(wrong(format!("it has {} operands and was given {}", operands.len(), regions.len())));
    }
    for (operand, region) in operands.iter().zip(regions) {
        let bytes = operand.bytes(target);
        if region.bytes < bytes {
            return Err(wrong(format!("`{}` has {bytes} bytes and was given {}", operand.name, region.bytes)));
        }
        if region.offset.checked_add(region.bytes).is_none_or(|end| end > region.allocation.bytes()) {
            return Err(wrong(format!("`{}` lies beyond the end of its buffer", operand.name)));
        }
        if region.bytes > limit {
            let what = format!("`{}` of {}", operand.name, op.name());
            return Err(EngineError::TooLarge { what, bytes: region.bytes, limit });
        }
    }
    let Some((output, inputs)) = regions.split_last() else { return Ok(()) };
    if let Some(i) = inputs.iter().position(|input| std::ptr::eq(input.allocation, output.allocation)) {
        let (read, written) = (operands[i].name, operands[inputs.len()].name);
        return Err(wrong(format!("`{written}` lies in the same buffer as `{read}`, which no device allows")));
    }
    Ok(())
}
