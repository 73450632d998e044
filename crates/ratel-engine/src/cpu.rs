//! One op as its CPU twin, over host memory.

use crate::EngineError;
use crate::buffer::{Allocation, Region};
use crate::dispatch::check_regions;
use half::f16;
use ratel_kernels::{Op, Role, Target, Values, ValuesMut};
use ratel_tensor::Elem;
use std::sync::{Arc, PoisonError};

/// Runs an op's twin; `regions` are its operands in the op's order, the output last.
pub(crate) fn run(op: &Op, target: &Target, regions: &[Region]) -> Result<(), EngineError> {
    check_regions(op, target, regions, u64::MAX)?;
    let operands = op.operands();
    let (Some((output, regions)), Some((result, operands))) = (regions.split_last(), operands.split_last()) else {
        return Ok(());
    };
    let shares = regions.iter().map(words).collect::<Result<Vec<_>, _>>()?;
    let inputs: Vec<_> = operands
        .iter()
        .zip(regions.iter().zip(&shares))
        .map(|(operand, (region, share))| {
            let words = &share[range(region)];
            match operand.role {
                Role::Weight if target.weight.elem() == Elem::F16 => {
                    Values::F16(&bytemuck::cast_slice::<u32, f16>(words)[..operand.count])
                }
                Role::Ids { .. } => Values::U32(&words[..operand.count]),
                Role::Bytes => Values::U32(&words[..operand.count.div_ceil(4)]),
                _ => Values::F32(&bytemuck::cast_slice::<u32, f32>(words)[..operand.count]),
            }
        })
        .collect();

    let Allocation::Host { words, .. } = output.allocation else { return Err(foreign()) };
    let mut memory = words.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(memory) = Arc::get_mut(&mut memory) else {
        return Err(EngineError::Buffer(format!("the output of {} is being read", op.name())));
    };
    let memory = &mut memory[range(output)];
    op.twin(
        &inputs,
        match result.role {
            Role::Bytes => ValuesMut::U32(&mut memory[..result.count.div_ceil(4)]),
            _ => ValuesMut::F32(&mut bytemuck::cast_slice_mut(memory)[..result.count]),
        },
    );
    Ok(())
}

/// A share in the memory of an input.
fn words(region: &Region) -> Result<Arc<Vec<u32>>, EngineError> {
    match region.allocation {
        Allocation::Host { words, .. } => Ok(words.lock().unwrap_or_else(PoisonError::into_inner).clone()),
        Allocation::Device { .. } => Err(foreign()),
    }
}

/// A region in words.
fn range(region: &Region) -> std::ops::Range<usize> {
    (region.offset / 4) as usize..((region.offset + region.bytes.next_multiple_of(4)) / 4) as usize
}

fn foreign() -> EngineError {
    EngineError::Buffer("a buffer of a device was given to the CPU twins".to_owned())
}
