//! One safetensors file, not copied. Nothing in it is believed before it is checked.

use crate::files::Bytes;
use crate::{Files, WeightsError};
use ratel_tensor::{Elem, Shape};
use safetensors::tensor::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A file and what it holds.
#[derive(Debug)]
pub(crate) struct TensorFile {
    pub path: PathBuf,
    bytes: Bytes,
    pub tensors: BTreeMap<String, Entry>,
    pub metadata: BTreeMap<String, String>,
}

/// Bytes of a tensor's name. The longest of Stable Diffusion's has about a hundred.
const LONGEST_NAME: usize = 1024;

/// A tensor in a file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// `None` for types that no weight has, such as the ids some files carry.
    pub elem: Option<Elem>,
    /// The type's name, for messages.
    pub dtype: String,
    /// `None` for tensors of too many axes to be a weight.
    pub shape: Option<Shape>,
    /// Where its bytes lie in the file.
    range: Range<usize>,
}

impl TensorFile {
    /// Opens a file and reads its header: its length, then JSON, which must describe the rest of the file without gaps,
    /// overlaps or lies about sizes.
    pub(crate) fn open(files: Files, path: &Path) -> Result<Self, WeightsError> {
        let invalid = |problem: String| WeightsError::Invalid { path: path.to_owned(), problem };
        let bytes = files.bytes(path)?;
        if bytes.len() < 8 {
            return Err(invalid(format!("not a safetensors file: it has {} bytes", bytes.len())));
        }
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| {
            invalid(format!("not a safetensors file, or a damaged one; download it again or convert it ({error})"))
        })?;
        let data = header + 8;
        let mut tensors = BTreeMap::new();
        for (name, info) in metadata.tensors() {
            if name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
                return Err(WeightsError::Tensor {
                    path: path.to_owned(),
                    key: name,
                    problem: "no name that a weight could have".to_owned(),
                });
            }
            let elem = match info.dtype {
                Dtype::F32 => Some(Elem::F32),
                Dtype::F16 => Some(Elem::F16),
                Dtype::BF16 => Some(Elem::BF16),
                _ => None,
            };
            let (start, end) = info.data_offsets;
            let shape = Shape::checked(&info.shape);
            let size = elem.zip(shape).and_then(|(elem, shape)| shape.count().checked_mul(elem.size()));
            let range = data.checked_add(start).zip(data.checked_add(end)).map(|(start, end)| start..end);
            let range = range.filter(|range| range.start <= range.end && range.end <= bytes.len());
            let range = range.filter(|range| size.is_none_or(|size| size == range.len()));
            let range = range.ok_or_else(|| WeightsError::Tensor {
                path: path.to_owned(),
                key: name.clone(),
                problem: format!("its place in the file, {start} to {end}, does not fit its shape or the file"),
            })?;
            tensors.insert(name, Entry { elem, dtype: info.dtype.to_string(), shape, range });
        }
        let metadata = metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        Ok(TensorFile { path: path.to_owned(), bytes, tensors, metadata })
    }

    /// The bytes of a tensor.
    pub(crate) fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.range.clone()]
    }

    /// The value of a tensor that is one whole number, such as a count of training steps.
    pub(crate) fn integer(&self, entry: &Entry) -> Option<i64> {
        let bytes = self.bytes(entry);
        match entry.dtype.as_str() {
            "I64" => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
            "I32" => Some(i32::from_le_bytes(bytes.try_into().ok()?).into()),
            _ => None,
        }
    }

    /// Lets the system take back the memory that a tensor's bytes were read into; they are read again if asked for.
    pub(crate) fn release(&self, entry: &Entry) {
        self.bytes.release(entry.range.clone());
    }
}
