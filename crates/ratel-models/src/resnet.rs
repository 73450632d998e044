use ratel_graph::{Module, Stride, Tensor};

/// How a block normalises its groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Norm {
    pub groups: usize,
    pub eps: f32,
}

/// The time embedding after its SiLU, `(M, T)`, and for each image which row of it is its own; `None` if there is a row for
/// each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time<'g> {
    pub embedding: Tensor<'g>,
    pub row: Option<Tensor<'g>>,
}

impl<'g> Time<'g> {
    /// Projected by a linear layer, for each image: `(N, C)`.
    fn project(self, w: &Module<'g>) -> Tensor<'g> {
        let projected = self.embedding.linear(w);
        self.row.map_or(projected, |row| projected.index_select(row))
    }
}

/// A residual block: two 3x3 convolutions, each after group norm and SiLU, the time embedding added between them.
///
/// `x` is `(N, H, W, C)`; there is no `time` in the VAE. Where the block changes the number of channels, the residual goes
/// through a 1x1 convolution. (diffusers' `ResnetBlock2D`)
pub(crate) fn resnet_block<'g>(x: Tensor<'g>, time: Option<Time<'g>>, norm: Norm, w: &Module<'g>) -> Tensor<'g> {
    let mut h = x.group_norm(&w.at("norm1"), norm.groups, norm.eps).silu().conv2d(&w.at("conv1"), Stride::SAME);
    if let Some(time) = time {
        h = h.add_per_image(time.project(&w.at("time_emb_proj")));
    }
    h = h.group_norm(&w.at("norm2"), norm.groups, norm.eps).silu().conv2d(&w.at("conv2"), Stride::SAME);
    let residual = if w.has("conv_shortcut") { x.linear(&w.at("conv_shortcut")) } else { x };
    (h + residual).named(w)
}
