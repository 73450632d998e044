//! Single files: cut short, with headers that lie, of other models.

use super::common::{model, read};
use super::{CONV, Folder, NORM, VAE, changed, fused, refused, small, use_it, with_header};
use ratel_tensor::{Elem, Layout};
use ratel_weights::{Checkpoint, Component, Files};
use serde_json::{Value, json};

#[test]
fn the_seeds_are_valid() {
    let folder = Folder::new();
    for (name, (header, data)) in [("small.safetensors", small()), ("fused.safetensors", fused())] {
        let path = folder.write(name, with_header(&header.to_string(), &data));
        use_it(&path).unwrap_or_else(|line| panic!("{line}"));
    }
    let fused = Checkpoint::open(Files::Disk, &folder.path("fused.safetensors")).expect("a checkpoint");
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
            let checkpoint = Checkpoint::open(Files::Disk, &path).expect("a checkpoint");
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
    let whole = Checkpoint::open(Files::Disk, &folder.write("more.safetensors", with("optimizer_of_mine")))
        .expect("a checkpoint");
    assert!(whole.unknown.is_empty(), "the state of training is known: {:?}", whole.unknown);
    let whole = Checkpoint::open(Files::Disk, &folder.write("more.safetensors", with("my_layer.weight")))
        .expect("a checkpoint");
    assert_eq!(whole.unknown, ["my_layer.weight"]);
}
