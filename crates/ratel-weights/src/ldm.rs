//! Names of single-file checkpoints (CompVis' and Stability's `ldm`, OpenAI's and OpenCLIP's text encoders) in diffusers'
//! spelling. The number of levels and of blocks on each is read off the names, so models of any depth are understood.

use std::collections::BTreeSet;
use std::ops::Range;

/// What a tensor of a single file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A weight of a component, under diffusers' name. With a part, the weight is that third of the tensor's rows.
    Weight { component: usize, key: String, third: Option<usize> },
    /// Known, and no weight of what is run.
    Ignored,
    /// Not known.
    Unknown,
}

/// Numbers of [`crate::Component`].
const TEXT: usize = 0;
const UNET: usize = 1;
const VAE: usize = 2;

const UNET_PREFIX: &str = "model.diffusion_model.";
const VAE_PREFIX: &str = "first_stage_model.";
const CLIP_PREFIX: &str = "cond_stage_model.transformer.";
const OPEN_CLIP_PREFIX: &str = "cond_stage_model.model.";

/// Layers of OpenCLIP's ViT-H that SD 2 runs.
const SD2_LAYERS: usize = 23;

/// The shape of a single file, as far as names depend on it.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// For each `input_blocks.N`: its level and its place there; `None` for a downsampler.
    inputs: Vec<(usize, Option<usize>)>,
    /// For each `output_blocks.N`: its level and its place there.
    outputs: Vec<(usize, usize)>,
    /// Levels of the VAE's decoder.
    vae_levels: usize,
    /// Layers of OpenCLIP's text encoder that are run: all but the last.
    open_clip_layers: usize,
}

impl Names {
    /// Reads the shape off the names.
    pub(crate) fn new<'a>(keys: impl Iterator<Item = &'a str>) -> Self {
        let all: BTreeSet<&str> = keys.collect();
        let has = |key: String| all.range(key.as_str()..).next().is_some_and(|found| found.starts_with(&key));
        let mut names = Names::default();

        let (mut level, mut place) = (0, 0);
        for i in (1..).take_while(|i| has(format!("{UNET_PREFIX}input_blocks.{i}."))) {
            if has(format!("{UNET_PREFIX}input_blocks.{i}.0.op.")) {
                names.inputs.push((level, None));
                (level, place) = (level + 1, 0);
            } else {
                names.inputs.push((level, Some(place)));
                place += 1;
            }
        }
        let (mut level, mut place) = (0, 0);
        for i in (0..).take_while(|i| has(format!("{UNET_PREFIX}output_blocks.{i}."))) {
            names.outputs.push((level, place));
            let enlarges = (1..3).any(|j| has(format!("{UNET_PREFIX}output_blocks.{i}.{j}.conv.")));
            (level, place) = if enlarges { (level + 1, 0) } else { (level, place + 1) };
        }
        names.vae_levels = (0..).take_while(|i| has(format!("{VAE_PREFIX}decoder.up.{i}."))).count();
        let layer = |i: &usize| has(format!("{OPEN_CLIP_PREFIX}transformer.resblocks.{i}."));
        names.open_clip_layers = match (0..).take_while(layer).count() {
            // converted from a folder, which never had the last of ViT-H's 24
            SD2_LAYERS => SD2_LAYERS,
            // SD 2 takes the layer before the last
            all => all.saturating_sub(1),
        };
        names
    }

    /// What a tensor is. Fused projections have three meanings.
    pub(crate) fn meanings(&self, key: &str) -> Vec<Meaning> {
        if is_ignored(key) {
            return vec![Meaning::Ignored];
        }
        let weight = |component| move |key| Meaning::Weight { component, key, third: None };
        let found = if let Some(rest) = key.strip_prefix(UNET_PREFIX) {
            self.unet(rest).map(weight(UNET))
        } else if let Some(rest) = key.strip_prefix(VAE_PREFIX) {
            self.vae(rest).map(weight(VAE))
        } else if let Some(rest) = key.strip_prefix(CLIP_PREFIX) {
            Some(weight(TEXT)(rest.strip_prefix("text_model.").unwrap_or(rest).to_owned()))
        } else if let Some(rest) = key.strip_prefix(OPEN_CLIP_PREFIX) {
            return self.open_clip(rest);
        } else {
            None
        };
        vec![found.unwrap_or(Meaning::Unknown)]
    }

    fn unet(&self, key: &str) -> Option<String> {
        const FIXED: [(&str, &str); 5] = [
            ("time_embed.0.", "time_embedding.linear_1."),
            ("time_embed.2.", "time_embedding.linear_2."),
            ("input_blocks.0.0.", "conv_in."),
            ("out.0.", "conv_norm_out."),
            ("out.2.", "conv_out."),
        ];
        for (theirs, ours) in FIXED {
            if let Some(rest) = key.strip_prefix(theirs) {
                return Some(format!("{ours}{rest}"));
            }
        }
        let (block, rest) = key.split_once('.')?;
        if block == "middle_block" {
            let (part, rest) = numbered(rest)?;
            return match part {
                0 => Some(format!("mid_block.resnets.0.{}", resnet(rest)?)),
                1 => Some(format!("mid_block.attentions.0.{rest}")),
                2 => Some(format!("mid_block.resnets.1.{}", resnet(rest)?)),
                _ => None,
            };
        }
        let (i, rest) = numbered(rest)?;
        let (part, rest) = numbered(rest)?;
        match block {
            "input_blocks" => {
                let (level, place) = *self.inputs.get(i.checked_sub(1)?)?;
                match (place, part) {
                    (None, 0) => Some(format!("down_blocks.{level}.downsamplers.0.conv.{}", rest.strip_prefix("op.")?)),
                    (Some(place), 0) => Some(format!("down_blocks.{level}.resnets.{place}.{}", resnet(rest)?)),
                    (Some(place), 1) => Some(format!("down_blocks.{level}.attentions.{place}.{rest}")),
                    _ => None,
                }
            }
            "output_blocks" => {
                let (level, place) = *self.outputs.get(i)?;
                match part {
                    0 => Some(format!("up_blocks.{level}.resnets.{place}.{}", resnet(rest)?)),
                    _ if rest.starts_with("conv.") => Some(format!("up_blocks.{level}.upsamplers.0.{rest}")),
                    1 => Some(format!("up_blocks.{level}.attentions.{place}.{rest}")),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn vae(&self, key: &str) -> Option<String> {
        if key.starts_with("quant_conv.") || key.starts_with("post_quant_conv.") {
            return Some(key.to_owned());
        }
        let (half, rest) = key.split_once('.')?;
        if !matches!(half, "encoder" | "decoder") {
            return None;
        }
        let ours = if rest.starts_with("conv_in.") || rest.starts_with("conv_out.") {
            rest.to_owned()
        } else if let Some(rest) = rest.strip_prefix("norm_out.") {
            format!("conv_norm_out.{rest}")
        } else if let Some(rest) = rest.strip_prefix("mid.block_1.") {
            format!("mid_block.resnets.0.{}", vae_resnet(rest))
        } else if let Some(rest) = rest.strip_prefix("mid.block_2.") {
            format!("mid_block.resnets.1.{}", vae_resnet(rest))
        } else if let Some(rest) = rest.strip_prefix("mid.attn_1.") {
            format!("mid_block.attentions.0.{}", vae_attention(rest)?)
        } else {
            let (direction, rest) = rest.split_once('.')?;
            let (level, rest) = numbered(rest)?;
            let (name, level, sampler) = match direction {
                "down" => ("down_blocks", level, "downsample"),
                // a decoder's levels are numbered from the picture's end
                "up" => ("up_blocks", self.vae_levels.checked_sub(level)?.checked_sub(1)?, "upsample"),
                _ => return None,
            };
            if let Some(rest) = rest.strip_prefix("block.") {
                let (i, rest) = numbered(rest)?;
                format!("{name}.{level}.resnets.{i}.{}", vae_resnet(rest))
            } else {
                let rest = rest.strip_prefix(sampler)?.strip_prefix('.')?;
                format!("{name}.{level}.{sampler}rs.0.{rest}")
            }
        };
        Some(format!("{half}.{ours}"))
    }

    fn open_clip(&self, key: &str) -> Vec<Meaning> {
        let weight = |key: String, third| Meaning::Weight { component: TEXT, key, third };
        let whole = |key: &str| vec![weight(key.to_owned(), None)];
        match key {
            "token_embedding.weight" => return whole("embeddings.token_embedding.weight"),
            "positional_embedding" => return whole("embeddings.position_embedding.weight"),
            "ln_final.weight" => return whole("final_layer_norm.weight"),
            "ln_final.bias" => return whole("final_layer_norm.bias"),
            "text_projection" | "logit_scale" | "attn_mask" => return vec![Meaning::Ignored],
            _ => {}
        }
        let Some((layer, rest)) = key.strip_prefix("transformer.resblocks.").and_then(numbered) else {
            return vec![Meaning::Unknown];
        };
        if layer >= self.open_clip_layers {
            return vec![Meaning::Ignored];
        }
        let place = format!("encoder.layers.{layer}");
        if let Some(kind) = rest.strip_prefix("attn.in_proj_") {
            let parts = ["q_proj", "k_proj", "v_proj"].into_iter().enumerate();
            return parts.map(|(i, name)| weight(format!("{place}.self_attn.{name}.{kind}"), Some(i))).collect();
        }
        const PARTS: [(&str, &str); 5] = [
            ("ln_1.", "layer_norm1."),
            ("ln_2.", "layer_norm2."),
            ("attn.out_proj.", "self_attn.out_proj."),
            ("mlp.c_fc.", "mlp.fc1."),
            ("mlp.c_proj.", "mlp.fc2."),
        ];
        let found =
            PARTS.iter().find_map(|(theirs, ours)| Some(format!("{place}.{ours}{}", rest.strip_prefix(theirs)?)));
        vec![found.map_or(Meaning::Unknown, |key| weight(key, None))]
    }
}

/// A tensor without a meaning of its own: a model that has it predicts v (ComfyUI's `supported_models.py`).
pub(crate) const V_MARK: &str = "v_pred";

/// The number of training steps.
pub(crate) const GLOBAL_STEP: &str = "global_step";

/// Tensors that real checkpoints hold beside the weights: constants that are computed, and the state of training.
pub(crate) fn is_ignored(key: &str) -> bool {
    const PREFIXES: [&str; 4] = ["model_ema.", "loss.", "optimizer", "first_stage_model.loss."];
    const NAMES: [&str; 19] = [
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "lvlb_weights",
        "scale_factor",
        GLOBAL_STEP,
        "logvar",
        "cond_stage_model.logit_scale",
        "cond_stage_model.text_projection",
        "state_dict",
    ];
    PREFIXES.iter().any(|prefix| key.starts_with(prefix))
        || NAMES.contains(&key)
        || key == V_MARK
        || key.ends_with("position_ids")
}

/// `12.rest` as 12 and `rest`.
fn numbered(text: &str) -> Option<(usize, &str)> {
    let (number, rest) = text.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// A name inside a UNet's residual block.
fn resnet(key: &str) -> Option<String> {
    const PARTS: [(&str, &str); 6] = [
        ("in_layers.0.", "norm1."),
        ("in_layers.2.", "conv1."),
        ("emb_layers.1.", "time_emb_proj."),
        ("out_layers.0.", "norm2."),
        ("out_layers.3.", "conv2."),
        ("skip_connection.", "conv_shortcut."),
    ];
    PARTS.iter().find_map(|(theirs, ours)| Some(format!("{ours}{}", key.strip_prefix(theirs)?)))
}

/// A name inside a VAE's residual block.
fn vae_resnet(key: &str) -> String {
    key.strip_prefix("nin_shortcut.").map_or_else(|| key.to_owned(), |rest| format!("conv_shortcut.{rest}"))
}

/// A name inside the VAE's attention, in `ldm`'s spelling or in that of old diffusers versions.
pub(crate) fn vae_attention(key: &str) -> Option<String> {
    const PARTS: [(&str, &str); 9] = [
        ("norm.", "group_norm."),
        ("q.", "to_q."),
        ("k.", "to_k."),
        ("v.", "to_v."),
        ("proj_out.", "to_out.0."),
        ("query.", "to_q."),
        ("key.", "to_k."),
        ("value.", "to_v."),
        ("proj_attn.", "to_out.0."),
    ];
    PARTS.iter().find_map(|(theirs, ours)| Some(format!("{ours}{}", key.strip_prefix(theirs)?)))
}

/// The rows of one third of a tensor of `rows` rows.
pub(crate) fn third(rows: usize, part: usize) -> Range<usize> {
    let length = rows / 3;
    part * length..(part + 1) * length
}

/// Prefixes by which a single file is known, and what it then is.
pub(crate) fn has_prefix<'a>(mut keys: impl Iterator<Item = &'a str>, prefix: Kind) -> bool {
    let prefix = match prefix {
        Kind::Unet => UNET_PREFIX,
        Kind::Clip => CLIP_PREFIX,
        Kind::OpenClip => OPEN_CLIP_PREFIX,
        Kind::Vae => VAE_PREFIX,
        Kind::Sdxl => "conditioner.embedders.",
    };
    keys.any(|key| key.starts_with(prefix))
}

/// What a prefix says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unet,
    Clip,
    OpenClip,
    Vae,
    Sdxl,
}
