//! A model of a checkpoint on disk.

use crate::DiffusionError;
use crate::model::Model;
use crate::sampling::SchedulerFile;
use crate::text::{ClipTokenizer, PadToken};
use ratel_engine::{EngineError, WeightSink, WeightSource};
use ratel_graph::Weight;
use ratel_kernels::activation::Act;
use ratel_models::{TextConfig, UnetConfig, VaeConfig};
use ratel_tensor::Elem;
use ratel_weights::{Checkpoint, Component, Family, Layout};
use std::path::Path;

impl Model {
    /// Opens a diffusers folder or a single `.safetensors` file. Weights are read when they are needed.
    ///
    /// # Errors
    /// What is not there, damaged, or of another architecture.
    pub fn open(path: &Path) -> Result<Self, DiffusionError> {
        let checkpoint = Checkpoint::open(path)?;
        if let Some(key) = checkpoint.unknown.first() {
            let others = checkpoint.unknown.len() - 1;
            return Err(DiffusionError::UnknownKey { path: path.to_owned(), key: key.clone(), others });
        }
        let tokenizer = match &checkpoint.tokenizer {
            Some(folder) => ClipTokenizer::from_folder(folder)?,
            None => ClipTokenizer::embedded(match checkpoint.family {
                Family::Sd1 => PadToken::EndOfText,
                Family::Sd2 => PadToken::Exclamation,
            })?,
        };
        let text = TextConfig {
            heads: checkpoint.text.heads,
            act: if checkpoint.text.act == "quick_gelu" { Act::QuickGelu } else { Act::Gelu },
            eps: checkpoint.text.eps,
            layers: usize::MAX,
        };
        let facts = &checkpoint.unet;
        let unet = UnetConfig {
            heads: facts.heads.clone(),
            groups: facts.groups,
            eps: facts.eps,
            cos_first: facts.cos_first,
            freq_shift: facts.freq_shift,
        };
        let scheduler = match &checkpoint.scheduler {
            Some(json) => SchedulerFile::from_json(json)?,
            None => SchedulerFile {
                prediction_type: Some(checkpoint.prediction.kind.clone()),
                ..SchedulerFile::stable_diffusion()
            },
        };
        let name = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let name = if path.is_dir() { name.file_name() } else { name.file_stem() };
        Ok(Model {
            name: name.unwrap_or_default().to_string_lossy().into_owned(),
            tokenizer,
            text: (checkpoint.catalogue(Component::TextEncoder), text),
            unet: (checkpoint.catalogue(Component::Unet), unet),
            vae: (checkpoint.catalogue(Component::Vae), VaeConfig { groups: checkpoint.vae.groups }),
            scaling_factor: checkpoint.vae.scaling_factor,
            shift_factor: checkpoint.vae.shift_factor,
            scheduler,
            native_latents: facts.sample_size,
            guess: checkpoint.prediction.guess.clone(),
            elem: Component::ALL
                .map(|component| checkpoint.elem(component))
                .into_iter()
                .find(|e| *e != Elem::F16)
                .unwrap_or(Elem::F16),
            weights: Box::new(CheckpointWeights(checkpoint)),
        })
    }
}

/// A checkpoint as the engine asks for weights.
struct CheckpointWeights(Checkpoint);

impl WeightSource for CheckpointWeights {
    fn read(
        &self,
        weight: &Weight,
        elem: Elem,
        sink: &mut WeightSink,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let layout = match weight.layout {
            ratel_graph::Layout::AsIs => Layout::AsIs,
            ratel_graph::Layout::Linear => Layout::Linear,
            ratel_graph::Layout::Conv => Layout::Conv,
        };
        let unknown = || EngineError::Plan(format!("{} is in no component", weight.key));
        let (component, key) = Component::ALL
            .into_iter()
            .find_map(|component| Some((component, weight.key.strip_prefix(component.name())?.strip_prefix('.')?)))
            .ok_or_else(unknown)?;
        self.0.read(component, key, layout, elem, &mut |offset, bytes| Ok(sink(offset, bytes)?))?;
        Ok(())
    }
}
