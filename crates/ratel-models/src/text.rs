use ratel_graph::{Module, Tensor};
use ratel_kernels::activation::Act;

/// What the weights of a text encoder can't tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextConfig {
    /// Attention heads (`num_attention_heads`).
    pub heads: usize,
    /// The activation function of the feed-forward layers (`hidden_act`).
    pub act: Act,
    /// Added to the variance in every layer norm (`layer_norm_eps`).
    pub eps: f32,
    /// How many of the layers to run, all at most; the field's "clip skip" leaves out the last ones.
    pub layers: usize,
}

/// Token ids `(N, T)` to the prompt's embedding `(N, T, C)`: the chosen layer, normalised (transformers' `CLIPTextModel`).
///
/// A token attends to itself and those before it; padding is not masked.
pub fn text_encoder<'g>(ids: Tensor<'g>, config: &TextConfig, w: &Module<'g>) -> Tensor<'g> {
    let embeddings = w.at("embeddings");
    let tokens = ids.embedding(&embeddings.at("token_embedding"));
    let mut h = tokens.add_positions(&embeddings.at("position_embedding")).named(&embeddings);
    for w in w.list("encoder.layers").iter().take(config.layers) {
        h = encoder_layer(h, config, w);
    }
    h.layer_norm(&w.at("final_layer_norm"), config.eps)
}

/// Causal self-attention, then feed-forward, each after a layer norm and with a residual (transformers'
/// `CLIPEncoderLayer`).
fn encoder_layer<'g>(x: Tensor<'g>, config: &TextConfig, w: &Module<'g>) -> Tensor<'g> {
    let h = x.layer_norm(&w.at("layer_norm1"), config.eps);
    let x = self_attention(h, config, &w.at("self_attn")) + x;
    let h = x.layer_norm(&w.at("layer_norm2"), config.eps);
    let h = h.linear(&w.at("mlp.fc1")).act(config.act).linear(&w.at("mlp.fc2")).named(&w.at("mlp"));
    (h + x).named(w)
}

/// Transformers' `CLIPAttention`.
fn self_attention<'g>(x: Tensor<'g>, config: &TextConfig, w: &Module<'g>) -> Tensor<'g> {
    let q = x.linear(&w.at("q_proj"));
    let k = x.linear(&w.at("k_proj"));
    let v = x.linear(&w.at("v_proj"));
    q.attention(k, v, config.heads, true, w).linear(&w.at("out_proj")).named(w)
}
