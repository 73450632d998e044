//! What a checkpoint is, in a form to print.

use crate::{Checkpoint, Component, Defaults, Family};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a checkpoint is.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// Where it is.
    pub path: String,
    /// What family it is of.
    pub family: Family,
    /// What it predicts: `epsilon`, `v_prediction`, `sample`.
    pub prediction: String,
    /// Why that was taken, if it does not say.
    pub prediction_guess: Option<String>,
    /// Where it draws: `latent`, or `image` for a model without a VAE.
    pub space: &'static str,
    /// Latents, in image space pixels, of a side of the pictures it was trained on.
    pub sample_size: usize,
    /// What it is drawn with unless something else is asked for.
    pub defaults: Defaults,
    /// Its parts.
    pub components: Vec<ComponentInfo>,
    /// Tensors that no component has a place for.
    pub unknown_keys: Vec<String>,
}

/// What a component is.
#[derive(Clone, Debug, Serialize)]
pub struct ComponentInfo {
    /// `text_encoder`, `unet`, `vae`.
    pub name: &'static str,
    /// Tensors.
    pub tensors: usize,
    /// Values of all tensors.
    pub parameters: u64,
    /// Bytes of all tensors in the file.
    pub bytes: u64,
    /// Values of each element type.
    pub elements: BTreeMap<String, u64>,
}

/// Describes a checkpoint. Which keys are missing is known when its models are built.
pub fn describe(checkpoint: &Checkpoint) -> Info {
    let component = |component: Component| {
        let mut info =
            ComponentInfo { name: component.name(), tensors: 0, parameters: 0, bytes: 0, elements: BTreeMap::new() };
        for stored in checkpoint.stored(component).values() {
            let count = stored.shape.count() as u64;
            info.tensors += 1;
            info.parameters += count;
            info.bytes += count * stored.elem.size() as u64;
            *info.elements.entry(stored.elem.to_string()).or_default() += count;
        }
        info
    };
    let space = if checkpoint.vae.is_some() { "latent" } else { "image" };
    let has = |part: &Component| *part != Component::Vae || checkpoint.vae.is_some();
    Info {
        path: checkpoint.path().display().to_string(),
        family: checkpoint.family,
        prediction: checkpoint.prediction.kind.clone(),
        prediction_guess: checkpoint.prediction.guess.clone(),
        space,
        sample_size: checkpoint.unet.sample_size,
        defaults: checkpoint.defaults,
        components: Component::ALL.into_iter().filter(has).map(component).collect(),
        unknown_keys: checkpoint.unknown.clone(),
    }
}
