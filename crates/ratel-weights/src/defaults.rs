//! What a model's makers recommend.

use crate::config::Reader;
use crate::{Files, WeightsError, json};
use serde::Serialize;
use std::path::Path;

/// What to draw with where whoever asks for a picture says nothing: what a folder's `ratel.json` says, else what suits
/// Stable Diffusion. The file's keys are the arguments of diffusers' pipelines:
///
/// ```json
/// { "num_inference_steps": 20, "guidance_scale": 5.0, "guidance_rescale": 0.0 }
/// ```
///
/// Sampler and noise schedule are in `scheduler_config.json`, the size in the UNet's `sample_size`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Defaults {
    /// `num_inference_steps`: denoising steps, 1 to 1000.
    #[serde(rename = "num_inference_steps")]
    pub steps: usize,
    /// `guidance_scale`, 0 to 100.
    pub guidance_scale: f32,
    /// `guidance_rescale`, 0 to 1.
    pub guidance_rescale: f32,
}

impl Default for Defaults {
    fn default() -> Self {
        Defaults { steps: 20, guidance_scale: 7.5, guidance_rescale: 0.0 }
    }
}

impl Defaults {
    /// Reads a folder's `ratel.json`, if it has one. The file is Ratel's alone, so what is not known in it is a mistake.
    pub(crate) fn of_folder(files: Files, folder: &Path) -> Result<Self, WeightsError> {
        let path = &folder.join("ratel.json");
        let Some(config) = json::read(files, path)? else { return Ok(Self::default()) };
        let known = ["num_inference_steps", "guidance_scale", "guidance_rescale"];
        let unknown =
            config.as_object().into_iter().flat_map(|all| all.keys()).find(|key| !known.contains(&key.as_str()));
        let reader = Reader { path, config: &config };
        if let Some(key) = unknown {
            return Err(reader.invalid(format!("{key} is not known; {} are", known.join(", "))));
        }
        let within = |key: &str, default: f32, most: f32| {
            let value = reader.number(key, default)?;
            let fits = (0.0..=most).contains(&value);
            if fits { Ok(value) } else { Err(reader.invalid(format!("{key}: {value} must be from 0 to {most}"))) }
        };
        let default = Self::default();
        let steps = match config.get(known[0]).filter(|value| !value.is_null()) {
            None => default.steps,
            Some(value) => {
                let steps = value.as_u64().filter(|steps| (1..=1000).contains(steps));
                steps.ok_or_else(|| reader.invalid(format!("{}: {value} must be from 1 to 1000", known[0])))? as usize
            }
        };
        Ok(Defaults {
            steps,
            guidance_scale: within(known[1], default.guidance_scale, 100.0)?,
            guidance_rescale: within(known[2], default.guidance_rescale, 1.0)?,
        })
    }
}
