//! Files from strangers: whatever is in them, the answer is a checkpoint or one line that names the file.

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod files;
mod folders;

use common::{layout, read};
use ratel_tensor::{Elem, Layout};
use ratel_weights::{Checkpoint, Component, Files, describe};
use serde_json::{Value, json};
use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Keeps the size of the largest piece of memory that was ever asked for.
struct Largest;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Largest {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        LARGEST.fetch_max(memory.size(), Ordering::Relaxed);
        unsafe { System.alloc(memory) }
    }
    unsafe fn dealloc(&self, at: *mut u8, memory: Memory) {
        unsafe { System.dealloc(at, memory) }
    }
    unsafe fn realloc(&self, at: *mut u8, memory: Memory, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        unsafe { System.realloc(at, memory, size) }
    }
}

#[global_allocator]
static MEMORY: Largest = Largest;

/// No file of these tests has a megabyte, so nothing that is asked for on their account may have many.
const MOST_MEMORY: usize = 8 << 20;

/// Opens a checkpoint, describes it and reads every weight, the ways a device would.
fn use_it(path: &Path) -> Result<(), String> {
    let checkpoint = Checkpoint::open(Files::Disk, path).map_err(|error| error.to_string())?;
    let info = describe(&checkpoint);
    assert!(serde_json::to_string(&info).is_ok(), "a description is JSON");
    for component in Component::ALL {
        for (key, shape) in checkpoint.catalogue(component) {
            for (layout, elem) in [(Layout::AsIs, Elem::F32), (layout(shape), Elem::F16)] {
                let bytes = read(&checkpoint, component, &key, layout, elem).map_err(|error| error.to_string())?;
                assert_eq!(bytes.len(), shape.count() * elem.size(), "{key}");
            }
        }
    }
    Ok(())
}

/// The line that a path is refused with, which must name the file and all of `parts`.
#[track_caller]
fn refused(path: &Path, parts: &[&str]) -> String {
    let Err(line) = use_it(path) else { panic!("{} is taken, and should name {parts:?}", path.display()) };
    assert!(!line.chars().any(char::is_control), "more than one line, or none for a terminal: {line:?}");
    let name = path.file_name().expect("a name").to_string_lossy();
    for part in [&*name].iter().chain(parts) {
        assert!(line.contains(part), "{line:?} should name {part:?}");
    }
    assert!(line.len() < 2000, "{} bytes of message", line.len());
    assert!(LARGEST.load(Ordering::Relaxed) < MOST_MEMORY, "{line} after asking for {LARGEST:?} bytes");
    line
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().expect("a folder"))
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    /// Writes a file, and the folders above it.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, bytes).expect("a file");
        path
    }
}

/// A safetensors file of this header and so many bytes of data.
fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

const CONV: &str = "model.diffusion_model.input_blocks.0.0.weight";
const NORM: &str = "cond_stage_model.transformer.text_model.final_layer_norm.weight";
const VAE: &str = "first_stage_model.decoder.mid.attn_1.q.weight";

/// A single file of three small tensors: a convolution, a vector and a matrix, f32, f16 and f32.
fn small() -> (Value, Vec<u8>) {
    let header = json!({
        CONV: { "dtype": "F32", "shape": [2, 2, 3, 3], "data_offsets": [0, 144] },
        NORM: { "dtype": "F16", "shape": [8], "data_offsets": [144, 160] },
        VAE: { "dtype": "F32", "shape": [2, 2, 1, 1], "data_offsets": [160, 176] },
    });
    (header, vec![0x11; 176])
}

/// A single file with OpenCLIP's fused projections, and names with numbers in them everywhere.
fn fused() -> (Value, Vec<u8>) {
    let block = "cond_stage_model.model.transformer.resblocks";
    let names = [
        (format!("{block}.0.attn.in_proj_weight"), vec![6, 2]),
        (format!("{block}.0.attn.in_proj_bias"), vec![6]),
        (format!("{block}.1.attn.in_proj_bias"), vec![6]),
        ("model.diffusion_model.input_blocks.1.0.in_layers.2.weight".to_owned(), vec![2, 2, 1, 1]),
        ("model.diffusion_model.input_blocks.2.0.op.bias".to_owned(), vec![2]),
        ("model.diffusion_model.output_blocks.0.1.conv.bias".to_owned(), vec![2]),
        ("first_stage_model.decoder.up.0.block.0.conv1.bias".to_owned(), vec![2]),
    ];
    let (mut header, mut at) = (serde_json::Map::new(), 0usize);
    for (name, shape) in names {
        let end = at + 4 * shape.iter().product::<usize>();
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    (Value::Object(header), vec![0x11; at])
}

/// The small file with something changed in its header.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let (mut header, data) = small();
    change(&mut header);
    with_header(&header.to_string(), &data)
}
