use crate::resnet::{Norm, resnet_block};
use crate::transformer::map_attention;
use ratel_graph::{Module, Stride, Tensor};

/// What the weights of a VAE can't tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VaeConfig {
    /// Groups of every group norm (`norm_num_groups`).
    pub groups: usize,
}

/// Every group norm of the VAE adds this to the variance.
const EPS: f32 = 1e-6;

/// Latents `(N, H, W, 4)`, already divided by the scaling factor, to a picture in -1 to 1, 8 times as wide and high for a
/// decoder of four levels (diffusers' `AutoencoderKL.decode`).
pub fn vae_decoder<'g>(latents: Tensor<'g>, config: &VaeConfig, w: &Module<'g>) -> Tensor<'g> {
    let norm = Norm { groups: config.groups, eps: EPS };
    let mut h = latents;
    if w.has("post_quant_conv") {
        h = h.linear(&w.at("post_quant_conv"));
    }
    let w = &w.at("decoder");
    h = mid_block(h.conv2d(&w.at("conv_in"), Stride::SAME), norm, &w.at("mid_block"));
    for w in w.list("up_blocks") {
        for resnet in w.list("resnets") {
            h = resnet_block(h, None, norm, &resnet);
        }
        if w.has("upsamplers") {
            let size = [2 * h.shape()[1], 2 * h.shape()[2]];
            let w = w.at("upsamplers.0");
            h = h.upsample(size, &w).conv2d(&w.at("conv"), Stride::SAME).named(&w);
        }
        h = h.named(&w);
    }
    let h = h.group_norm(&w.at("conv_norm_out"), norm.groups, norm.eps).silu();
    h.conv2d(&w.at("conv_out"), Stride::SAME).named(w)
}

/// A picture `(N, H, W, 3)` in -1 to 1 to `(N, H/8, W/8, 8)`: the mean of each latent, then the logarithm of its variance
/// (diffusers' `AutoencoderKL.encode`).
pub fn vae_encoder<'g>(picture: Tensor<'g>, config: &VaeConfig, w: &Module<'g>) -> Tensor<'g> {
    let norm = Norm { groups: config.groups, eps: EPS };
    let encoder = &w.at("encoder");
    let mut h = picture.conv2d(&encoder.at("conv_in"), Stride::SAME);
    for w in encoder.list("down_blocks") {
        for resnet in w.list("resnets") {
            h = resnet_block(h, None, norm, &resnet);
        }
        if w.has("downsamplers") {
            h = h.conv2d(&w.at("downsamplers.0.conv"), Stride::HALF_VAE).named(&w.at("downsamplers.0"));
        }
        h = h.named(&w);
    }
    h = mid_block(h, norm, &encoder.at("mid_block"));
    let h = h.group_norm(&encoder.at("conv_norm_out"), norm.groups, norm.eps).silu();
    let h = h.conv2d(&encoder.at("conv_out"), Stride::SAME).named(encoder);
    if w.has("quant_conv") { h.linear(&w.at("quant_conv")) } else { h }
}

/// Two residual blocks with attention between them (diffusers' `UNetMidBlock2D`).
fn mid_block<'g>(x: Tensor<'g>, norm: Norm, w: &Module<'g>) -> Tensor<'g> {
    let mut h = resnet_block(x, None, norm, &w.at("resnets.0"));
    if w.has("attentions") {
        h = map_attention(h, norm, &w.at("attentions.0"));
    }
    resnet_block(h, None, norm, &w.at("resnets.1")).named(w)
}
