//! One safetensors file, mapped. Nothing in it is believed before it is checked.

use crate::WeightsError;
use memmap2::Mmap;
use ratel_tensor::{Elem, Shape};
use safetensors::tensor::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A mapped file and what it holds.
#[derive(Debug)]
pub(crate) struct TensorFile {
    pub path: PathBuf,
    map: Mmap,
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
    /// Maps a file and reads its header: its length, then JSON, which must describe the rest of the file without gaps,
    /// overlaps or lies about sizes.
    pub(crate) fn open(path: &Path) -> Result<Self, WeightsError> {
        let failed = |source| WeightsError::Read { path: path.to_owned(), source };
        let invalid = |problem: String| WeightsError::Invalid { path: path.to_owned(), problem };
        // asked before it is opened, since opening a pipe waits for its other end
        let found = std::fs::metadata(path).map_err(failed)?;
        if !found.is_file() {
            return Err(invalid("not a file".to_owned()));
        }
        let file = File::open(path).map_err(failed)?;
        let length = found.len();
        if length < 8 {
            return Err(invalid(format!("not a safetensors file: it has {length} bytes")));
        }
        let map = map_read_only(&file).map_err(failed)?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|error| {
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
            let range = range.filter(|range| range.start <= range.end && range.end <= map.len());
            let range = range.filter(|range| size.is_none_or(|size| size == range.len()));
            let range = range.ok_or_else(|| WeightsError::Tensor {
                path: path.to_owned(),
                key: name.clone(),
                problem: format!("its place in the file, {start} to {end}, does not fit its shape or the file"),
            })?;
            tensors.insert(name, Entry { elem, dtype: info.dtype.to_string(), shape, range });
        }
        let metadata = metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        Ok(TensorFile { path: path.to_owned(), map, tensors, metadata })
    }

    /// The bytes of a tensor.
    pub(crate) fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.map[entry.range.clone()]
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
        release(&self.map, entry.range.clone());
    }
}

#[allow(unsafe_code)]
fn map_read_only(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is only read, as plain bytes that are valid in any state. If another program changes the file
    // meanwhile, values change with it; if it is cut short, the system ends this program, as with any mapped file.
    unsafe { Mmap::map(file) }
}

#[cfg(unix)]
#[allow(unsafe_code)]
fn release(map: &Mmap, range: Range<usize>) {
    // SAFETY: the map is private, read-only and backed by a file, so a dropped page is read anew from the file.
    // A refusal changes nothing but memory use.
    let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
}

#[cfg(not(unix))]
fn release(_map: &Mmap, _range: Range<usize>) {}
