use crate::resnet::{Norm, Time, resnet_block};
use crate::transformer::transformer;
use ratel_graph::{Module, Stride, Tensor};

/// What the weights of a UNet can't tell.
#[derive(Clone, Debug, PartialEq)]
pub struct UnetConfig {
    /// Attention heads of each block going down. Those going up have them in reverse, the middle has the last.
    pub heads: Vec<usize>,
    /// Groups of every group norm (`norm_num_groups`).
    pub groups: usize,
    /// Added to the variance in every group norm but the transformers' (`norm_eps`).
    pub eps: f32,
    /// Whether cosines come first in the time embedding (`flip_sin_to_cos`).
    pub cos_first: bool,
    /// `freq_shift` of the time embedding.
    pub freq_shift: f32,
}

/// The timesteps of a call of the model.
#[derive(Clone, Copy, Debug)]
pub struct Timesteps<'g> {
    /// `(M)`, perhaps those of other calls with them, so that all are embedded at once.
    pub values: Tensor<'g>,
    /// Which of them is each image's, `(N)`; `None` if there is one for each.
    pub row: Option<Tensor<'g>>,
}

impl<'g> From<Tensor<'g>> for Timesteps<'g> {
    /// One for each image.
    fn from(values: Tensor<'g>) -> Self {
        Timesteps { values, row: None }
    }
}

/// The noise predictor (diffusers' `UNet2DConditionModel`).
///
/// `sample` is `(N, H, W, C)`, the noised latents; `timestep` one for each image, `(N)`; `context` the prompt's
/// `(N, T, C')`. The result has the sample's height and width. Any height and width will do: going up, each block is
/// enlarged to the size of the skip connection that it meets.
pub fn unet<'g>(
    sample: Tensor<'g>,
    timestep: impl Into<Timesteps<'g>>,
    context: Tensor<'g>,
    config: &UnetConfig,
    w: &Module<'g>,
) -> Tensor<'g> {
    let norm = Norm { groups: config.groups, eps: config.eps };
    let heads = |level: usize| config.heads.get(level).or(config.heads.last()).copied().unwrap_or(1);

    let Timesteps { values, row } = timestep.into();
    let time = Time { embedding: time_embedding(values, config, w).silu(), row };
    let mut h = sample.conv2d(&w.at("conv_in"), Stride::SAME);

    let down = w.list("down_blocks");
    let mut skips = vec![h];
    for (level, w) in down.iter().enumerate() {
        let attentions = w.list("attentions");
        for (i, resnet) in w.list("resnets").iter().enumerate() {
            h = resnet_block(h, Some(time), norm, resnet);
            if let Some(attention) = attentions.get(i) {
                h = transformer(h, context, heads(level), config.groups, attention);
            }
            skips.push(h);
        }
        if w.has("downsamplers") {
            h = h.conv2d(&w.at("downsamplers.0.conv"), Stride::HALF).named(&w.at("downsamplers.0"));
            skips.push(h);
        }
        h = h.named(w);
    }

    let mid = w.at("mid_block");
    let attentions = mid.list("attentions");
    for (i, resnet) in mid.list("resnets").iter().enumerate() {
        if let Some(attention) = i.checked_sub(1).and_then(|i| attentions.get(i)) {
            h = transformer(h, context, heads(down.len().saturating_sub(1)), config.groups, attention);
        }
        h = resnet_block(h, Some(time), norm, resnet);
    }
    h = h.named(&mid);

    for (i, w) in w.list("up_blocks").iter().enumerate() {
        let level = down.len().saturating_sub(i + 1);
        let attentions = w.list("attentions");
        for (i, resnet) in w.list("resnets").iter().enumerate() {
            if let Some(skip) = skips.pop() {
                h = h.concat(skip);
            }
            h = resnet_block(h, Some(time), norm, resnet);
            if let Some(attention) = attentions.get(i) {
                h = transformer(h, context, heads(level), config.groups, attention);
            }
        }
        if let (true, Some(skip)) = (w.has("upsamplers"), skips.last()) {
            let size = [skip.shape()[1], skip.shape()[2]];
            let w = w.at("upsamplers.0");
            h = h.upsample(size, &w).conv2d(&w.at("conv"), Stride::SAME).named(&w);
        }
        h = h.named(w);
    }

    let h = h.group_norm(&w.at("conv_norm_out"), config.groups, config.eps).silu();
    h.conv2d(&w.at("conv_out"), Stride::SAME)
}

/// `(M)` timesteps as `(M, T)`: sinusoids, then two linear layers (diffusers' `Timesteps` and `TimestepEmbedding`).
fn time_embedding<'g>(timestep: Tensor<'g>, config: &UnetConfig, w: &Module<'g>) -> Tensor<'g> {
    let w1 = w.at("time_embedding.linear_1");
    let width = w1.shape("weight").last();
    let sinusoids = timestep.time_embedding(width, config.cos_first, config.freq_shift).named(&w.at("time_proj"));
    let h = sinusoids.linear(&w1).silu().linear(&w.at("time_embedding.linear_2"));
    h.named(&w.at("time_embedding"))
}
