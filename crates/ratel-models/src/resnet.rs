use ratel_graph::{Module, Stride, Tensor};

/// How a block normalises its groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Norm {
    pub groups: usize,
    pub eps: f32,
}

/// A residual block: two 3x3 convolutions, each after group norm and SiLU, the time embedding added between them.
///
/// `x` is `(N, H, W, C)`, `time` the embedding after its SiLU, `(N, T)`; `None` in the VAE. Where the block changes the
/// number of channels, the residual goes through a 1x1 convolution. (diffusers' `ResnetBlock2D`)
pub(crate) fn resnet_block<'g>(x: Tensor<'g>, time: Option<Tensor<'g>>, norm: Norm, w: &Module<'g>) -> Tensor<'g> {
    let mut h = x.group_norm(&w.at("norm1"), norm.groups, norm.eps).silu().conv2d(&w.at("conv1"), Stride::SAME);
    if let Some(time) = time {
        h = h.add_per_image(time.linear(&w.at("time_emb_proj")));
    }
    h = h.group_norm(&w.at("norm2"), norm.groups, norm.eps).silu().conv2d(&w.at("conv2"), Stride::SAME);
    let residual = if w.has("conv_shortcut") { x.linear(&w.at("conv_shortcut")) } else { x };
    (h + residual).named(w)
}
