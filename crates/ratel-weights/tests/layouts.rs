//! The layouts that checkpoints come in, each held against the same weights in another.

mod common;

use common::{layout, model, read};
use half::{bf16, f16};
use ratel_tensor::{Elem, Layout};
use ratel_weights::{Checkpoint, Component, Family, Files, describe};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn open(path: &Path) -> Checkpoint {
    let checkpoint = Checkpoint::open(Files::Disk, path).unwrap_or_else(|error| panic!("{error}"));
    assert!(checkpoint.unknown.is_empty(), "{}: unknown {:?}", path.display(), checkpoint.unknown);
    checkpoint
}

/// A weight's values in the file's order.
fn values(checkpoint: &Checkpoint, component: Component, key: &str) -> Vec<f32> {
    let bytes = read(checkpoint, component, key, Layout::AsIs, Elem::F32);
    let bytes = bytes.unwrap_or_else(|error| panic!("{error}"));
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Same keys, shapes and values; a matrix may be kept as a convolution of one tap, as the single-file layout has some.
fn assert_equal(ours: &Checkpoint, reference: &Checkpoint) {
    for component in Component::ALL {
        let (a, b) = (ours.catalogue(component), reference.catalogue(component));
        let name = component.name();
        assert!(a.keys().eq(b.keys()), "{name}: the keys differ");
        assert!(!a.is_empty(), "{name} has tensors");
        for (key, shape) in &b {
            let mine = &a[key];
            let same = **mine == **shape || (**mine).strip_suffix(&[1, 1]).is_some_and(|matrix| *matrix == **shape);
            assert!(same, "{name}.{key}: {mine} for {shape}");
            assert_eq!(values(ours, component, key), values(reference, component, key), "{name}.{key}");
            let packed =
                |checkpoint, shape| read(checkpoint, component, key, shape, Elem::F16).expect("finite weights");
            assert_eq!(packed(ours, layout(*shape)), packed(reference, layout(*shape)), "{name}.{key}, as on a device");
        }
    }
}

#[test]
fn a_single_file_is_the_folder() {
    for (name, family, prediction) in [("tiny", Family::Sd1, "epsilon"), ("tiny-v", Family::Sd2, "v_prediction")] {
        let (file, folder) = (open(&model(&format!("{name}.safetensors"))), open(&model(name)));
        assert_equal(&file, &folder);
        assert_eq!((file.family, folder.family), (family, family), "{name}");
        assert_eq!((file.prediction.kind.as_str(), folder.prediction.kind.as_str()), (prediction, prediction));
        // only an SD 2 file leaves open what it predicts
        assert_eq!(file.prediction.guess.is_some(), family == Family::Sd2, "{name}");
        assert_eq!(file.text.act, folder.text.act, "{name}");
    }
}

/// A file of the fixtures, as a row of a table inside this program.
macro_rules! embedded {
    ($path:literal) => {
        ($path, include_bytes!(concat!("../../../tests/fixtures/models/", $path)))
    };
}

/// The `tiny` folder and file, inside this program.
const TINY: &[(&str, &[u8])] = &[
    embedded!("tiny/model_index.json"),
    embedded!("tiny/scheduler/scheduler_config.json"),
    embedded!("tiny/tokenizer/vocab.json"),
    embedded!("tiny/tokenizer/merges.txt"),
    embedded!("tiny/text_encoder/config.json"),
    embedded!("tiny/text_encoder/model.safetensors"),
    embedded!("tiny/unet/config.json"),
    embedded!("tiny/unet/diffusion_pytorch_model.safetensors"),
    embedded!("tiny/vae/config.json"),
    embedded!("tiny/vae/diffusion_pytorch_model.safetensors"),
    embedded!("tiny.safetensors"),
];

#[test]
fn inside_the_program_is_as_on_the_disk() {
    for name in ["tiny", "tiny.safetensors"] {
        let inside = Checkpoint::open(Files::Embedded(TINY), Path::new(name)).unwrap_or_else(|error| panic!("{error}"));
        let disk = open(&model(name));
        assert_equal(&inside, &disk);
        assert_eq!(inside.name(), "tiny");
        assert_eq!((inside.family, &inside.unet, &inside.text), (disk.family, &disk.unet, &disk.text), "{name}");
        assert_eq!((&inside.vae, &inside.prediction), (&disk.vae, &disk.prediction), "{name}");
        let said = |checkpoint: &Checkpoint| checkpoint.scheduler.as_ref().map(|(_, config)| config.clone());
        assert_eq!(said(&inside), said(&disk), "{name}");
        assert_eq!(inside.tokenizer.is_some(), disk.tokenizer.is_some(), "{name}");
    }
    let missing = |name: &str, part: &str| {
        let rest: Vec<_> = TINY.iter().copied().filter(|(path, _)| *path != name).collect();
        let error = Checkpoint::open(Files::Embedded(rest.leak()), Path::new("tiny")).expect_err("it lacks a file");
        assert!(error.to_string().contains(part), "{error} should name {part}");
    };
    missing("tiny/unet/config.json", "tiny/unet/config.json");
    missing("tiny/text_encoder/model.safetensors", "tiny/text_encoder: no .safetensors file");
    missing("tiny/model_index.json", "no model_index.json");
    assert!(Checkpoint::open(Files::Embedded(TINY), Path::new("tin")).is_err());
}

/// A single file of SD 2's kind with a text encoder of so many layers, more input channels, and more tensors.
fn single_file(layers: usize, inputs: usize, more: &[(&str, Dtype, &[u8])], metadata: &[(&str, &str)]) -> Checkpoint {
    let bytes = vec![0; 4 * inputs.max(1)];
    let mut tensors = BTreeMap::new();
    let mut add = |name: &str, dtype, shape: &[usize], bytes: &[u8]| {
        tensors.insert(name.to_owned(), Tensor { dtype, shape: shape.to_vec(), bytes: bytes.to_vec() });
    };
    add("model.diffusion_model.input_blocks.0.0.weight", Dtype::F32, &[1, inputs, 1, 1], &bytes);
    add("first_stage_model.quant_conv.bias", Dtype::F32, &[1], &bytes[..4]);
    for layer in 0..layers {
        let name = format!("cond_stage_model.model.transformer.resblocks.{layer}.ln_1.bias");
        add(&name, Dtype::F32, &[1], &bytes[..4]);
    }
    for (name, dtype, bytes) in more {
        add(name, *dtype, &[], bytes);
    }
    let views = tensors.iter().map(|(name, tensor)| {
        (name, TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).expect("sizes that fit"))
    });
    let metadata = metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file.safetensors");
    fs::write(&path, serialize(views, Some(metadata)).expect("tensors")).expect("a file");
    open(&path)
}

#[test]
fn the_last_layer_is_left_out_once() {
    for (layers, run) in [(2, 1), (12, 11), (24, 23), (23, 23)] {
        let text = single_file(layers, 4, &[], &[]).catalogue(Component::TextEncoder);
        assert_eq!(text.len(), run, "of {layers} layers");
        assert!(text.contains_key(&format!("encoder.layers.{}.layer_norm1.bias", run - 1)), "the first {run}");
    }
}

#[test]
fn what_a_single_file_predicts() {
    let steps = 875_000i64.to_le_bytes();
    let other = 220_000i64.to_le_bytes();
    let base = ("global_step", Dtype::I64, &steps[..]);
    let (v, v_says, eps) = ("v_prediction", [("modelspec.prediction_type", "v")], "epsilon");
    let prediction = |inputs, more: &[_], metadata: &[_]| single_file(2, inputs, more, metadata).prediction;
    for (found, kind, is_guess) in [
        (prediction(4, &[], &[]), v, true),
        (prediction(4, &[("global_step", Dtype::I64, &other)], &[]), v, true),
        (prediction(4, &[base], &[]), eps, true),
        (prediction(4, &[("global_step", Dtype::I32, &steps[..4])], &[]), eps, true),
        (prediction(9, &[], &[]), eps, true),
        (prediction(4, &[("v_pred", Dtype::F32, &[0; 4]), base], &[]), v, false),
        (prediction(9, &[], &v_says), v, false),
        (prediction(4, &[], &[("modelspec.prediction_type", "epsilon")]), eps, false),
    ] {
        assert_eq!((found.kind.as_str(), found.guess.is_some()), (kind, is_guess), "{found:?}");
    }
}

#[test]
fn old_spellings_become_new_ones() {
    let odd = open(&model("odd"));
    let (mut weights, mut old) = (0, 0);
    for (component, file) in
        [("text_encoder", "model"), ("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model")]
    {
        let bytes = fs::read(model(&format!("odd/{component}/{file}.safetensors"))).expect("the fixture");
        let tensors = SafeTensors::deserialize(&bytes).expect("the fixture");
        let names = tensors.names();
        weights += names.iter().filter(|name| !name.ends_with("position_ids")).count();
        old += names.iter().filter(|name| name.starts_with("text_model.") || name.contains(".query.")).count();
    }
    assert!(old > 0, "the fixture is spelt the old way");
    let keys: Vec<String> =
        Component::ALL.into_iter().flat_map(|component| odd.catalogue(component).into_keys()).collect();
    assert_eq!(keys.len(), weights, "every weight has its key, and ids have none");
    for spelling in ["text_model", "query", "proj_attn", "position_ids"] {
        assert!(!keys.iter().any(|key| key.contains(spelling)), "a key still has {spelling}");
    }
    for part in ["to_q", "to_k", "to_v", "to_out.0"] {
        let key = format!("decoder.mid_block.attentions.0.{part}.weight");
        assert!(odd.catalogue(Component::Vae).contains_key(&key), "{key}");
    }
    assert!(odd.catalogue(Component::TextEncoder).contains_key("embeddings.token_embedding.weight"));
}

/// A copy of `tiny` in which each component's weights were rewritten by `rewrite`, which gets their folder.
fn copy_of_tiny(rewrite: impl Fn(&Path, BTreeMap<String, Tensor>)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    let write = |from: PathBuf, to: PathBuf| fs::copy(&from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    write(model("tiny/model_index.json"), copy.path().join("model_index.json"));
    for (component, stem) in STEMS {
        let folder = copy.path().join(component.name());
        fs::create_dir(&folder).expect("a folder");
        write(model("tiny").join(component.name()).join("config.json"), folder.join("config.json"));
        let file = fs::read(model("tiny").join(component.name()).join(format!("{stem}.safetensors")));
        let file = file.expect("the fixture");
        let tensors = SafeTensors::deserialize(&file).expect("the fixture");
        let own = |(name, view): (String, TensorView<'_>)| {
            (name, Tensor { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() })
        };
        rewrite(&folder, tensors.tensors().into_iter().map(own).collect());
    }
    copy
}

const STEMS: [(Component, &str); 3] = [
    (Component::TextEncoder, "model"),
    (Component::Unet, "diffusion_pytorch_model"),
    (Component::Vae, "diffusion_pytorch_model"),
];

fn stem(folder: &Path) -> &'static str {
    let found = STEMS.iter().find(|(component, _)| folder.ends_with(component.name()));
    found.expect("the folder of a component").1
}

struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn save(path: &Path, tensors: &BTreeMap<String, Tensor>) {
    let views = tensors.iter().map(|(name, tensor)| {
        (name, TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).expect("sizes that fit"))
    });
    fs::write(path, serialize(views, None).expect("tensors")).expect("a file");
}

#[test]
fn shards_and_variants_are_the_same_weights() {
    let tiny = open(&model("tiny"));
    for index in ["STEM.safetensors.index.json", "STEM.safetensors.index.fp16.json", "STEM.fp16.safetensors.index.json"]
    {
        let sharded = copy_of_tiny(|folder, mut tensors| {
            let middle = tensors.keys().nth(tensors.len() / 2).expect("some tensors").clone();
            let second = tensors.split_off(&middle);
            let mut map = serde_json::Map::new();
            for (i, part) in [tensors, second].iter().enumerate() {
                let name = format!("{}-0000{}-of-00002.safetensors", stem(folder), i + 1);
                save(&folder.join(&name), part);
                map.extend(part.keys().map(|key| (key.clone(), json!(name))));
            }
            let index = json!({ "metadata": {}, "weight_map": map }).to_string();
            fs::write(folder.join(index_name(folder)), index).expect("a file");
        });
        for (component, stem) in STEMS {
            let folder = sharded.path().join(component.name());
            let asked = folder.join(index.replace("STEM", stem));
            fs::rename(folder.join(index_name(&folder)), asked).expect("a rename");
        }
        assert_equal(&open(sharded.path()), &tiny);
    }

    let halves =
        copy_of_tiny(|folder, tensors| save(&folder.join(format!("{}.fp16.safetensors", stem(folder))), &tensors));
    assert_equal(&open(halves.path()), &tiny);
}

fn index_name(folder: &Path) -> String {
    format!("{}.safetensors.index.json", stem(folder))
}

#[test]
fn full_precision_is_taken_where_both_are() {
    let both = copy_of_tiny(|folder, mut tensors| {
        save(&folder.join(format!("{}.fp16.safetensors", stem(folder))), &tensors);
        for tensor in tensors.values_mut() {
            let wide = tensor.bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32().to_le_bytes());
            (tensor.dtype, tensor.bytes) = (Dtype::F32, wide.flatten().collect());
        }
        save(&folder.join(format!("{}.safetensors", stem(folder))), &tensors);
    });
    let both = open(both.path());
    assert_equal(&both, &open(&model("tiny")));
    for component in Component::ALL {
        assert_eq!(both.elem(component), Elem::F32, "{}", component.name());
    }
}

#[test]
fn bf16_is_read() {
    let rewritten = copy_of_tiny(|folder, mut tensors| {
        for tensor in tensors.values_mut() {
            let halves = tensor.bytes.as_chunks::<2>().0.iter();
            let short = halves.map(|b| bf16::from_f32(f16::from_le_bytes(*b).to_f32()).to_le_bytes());
            (tensor.dtype, tensor.bytes) = (Dtype::BF16, short.flatten().collect());
        }
        save(&folder.join(format!("{}.safetensors", stem(folder))), &tensors);
    });
    let (short, tiny) = (open(rewritten.path()), open(&model("tiny")));
    for component in Component::ALL {
        assert_eq!(short.elem(component), Elem::F32, "bf16 has a range that f16 has not");
        for key in tiny.catalogue(component).keys() {
            let rounded: Vec<f32> =
                values(&tiny, component, key).into_iter().map(|v| bf16::from_f32(v).to_f32()).collect();
            assert_eq!(values(&short, component, key), rounded, "{key}");
        }
    }
    let info = describe(&short);
    assert!(info.components.iter().all(|part| part.elements.keys().eq(["bf16"])), "{info:?}");
}
