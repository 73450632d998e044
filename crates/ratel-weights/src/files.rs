//! Where files are: on the disk, or inside the program. Whatever reads a model reads it through this, so that both are
//! read by the same code.

use crate::WeightsError;
use memmap2::Mmap;
use std::borrow::Cow;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::{Deref, Range};
use std::path::Path;

/// Where paths lead.
#[derive(Clone, Copy, Debug)]
pub enum Files {
    /// To the disk.
    Disk,
    /// To a table inside the program: paths from its own root, with forward slashes, and what the files hold. They are
    /// used where they lie.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

/// No text is read beyond this. CLIP's vocab.json has 1 MB, its tokenizer.json 3.6 MB, and an index of shards less.
const MOST_TEXT: u64 = 64 << 20;

impl Files {
    /// A text, or `None` where there is no such file. Of the disk, only regular files are read, since a pipe would block.
    ///
    /// # Errors
    /// What is no file, is larger than any text of a model, is not UTF-8, or can't be read.
    pub fn text(self, path: &Path) -> Result<Option<Cow<'static, str>>, WeightsError> {
        let invalid = |problem: String| WeightsError::Invalid { path: path.to_owned(), problem };
        let not_utf8 = |error: std::str::Utf8Error| invalid(format!("not UTF-8 at byte {}", error.valid_up_to()));
        if let Files::Embedded(_) = self {
            let bytes = self.embedded(path).map(str::from_utf8).transpose().map_err(not_utf8)?;
            return Ok(bytes.map(Cow::Borrowed));
        }
        let failed = |source| WeightsError::Read { path: path.to_owned(), source };
        let length = match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => return Err(invalid("not a file".to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        // a file may be longer than it said
        let read = File::open(path).and_then(|file| file.take(MOST_TEXT + 1).read_to_end(&mut bytes));
        let length = length.max(read.map_err(failed)? as u64);
        if length > MOST_TEXT {
            return Err(invalid(format!(
                "{length} bytes, more than the {MOST_TEXT} that are read; is it the right file?"
            )));
        }
        String::from_utf8(bytes).map(|text| Some(Cow::Owned(text))).map_err(|error| not_utf8(error.utf8_error()))
    }

    /// Whether a path leads to a file.
    pub fn is_file(self, path: &Path) -> bool {
        match self {
            Files::Disk => path.is_file(),
            Files::Embedded(_) => self.embedded(path).is_some(),
        }
    }

    /// Whether a path leads to a folder.
    pub fn is_folder(self, path: &Path) -> bool {
        match self {
            Files::Disk => path.is_dir(),
            Files::Embedded(files) => {
                files.iter().map(|(name, _)| Path::new(name)).any(|name| name != path && name.starts_with(path))
            }
        }
    }

    /// All bytes of a file, mapped if it is on the disk.
    pub(crate) fn bytes(self, path: &Path) -> Result<Bytes, WeightsError> {
        let failed = |source| WeightsError::Read { path: path.to_owned(), source };
        if let Files::Embedded(_) = self {
            let found = self.embedded(path).ok_or_else(|| failed(ErrorKind::NotFound.into()))?;
            return Ok(Bytes::Embedded(found));
        }
        // asked before it is opened, since opening a pipe waits for its other end
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(WeightsError::Invalid { path: path.to_owned(), problem: "not a file".to_owned() });
        }
        let map = File::open(path).and_then(|file| map_read_only(&file)).map_err(failed)?;
        Ok(Bytes::Mapped(map))
    }

    fn embedded(self, path: &Path) -> Option<&'static [u8]> {
        let Files::Embedded(files) = self else { return None };
        files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, bytes)| *bytes)
    }
}

/// A file's bytes, not copied.
#[derive(Debug)]
pub(crate) enum Bytes {
    Mapped(Mmap),
    Embedded(&'static [u8]),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Embedded(bytes) => bytes,
        }
    }
}

impl Bytes {
    /// Lets the system take back the memory that a part was read into; it is read again if asked for.
    pub(crate) fn release(&self, range: Range<usize>) {
        if let Bytes::Mapped(map) = self {
            release(map, range);
        }
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
