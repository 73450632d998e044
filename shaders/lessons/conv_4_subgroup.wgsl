// conv_4_subgroup: y[i, v, u, n] = sum_{r, s, c} x[i, v stride + r - pad_top, u stride + s - pad_left, c]
//     w[r, s, c, n],
// as a matrix product with a row m for each pixel (i, v, u) of y; a tile of it by one subgroup, without workgroup
// memory
//
//   x  (images, H, W, C)              f32   zero outside its bounds
//   w  (WINDOW_H, WINDOW_W, C, N)     f32   in panels: PyTorch's Conv2d.weight, turned
//   y  (images, OUT_H, OUT_W, N)      f32
//
// Grid    one workgroup of one subgroup per LANES pixels and OWN LANES channels of y
// Cost    2 images OUT_H OUT_W N WINDOW_H WINDOW_W C flop; reads x and w once at least, writes y once
// Source  implicit products as in Chetlur et al. 2014, arXiv:1410.0759
// Twin    crates/ratel-kernels/src/conv2d.rs

import package::spec::{LANES, OWN};
import package::lib::grid::workgroup_number;
import package::lib::panels::panel_index;

struct Params {
    batch: u32, h: u32, w: u32, c: u32, n: u32,
    window_h: u32, window_w: u32, stride: u32, pad_top: i32, pad_left: i32, out_h: u32, out_w: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(LANES)
fn conv_4_subgroup(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let pixels = p.batch * p.out_h * p.out_w;
    let tiles = (p.n + OWN * LANES - 1u) / (OWN * LANES);   // of channels
    let number = workgroup_number(wg, grid);
    let m = number / tiles * LANES;                         // the tile's first pixel
    let n = number % tiles * OWN * LANES + lane;            // the lane's first channel; the others are LANES apart
    if m >= pixels { return; }

    // beyond the edges the last pixel and channel are computed again, and not stored
    let own = min(m + lane, pixels - 1u);                   // the lane's own pixel
    let i = own / p.out_w / p.out_h;
    let rows = p.window_h * p.window_w * p.c;   // of w
    var sums: array<f32, LANES * OWN>;                      // all of the tile's pixels in OWN channels
    for (var r = 0u; r < p.window_h; r++) {
        for (var s = 0u; s < p.window_w; s++) {
            // what lies above or left of x has wrapped round to a large number
            let row = u32(i32(own / p.out_w % p.out_h * p.stride + r) - p.pad_top);
            let column = u32(i32(own % p.out_w * p.stride + s) - p.pad_left);
            let inside = row < p.h && column < p.w;
            let pixel = select(0u, (i * p.h + row) * p.w + column, inside);
            let tap = (r * p.window_w + s) * p.c;
            for (var c = 0u; c < p.c; c++) {
                let input = select(0.0, x[pixel * p.c + c], inside);
                var weights: array<f32, OWN>;
                // unroll
                for (var j = 0u; j < OWN; j++) {
                    weights[j] = w[panel_index(tap + c, min(n + j * LANES, p.n - 1u), rows, p.n)];
                }
                // each lane's input goes to all lanes in turn: 1 + OWN loads for LANES OWN multiply-adds
                // unroll
                for (var t = 0u; t < LANES; t++) {
                    let shared_input = subgroupBroadcast(input, t);
                    // unroll
                    for (var j = 0u; j < OWN; j++) {
                        sums[t * OWN + j] = fma(shared_input, weights[j], sums[t * OWN + j]);
                    }
                }
            }
        }
    }
    // unroll
    for (var t = 0u; t < LANES; t++) {
        // unroll
        for (var j = 0u; j < OWN; j++) {
            if m + t < pixels && n + j * LANES < p.n { y[(m + t) * p.n + n + j * LANES] = sums[t * OWN + j]; }
        }
    }
}
