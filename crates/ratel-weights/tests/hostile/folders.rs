//! Folders: parts missing, indices and configs that lie.

use super::common::model;
use super::{Folder, refused, use_it};
use ratel_weights::{Checkpoint, Component, Defaults, Files, describe};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

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
fn folders_without_a_vae() {
    let pixels = Checkpoint::open(Files::Disk, &model("tiny-pixels")).unwrap_or_else(|line| panic!("{line}"));
    assert!(pixels.vae.is_none() && pixels.catalogue(Component::Vae).is_empty() && pixels.unknown.is_empty());
    let info = describe(&pixels);
    assert_eq!((info.space, info.components.len(), info.sample_size), ("image", 2, 16));

    // a model of latents that lost its VAE
    let folder = tiny();
    fs::remove_dir_all(folder.path("tiny/vae")).expect("the folder");
    folder_refused(&folder, &["vae", "no such folder"]);
    let index = folder.path("tiny/model_index.json");
    let mut named: Value = serde_json::from_slice(&fs::read(&index).expect("the index")).expect("JSON");
    for vae in [json!([null, null]), json!(null), json!(7), json!([])] {
        named["vae"] = vae;
        fs::write(&index, named.to_string()).expect("a file");
        folder_refused(&folder, &["no vae", "takes 4 channels and gives 4"]);
    }

    // one that predicts more than noise: six channels out of three
    let weights = "unet/diffusion_pytorch_model.safetensors";
    let bytes = fs::read(model("tiny-pixels").join(weights)).expect("the weights");
    let tensors = SafeTensors::deserialize(&bytes).expect("tensors");
    let doubled = |name: &str| ["conv_out.weight", "conv_out.bias"].contains(&name);
    let all: Vec<(String, Vec<usize>, Vec<u8>, Dtype)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let (mut shape, mut data) = (view.shape().to_vec(), view.data().to_vec());
            if doubled(&name) {
                shape[0] *= 2;
                data = data.repeat(2);
            }
            (name, shape, data, view.dtype())
        })
        .collect();
    let views = all.iter().map(|(name, shape, data, dtype)| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), data).expect("sizes that fit"))
    });
    fs::write(folder.path("tiny").join(weights), serialize(views, None).expect("bytes")).expect("a file");
    folder_refused(&folder, &["variances", "6 channels out for 3 in"]);
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
    let (scheduler, index, ratel) = ("scheduler/scheduler_config.json", "model_index.json", "ratel.json");
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
        (
            ratel,
            "num_inference_steps",
            vec![json!(0), json!(-1), json!(1001), json!(2.5), json!("20"), json!(u64::MAX)],
        ),
        (ratel, "guidance_scale", vec![json!(-1), json!(1e9), json!("7"), json!([7.5]), json!(true)]),
        (ratel, "guidance_rescale", vec![json!(-0.1), json!(1.1), json!({})]),
        (ratel, "num_inference_step", vec![json!(20), json!(null)]),
        (index, "_class_name", vec![json!("StableDiffusionXLPipeline")]),
        (index, "text_encoder_2", vec![json!(["transformers", "CLIPTextModelWithProjection"])]),
    ];
    for (file, key, values) in cases {
        let folder = tiny();
        let path = folder.path("tiny").join(file);
        if file == ratel {
            fs::write(&path, "{}").expect("a file");
        }
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
        // in a scheduler's config they mean nothing (see `infinities_of_a_scheduler_are_unset`)
        let infinity = if file == scheduler { "[]" } else { "{\"scaling_factor\": NaN}" };
        for text in ["", "[]", "NaN", infinity, "\u{0}", "8", &"[".repeat(5000)] {
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

#[test]
fn infinities_of_a_scheduler_are_unset() {
    let folder = tiny();
    let path = folder.path("tiny/scheduler/scheduler_config.json");
    let text = fs::read_to_string(&path).expect("the config");
    // as diffusers writes every DPMSolverMultistepScheduler
    let text = text.trim_end().trim_end_matches('}').to_owned() + r#", "lambda_min_clipped": -Infinity}"#;
    fs::write(&path, text).expect("a file");
    let checkpoint = Checkpoint::open(Files::Disk, &folder.path("tiny")).unwrap_or_else(|line| panic!("{line}"));
    let (named, config) = checkpoint.scheduler.expect("a scheduler");
    assert_eq!(named, path);
    assert!(config["lambda_min_clipped"].is_null() && config["beta_start"].is_number(), "{config}");
}

#[test]
fn defaults_are_the_folders() {
    let folder = tiny();
    let defaults = || Checkpoint::open(Files::Disk, &folder.path("tiny")).expect("a checkpoint").defaults;
    assert_eq!(defaults(), Defaults::default());
    folder.write("tiny/ratel.json", json!({ "num_inference_steps": 12, "guidance_scale": 3 }).to_string());
    assert_eq!(defaults(), Defaults { steps: 12, guidance_scale: 3.0, ..Defaults::default() });
}
