//! A model of a checkpoint.

use crate::DiffusionError;
use crate::model::Model;
use crate::sampling::SchedulerFile;
use crate::text::{ClipTokenizer, PadToken};
use ratel_engine::{EngineError, WeightSink, WeightSource};
use ratel_graph::Weight;
use ratel_kernels::activation::Act;
use ratel_models::{TextConfig, UnetConfig, VaeConfig};
use ratel_tensor::Elem;
use ratel_weights::{Checkpoint, Component, Family, Files};
use std::path::{Path, PathBuf};

impl Model {
    /// Opens a diffusers folder or a single `.safetensors` file on the disk. Weights are read when they are needed.
    ///
    /// # Errors
    /// What is not there, damaged, or of another architecture.
    pub fn open(path: &Path) -> Result<Self, DiffusionError> {
        Self::of_checkpoint(Checkpoint::open(Files::Disk, path)?)
    }

    /// The model of an opened checkpoint.
    ///
    /// # Errors
    /// Weights that no part of Stable Diffusion has; a damaged tokenizer or scheduler.
    pub fn of_checkpoint(checkpoint: Checkpoint) -> Result<Self, DiffusionError> {
        let path = checkpoint.path();
        if let Some(key) = checkpoint.unknown.first() {
            let others = checkpoint.unknown.len() - 1;
            return Err(DiffusionError::UnknownKey { path: path.to_owned(), key: key.clone(), others });
        }
        let tokenizer = match &checkpoint.tokenizer {
            Some(folder) => ClipTokenizer::from_folder(checkpoint.files(), folder)?,
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
        let (scheduler, scheduler_path) = match &checkpoint.scheduler {
            Some((path, config)) => {
                let file = SchedulerFile::from_value(config.clone());
                (
                    file.map_err(|source| DiffusionError::Scheduler { path: path.clone(), source: Box::new(source) })?,
                    path.clone(),
                )
            }
            None => {
                let prediction_type = Some(checkpoint.prediction.kind.clone());
                (SchedulerFile { prediction_type, ..SchedulerFile::stable_diffusion() }, PathBuf::new())
            }
        };
        let vae = checkpoint.vae.as_ref();
        Ok(Model {
            name: checkpoint.name(),
            tokenizer,
            text: (checkpoint.catalogue(Component::TextEncoder), text),
            unet: (checkpoint.catalogue(Component::Unet), unet),
            vae: vae.map(|facts| (checkpoint.catalogue(Component::Vae), VaeConfig { groups: facts.groups })),
            scaling_factor: vae.map_or(1.0, |facts| facts.scaling_factor),
            shift_factor: vae.map_or(0.0, |facts| facts.shift_factor),
            scheduler,
            scheduler_path,
            defaults: checkpoint.defaults,
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
        let unknown = || EngineError::Plan(format!("{} is in no component", weight.key));
        let (component, key) = Component::ALL
            .into_iter()
            .find_map(|component| Some((component, weight.key.strip_prefix(component.name())?.strip_prefix('.')?)))
            .ok_or_else(unknown)?;
        self.0.read(component, key, weight.layout, elem, &mut |offset, bytes| Ok(sink(offset, bytes)?))?;
        Ok(())
    }
}
