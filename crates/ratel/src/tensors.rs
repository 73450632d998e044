//! Tensors in safetensors files: recordings and latents.

use crate::Failure;
use crate::output::write_whole;
use ratel_tensor::{HostTensor, Shape};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::HashMap;
use std::path::Path;

/// Writes tensors as `f32`, with their order as metadata.
///
/// # Errors
/// Whatever keeps the file from being written.
pub(crate) fn save(path: &Path, tensors: &[(&str, &HostTensor)]) -> Result<(), Failure> {
    let order: Vec<&str> = tensors.iter().map(|(name, _)| *name).collect();
    let metadata = HashMap::from([("order".to_owned(), serde_json::json!(order).to_string())]);
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, tensor)| tensor.data.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, tensor), bytes)| {
        TensorView::new(Dtype::F32, tensor.shape.to_vec(), bytes).map(|view| (*name, view))
    });
    let invalid = |error: safetensors::SafeTensorError| Failure::Write {
        path: path.to_owned(),
        source: std::io::Error::other(error.to_string()),
    };
    let views = views.collect::<Result<Vec<_>, _>>().map_err(invalid)?;
    let file = safetensors::serialize(views, Some(metadata)).map_err(invalid)?;
    write_whole(path, |out| out.write_all(&file))
}

/// Reads tensors of floating-point numbers, in the order of the file's metadata, or else of their names.
///
/// # Errors
/// A file that is no safetensors file, or holds tensors of other types or of too many axes.
pub(crate) fn load(path: &Path) -> Result<Vec<(String, HostTensor)>, Failure> {
    let unreadable = |source| Failure::Read { path: path.to_owned(), source };
    let wrong = |why: String| unreadable(std::io::Error::other(why));
    let file = std::fs::read(path).map_err(unreadable)?;
    let (_, header) = SafeTensors::read_metadata(&file).map_err(|e| wrong(format!("not a safetensors file: {e}")))?;
    let tensors = SafeTensors::deserialize(&file).map_err(|e| wrong(format!("not a safetensors file: {e}")))?;
    let listed = header.metadata().as_ref().and_then(|metadata| serde_json::from_str(metadata.get("order")?).ok());
    let mut names: Vec<String> = listed.unwrap_or_default();
    names.retain(|name| tensors.tensor(name).is_ok());
    let mut rest: Vec<String> = tensors.names().into_iter().map(|name| name.to_owned()).collect();
    rest.sort();
    rest.retain(|name| !names.contains(name));
    names.extend(rest);

    let mut all = Vec::new();
    for name in names {
        let view = tensors.tensor(&name).map_err(|e| wrong(e.to_string()))?;
        let shape = Shape::checked(view.shape()).ok_or_else(|| wrong(format!("{name} has too many axes")))?;
        let data = widen(view.dtype(), view.data()).ok_or_else(|| wrong(format!("{name} holds {}", view.dtype())));
        match data {
            Ok(data) => all.push((name, HostTensor::new(shape, data))),
            // ids beside activations are no activations
            Err(_) if matches!(view.dtype(), Dtype::I64 | Dtype::I32) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn widen(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let halves = || bytes.as_chunks::<2>().0.iter().copied();
    Some(match dtype {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F64 => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        Dtype::F16 => halves().map(|b| half::f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => halves().map(|b| half::bf16::from_le_bytes(b).to_f32()).collect(),
        _ => return None,
    })
}
