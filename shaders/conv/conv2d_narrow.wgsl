// conv2d_narrow: y[i, v, u, n] = act( sum_{r, s, c} x[i, v + r - pad_top, u + s - pad_left, c] w[r, s, c, n]
//                                     +  bias[n]  +  image_bias[i, n] )  +  residual[i, v, u, n]
// for the few channels N of y that models end with
//
//   x           (images, H, W, C / 4)       Elem4    zero outside its bounds
//   w           (WINDOW_H, WINDOW_W, C, N)  Weight   one panel, row by row: PyTorch's Conv2d.weight, turned
//   bias        (N)                         f32      when there is one
//   image_bias  (images, N)                 Elem     when there is one
//   residual    (images, OUT_H, OUT_W, N)   Elem     when there is one
//   y           (images, OUT_H, OUT_W, N)   Elem
//
// An invocation computes all channels of a strip of STRIP pixels side by side, so that a value of x is read once for all of
// them and for every place in the window's row.
//
// Grid    one invocation per strip of STRIP pixels of a row of y; C a multiple of 4
// Cost    2 images OUT_H OUT_W N WINDOW_H WINDOW_W C flop; reads every input once, writes y once
// Source  torch.nn.functional.conv2d
// Twin    crates/ratel-kernels/src/conv2d.rs

import package::spec::{Elem, Elem4, Weight4, COLUMNS, INPUTS, N, STRIP};
import package::lib::act::act;
import package::lib::grid::workgroup_number;

override WG: u32 = 64u;
override ACT: u32 = 0u;
override BIAS: bool = false;
override IMAGE_BIAS: bool = false;
override RESIDUAL: bool = false;

struct Params {
    batch: u32, h: u32, w: u32, c: u32, window_h: u32, pad_top: i32, pad_left: i32, out_h: u32, out_w: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem4>;
@group(0) @binding(1) var<storage, read> w: array<Weight4>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> image_bias: array<Elem>;
@group(0) @binding(4) var<storage, read> residual: array<Elem>;
@group(0) @binding(5) var<storage, read_write> y: array<Elem>;

@compute @workgroup_size(WG)
fn conv2d_narrow(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(wg, grid) * WG + lane;   // of (image, row, strip)
    let strips = (p.out_w + STRIP - 1u) / STRIP;
    let u = number % strips * STRIP;
    let v = number / strips % p.out_h;
    let i = number / strips / p.out_h;
    if i >= p.batch { return; }

    // the columns of x that the strip's windows cover; what lies left of it wraps round to a large number
    var column: array<u32, INPUTS>;
    // unroll
    for (var t = 0u; t < INPUTS; t++) {
        column[t] = u32(i32(u + t) - p.pad_left);
    }
    let quads = p.c / 4u;
    var sums: array<array<f32, N>, STRIP>;
    for (var r = 0u; r < p.window_h; r++) {
        let row = u32(i32(v + r) - p.pad_top);
        if row >= p.h { continue; }
        let row_at = (i * p.h + row) * p.w * quads;
        for (var q = 0u; q < quads; q++) {
            var inputs: array<vec4<f32>, INPUTS>;
            // unroll
            for (var t = 0u; t < INPUTS; t++) {
                let input = vec4<f32>(x[row_at + min(column[t], p.w - 1u) * quads + q]);
                inputs[t] = select(vec4(0.0), input, column[t] < p.w);
            }
            // unroll
            for (var s = 0u; s < COLUMNS; s++) {
                // the weights of four channels of x, N of each: value c * N + n is the c-th's for channel n of y
                var weights: array<vec4<f32>, N>;
                // unroll
                for (var t = 0u; t < N; t++) {
                    weights[t] = weight4(w[((r * COLUMNS + s) * quads + q) * N + t]);
                }
                // unroll
                for (var m = 0u; m < STRIP; m++) {
                    // unroll
                    for (var c = 0u; c < 4u; c++) {
                        // unroll
                        for (var n = 0u; n < N; n++) {
                            sums[m][n] = fma(inputs[m + s][c], weights[(c * N + n) / 4u][(c * N + n) % 4u], sums[m][n]);
                        }
                    }
                }
            }
        }
    }

    // unroll
    for (var m = 0u; m < STRIP; m++) {
        // unroll
        for (var n = 0u; n < N; n++) {
            store(i, v, u + m, n, sums[m][n]);
        }
    }
}

// What is done to a sum before it is written.
fn store(i: u32, v: u32, u: u32, n: u32, products: f32) {
    if u >= p.out_w { return; }
    let value = ((i * p.out_h + v) * p.out_w + u) * N + n;
    var sum = products;
    if BIAS { sum += bias[n]; }
    if IMAGE_BIAS { sum += f32(image_bias[i * N + n]); }
    sum = act(ACT, sum);
    if RESIDUAL { sum += f32(residual[value]); }
    y[value] = Elem(sum);
}
