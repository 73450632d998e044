//! An op's sizes in a few characters, as people write them.

use ratel_kernels::Op;

/// The sizes that tell one use of an op from another: `2x32x32x320 3x3 -> 640` for a convolution over (N, H, W, C), `M x N x K`
/// for a product. Ops of one value each are told by how many they compute.
pub fn shape(op: &Op) -> String {
    match op {
        Op::Matmul(op) => {
            let layers = if op.layers.count() > 1 { format!("{} of ", op.layers.count()) } else { String::new() };
            let gated = if op.gated { " gated" } else { "" };
            format!("{layers}{}x{}x{}{gated}", op.m, op.n, op.k)
        }
        Op::Conv2d(op) => {
            let stride = if op.stride > 1 { format!(" /{}", op.stride) } else { String::new() };
            let up = if op.upsample.is_some() { " up" } else { "" };
            let [rows, columns] = op.window;
            format!("{}x{}x{}x{} {rows}x{columns}{stride}{up} -> {}", op.batch, op.h, op.w, op.c, op.n)
        }
        Op::Attention(op) => {
            format!("{}x{} heads of {}, {} queries, {} keys", op.batch, op.heads, op.dim, op.queries, op.keys)
        }
        Op::GroupNormStats(op) => format!("{}x{}x{} in {} groups", op.batch, op.pixels, op.c, op.groups),
        Op::GroupNorm(op) => format!("{}x{}x{} in {} groups", op.batch, op.rows, op.c, op.groups),
        Op::GroupNormWhole(op) => format!("{}x{}x{} in {} groups", op.batch, op.pixels, op.c, op.groups),
        Op::LayerNorm(op) => format!("{}x{}", op.rows, op.c),
        Op::Geglu(op) => format!("{}x{}", op.rows, op.n),
        Op::Concat(op) => format!("{}x({}+{})", op.rows, op.c1, op.c2),
        Op::Upsample(op) => format!("{}x{}x{}x{} -> {}x{}", op.batch, op.h, op.w, op.c, op.out_h, op.out_w),
        Op::Combine(op) => format!("{} terms of {}", op.coefficients.len(), op.count),
        other => other.output().count.to_string(),
    }
}
