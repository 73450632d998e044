// conv2d_tiled: y[i, v, u, n] = act( sum_{r, s, c} x[i, v stride + r - pad_top, u stride + s - pad_left, c] w[r, s, c, n]
//                                    +  bias[n]  +  image_bias[i, n] )  +  residual[i, v, u, n],
// as a matrix product with a row for each pixel m = (i, v, u) of y and a k for each (r, s, c), a block of it by one
// workgroup, through workgroup memory; for GPUs
//
//   x           (images, H, W, C1)          Elem     zero outside its bounds; enlarged to (UP_H, UP_W) first, row v of
//                                                    that being row v H / UP_H
//   x2          (images, H, W, C - C1)      Elem     channels from C1 on, when there are any
//   w           (WINDOW_H, WINDOW_W, C, N)  Weight   in panels: PyTorch's Conv2d.weight, turned
//   bias        (N)                         f32      when there is one
//   image_bias  (images, N)                 Elem     when there is one
//   residual    (images, OUT_H, OUT_W, N)   Elem     when there is one
//   y           (PARTS, images, OUT_H, OUT_W, N)  Out  Elem; f32 if sums over PARTS parts of k are written instead, each of
//                                                    K_PART, which sum_parts adds up
//
// Grid    one workgroup per part and BLOCK_ROWS pixels and 4 BLOCK_QUADS channels of y; C1, C, N multiples of 4
// Cost    2 images OUT_H OUT_W N WINDOW_H WINDOW_W C flop; reads every input once, writes y once
// Source  torch.nn.functional.conv2d; .interpolate(mode="nearest"); implicit products as in Chetlur et al. 2014,
//         arXiv:1410.0759
// Twin    crates/ratel-kernels/src/conv2d.rs

import package::spec::{Elem4, Out4, Weight4, BLOCK_QUADS, BLOCK_ROWS, INPUT_LOADS, PARTS, QUADS, ROWS, WEIGHT_LOADS};
import package::spec::{WG_QUADS, WG_ROWS};
import package::lib::act::act4;
import package::lib::block_tile::block_multiply_add;
import package::lib::grid::workgroup_number;
import package::lib::panels::panel_index;

const WG = WG_ROWS * WG_QUADS;

override ACT: u32 = 0u;
override BIAS: bool = false;
override IMAGE_BIAS: bool = false;
override RESIDUAL: bool = false;

struct Params {
    batch: u32, h: u32, w: u32, c: u32, c1: u32, n: u32,
    window_h: u32, window_w: u32, stride: u32, pad_top: i32, pad_left: i32,
    up_h: u32, up_w: u32, out_h: u32, out_w: u32, k_part: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem4>;
@group(0) @binding(1) var<storage, read> x2: array<Elem4>;
@group(0) @binding(2) var<storage, read> w: array<Weight4>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> image_bias: array<Elem4>;
@group(0) @binding(5) var<storage, read> residual: array<Elem4>;
@group(0) @binding(6) var<storage, read_write> y: array<Out4>;

// The first row and column of the window of a pixel of y, in the enlarged input.
struct Window { top: i32, left: i32, image: u32 }

@compute @workgroup_size(WG)
fn conv2d_tiled(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let n_quads = p.n / 4u;
    let blocks = (n_quads + BLOCK_QUADS - 1u) / BLOCK_QUADS;
    let number = workgroup_number(wg, grid);
    let m_blocks = (p.batch * p.out_h * p.out_w + BLOCK_ROWS - 1u) / BLOCK_ROWS;
    let part = number / blocks / m_blocks;
    let m0 = number / blocks % m_blocks * BLOCK_ROWS;
    let n0 = number % blocks * BLOCK_QUADS;
    if part >= PARTS { return; }

    // the pixels whose inputs this invocation loads; beyond the last, the last again
    var windows: array<Window, INPUT_LOADS>;
    // unroll
    for (var i = 0u; i < INPUT_LOADS; i++) {
        let m = min(m0 + (lane + i * WG) / STEP, p.batch * p.out_h * p.out_w - 1u);
        let top = i32(m / p.out_w % p.out_h * p.stride) - p.pad_top;
        windows[i] = Window(top, i32(m % p.out_w * p.stride) - p.pad_left, m / p.out_w / p.out_h);
    }

    // While one step is computed on, the next is on its way from memory to registers.
    var tile: Tile;
    let k_first = part * p.k_part / 4u;
    let k_end = min(k_first + p.k_part / 4u, p.window_h * p.window_w * p.c / 4u);
    var inputs = load_inputs(windows, k_first + lane % STEP);
    var weights = load_weights(n0, k_first, lane);
    for (var k = k_first; k < k_end; k += STEP) {
        // unroll
        for (var i = 0u; i < INPUT_LOADS; i++) {
            block_inputs[lane + i * WG] = vec4<f32>(inputs[i]);
        }
        // unroll
        for (var i = 0u; i < WEIGHT_LOADS; i++) {
            block_weights[lane + i * WG] = weight4(weights[i]);
        }
        workgroupBarrier();
        if k + STEP < k_end {
            inputs = load_inputs(windows, k + STEP + lane % STEP);
            weights = load_weights(n0, k + STEP, lane);
        }
        block_multiply_add(&tile, lane / WG_QUADS, lane % WG_QUADS);
        workgroupBarrier();
    }

    // unroll
    for (var i = 0u; i < ROWS; i++) {
        // unroll
        for (var j = 0u; j < QUADS; j++) {
            store(part, m0 + lane / WG_QUADS + i * WG_ROWS, n0 + lane % WG_QUADS + j * WG_QUADS, tile[i * QUADS + j]);
        }
    }
}

// Quad number k of each window: zero outside the input and beyond the window.
fn load_inputs(windows: array<Window, INPUT_LOADS>, k: u32) -> array<Elem4, INPUT_LOADS> {
    let c1 = p.c1 / 4u;
    let c2 = p.c / 4u - c1;
    let c = k % (c1 + c2);
    let place = k / (c1 + c2);
    let r = i32(place / p.window_w);
    let s = i32(place % p.window_w);
    var inputs: array<Elem4, INPUT_LOADS>;
    // unroll
    for (var i = 0u; i < INPUT_LOADS; i++) {
        // what lies above or left of the input wraps round to a large number
        let row = u32(windows[i].top + r);
        let column = u32(windows[i].left + s);
        if row < p.up_h && column < p.up_w && place < p.window_h * p.window_w {
            let pixel = (windows[i].image * p.h + row * p.h / p.up_h) * p.w + column * p.w / p.up_w;
            if c < c1 { inputs[i] = x[pixel * c1 + c]; } else { inputs[i] = x2[pixel * c2 + c - c1]; }
        }
    }
    return inputs;
}

// The invocation's share of the weights of a step. Beyond the edges it is the last row or column's, which meet inputs that
// are zero or sums that are not stored.
fn load_weights(n0: u32, k0: u32, lane: u32) -> array<Weight4, WEIGHT_LOADS> {
    let n_quads = p.n / 4u;
    let rows = p.window_h * p.window_w * p.c;
    var weights: array<Weight4, WEIGHT_LOADS>;
    // unroll
    for (var i = 0u; i < WEIGHT_LOADS; i++) {
        let k = min(k0 * 4u + (lane + i * WG) / BLOCK_QUADS, rows - 1u);
        let n = min(n0 + (lane + i * WG) % BLOCK_QUADS, n_quads - 1u);
        weights[i] = w[panel_index(k, 4u * n, rows, p.n) / 4u];
    }
    return weights;
}

// What is done to four sums of pixel m before they are written; n counts quads.
fn store(part: u32, m: u32, n: u32, products: vec4<f32>) {
    let n_quads = p.n / 4u;
    if m >= p.batch * p.out_h * p.out_w || n >= n_quads { return; }
    var sum = products;
    if BIAS { sum += bias[n]; }
    if IMAGE_BIAS { sum += vec4<f32>(image_bias[m / (p.out_h * p.out_w) * n_quads + n]); }
    sum = act4(ACT, sum);
    if RESIDUAL { sum += vec4<f32>(residual[m * n_quads + n]); }
    y[(part * (p.batch * p.out_h * p.out_w) + m) * n_quads + n] = Out4(sum);
}
