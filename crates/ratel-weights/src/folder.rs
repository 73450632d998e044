//! Folders as diffusers writes them: a config and safetensors files for each component.

use crate::checkpoint::{Builder, Checkpoint, Component, Prediction, Stored};
use crate::config::{Family, TextFacts, UnetFacts, VaeFacts};
use crate::file::TensorFile;
use crate::{Defaults, Files, WeightsError, json, ldm};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component as PathPart, Path, PathBuf};

/// What a model may predict, as `prediction_type` has it.
const PREDICTIONS: [&str; 3] = ["epsilon", "v_prediction", "sample"];

/// Opens a folder that holds a `model_index.json`.
pub(crate) fn open(files: Files, path: &Path) -> Result<Checkpoint, WeightsError> {
    let invalid = |path: &Path, problem: String| WeightsError::Invalid { path: path.to_owned(), problem };
    let index = path.join("model_index.json");
    let Some(index) = json::read(files, &index)? else {
        return Err(invalid(path, "no model_index.json in it; name the folder of a whole diffusers model".to_owned()));
    };
    let class = index.get("_class_name").and_then(Value::as_str).unwrap_or_default();
    if class.contains("XL") || index.get("text_encoder_2").is_some_and(Value::is_array) {
        return Err(invalid(path, format!("{class}: only SD 1.x and SD 2.x are supported so far")));
    }

    // diffusers writes [null, null] for what a pipeline does without
    let named = |part: &str| index.get(part).and_then(|entry| entry.get(0)).is_some_and(Value::is_string);
    let has_vae = named(Component::Vae.name()) || files.is_folder(&path.join(Component::Vae.name()));

    let mut builder = Builder::default();
    let mut opened = Vec::new();
    for component in Component::ALL.into_iter().filter(|component| has_vae || *component != Component::Vae) {
        let folder = path.join(component.name());
        if !files.is_folder(&folder) {
            return Err(invalid(&folder, "no such folder; a whole model has it".to_owned()));
        }
        for shard in shards(files, &folder)? {
            let file = TensorFile::open(files, &shard)?;
            for (name, entry) in &file.tensors {
                match key_of(component, name) {
                    Some(key) => builder.add(component as usize, key, opened.len(), name, entry, None, &shard)?,
                    None if ldm::is_ignored(name) => {}
                    None => builder.unknown.push(format!("{}.{name}", component.name())),
                }
            }
            opened.push(file);
        }
    }

    let config = |component: Component| {
        let file = path.join(component.name()).join("config.json");
        let config = json::read(files, &file)?.ok_or_else(|| invalid(&file, "missing".to_owned()))?;
        Ok((file, config))
    };
    let (file, unet) = config(Component::Unet)?;
    let unet = UnetFacts::of_config(&file, &unet)?;
    let (file, text) = config(Component::TextEncoder)?;
    let text = TextFacts::of_config(&file, &text)?;
    let vae = if has_vae {
        let (file, vae) = config(Component::Vae)?;
        Some(VaeFacts::of_config(&file, &vae)?)
    } else {
        takes_pictures(&builder.components[Component::Unet as usize]).map_err(|problem| invalid(path, problem))?;
        None
    };

    let scheduler_file = path.join("scheduler").join("scheduler_config.json");
    let scheduler = json::read_with_infinities(files, &scheduler_file)?;
    let named = scheduler.as_ref().and_then(|config| config.get("prediction_type")).filter(|value| !value.is_null());
    let kind = named.map_or(Some("epsilon"), Value::as_str).filter(|kind| PREDICTIONS.contains(kind));
    let kind = kind.ok_or_else(|| {
        let found = named.unwrap_or(&Value::Null);
        invalid(&scheduler_file, format!("prediction_type: {found} is not supported; {} are", PREDICTIONS.join(", ")))
    })?;
    let prediction = Prediction { kind: kind.to_owned(), guess: None };
    let family = if text.act == "quick_gelu" { Family::Sd1 } else { Family::Sd2 };
    let tokenizer = Some(path.join("tokenizer")).filter(|folder| files.is_folder(folder));
    Ok(Checkpoint {
        path: path.to_owned(),
        files,
        shards: opened,
        components: builder.components,
        unknown: builder.unknown,
        family,
        unet,
        text,
        vae,
        prediction,
        scheduler: scheduler.map(|config| (scheduler_file, config)),
        tokenizer,
        defaults: Defaults::of_folder(files, path)?,
    })
}

/// Whether a UNet works on pictures, as that of a model without a VAE must; else why not.
fn takes_pictures(unet: &BTreeMap<String, Stored>) -> Result<(), String> {
    // what is missing is named when the model is built
    let extent = |key: &str, axis: usize| unet.get(key).and_then(|stored| stored.shape.get(axis).copied()).unwrap_or(3);
    match (extent("conv_in.weight", 1), extent("conv_out.weight", 0)) {
        (3, 3) => Ok(()),
        (3, 6) => Err("its unet predicts variances beside the noise (6 channels out for 3 in), which is not \
                       supported"
            .to_owned()),
        (takes, gives) => Err(format!(
            "it has no vae, and its unet takes {takes} channels and gives {gives}: without a vae it has to work on \
             pictures, 3 channels each way"
        )),
    }
}

/// The safetensors files of a component: those that an index names, or the one there is. Of a component that has both
/// precisions, full precision is taken.
fn shards(files: Files, folder: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];
    const VARIANTS: [&str; 2] = ["", ".fp16"];
    let invalid = |path: &Path, problem: String| WeightsError::Invalid { path: path.to_owned(), problem };
    for variant in VARIANTS {
        for stem in STEMS {
            // an index of a variant is called either way
            for name in
                [format!("{stem}.safetensors.index{variant}.json"), format!("{stem}{variant}.safetensors.index.json")]
            {
                let file = folder.join(name);
                let Some(index) = json::read(files, &file)? else { continue };
                let map = index.get("weight_map").and_then(Value::as_object);
                let map = map.ok_or_else(|| invalid(&file, "it has no weight_map".to_owned()))?;
                let names: Option<BTreeSet<&str>> = map.values().map(Value::as_str).collect();
                let names = names.filter(|names| !names.is_empty());
                let names = names.ok_or_else(|| invalid(&file, "its weight_map names no files".to_owned()))?;
                return names.into_iter().map(|name| shard(files, folder, &file, name)).collect();
            }
            let file = folder.join(format!("{stem}{variant}.safetensors"));
            if files.is_file(&file) {
                return Ok(vec![file]);
            }
        }
    }
    let pickled = STEMS.iter().chain(&["pytorch_model"]).any(|stem| files.is_file(&folder.join(format!("{stem}.bin"))));
    let problem = if pickled {
        "it holds pickle files only, which are not read since they can run any code; convert it with diffusers' \
         save_pretrained(..., safe_serialization=True)"
    } else {
        "no .safetensors file in it"
    };
    Err(invalid(folder, problem.to_owned()))
}

/// A file that an index names; it must lie in the index's own folder.
fn shard(files: Files, folder: &Path, index: &Path, name: &str) -> Result<PathBuf, WeightsError> {
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(PathPart::Normal(_)), None));
    let invalid = |problem| WeightsError::Invalid { path: index.to_owned(), problem };
    if !plain {
        return Err(invalid(format!("it names {name:?}, which is not a file beside it")));
    }
    let file = folder.join(name);
    if files.is_file(&file) { Ok(file) } else { Err(invalid(format!("it names {name}, which is missing"))) }
}

/// A weight's key; `None` for what is no weight.
fn key_of(component: Component, name: &str) -> Option<String> {
    if ldm::is_ignored(name) {
        return None;
    }
    match component {
        // written by transformers 5 without, by older versions with the model's own name
        Component::TextEncoder => Some(name.strip_prefix("text_model.").unwrap_or(name).to_owned()),
        Component::Unet => Some(name.to_owned()),
        Component::Vae => {
            let renamed = name.split_once("attentions.0.").and_then(|(place, rest)| {
                let old = ["query.", "key.", "value.", "proj_attn."].iter().any(|old| rest.starts_with(old));
                if old { Some(format!("{place}attentions.0.{}", ldm::vae_attention(rest)?)) } else { None }
            });
            Some(renamed.unwrap_or_else(|| name.to_owned()))
        }
    }
}
