//! What weights can't tell: from a folder's config.json files, or what is known of a family.

use crate::WeightsError;
use serde_json::Value;
use std::path::Path;

/// A family of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Stable Diffusion 1.x: CLIP ViT-L, prediction of noise.
    Sd1,
    /// Stable Diffusion 2.x: OpenCLIP ViT-H without its last layer.
    Sd2,
}

/// What a UNet's weights can't tell.
#[derive(Clone, Debug, PartialEq)]
pub struct UnetFacts {
    /// Attention heads of each block going down.
    pub heads: Vec<usize>,
    /// `norm_num_groups`.
    pub groups: usize,
    /// `norm_eps`.
    pub eps: f32,
    /// `flip_sin_to_cos`.
    pub cos_first: bool,
    /// `freq_shift`.
    pub freq_shift: f32,
    /// `sample_size`: latents, in image space pixels, of a side of the pictures it was trained on.
    pub sample_size: usize,
}

/// What a text encoder's weights can't tell.
#[derive(Clone, Debug, PartialEq)]
pub struct TextFacts {
    /// `num_attention_heads`.
    pub heads: usize,
    /// `hidden_act`: `quick_gelu` or `gelu`.
    pub act: String,
    /// `layer_norm_eps`.
    pub eps: f32,
}

/// What a VAE's weights can't tell.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeFacts {
    /// `norm_num_groups`.
    pub groups: usize,
    /// `scaling_factor`.
    pub scaling_factor: f32,
    /// `shift_factor`, 0 where there is none.
    pub shift_factor: f32,
}

/// Width of one attention head of SD 2's UNet and of both families' text encoders.
const HEAD_WIDTH: usize = 64;

impl UnetFacts {
    /// What is known of a family, for a UNet whose blocks have so many channels going down.
    pub(crate) fn of_family(family: Family, channels: &[usize]) -> Self {
        let heads = match family {
            Family::Sd1 => vec![8; channels.len()],
            Family::Sd2 => channels.iter().map(|c| (c / HEAD_WIDTH).max(1)).collect(),
        };
        UnetFacts { heads, groups: 32, eps: 1e-5, cos_first: true, freq_shift: 0.0, sample_size: 64 }
    }

    /// Reads `unet/config.json`, and refuses what this program does not compute.
    pub(crate) fn of_config(path: &Path, config: &Value) -> Result<Self, WeightsError> {
        let reader = Reader { path, config };
        reader.only("_class_name", &["UNet2DConditionModel"])?;
        reader.only("act_fn", &["silu", "swish"])?;
        reader.only("resnet_time_scale_shift", &["default"])?;
        reader.only("time_embedding_type", &["positional"])?;
        reader.only("attention_type", &["default"])?;
        reader.only("mid_block_type", &["UNetMidBlock2DCrossAttn"])?;
        for unset in [
            "class_embed_type",
            "addition_embed_type",
            "encoder_hid_dim_type",
            "encoder_hid_dim",
            "num_class_embeds",
            "time_cond_proj_dim",
            "time_embedding_act_fn",
            "timestep_post_act",
            "cross_attention_norm",
            "reverse_transformer_layers_per_block",
        ] {
            reader.unset(unset)?;
        }
        for off in ["dual_cross_attention", "only_cross_attention", "center_input_sample", "resnet_skip_time_act"] {
            reader.off(off)?;
        }
        for (key, value) in [
            ("downsample_padding", 1.0),
            ("mid_block_scale_factor", 1.0),
            ("resnet_out_scale_factor", 1.0),
            ("conv_in_kernel", 3.0),
            ("conv_out_kernel", 3.0),
        ] {
            reader.always(key, value)?;
        }
        reader.blocks("down_block_types", &["CrossAttnDownBlock2D", "DownBlock2D"])?;
        reader.blocks("up_block_types", &["CrossAttnUpBlock2D", "UpBlock2D"])?;
        let levels = config.get("block_out_channels").and_then(Value::as_array).map_or(4, Vec::len);
        // the key is misnamed in diffusers: its values are numbers of heads
        let heads = ["num_attention_heads", "attention_head_dim"]
            .into_iter()
            .find_map(|key| config.get(key).filter(|v| !v.is_null()));
        let heads = match heads {
            None => vec![8; levels],
            Some(Value::Array(all)) => {
                all.iter().map(|v| reader.positive("attention_head_dim", v)).collect::<Result<_, _>>()?
            }
            Some(one) => vec![reader.positive("attention_head_dim", one)?; levels],
        };
        if heads.len() != levels {
            let given = heads.len();
            return Err(reader.invalid(format!("attention_head_dim: {given} numbers for {levels} block_out_channels")));
        }
        let sample_size = match config.get("sample_size") {
            Some(Value::Array(sides)) => sides.first().and_then(Value::as_u64),
            other => other.and_then(Value::as_u64),
        };
        Ok(UnetFacts {
            heads,
            groups: reader.count("norm_num_groups", 32)?,
            eps: reader.epsilon("norm_eps")?,
            cos_first: config.get("flip_sin_to_cos").and_then(Value::as_bool).unwrap_or(true),
            freq_shift: reader.number("freq_shift", 0.0)?,
            sample_size: sample_size.filter(|size| (1..=2048).contains(size)).unwrap_or(64) as usize,
        })
    }
}

impl TextFacts {
    /// What is known of a family, for a text encoder of so many channels.
    pub(crate) fn of_family(family: Family, channels: usize) -> Self {
        let act = match family {
            Family::Sd1 => "quick_gelu",
            Family::Sd2 => "gelu",
        };
        TextFacts { heads: (channels / HEAD_WIDTH).max(1), act: act.to_owned(), eps: 1e-5 }
    }

    /// Reads `text_encoder/config.json`.
    pub(crate) fn of_config(path: &Path, config: &Value) -> Result<Self, WeightsError> {
        let reader = Reader { path, config };
        reader.only("model_type", &["clip_text_model", "clip"])?;
        reader.only("hidden_act", &["quick_gelu", "gelu"])?;
        Ok(TextFacts {
            heads: reader.count("num_attention_heads", 8)?,
            act: config.get("hidden_act").and_then(Value::as_str).unwrap_or("quick_gelu").to_owned(),
            eps: reader.epsilon("layer_norm_eps")?,
        })
    }
}

impl VaeFacts {
    /// What is known of both families.
    pub(crate) fn known() -> Self {
        VaeFacts { groups: 32, scaling_factor: 0.18215, shift_factor: 0.0 }
    }

    /// Reads `vae/config.json`.
    pub(crate) fn of_config(path: &Path, config: &Value) -> Result<Self, WeightsError> {
        let reader = Reader { path, config };
        reader.only("_class_name", &["AutoencoderKL"])?;
        reader.only("act_fn", &["silu", "swish"])?;
        reader.blocks("down_block_types", &["DownEncoderBlock2D"])?;
        reader.blocks("up_block_types", &["UpDecoderBlock2D"])?;
        reader.unset("latents_mean")?;
        reader.unset("latents_std")?;
        let facts = VaeFacts {
            groups: reader.count("norm_num_groups", 32)?,
            scaling_factor: reader.number("scaling_factor", 0.18215)?,
            shift_factor: reader.number("shift_factor", 0.0)?,
        };
        // latents are divided by it
        let scale = facts.scaling_factor;
        if !scale.is_normal() || !scale.recip().is_normal() {
            return Err(reader.invalid(format!("scaling_factor: {scale} can't scale anything")));
        }
        Ok(facts)
    }
}

/// A config.json being read.
pub(crate) struct Reader<'a> {
    pub path: &'a Path,
    pub config: &'a Value,
}

impl Reader<'_> {
    pub(crate) fn invalid(&self, problem: String) -> WeightsError {
        WeightsError::Invalid { path: self.path.to_owned(), problem }
    }

    fn given(&self, key: &str) -> Option<&Value> {
        self.config.get(key).filter(|value| !value.is_null())
    }

    /// A key that, where it is given, must be one of these.
    fn only(&self, key: &str, known: &[&str]) -> Result<(), WeightsError> {
        match self.given(key) {
            Some(value) if !value.as_str().is_some_and(|value| known.contains(&value)) => {
                Err(self.invalid(format!("{key}: {value} is not supported; {} is", known.join(" or "))))
            }
            _ => Ok(()),
        }
    }

    /// A list that, where it is given, must have only these in it.
    fn blocks(&self, key: &str, known: &[&str]) -> Result<(), WeightsError> {
        let Some(given) = self.given(key) else { return Ok(()) };
        let all = given.as_array().ok_or_else(|| self.invalid(format!("{key}: {given} must be a list")))?;
        match all.iter().find(|kind| !kind.as_str().is_some_and(|kind| known.contains(&kind))) {
            Some(kind) => Err(self.invalid(format!("{key}: {kind} is not supported; {} is", known.join(" or ")))),
            None => Ok(()),
        }
    }

    /// A number that, where it is given, must be this one.
    fn always(&self, key: &str, value: f64) -> Result<(), WeightsError> {
        match self.given(key) {
            Some(given) if given.as_f64() != Some(value) => {
                Err(self.invalid(format!("{key}: {given} is not supported; {value} is")))
            }
            _ => Ok(()),
        }
    }

    fn unset(&self, key: &str) -> Result<(), WeightsError> {
        match self.given(key) {
            Some(value) => Err(self.invalid(format!("{key}: {value} is not supported"))),
            None => Ok(()),
        }
    }

    fn off(&self, key: &str) -> Result<(), WeightsError> {
        match self.given(key) {
            Some(Value::Bool(false)) | None => Ok(()),
            Some(Value::Array(all)) if all.iter().all(|value| *value == Value::Bool(false)) => Ok(()),
            Some(value) => Err(self.invalid(format!("{key}: {value} is not supported"))),
        }
    }

    fn positive(&self, key: &str, value: &Value) -> Result<usize, WeightsError> {
        let count = value.as_u64().filter(|count| (1..=65_536).contains(count));
        count
            .map(|count| count as usize)
            .ok_or_else(|| self.invalid(format!("{key}: {value} must be a number from 1 to 65536")))
    }

    fn count(&self, key: &str, default: usize) -> Result<usize, WeightsError> {
        self.given(key).map_or(Ok(default), |value| self.positive(key, value))
    }

    /// What is added to a variance, so that it can be divided by.
    fn epsilon(&self, key: &str) -> Result<f32, WeightsError> {
        let value = self.number(key, 1e-5)?;
        let fits = (0.0..1.0).contains(&value);
        if fits { Ok(value) } else { Err(self.invalid(format!("{key}: {value} must be at least 0 and below 1"))) }
    }

    pub(crate) fn number(&self, key: &str, default: f32) -> Result<f32, WeightsError> {
        let Some(value) = self.given(key) else { return Ok(default) };
        let number = value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
        number.ok_or_else(|| self.invalid(format!("{key}: {value} must be a number")))
    }
}
