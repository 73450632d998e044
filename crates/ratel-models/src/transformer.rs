use crate::resnet::Norm;
use ratel_graph::{Module, Tensor};

/// Every layer norm of the UNet adds this to the variance.
const LAYER_NORM_EPS: f32 = 1e-5;
/// As does the group norm in front of a transformer.
const GROUP_NORM_EPS: f32 = 1e-6;

/// Transformer blocks over the pixels of a feature map, as a residual (diffusers' `Transformer2DModel`).
///
/// `x` is `(N, H, W, C)`, `context` the prompt's `(N, T, C')`. `proj_in` and `proj_out` are linear layers over the tokens in
/// SD 2.x, and 1x1 convolutions over the map in SD 1.x, which is the same but for the shape that a trace shows.
pub(crate) fn transformer<'g>(
    x: Tensor<'g>,
    context: Tensor<'g>,
    heads: usize,
    groups: usize,
    w: &Module<'g>,
) -> Tensor<'g> {
    let map = x.shape();
    let tokens = [map[0], map[1] * map[2], map[3]];
    let over_tokens = w.at("proj_in").shape("weight").len() == 2;

    let h = x.group_norm(&w.at("norm"), groups, GROUP_NORM_EPS);
    let h = if over_tokens { h.reshape(tokens) } else { h };
    let h = h.linear(&w.at("proj_in"));
    let mut h = h.reshape([tokens[0], tokens[1], h.shape().last()]);
    for block in w.list("transformer_blocks") {
        h = transformer_block(h, context, heads, &block);
    }
    let h = if over_tokens { h } else { h.reshape([map[0], map[1], map[2], h.shape().last()]) };
    (h.linear(&w.at("proj_out")).reshape(map) + x).named(w)
}

/// Self-attention, cross-attention to the prompt, feed-forward; each after a layer norm and with a residual
/// (diffusers' `BasicTransformerBlock`).
fn transformer_block<'g>(x: Tensor<'g>, context: Tensor<'g>, heads: usize, w: &Module<'g>) -> Tensor<'g> {
    let h = x.layer_norm(&w.at("norm1"), LAYER_NORM_EPS);
    let x = attention(h, h, heads, &w.at("attn1")) + x;
    let h = x.layer_norm(&w.at("norm2"), LAYER_NORM_EPS);
    let x = attention(h, context, heads, &w.at("attn2")) + x;
    let h = x.layer_norm(&w.at("norm3"), LAYER_NORM_EPS);
    (feed_forward(h, &w.at("ff")) + x).named(w)
}

/// Attention of `x` over `context`, both `(N, T, C)` (diffusers' `Attention` as the UNet has it).
fn attention<'g>(x: Tensor<'g>, context: Tensor<'g>, heads: usize, w: &Module<'g>) -> Tensor<'g> {
    let q = x.linear_without_bias(&w.at("to_q"));
    let k = context.linear_without_bias(&w.at("to_k"));
    let v = context.linear_without_bias(&w.at("to_v"));
    q.attention(k, v, heads, false, w).linear(&w.at("to_out.0")).named(w)
}

/// GEGLU, then linear (diffusers' `FeedForward`).
fn feed_forward<'g>(x: Tensor<'g>, w: &Module<'g>) -> Tensor<'g> {
    let h = x.linear(&w.at("net.0.proj")).geglu().named(&w.at("net.0"));
    h.linear(&w.at("net.2")).named(w)
}

/// Attention of a feature map over itself, one head, as a residual: the middle of the VAE (diffusers' `Attention` with a
/// group norm).
pub(crate) fn map_attention<'g>(x: Tensor<'g>, norm: Norm, w: &Module<'g>) -> Tensor<'g> {
    let map = x.shape();
    let h = x.group_norm(&w.at("group_norm"), norm.groups, norm.eps);
    let h = h.reshape([map[0], map[1] * map[2], map[3]]);
    let (q, k, v) = (h.linear(&w.at("to_q")), h.linear(&w.at("to_k")), h.linear(&w.at("to_v")));
    let h = q.attention(k, v, 1, false, w).linear(&w.at("to_out.0"));
    (h.reshape(map) + x).named(w)
}
