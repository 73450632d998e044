//! Splits an op whose tensors exceed what one binding may hold into parts that fit.
//!
//! A part is an op of the same kind with smaller sizes over windows of the same tensors, so kernels know nothing of it: a
//! band of a convolution is a convolution with another padding.

use crate::Place;
use ratel_kernels::attention::Attention;
use ratel_kernels::conv2d::Conv2d;
use ratel_kernels::embedding::Embedding;
use ratel_kernels::group_norm::GroupNorm;
use ratel_kernels::group_norm_stats::GroupNormStats;
use ratel_kernels::matmul::Matmul;
use ratel_kernels::{Op, Target};
use std::ops::Range;

/// A smaller op, and for each operand how many elements to skip (none where it is not named).
struct Part {
    op: Op,
    skip: Vec<(&'static str, usize)>,
}

/// The op in parts, each with where its operands lie. The op as it is when it fits, or when no way to split it is known:
/// choosing a kernel then fails and says so.
pub(crate) fn split(op: &Op, places: &[Place], target: &Target) -> Vec<(Op, Vec<Place>)> {
    if fits(op, target) {
        return vec![(op.clone(), places.to_vec())];
    }
    let counts = 2..=4096;
    let found = counts.filter_map(|count| parts(op, count)).find_map(|parts| {
        parts.iter().map(|part| if fits(&part.op, target) { place(op, part, places, target) } else { None }).collect()
    });
    found.unwrap_or_else(|| vec![(op.clone(), places.to_vec())])
}

/// Whether every operand can be bound.
pub(crate) fn fits(op: &Op, target: &Target) -> bool {
    op.operands().iter().all(|operand| operand.bytes(target) <= target.limits.binding_bytes)
}

/// A part's op and places; `None` if a window would start where the device can't bind.
fn place(whole: &Op, part: &Part, places: &[Place], target: &Target) -> Option<(Op, Vec<Place>)> {
    let operands = whole.operands();
    let windows = part.op.operands().into_iter().map(|operand| {
        let at = operands.iter().position(|known| known.name == operand.name)?;
        let skip = part.skip.iter().find(|(name, _)| *name == operand.name).map_or(0, |(_, skip)| *skip);
        let offset = places[at].offset + (skip as f64 * operand.elem_size(target)) as u64;
        let aligned = offset.is_multiple_of(u64::from(target.limits.offset_alignment));
        aligned.then_some(Place { offset, bytes: operand.bytes(target), ..places[at] })
    });
    Some((part.op.clone(), windows.collect::<Option<_>>()?))
}

/// `0..total` in `count` ranges of nearly equal length, the borders at multiples of `step`.
fn ranges(total: usize, count: usize, step: usize) -> Option<Vec<Range<usize>>> {
    let length = total.div_ceil(count).next_multiple_of(step);
    (length < total).then(|| (0..total).step_by(length).map(|start| start..(start + length).min(total)).collect())
}

/// The op in about `count` parts, where a way is known. Rows are cut at multiples of 8, which with the models' channel
/// counts keeps windows aligned.
fn parts(op: &Op, count: usize) -> Option<Vec<Part>> {
    match op {
        Op::Embedding(op) => {
            let tables = ranges(op.rows, count, 128)?.into_iter().map(|rows| Part {
                op: Embedding { first: op.first + rows.start, rows: rows.len(), ..*op }.into(),
                skip: vec![("table", rows.start * op.c)],
            });
            Some(tables.collect())
        }
        // what is small enough for parts along k, or was joined, is not too large
        Op::Matmul(op) if !op.parts.is_whole() || op.layers.count() > 1 => None,
        Op::Conv2d(op) if !op.parts.is_whole() => None,
        Op::Matmul(op) => {
            // a part lies within one image, so that it has one row of the image's bias
            let image = op.image_rows.unwrap_or(op.m);
            let bands = |start: usize| {
                let rows = ranges(image, count, 8)?.into_iter().map(move |rows| start + rows.start..start + rows.end);
                Some(rows.map(|rows| matmul_rows(op, rows)).collect::<Vec<_>>())
            };
            Some((0..op.m).step_by(image).map(bands).collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
        }
        Op::Conv2d(op) => {
            let bands = ranges(op.out_h, count, 8)?;
            let images = (0..op.batch).flat_map(|image| bands.iter().map(move |rows| (image, rows.clone())));
            images.map(|(image, rows)| conv_rows(op, image, rows)).collect()
        }
        Op::GroupNormStats(op) => {
            let chunks = op.pixels.div_ceil(op.chunk);
            let bands = ranges(chunks, count, 4)?;
            let images = (0..op.batch).flat_map(|image| bands.iter().map(move |chunks| (image, chunks.clone())));
            let band = |(image, part): (usize, Range<usize>)| {
                let pixels = part.start * op.chunk..(part.end * op.chunk).min(op.pixels);
                let skip = image * op.pixels + pixels.start;
                Part {
                    op: GroupNormStats { batch: 1, pixels: pixels.len(), ..*op }.into(),
                    skip: vec![
                        ("x", skip * op.c1),
                        ("x2", skip * (op.c - op.c1)),
                        ("stats", (image * chunks + part.start) * op.groups * 2),
                    ],
                }
            };
            Some(images.map(band).collect())
        }
        Op::GroupNorm(op) => {
            let bands = ranges(op.rows, count, 64)?;
            let stats = op.pixels.div_ceil(op.chunk) * op.groups * 2;
            let images = (0..op.batch).flat_map(|image| bands.iter().map(move |rows| (image, rows.clone())));
            let band = |(image, rows): (usize, Range<usize>)| {
                let skip = image * op.rows + rows.start;
                Part {
                    op: GroupNorm { batch: 1, rows: rows.len(), ..*op }.into(),
                    skip: vec![
                        ("x", skip * op.c1),
                        ("x2", skip * (op.c - op.c1)),
                        ("stats", image * stats),
                        ("y", skip * op.c),
                    ],
                }
            };
            Some(images.map(band).collect())
        }
        Op::Attention(op) => {
            let bands = ranges(op.queries, count, 8)?;
            let row = op.heads * op.dim;
            let images = (0..op.batch).flat_map(|image| bands.iter().map(move |rows| (image, rows.clone())));
            let band = |(image, rows): (usize, Range<usize>)| {
                let (queries, keys) = ((image * op.queries + rows.start) * row, image * op.keys * row);
                Part {
                    op: Attention { batch: 1, queries: rows.len(), ..*op }.into(),
                    skip: vec![("q", queries), ("k", keys), ("v", keys), ("y", queries)],
                }
            };
            // a causal query must know its own number, so those stay whole
            (!op.causal).then(|| images.map(band).collect())
        }
        Op::LayerNorm(op) => rows(op.rows, count, |part| {
            (ratel_kernels::layer_norm::LayerNorm { rows: part, ..*op }.into(), vec![("x", op.c), ("y", op.c)])
        }),
        Op::Geglu(op) => rows(op.rows, count, |part| {
            (ratel_kernels::geglu::Geglu { rows: part, ..*op }.into(), vec![("x", 2 * op.n), ("y", op.n)])
        }),
        Op::Concat(op) => rows(op.rows, count, |part| {
            let skip = vec![("a", op.c1), ("b", op.c2), ("y", op.c1 + op.c2)];
            (ratel_kernels::concat::Concat { rows: part, ..*op }.into(), skip)
        }),
        Op::Activation(op) => rows(op.count, count, |part| {
            (ratel_kernels::activation::Activation { count: part, ..*op }.into(), vec![("x", 1), ("y", 1)])
        }),
        Op::Add(op) if op.period == op.count => rows(op.count, count, |part| {
            let op = ratel_kernels::add::Add { count: part, span: part, period: part };
            (op.into(), vec![("a", 1), ("b", 1), ("y", 1)])
        }),
        Op::Rgb8(op) => {
            rows(op.count, count, |part| (ratel_kernels::rgb8::Rgb8 { count: part }.into(), vec![("x", 1), ("y", 1)]))
        }
        Op::ToVector(op) => rows(op.count, count, |part| {
            (ratel_kernels::to_vector::ToVector { count: part }.into(), vec![("x", 1), ("y", 1)])
        }),
        _ => None,
    }
}

/// Parts of an op whose rows don't know each other: `of` gives the op of so many rows, and each operand's row length.
fn rows(total: usize, count: usize, of: impl Fn(usize) -> (Op, Vec<(&'static str, usize)>)) -> Option<Vec<Part>> {
    let part = |rows: Range<usize>| {
        let (op, lengths) = of(rows.len());
        Part { op, skip: lengths.into_iter().map(|(name, length)| (name, rows.start * length)).collect() }
    };
    Some(ranges(total, count, 256)?.into_iter().map(part).collect())
}

/// Rows of a matrix product that lie within one image.
fn matmul_rows(op: &Matmul, rows: Range<usize>) -> Part {
    let image = op.image_rows.map_or(0, |image_rows| rows.start / image_rows);
    let image_rows = op.image_rows.map(|_| rows.len());
    Part {
        op: Matmul { m: rows.len(), image_rows, ..*op }.into(),
        skip: vec![
            ("x", rows.start * op.k1),
            ("x2", rows.start * (op.k - op.k1)),
            ("image_bias", image * op.n),
            ("residual", rows.start * op.n),
            ("y", rows.start * op.n),
        ],
    }
}

/// Rows of a convolution's result in one image: a convolution over the rows of input that they need, padded by what is
/// missing above. `None` for an enlargement that is not by 2, whose windows would not start on a whole row.
fn conv_rows(op: &Conv2d, image: usize, rows: Range<usize>) -> Option<Part> {
    let zoom = match op.upsample {
        None => 1,
        Some([up_h, _]) if up_h == 2 * op.h => 2,
        Some(_) => return None,
    };
    let first = (rows.start * op.stride) as isize - op.pad[0];
    let last = ((rows.end - 1) * op.stride + op.window[0]) as isize - op.pad[0];
    let clip = |row: isize| row.clamp(0, (op.h * zoom) as isize) as usize;
    // windows of the input start at multiples of 8 rows, too
    let input = clip(first) / zoom / 8 * 8..clip(last).div_ceil(zoom);
    let pad = op.pad[0] - (rows.start * op.stride) as isize + (input.start * zoom) as isize;
    let (x, y) = ((image * op.h + input.start) * op.w, (image * op.out_h + rows.start) * op.out_w);
    Some(Part {
        op: Conv2d {
            batch: 1,
            h: input.len(),
            pad: [pad, op.pad[1]],
            upsample: op.upsample.map(|[_, up_w]| [input.len() * zoom, up_w]),
            out_h: rows.len(),
            ..*op
        }
        .into(),
        skip: vec![
            ("x", x * op.c1),
            ("x2", x * (op.c - op.c1)),
            ("image_bias", image * op.n),
            ("residual", y * op.n),
            ("y", y * op.n),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;
    use ratel_kernels::{Limits, Role, Values, ValuesMut};

    /// Runs an op on its twin, whole and in parts, over the same numbers.
    fn same_in_parts(op: Op, binding_bytes: u64) {
        let target =
            Target { limits: Limits { binding_bytes, offset_alignment: 32, ..Limits::WEBGPU }, ..Target::PLAIN };
        let operands = op.operands();
        let place = |i: usize| Place { memory: Memory::Slot(i), offset: 0, bytes: operands[i].bytes(&target) };
        let places: Vec<_> = (0..operands.len()).map(place).collect();
        let numbers = |i: usize| (0..operands[i].count).map(|j| ((j * 7 + i) % 23) as f32 - 11.0).collect::<Vec<f32>>();
        let ids: Vec<u32> = (0..operands[0].count as u32).map(|i| i * 47 % 600).collect();
        let inputs: Vec<Vec<f32>> = (0..operands.len() - 1).map(numbers).collect();
        let run = |op: &Op, places: &[Place], y: &mut [f32]| {
            let (out, ins) = places.split_last().expect("an output");
            let window = |place: &Place| (place.offset / 4) as usize..((place.offset + place.bytes) / 4) as usize;
            let values: Vec<Values> = ins
                .iter()
                .zip(op.operands())
                .map(|(place, operand)| {
                    let Memory::Slot(i) = place.memory else { panic!("only slots here") };
                    match operand.role {
                        Role::Ids { .. } => Values::U32(&ids[window(place)]),
                        _ => Values::F32(&inputs[i][window(place)]),
                    }
                })
                .collect();
            op.twin(&values, ValuesMut::F32(&mut y[window(out)]));
        };
        let count = op.output().count;
        let (mut whole, mut in_parts) = (vec![0.0; count], vec![0.0; count]);
        run(&op, &places, &mut whole);
        let parts = split(&op, &places, &target);
        assert!(parts.len() > 1, "{op:?} was not split");
        for (op, places) in &parts {
            run(op, places, &mut in_parts);
        }
        assert!(whole.iter().any(|&v| v != 0.0), "{op:?}: a twin that computes nothing");
        assert_eq!(whole, in_parts, "{op:?}");
    }

    #[test]
    fn convolutions_in_bands() {
        let conv = Conv2d {
            batch: 2,
            h: 40,
            w: 8,
            c: 16,
            c1: 16,
            n: 8,
            window: [3, 3],
            stride: 1,
            pad: [1, 1],
            out_h: 40,
            out_w: 8,
            ..Conv2d::default()
        };
        same_in_parts(Op::from(Conv2d { bias: true, residual: true, image_bias: true, ..conv }), 16 << 10);
        same_in_parts(Op::from(Conv2d { c1: 8, ..conv }), 8 << 10);
        same_in_parts(Op::from(Conv2d { stride: 2, out_h: 20, out_w: 4, ..conv }), 16 << 10);
        same_in_parts(Op::from(Conv2d { stride: 2, pad: [0, 0], out_h: 20, out_w: 4, ..conv }), 16 << 10);
        same_in_parts(Op::from(Conv2d { upsample: Some([80, 16]), out_h: 80, out_w: 16, ..conv }), 16 << 10);
    }

    #[test]
    fn tables_and_rows_in_parts() {
        same_in_parts(Op::from(Embedding { count: 77, c: 8, first: 0, rows: 600, vocabulary: 600 }), 16 << 10);
        let product = Matmul { m: 300, n: 16, k: 24, k1: 8, bias: true, residual: true, ..Matmul::default() };
        same_in_parts(Op::from(product), 8 << 10);
        same_in_parts(Op::from(Matmul { image_rows: Some(100), ..product }), 4 << 10);
    }
}
