//! What a driver made of kernels, kept on the disk, so that the next start of the program need not compile them again.
//! Vulkan alone has it in wgpu. Many drivers keep such a store of their own; then this one saves little.

use crate::cache;
use crate::device::DeviceInfo;
use ratel_kernels::kernels;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The largest file that is read or written. A driver's code for all kernels is some megabytes.
const LARGEST: u64 = 256 << 20;

/// The first bytes of a file: its kind and the version of its layout.
const MAGIC: &[u8; 8] = b"RATELPC1";

/// A driver's store of compiled pipelines, and its file.
#[derive(Debug)]
pub(crate) struct PipelineCache {
    pub(crate) raw: wgpu::PipelineCache,
    path: PathBuf,
    stamp: u64,
    /// How many pipelines had been built when it was written last.
    written: AtomicUsize,
}

impl PipelineCache {
    /// The store of a device, with what an earlier run left in `folder`; `None` where wgpu has no such thing.
    pub(crate) fn open(
        device: &wgpu::Device,
        adapter: &wgpu::AdapterInfo,
        info: &DeviceInfo,
        folder: &Path,
    ) -> Option<PipelineCache> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let key = wgpu::util::pipeline_cache_key(adapter)?;
        let path = folder.join(cache::file_name("pipelines", &[&info.name, &key])).with_extension("bin");
        let stamp = stamp(&[&key, &info.name, &info.driver]);
        let file = cache::read_private(&path, LARGEST);
        let known = file.as_deref().and_then(|file| unpack(stamp, file));
        let descriptor = wgpu::PipelineCacheDescriptor { label: Some("ratel"), data: known, fallback: true };
        // SAFETY: the data must come from `PipelineCache::get_data` on a device of the same key. `unpack` gives only what
        // `keep` packed: the file is this user's and nobody else may write to it, it names this key, this driver and this
        // program's kernels, and its length and hash are those of its bytes, so what was cut short or changed by accident is
        // not used. wgpu then compares the driver's own identity once more.
        #[allow(unsafe_code)]
        let create = || unsafe { device.create_pipeline_cache(&descriptor) };
        let filters = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation];
        let scopes = filters.map(|filter| device.push_error_scope(filter));
        let raw = create();
        let errors = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).count();
        // without a store, kernels are compiled anew
        (errors == 0).then(|| PipelineCache { raw, path, stamp, written: AtomicUsize::new(0) })
    }

    /// Writes the store, if more than before of the pipelines that it has seen, `built` by now, are new. What can't be
    /// written is compiled again next time.
    pub(crate) fn keep(&self, built: usize) {
        if self.written.swap(built, Ordering::Relaxed) == built {
            return;
        }
        let Some(data) = self.raw.get_data() else { return };
        let file = pack(self.stamp, &data);
        let known = cache::read_bytes(&self.path, LARGEST);
        if file.len() as u64 <= LARGEST && known.as_ref() != Some(&file) {
            cache::write_bytes(&self.path, &file).unwrap_or_default();
        }
    }
}

/// Of these words, the program's version and its kernels: with others, the store would hold what nobody asks for.
fn stamp(words: &[&str]) -> u64 {
    let texts: Vec<&str> = kernels().into_iter().map(|kernel| kernel.source).collect();
    cache::hash(&[words, &[env!("CARGO_PKG_VERSION")][..], &texts[..]].concat())
}

/// A file: [`MAGIC`], the stamp, the data's length and hash as little-endian words of 8 bytes, the data.
fn pack(stamp: u64, data: &[u8]) -> Vec<u8> {
    let words = [stamp, data.len() as u64, cache::hash_bytes(data)];
    let words = words.iter().flat_map(|word| word.to_le_bytes());
    MAGIC.iter().copied().chain(words).chain(data.iter().copied()).collect()
}

/// The data of a file, if it is whole and of this stamp.
fn unpack(stamp: u64, file: &[u8]) -> Option<&[u8]> {
    let (head, data) = file.split_at_checked(MAGIC.len() + 24)?;
    let (magic, words) = head.split_at(MAGIC.len());
    let words: Vec<u64> = words.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    (magic == MAGIC && words == [stamp, data.len() as u64, cache::hash_bytes(data)]).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_used_whole_or_not_at_all() {
        let data: Vec<u8> = (0..200).collect();
        let file = pack(7, &data);
        assert_eq!(unpack(7, &file), Some(&data[..]));
        assert_eq!(unpack(7, &pack(7, &[])), Some(&[][..]));
        assert_eq!(unpack(8, &file), None, "of another device, driver or program");
        for length in 0..file.len() {
            assert_eq!(unpack(7, &file[..length]), None, "cut short to {length} bytes");
        }
        assert_eq!(unpack(7, &[&file[..], &[0]].concat()), None, "longer than it says");
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert_eq!(unpack(7, &damaged), None, "byte {at} changed");
        }
    }
}
