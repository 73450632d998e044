//! Kernels over cooperative matrices against sums in `f64`, again and again with other inputs: what a driver does between
//! a load of a matrix and a barrier is its own affair, and a race shows only now and then.
#![allow(clippy::print_stderr)] // a skipped test must be seen

use ratel_engine::{Buffer, DeviceChoice, Engine, EngineOptions};
use ratel_kernels::attention::Attention;
use ratel_kernels::conv2d::Conv2d;
use ratel_kernels::matmul::Matmul;
use ratel_kernels::{Op, Target, WeightStorage, kernels_of};
use ratel_tensor::Elem;

/// How often each op is run, each time on inputs of its own.
const TIMES: u32 = 3;

/// The largest normalised mean square error. Rounding a result to 11 bits makes one of 5e-8 or so.
const TOLERANCE: f64 = 1e-7;

/// The same for attention, whose weights are rounded, too.
const ATTENTION_TOLERANCE: f64 = 2e-7;

fn matmuls() -> Vec<Matmul> {
    let plain = |m, n, k| Matmul { m, n, k, k1: k, ..Matmul::default() };
    vec![
        Matmul { bias: true, residual: true, ..plain(200, 328, 100) },
        Matmul { k1: 36, ..plain(130, 132, 96) },
        plain(12, 20, 4),
        plain(64, 64, 1280),
        plain(1536, 1408, 96), // enough for the largest blocks
        plain(1030, 740, 68),
    ]
}

fn convolutions() -> Vec<Conv2d> {
    let same = |batch, [h, w]: [usize; 2], c, n| {
        let (window, pad) = ([3, 3], [1, 1]);
        Conv2d { batch, h, w, c, c1: c, n, window, stride: 1, pad, out_h: h, out_w: w, ..Conv2d::default() }
    };
    vec![
        Conv2d { bias: true, ..same(2, [9, 13], 36, 44) },
        Conv2d { stride: 2, out_h: 8, out_w: 7, residual: true, ..same(2, [16, 14], 64, 64) },
        Conv2d { c1: 40, ..same(1, [8, 8], 72, 96) },
        Conv2d { upsample: Some([12, 10]), out_h: 12, out_w: 10, ..same(1, [6, 5], 32, 32) },
        Conv2d { bias: true, ..same(1, [64, 64], 20, 320) },
    ]
}

fn attentions() -> Vec<Attention> {
    let case = |batch, heads, dim, queries, keys| Attention { batch, heads, dim, queries, keys, causal: false };
    vec![
        case(1, 2, 40, 200, 200),
        case(2, 2, 64, 70, 77),
        case(1, 1, 80, 129, 33),
        Attention { causal: true, ..case(1, 2, 40, 150, 150) },
        case(2, 8, 8, 1024, 70), // enough for two rows of matrices a subgroup
        case(1, 2, 24, 150, 41), // narrow enough for matrices of 16 on a software driver
    ]
}

fn reference_matmul(op: &Matmul, get: &dyn Fn(&str) -> Vec<f64>) -> Vec<f64> {
    let Matmul { m, n, k, k1, .. } = *op;
    let [x, x2, w, bias, residual] = ["x", "x2", "w", "bias", "residual"].map(get);
    let mut y = if op.residual { residual } else { vec![0.0; m * n] };
    for (row, y) in y.chunks_exact_mut(n).enumerate() {
        for k_at in 0..k {
            let input = if k_at < k1 { x[row * k1 + k_at] } else { x2[row * (k - k1) + k_at - k1] };
            y.iter_mut().zip(&w[k_at * n..]).for_each(|(y, w)| *y += input * w);
        }
        if op.bias {
            y.iter_mut().zip(&bias).for_each(|(y, bias)| *y += bias);
        }
    }
    y
}

fn reference_conv2d(op: &Conv2d, get: &dyn Fn(&str) -> Vec<f64>) -> Vec<f64> {
    let Conv2d { h, w: width, c, c1, n, window, stride, pad, out_h, out_w, .. } = *op;
    let [up_h, up_w] = op.upsample.unwrap_or([h, width]);
    let [x, x2, w, bias, residual] = ["x", "x2", "w", "bias", "residual"].map(get);
    let mut y = if op.residual { residual } else { vec![0.0; op.batch * out_h * out_w * n] };
    for (pixel, y) in y.chunks_exact_mut(n).enumerate() {
        let (image, v, u) = (pixel / (out_h * out_w), pixel / out_w % out_h, pixel % out_w);
        for place in 0..window[0] * window[1] {
            let row = (v * stride + place / window[1]).checked_add_signed(-pad[0]).filter(|row| *row < up_h);
            let column = (u * stride + place % window[1]).checked_add_signed(-pad[1]).filter(|column| *column < up_w);
            let Some((row, column)) = row.zip(column) else { continue };
            let from = (image * h + row * h / up_h) * width + column * width / up_w;
            for channel in 0..c {
                let input = if channel < c1 { x[from * c1 + channel] } else { x2[from * (c - c1) + channel - c1] };
                y.iter_mut().zip(&w[(place * c + channel) * n..]).for_each(|(y, w)| *y += input * w);
            }
        }
        if op.bias {
            y.iter_mut().zip(&bias).for_each(|(y, bias)| *y += bias);
        }
    }
    y
}

fn reference_attention(op: &Attention, get: &dyn Fn(&str) -> Vec<f64>) -> Vec<f64> {
    let Attention { heads, dim, queries, keys, causal, .. } = *op;
    let [q, k, v] = ["q", "k", "v"].map(get);
    let mut y = vec![0.0; op.batch * queries * heads * dim];
    for (number, y) in y.chunks_exact_mut(dim).enumerate() {
        let (image, i, h) = (number / heads / queries, number / heads % queries, number % heads);
        let at = |j: usize| ((image * keys + j) * heads + h) * dim;
        let q = &q[number * dim..][..dim];
        let seen = if causal { keys.min(i + 1) } else { keys };
        let score = |j| q.iter().zip(&k[at(j)..]).map(|(q, k)| q * k).sum::<f64>() / (dim as f64).sqrt();
        let scores: Vec<f64> = (0..seen).map(score).collect();
        let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - greatest).exp()).collect();
        for (j, weight) in weights.iter().enumerate() {
            y.iter_mut().zip(&v[at(j)..]).for_each(|(y, v)| *y += weight * v);
        }
        y.iter_mut().for_each(|y| *y /= weights.iter().sum::<f64>());
    }
    y
}

fn reference(op: &Op, get: &dyn Fn(&str) -> Vec<f64>) -> Vec<f64> {
    match op {
        Op::Matmul(op) => reference_matmul(op, get),
        Op::Conv2d(op) => reference_conv2d(op, get),
        Op::Attention(op) => reference_attention(op, get),
        other => panic!("no reference for {other:?}"),
    }
}

/// Values between -1 and 1, or smaller so that sums of products are of order one.
fn noise(count: usize, scale: f32, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| scale * next()).collect()
}

/// Normalised mean square error of one run of the op's cooperative kernel; `None` where it has none for this target.
fn error(engine: &Engine, op: &Op, target: &Target, seed: u32) -> Option<f64> {
    let choice = kernels_of(op, target).into_iter().find(|choice| choice.kernel.name.ends_with("_cooperative"))?;
    let buffers: Vec<(&str, Buffer)> = op
        .operands()
        .iter()
        .zip(1..)
        .map(|(operand, number)| {
            let scale = if operand.name == "w" { (operand.count as f32).sqrt().sqrt().recip() } else { 1.0 };
            let buffer = engine.buffer(operand.role, operand.count, target).expect("memory");
            buffer.write_f32(&noise(operand.count, scale, seed * 16 + number)).expect("to be written");
            (operand.name, buffer)
        })
        .collect();
    let get = |name: &str| -> Vec<f64> {
        let found = buffers.iter().find(|(known, _)| *known == name);
        found.map_or(vec![], |(_, b)| b.read_f32().expect("to be read").into_iter().map(f64::from).collect())
    };
    let mut expected = reference(op, &get);
    let (output, inputs) = buffers.split_last().expect("an output");
    let inputs: Vec<&Buffer> = inputs.iter().map(|(_, buffer)| buffer).collect();
    engine.run_op(op, Some(&choice), &inputs, &output.1).expect("it runs");
    let found = output.1.read_f32().expect("to be read");
    let squares: f64 = expected.iter().map(|e| e * e).sum();
    expected.iter_mut().zip(&found).for_each(|(e, f)| *e -= f64::from(*f));
    Some(expected.iter().map(|e| e * e).sum::<f64>() / squares)
}

#[test]
fn results_are_those_of_f64() {
    let options = EngineOptions { checks: true, ..EngineOptions::default() };
    let engine = Engine::open(&DeviceChoice::Auto, options).expect("an automatic choice falls back to the twins");
    let target = engine.target_stored(Elem::F16, WeightStorage::F16).ok();
    let Some(target) = target.filter(|target| target.cooperative.is_some()) else {
        eprintln!("SKIPPED: {} has no cooperative matrices", engine.name());
        return;
    };
    // software drivers multiply matrices of any size, whatever they report
    let edges = if target.software { vec![8, 16] } else { target.cooperative.into_iter().collect() };
    let ops = matmuls().into_iter().map(Op::from).chain(convolutions().into_iter().map(Op::from));
    let ops: Vec<Op> = ops.chain(attentions().into_iter().map(Op::from)).collect();
    let mut failures = Vec::new();
    for edge in edges {
        let target = Target { cooperative: Some(edge), ..target };
        let mut worst: Vec<(&str, f64, u32)> = Vec::new();
        for (number, op) in ops.iter().enumerate() {
            for time in 0..TIMES {
                let Some(error) = error(&engine, op, &target, number as u32 * TIMES + time) else { continue };
                match worst.iter_mut().find(|(name, ..)| *name == op.name()) {
                    Some((_, greatest, runs)) => (*greatest, *runs) = (greatest.max(error), *runs + 1),
                    None => worst.push((op.name(), error, 1)),
                }
                let tolerance = if matches!(op, Op::Attention(_)) { ATTENTION_TOLERANCE } else { TOLERANCE };
                if error.is_nan() || error > tolerance {
                    failures.push(format!("{op:?}, matrices of {edge}: {error:.1e}"));
                }
            }
        }
        for (name, error, runs) in &worst {
            eprintln!("{name}, matrices of {edge}: {runs} runs, error {error:.1e} at most");
        }
        assert!(worst.iter().any(|(name, ..)| *name == "matmul"), "matrices of {edge} are used");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
