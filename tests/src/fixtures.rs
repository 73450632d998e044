//! Reading what `tools/reference` computed.

use ratel_tensor::{HostTensor, Shape};
use safetensors::tensor::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A path below `tests/fixtures`.
pub fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path)
}

/// The tensors of a fixture, ids widened to `f32`; those of more axes than a model's have are left out.
///
/// # Panics
/// If it can't be read.
pub fn tensors(path: &str) -> BTreeMap<String, HostTensor> {
    let file = std::fs::read(fixture(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let parsed = SafeTensors::deserialize(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
    let tensors = parsed.tensors().into_iter().filter_map(|(name, view)| {
        let words = view.data().as_chunks::<4>().0.iter();
        let data = match view.dtype() {
            Dtype::F32 => words.map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::I32 => words.map(|b| i32::from_le_bytes(*b) as f32).collect(),
            other => panic!("{path}: {name} holds {other}"),
        };
        let shape = Shape::checked(view.shape())?;
        Some((name, HostTensor::new(shape, data)))
    });
    tensors.collect()
}
