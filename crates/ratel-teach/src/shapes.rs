//! The extents of an op's operands, in the words of its definition.

use ratel_kernels::Op;
use ratel_tensor::panel_index;

/// The extents of each operand, in the order of [`ratel_kernels::Operation::operands`], channels last. Their product is
/// the operand's count.
pub fn shapes(op: &Op) -> Vec<Vec<usize>> {
    op.operands().iter().map(|operand| shape(op, operand.name).unwrap_or_else(|| vec![operand.count])).collect()
}

/// The values of operand number `operand` in the order of its extents. So all lie on the device, but for the weights of
/// products and convolutions, whose matrices lie in panels there.
pub fn in_order(op: &Op, operand: usize, values: Vec<f32>) -> Vec<f32> {
    let is_weight = op.operands().get(operand).is_some_and(|operand| operand.name == "w");
    let (rows, columns) = match op {
        Op::Matmul(op) if is_weight => (op.k, op.w_columns()),
        Op::Conv2d(op) if is_weight => (op.window[0] * op.window[1] * op.c, op.n),
        _ => return values,
    };
    let layers = values.chunks_exact(rows * columns);
    let in_rows =
        layers.flat_map(|w| (0..rows * columns).map(move |i| w[panel_index(i / columns, i % columns, rows, columns)]));
    in_rows.collect()
}

/// The extents of an operand, where it has more than one.
fn shape(op: &Op, name: &str) -> Option<Vec<usize>> {
    Some(match (op, name) {
        (Op::Conv2d(op), "x") => vec![op.batch, op.h, op.w, op.c1],
        (Op::Conv2d(op), "x2") => vec![op.batch, op.h, op.w, op.c - op.c1],
        (Op::Conv2d(op), "w") => vec![op.window[0], op.window[1], op.c, op.n],
        (Op::Conv2d(op), "image_bias") => vec![op.batch, op.n],
        (Op::Conv2d(op), "y" | "residual") if op.parts.is_whole() => vec![op.batch, op.out_h, op.out_w, op.n],
        (Op::Conv2d(op), "y") => vec![op.parts.count(), op.batch, op.out_h * op.out_w, op.n],
        (Op::Matmul(op), "x") => vec![op.m, op.k1],
        (Op::Matmul(op), "x2") => vec![op.m, op.k - op.k1],
        (Op::Matmul(op), "w") => vec![op.layers.count(), op.k, op.w_columns()],
        (Op::Matmul(op), "bias") => vec![op.layers.count(), op.w_columns()],
        (Op::Matmul(op), "image_bias") => vec![op.m / op.image_rows?, op.n],
        (Op::Matmul(op), "residual") => vec![op.m, op.n],
        (Op::Matmul(op), "y") if op.parts.is_whole() => vec![op.layers.count(), op.m, op.n],
        (Op::Matmul(op), "y") => vec![op.layers.count(), op.parts.count(), op.m, op.n],
        (Op::GroupNorm(op), "x") => vec![op.batch, op.rows, op.c1],
        (Op::GroupNorm(op), "x2") => vec![op.batch, op.rows, op.c - op.c1],
        (Op::GroupNorm(op), "y") => vec![op.batch, op.rows, op.c],
        (Op::GroupNorm(op), "stats") => vec![op.batch, op.pixels.div_ceil(op.chunk), op.groups, 2],
        (Op::GroupNormStats(op), "x") => vec![op.batch, op.pixels, op.c1],
        (Op::GroupNormStats(op), "x2") => vec![op.batch, op.pixels, op.c - op.c1],
        (Op::GroupNormStats(op), "stats") => vec![op.batch, op.pixels.div_ceil(op.chunk), op.groups, 2],
        (Op::GroupNormWhole(op), "x") => vec![op.batch, op.pixels, op.c1],
        (Op::GroupNormWhole(op), "x2") => vec![op.batch, op.pixels, op.c - op.c1],
        (Op::GroupNormWhole(op), "y") => vec![op.batch, op.pixels, op.c],
        (Op::LayerNorm(op), "x" | "y") => vec![op.rows, op.c],
        (Op::Attention(op), "q" | "y") => vec![op.batch, op.queries, op.heads * op.dim],
        (Op::Attention(op), "k" | "v") => vec![op.batch, op.keys, op.heads * op.dim],
        (Op::Geglu(op), "x") => vec![op.rows, 2 * op.n],
        (Op::Geglu(op), "y") => vec![op.rows, op.n],
        (Op::Add(op), "b") => vec![op.count / op.span, op.period],
        (Op::Concat(op), "a") => vec![op.rows, op.c1],
        (Op::Concat(op), "b") => vec![op.rows, op.c2],
        (Op::Concat(op), "y") => vec![op.rows, op.c1 + op.c2],
        (Op::Upsample(op), "x") => vec![op.batch, op.h, op.w, op.c],
        (Op::Upsample(op), "y") => vec![op.batch, op.out_h, op.out_w, op.c],
        (Op::IndexSelect(op), "x") => vec![op.rows, op.c],
        (Op::IndexSelect(op), "y") => vec![op.count, op.c],
        (Op::Embedding(op), "table") => vec![op.rows, op.c],
        (Op::Embedding(op), "y") => vec![op.count, op.c],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_multiply_to_the_count() {
        for op in Op::all_cases() {
            for (operand, shape) in op.operands().iter().zip(shapes(&op)) {
                assert_eq!(shape.iter().product::<usize>(), operand.count, "{} of {op:?}", operand.name);
            }
        }
    }
}
