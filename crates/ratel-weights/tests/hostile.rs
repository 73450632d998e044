//! Files from strangers: whatever is in them, the answer is a checkpoint or one line that names the file.

mod common;

use common::{layout, model, read};
use proptest::prelude::*;
use ratel_tensor::Elem;
use ratel_weights::{Checkpoint, Component, Layout, describe};
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
    let checkpoint = Checkpoint::open(path).map_err(|error| error.to_string())?;
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

#[test]
fn the_seeds_are_valid() {
    let folder = Folder::new();
    for (name, (header, data)) in [("small.safetensors", small()), ("fused.safetensors", fused())] {
        let path = folder.write(name, with_header(&header.to_string(), &data));
        use_it(&path).unwrap_or_else(|line| panic!("{line}"));
    }
    let fused = Checkpoint::open(&folder.path("fused.safetensors")).expect("a checkpoint");
    let text: Vec<String> = fused.catalogue(Component::TextEncoder).into_keys().collect();
    assert!(text.iter().all(|key| key.starts_with("encoder.layers.0.self_attn.")), "{text:?}");
    assert_eq!(text.len(), 6, "a weight and a bias of query, key and value");
}

#[test]
fn files_that_are_no_checkpoints() {
    let folder = Folder::new();
    let (header, data) = small();
    let (header, whole) = (header.to_string(), with_header(&header.to_string(), &data));
    for length in [0, 1, 7, 8, 9, 50, 8 + header.len() - 1, 8 + header.len(), whole.len() - 1] {
        refused(&folder.write("cut.safetensors", &whole[..length]), &["safetensors"]);
    }
    refused(&folder.write("longer.safetensors", [&whole[..], &[0]].concat()), &["damaged"]);
    for length in [1 << 20, 100_000_001, 1 << 40, u64::MAX - 7, u64::MAX] {
        refused(&folder.write("length.safetensors", [&length.to_le_bytes(), &whole[8..]].concat()), &["damaged"]);
    }
    for header in ["[]", "1", "\"text\"", "null", "{", "{\"a\": 1}", "{}x", "\u{0}", &"[".repeat(5000)] {
        refused(&folder.write("header.safetensors", with_header(header, &[])), &["safetensors"]);
    }
    refused(&folder.write("utf8.safetensors", [&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat()), &["damaged"]);
    refused(&folder.write("nothing.safetensors", with_header("{}", &[])), &["model.diffusion_model"]);
    refused(&folder.write("text.safetensors", "a cat in a hat, twice"), &["not a safetensors file"]);
    refused(&folder.path("missing.safetensors"), &["can't be read"]);
    folder.write("folder.safetensors/x", "");
    refused(&folder.path("folder.safetensors"), &["model_index.json"]);
    for name in ["old.ckpt", "old.pt", "old.bin", "OLD.CKPT"] {
        refused(&folder.write(name, "\u{80}\u{2}}q"), &["pickle", "save_pretrained"]);
    }
}

#[cfg(unix)]
#[test]
fn what_is_neither_file_nor_folder() {
    let folder = Folder::new();
    let looped = folder.path("loop.safetensors");
    std::os::unix::fs::symlink(&looped, &looped).expect("a link");
    refused(&looped, &["can't be read"]);
    let pipe = folder.path("pipe.safetensors");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    refused(&pipe, &["not a file"]);
}

#[test]
fn headers_that_lie() {
    let folder = Folder::new();
    let lie = |change: &dyn Fn(&mut Value), parts: &[&str]| {
        refused(&folder.write("lie.safetensors", changed(change)), parts);
    };
    // a place in the file
    lie(&|h| h[NORM]["data_offsets"] = json!([140, 156]), &[NORM]); // overlaps
    lie(&|h| h[VAE]["data_offsets"] = json!([168, 184]), &[VAE]); // leaves a gap
    lie(&|h| h[NORM]["data_offsets"] = json!([160, 144]), &["damaged"]); // backwards
    lie(&|h| h[VAE]["data_offsets"] = json!([1u64 << 40, (1u64 << 40) + 16]), &[VAE]);
    lie(&|h| h[VAE]["data_offsets"] = json!([160, u64::MAX]), &["damaged"]);
    lie(&|h| h[VAE]["data_offsets"] = json!([-16, 0]), &["damaged"]);
    // a shape
    lie(&|h| h[NORM]["shape"] = json!([9]), &["damaged"]);
    lie(&|h| h[NORM]["shape"] = json!([1u64 << 63, 4]), &["damaged"]);
    lie(&|h| h[CONV]["shape"] = json!([1, 2, 2, 3, 3]), &[CONV, "more than four axes"]);
    lie(&|h| h[NORM]["shape"] = json!([-8]), &["damaged"]);
    lie(&|h| h[NORM]["shape"] = json!("8"), &["damaged"]);
    // a type
    lie(&|h| h[NORM]["dtype"] = json!("I16"), &[NORM, "I16", "f32, f16 or bf16"]);
    lie(&|h| h[CONV]["dtype"] = json!("I32"), &[CONV, "I32"]);
    lie(&|h| h[NORM]["dtype"] = json!("F17"), &["damaged"]);
    lie(&|h| h[NORM]["dtype"] = json!("a\nb\u{1b}[2J"), &["damaged"]);
    lie(&|h| h[NORM]["dtype"] = json!("x".repeat(200_000)), &["damaged"]);
    // nothing, or a number, where a weight should be
    for shape in [json!([0]), json!([0, 4]), json!([0, 1, 1u64 << 40, 1u64 << 40])] {
        lie(
            &|h| {
                h["model.diffusion_model.out.0.weight"] =
                    json!({ "dtype": "F32", "shape": shape, "data_offsets": [176, 176] })
            },
            &["model.diffusion_model.out.0.weight"],
        );
    }
    let scalar = |key: &'static str| {
        move |h: &mut Value| {
            h[key] = json!({ "dtype": "F32", "shape": [], "data_offsets": [176, 180] });
        }
    };
    for key in [
        "model.diffusion_model.input_blocks.1.0.in_layers.2.weight",
        "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight",
    ] {
        let (mut header, data) = small();
        scalar(key)(&mut header);
        if key.contains("resblocks") {
            let last = "cond_stage_model.model.transformer.resblocks.1.ln_1.bias";
            header[last] = json!({ "dtype": "F32", "shape": [1], "data_offsets": [180, 184] });
        }
        let length = if key.contains("resblocks") { 8 } else { 4 };
        let bytes = with_header(&header.to_string(), &[&data[..], &vec![0; length]].concat());
        refused(&folder.write("scalar.safetensors", bytes), &[key]);
    }
}

#[test]
fn names_that_lie() {
    let folder = Folder::new();
    let renamed = |name: &str| {
        changed(|h| {
            let entry = h.as_object_mut().and_then(|all| all.remove(VAE)).expect("the tensor");
            h[name] = entry;
        })
    };
    refused(&folder.write("lines.safetensors", renamed("first_stage_model.decoder.\nratel: fine")), &["no name"]);
    refused(&folder.write("escape.safetensors", renamed("first_stage_model.\u{1b}[2J")), &["no name"]);
    refused(
        &folder.write("long.safetensors", renamed(&format!("first_stage_model.{}", "x".repeat(100_000)))),
        &["no name"],
    );
    // two names of one weight
    let twin = "cond_stage_model.transformer.final_layer_norm.weight";
    let twice = changed(|h| {
        h[VAE]["shape"] = json!([2, 1, 1, 1]);
        h[VAE]["data_offsets"] = json!([160, 168]);
        h[twin] = json!({ "dtype": "F32", "shape": [2], "data_offsets": [168, 176] });
        h["first_stage_model.quant_conv.bias"] = json!({ "dtype": "F32", "shape": [1], "data_offsets": [176, 180] });
    });
    let twice = [&twice[..], &[0; 4]].concat();
    refused(&folder.write("twice.safetensors", twice), &["final_layer_norm.weight", "twice"]);
    // one name twice, which JSON allows: neither of the two may quietly win
    let entry = |at: usize| format!(r#"{{"dtype":"F32","shape":[1],"data_offsets":[{at},{}]}}"#, at + 4);
    let twice =
        format!(r#"{{"{CONV}":{},"{NORM}":{},"{VAE}":{},"{VAE}":{}}}"#, entry(0), entry(4), entry(8), entry(12));
    refused(&folder.write("twice.safetensors", with_header(&twice, &[0; 16])), &["damaged"]);
    // numbers at the end of what a number can be
    for name in [
        format!("first_stage_model.decoder.up.{}.block.0.conv1.weight", usize::MAX),
        format!("first_stage_model.decoder.up.0.block.{}.conv1.weight", usize::MAX),
        format!("model.diffusion_model.output_blocks.{}.0.conv.weight", usize::MAX),
        format!("model.diffusion_model.input_blocks.{}.0.op.weight", usize::MAX),
        format!("cond_stage_model.model.transformer.resblocks.{}.ln_1.weight", usize::MAX),
        "model.diffusion_model.input_blocks.99999999999999999999.0.op.weight".to_owned(),
    ] {
        let (mut header, data) = small();
        header[&name] = json!({ "dtype": "F32", "shape": [1], "data_offsets": [176, 180] });
        let path =
            folder.write("numbers.safetensors", with_header(&header.to_string(), &[&data[..], &[0; 4]].concat()));
        use_it(&path)
            .unwrap_or_else(|line| panic!("{name} is no name that can be used, and no reason to fail: {line}"));
    }
    // a third of seven rows
    let (mut header, _) = fused();
    let key = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias";
    header.as_object_mut().expect("a header").retain(|name, _| name.ends_with(".0.op.bias") || name == key);
    header["model.diffusion_model.input_blocks.2.0.op.bias"]["data_offsets"] = json!([0, 8]);
    header[key] = json!({ "dtype": "F32", "shape": [7], "data_offsets": [8, 36] });
    header["first_stage_model.quant_conv.bias"] = json!({ "dtype": "F32", "shape": [1], "data_offsets": [36, 40] });
    header["cond_stage_model.model.transformer.resblocks.1.ln_1.bias"] =
        json!({ "dtype": "F32", "shape": [1], "data_offsets": [40, 44] });
    refused(&folder.write("seven.safetensors", with_header(&header.to_string(), &[0; 44])), &[key, "split"]);
}

#[test]
fn values_that_are_no_numbers() {
    let folder = Folder::new();
    for (value, says) in [(f32::NAN, "not a number"), (f32::INFINITY, "infinite"), (1e6, "too large for f16")] {
        let (header, mut data) = small();
        data[40..44].copy_from_slice(&value.to_le_bytes());
        let path = folder.write("value.safetensors", with_header(&header.to_string(), &data));
        let line = refused(&path, &[CONV, says]);
        if value == 1e6 {
            assert!(line.contains("--precision f32"), "{line} names the way out");
            let checkpoint = Checkpoint::open(&path).expect("a checkpoint");
            assert!(read(&checkpoint, Component::Unet, "conv_in.weight", Layout::Conv, Elem::F32).is_ok());
        }
    }
    let (header, mut data) = small();
    data[150..152].copy_from_slice(&half::f16::NEG_INFINITY.to_le_bytes());
    refused(&folder.write("value.safetensors", with_header(&header.to_string(), &data)), &[NORM]);
}

#[test]
fn files_of_other_models() {
    let folder = Folder::new();
    let with = |key: &str| {
        let (mut header, data) = small();
        header[key] = json!({ "dtype": "F32", "shape": [1], "data_offsets": [176, 180] });
        with_header(&header.to_string(), &[&data[..], &[0; 4]].concat())
    };
    let sdxl = with("conditioner.embedders.1.model.ln_final.bias");
    refused(&folder.write("xl.safetensors", sdxl), &["SDXL", "SD 1.x and SD 2.x"]);
    let without = |prefix: &str| {
        let entry = |key: &str, at: usize| {
            (key.to_owned(), json!({ "dtype": "F32", "shape": [1], "data_offsets": [at, at + 4] }))
        };
        let keys = [CONV, NORM, VAE].into_iter().filter(|key| !key.starts_with(prefix));
        let header: serde_json::Map<_, _> = keys.zip([0, 4]).map(|(key, at)| entry(key, at)).collect();
        with_header(&Value::Object(header).to_string(), &[0; 8])
    };
    for (prefix, says) in [("model.", "not a whole checkpoint"), ("cond_stage", "no text encoder"), ("first", "no VAE")]
    {
        refused(&folder.write("part.safetensors", without(prefix)), &[says]);
    }
    let unet = model("tiny/unet/diffusion_pytorch_model.safetensors");
    refused(&unet, &["model_index.json"]);
    let whole = Checkpoint::open(&folder.write("more.safetensors", with("optimizer_of_mine"))).expect("a checkpoint");
    assert!(whole.unknown.is_empty(), "the state of training is known: {:?}", whole.unknown);
    let whole = Checkpoint::open(&folder.write("more.safetensors", with("my_layer.weight"))).expect("a checkpoint");
    assert_eq!(whole.unknown, ["my_layer.weight"]);
}

/// A copy of the `tiny` folder.
fn tiny() -> Folder {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("a folder");
        for entry in fs::read_dir(from).expect("a folder") {
            let entry = entry.expect("an entry");
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &to)
            } else {
                fs::copy(entry.path(), to).map(drop).expect("a copy")
            }
        }
    }
    let folder = Folder::new();
    copy(&model("tiny"), &folder.path("tiny"));
    folder
}

/// The line that a folder is refused with; what it names lies somewhere in the folder.
#[track_caller]
fn folder_refused(folder: &Folder, parts: &[&str]) {
    refused(&folder.path("tiny"), parts);
}

#[test]
fn folders_with_parts_missing() {
    use_it(&tiny().path("tiny")).unwrap_or_else(|line| panic!("{line}"));
    for part in ["unet/config.json", "vae/config.json", "text_encoder/config.json", "model_index.json"] {
        let folder = tiny();
        fs::remove_file(folder.path("tiny").join(part)).expect("the file");
        folder_refused(&folder, &[part]);
        folder.write(&format!("tiny/{part}/x"), "");
        folder_refused(&folder, &[part, "not a file"]);
    }
    for (part, stem) in [("unet", "diffusion_pytorch_model"), ("text_encoder", "model")] {
        let folder = tiny();
        fs::remove_file(folder.path(&format!("tiny/{part}/{stem}.safetensors"))).expect("the file");
        folder_refused(&folder, &[part, "no .safetensors file"]);
        folder.write(&format!("tiny/{part}/{stem}.bin"), "\u{80}\u{2}}q");
        folder_refused(&folder, &[part, "pickle", "save_pretrained"]);
        fs::remove_dir_all(folder.path("tiny").join(part)).expect("the folder");
        folder_refused(&folder, &[part]);
    }
}

#[test]
fn indices_that_lie() {
    let folder = tiny();
    let weights = "tiny/unet/diffusion_pytorch_model.safetensors";
    folder.write("outside.safetensors", fs::read(folder.path(weights)).expect("the weights"));
    let outside = folder.path("outside.safetensors").to_string_lossy().into_owned();
    let index = "diffusion_pytorch_model.safetensors.index.json";
    let with = |value: Value| folder.write(&format!("tiny/unet/{index}"), value.to_string());
    for name in ["../x", "../../outside.safetensors", &outside, "/etc/passwd", "a/b", "", ".", "..", "./x"] {
        with(json!({ "weight_map": { "conv_in.weight": name } }));
        folder_refused(&folder, &[index, "not a file beside it"]);
    }
    with(json!({ "weight_map": { "conv_in.weight": "part-1-of-2.safetensors" } }));
    folder_refused(&folder, &[index, "part-1-of-2.safetensors", "missing"]);
    with(json!({ "weight_map": { "conv_in.weight": "a\nb\u{1b}[2J" } }));
    folder_refused(&folder, &[index, "no name"]);
    for map in [json!({}), json!(null), json!([]), json!({ "conv_in.weight": 1 }), json!("x")] {
        with(json!({ "weight_map": map }));
        folder_refused(&folder, &[index, "weight_map"]);
    }
    for text in ["", "[]", "{", "\u{0}", "7"] {
        folder.write(&format!("tiny/unet/{index}"), text);
        folder_refused(&folder, &[index]);
    }
    // two shards with the same weight
    let again = fs::read(folder.path(weights)).expect("the weights");
    folder.write("tiny/unet/again.safetensors", again);
    with(json!({ "weight_map": { "a": "again.safetensors", "b": "diffusion_pytorch_model.safetensors" } }));
    folder_refused(&folder, &["diffusion_pytorch_model.safetensors", "twice"]);
}

#[test]
fn configs_that_lie() {
    let unet = "unet/config.json";
    let (text, vae) = ("text_encoder/config.json", "vae/config.json");
    let (scheduler, index) = ("scheduler/scheduler_config.json", "model_index.json");
    let cases = [
        (unet, "attention_head_dim", vec![json!(0), json!(-1), json!(1.5), json!("8"), json!([8, 0]), json!(u64::MAX)]),
        (unet, "num_attention_heads", vec![json!(0), json!(1e300), json!([[]])]),
        (unet, "attention_head_dim", vec![json!([8, 8, 8, 8, 8, 8, 8]), json!([])]),
        (unet, "downsample_padding", vec![json!(0), json!("1")]),
        (unet, "mid_block_scale_factor", vec![json!(1.5)]),
        (unet, "resnet_out_scale_factor", vec![json!(0.5)]),
        (unet, "conv_in_kernel", vec![json!(1)]),
        (unet, "up_block_types", vec![json!(["CrossAttnDownBlock2D"]), json!("UpBlock2D"), json!([3])]),
        (unet, "norm_num_groups", vec![json!(0), json!(-1), json!(1e9), json!(true), json!([32])]),
        (unet, "norm_eps", vec![json!(-1), json!("x"), json!(1e300), json!(2), json!([])]),
        (unet, "act_fn", vec![json!("mish"), json!(1)]),
        (unet, "down_block_types", vec![json!(["DownBlock3D"])]),
        (unet, "class_embed_type", vec![json!("timestep")]),
        (unet, "dual_cross_attention", vec![json!(true), json!([false, true])]),
        (unet, "_class_name", vec![json!("UNet3DConditionModel")]),
        (text, "num_attention_heads", vec![json!(0), json!(-12), json!("12")]),
        (text, "hidden_act", vec![json!("relu"), json!(0)]),
        (text, "layer_norm_eps", vec![json!(-1e-5), json!(1e39)]),
        (text, "model_type", vec![json!("t5")]),
        (vae, "scaling_factor", vec![json!(0), json!(1e-300), json!(1e-40), json!(1e39), json!("1"), json!([1])]),
        (vae, "shift_factor", vec![json!(1e39), json!({})]),
        (vae, "norm_num_groups", vec![json!(0), json!(65_537)]),
        (vae, "down_block_types", vec![json!(["AttnDownEncoderBlock2D"])]),
        (vae, "latents_mean", vec![json!([0.0])]),
        (scheduler, "prediction_type", vec![json!("flow"), json!(3)]),
        (index, "_class_name", vec![json!("StableDiffusionXLPipeline")]),
        (index, "text_encoder_2", vec![json!(["transformers", "CLIPTextModelWithProjection"])]),
    ];
    for (file, key, values) in cases {
        let folder = tiny();
        let path = folder.path("tiny").join(file);
        let config: Value = serde_json::from_slice(&fs::read(&path).expect("the config")).expect("JSON");
        for value in values {
            let mut changed = config.clone();
            changed[key] = value;
            fs::write(&path, changed.to_string()).expect("a file");
            let parts: &[&str] =
                if file == index { &["SD 1.x and SD 2.x"] } else { &[file, key.trim_start_matches("num_")] };
            let parts = if key == "num_attention_heads" { &[file, "head"][..] } else { parts };
            folder_refused(&folder, parts);
        }
        for text in ["", "[]", "NaN", "{\"scaling_factor\": NaN}", "\u{0}", "8", &"[".repeat(5000)] {
            fs::write(&path, text).expect("a file");
            folder_refused(&folder, &[file, "JSON"]);
        }
        // what a message would repeat, wherever in the config it is
        for text in ["a\nb", "\u{1b}[2J", &"x".repeat(100_000)] {
            for value in [json!(text), json!([text]), json!({ text: 1 })] {
                let mut changed = config.clone();
                changed["anything"] = value;
                fs::write(&path, changed.to_string()).expect("a file");
                folder_refused(&folder, &[file, "no name"]);
            }
        }
        let bytes = [b'{', b'"', 0xff, b'"'];
        fs::write(&path, bytes).expect("a file");
        folder_refused(&folder, &[file]);
    }
}

/// What may happen to a file.
#[derive(Clone, Debug)]
enum Damage {
    /// A bit turned.
    Flip { at: usize, bit: u8 },
    /// The end lost.
    Cut { at: usize },
    /// A part in place of another.
    Splice { from: usize, to: usize, count: usize },
    /// A part twice, so that everything after it moves.
    Repeat { from: usize, count: usize },
    /// Another digit in a number of the header: shapes and offsets that are still JSON.
    Digit { at: usize, digit: u8 },
    /// Another element type.
    Type { at: usize, name: &'static str },
}

/// Places are taken modulo what there is, more often in the header, where damage does more.
fn damage(header: usize) -> impl Strategy<Value = Damage> {
    let place = move || prop_oneof![3 => 0..header + 8, 1 => any::<usize>()];
    prop_oneof![
        (place(), 0..8u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        place().prop_map(|at| Damage::Cut { at }),
        (place(), place(), 1..64usize).prop_map(|(from, to, count)| Damage::Splice { from, to, count }),
        (place(), 1..64usize).prop_map(|(from, count)| Damage::Repeat { from, count }),
        (any::<usize>(), b'0'..=b'9').prop_map(|(at, digit)| Damage::Digit { at, digit }),
        (any::<usize>(), prop::sample::select(vec!["\"F32\"", "\"F16\"", "\"BF16\"", "\"I64\"", "\"U8\"", "\"F4\""]))
            .prop_map(|(at, name)| Damage::Type { at, name }),
    ]
}

fn apply(bytes: &mut Vec<u8>, header: usize, damage: &Damage) {
    let length = bytes.len();
    if length == 0 {
        return;
    }
    let end = (header + 8).min(length);
    match *damage {
        Damage::Flip { at, bit } => bytes[at % length] ^= 1 << bit,
        Damage::Cut { at } => bytes.truncate(at % length),
        Damage::Splice { from, to, count } => {
            let (from, to) = (from % length, to % length);
            let count = count.min(length - from.max(to));
            bytes.copy_within(from..from + count, to);
        }
        Damage::Repeat { from, count } => {
            let from = from % length;
            let part = bytes[from..(from + count).min(length)].to_vec();
            bytes.splice(from..from, part);
        }
        Damage::Digit { at, digit } => {
            let digits: Vec<usize> = (8.min(end)..end).filter(|i| bytes[*i].is_ascii_digit()).collect();
            if let Some(place) = digits.get(at % digits.len().max(1)) {
                bytes[*place] = digit;
            }
        }
        Damage::Type { at, name } => {
            let old = b"\"F32\"";
            let places: Vec<usize> =
                (8.min(end)..end.saturating_sub(old.len())).filter(|i| bytes[*i..].starts_with(old)).collect();
            if let Some(place) = places.get(at % places.len().max(1)) {
                bytes.splice(*place..*place + old.len(), name.bytes());
                // a header that still has its length, where there is room for it
                let longer = (header + name.len() - old.len()) as u64;
                bytes[..8].copy_from_slice(&longer.to_le_bytes());
            }
        }
    }
}

/// Damages a file and uses it: a line, or a checkpoint, within bounds.
fn survives(seed: &[u8], damages: &[Damage]) -> Result<(), TestCaseError> {
    let header = seed.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize);
    let mut bytes = seed.to_vec();
    for damage in damages {
        apply(&mut bytes, header, damage);
    }
    let folder = Folder::new();
    let path = folder.write("damaged.safetensors", bytes);
    if let Err(line) = use_it(&path) {
        prop_assert!(!line.chars().any(char::is_control), "{line:?} is more than one line");
        prop_assert!(line.contains("damaged.safetensors"), "{line:?} names the file");
        prop_assert!(line.len() < 2000);
    }
    let largest = LARGEST.load(Ordering::Relaxed);
    prop_assert!(largest < MOST_MEMORY, "{largest} bytes were asked for");
    Ok(())
}

fn small_file() -> Vec<u8> {
    let (header, data) = small();
    with_header(&header.to_string(), &data)
}

fn fused_file() -> Vec<u8> {
    let (header, data) = fused();
    with_header(&header.to_string(), &data)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_small_file_is_survived(damages in prop::collection::vec(damage(300), 1..5)) {
        survives(&small_file(), &damages)?;
    }

    #[test]
    fn a_damaged_fused_file_is_survived(damages in prop::collection::vec(damage(800), 1..5)) {
        survives(&fused_file(), &damages)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_checkpoint_is_survived(damages in prop::collection::vec(damage(90_000), 1..4)) {
        survives(&fs::read(model("tiny.safetensors")).expect("the fixture"), &damages)?;
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0..200u64) {
        survives(&bytes, &[])?;
        survives(&[&length.to_le_bytes(), &bytes[..]].concat(), &[])?;
    }
}
