// conv_3_registers: y[i, v, u, n] = sum_{r, s, c} x[i, v stride + r - pad_top, u stride + s - pad_left, c]
//     w[r, s, c, n],
// as a matrix product with a row m for each pixel (i, v, u) of y; a tile of it by one workgroup, OWN by OWN values an
// invocation
//
//   x  (images, H, W, C)              f32   zero outside its bounds
//   w  (WINDOW_H, WINDOW_W, C, N)     f32   in panels: PyTorch's Conv2d.weight, turned
//   y  (images, OUT_H, OUT_W, N)      f32
//
// Grid    one workgroup of SIDE by SIDE invocations per TILE pixels and TILE channels of y
// Cost    2 images OUT_H OUT_W N WINDOW_H WINDOW_W C flop; reads x and w once at least, writes y once
// Source  implicit products as in Chetlur et al. 2014, arXiv:1410.0759
// Twin    crates/ratel-kernels/src/conv2d.rs

import package::spec::{OWN};
import package::lib::grid::workgroup_number;
import package::lib::panels::panel_index;

const SIDE = 16u;
const TILE = OWN * SIDE;   // an invocation's OWN pixels and channels are SIDE apart
const STEP = SIDE;         // c at a time

struct Params {
    batch: u32, h: u32, w: u32, c: u32, n: u32,
    window_h: u32, window_w: u32, stride: u32, pad_top: i32, pad_left: i32, out_h: u32, out_w: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

var<workgroup> inputs: array<f32, TILE * STEP>;    // (pixel, c)
var<workgroup> weights: array<f32, STEP * TILE>;   // (c, channel)

@compute @workgroup_size(SIDE, SIDE)
fn conv_3_registers(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_id) lane: vec3<u32>,
) {
    let pixels = p.batch * p.out_h * p.out_w;
    let tiles = (p.n + TILE - 1u) / TILE;   // of channels
    let number = workgroup_number(wg, grid);
    let m = number / tiles * TILE + lane.y;   // the first pixel of y: row m of the product that a convolution is
    let n = number % tiles * TILE + lane.x;

    let rows = p.window_h * p.window_w * p.c;   // of w
    var sums: array<f32, OWN * OWN>;          // OWN pixels of OWN channels
    for (var r = 0u; r < p.window_h; r++) {
        for (var s = 0u; s < p.window_w; s++) {
            let tap = (r * p.window_w + s) * p.c;
            var inside: array<bool, OWN>;
            var pixel: array<u32, OWN>;
            // unroll
            for (var j = 0u; j < OWN; j++) {
                let at = m + j * SIDE;
                // what lies above or left of x has wrapped round to a large number
                let row = u32(i32(at / p.out_w % p.out_h * p.stride + r) - p.pad_top);
                let column = u32(i32(at % p.out_w * p.stride + s) - p.pad_left);
                inside[j] = at < pixels && row < p.h && column < p.w;
                pixel[j] = (at / p.out_w / p.out_h * p.h + row) * p.w + column;
            }
            for (var c0 = 0u; c0 < p.c; c0 += STEP) {
                // each invocation brings OWN values of x and of w, zero beyond the edges
                // unroll
                for (var j = 0u; j < OWN; j++) {
                    var input = 0.0;
                    var weight = 0.0;
                    if inside[j] && c0 + lane.x < p.c { input = x[pixel[j] * p.c + c0 + lane.x]; }
                    if n + j * SIDE < p.n && c0 + lane.y < p.c {
                        weight = w[panel_index(tap + c0 + lane.y, n + j * SIDE, rows, p.n)];
                    }
                    inputs[(lane.y + j * SIDE) * STEP + lane.x] = input;
                    weights[lane.y * TILE + lane.x + j * SIDE] = weight;
                }
                workgroupBarrier();   // all have brought theirs
                for (var c = 0u; c < STEP; c++) {
                    // OWN + OWN loads for OWN OWN multiply-adds
                    var of_pixel: array<f32, OWN>;
                    var of_channel: array<f32, OWN>;
                    // unroll
                    for (var j = 0u; j < OWN; j++) {
                        of_pixel[j] = inputs[(lane.y + j * SIDE) * STEP + c];
                        of_channel[j] = weights[c * TILE + lane.x + j * SIDE];
                    }
                    // unroll
                    for (var j = 0u; j < OWN; j++) {
                        // unroll
                        for (var l = 0u; l < OWN; l++) {
                            sums[j * OWN + l] += of_pixel[j] * of_channel[l];
                        }
                    }
                }
                workgroupBarrier();   // all have read, before the next values come
            }
        }
    }
    // unroll
    for (var j = 0u; j < OWN; j++) {
        // unroll
        for (var l = 0u; l < OWN; l++) {
            let at = (m + j * SIDE) * p.n + n + l * SIDE;
            if m + j * SIDE < pixels && n + l * SIDE < p.n { y[at] = sums[j * OWN + l]; }
        }
    }
}
