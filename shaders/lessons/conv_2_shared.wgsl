// conv_2_shared: y[i, v, u, n] = sum_{r, s, c} x[i, v stride + r - pad_top, u stride + s - pad_left, c]
//     w[r, s, c, n],
// as a matrix product with a row m for each pixel (i, v, u) of y; a tile of it by one workgroup, which shares what it
// loads
//
//   x  (images, H, W, C)              f32   zero outside its bounds
//   w  (WINDOW_H, WINDOW_W, C, N)     f32   in panels: PyTorch's Conv2d.weight, turned
//   y  (images, OUT_H, OUT_W, N)      f32
//
// Grid    one workgroup of TILE by TILE invocations per TILE pixels and TILE channels of y, one value an invocation
// Cost    2 images OUT_H OUT_W N WINDOW_H WINDOW_W C flop; reads x and w once at least, writes y once
// Source  torch.nn.functional.conv2d; implicit products as in Chetlur et al. 2014, arXiv:1410.0759
// Twin    crates/ratel-kernels/src/conv2d.rs

import package::lib::grid::workgroup_number;
import package::lib::panels::panel_index;

const TILE = 16u;

struct Params {
    batch: u32, h: u32, w: u32, c: u32, n: u32,
    window_h: u32, window_w: u32, stride: u32, pad_top: i32, pad_left: i32, out_h: u32, out_w: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

var<workgroup> inputs: array<f32, TILE * TILE>;    // (pixel, c)
var<workgroup> weights: array<f32, TILE * TILE>;   // (c, channel)

@compute @workgroup_size(TILE, TILE)
fn conv_2_shared(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_id) lane: vec3<u32>,
) {
    let pixels = p.batch * p.out_h * p.out_w;
    let tiles = (p.n + TILE - 1u) / TILE;   // of channels
    let number = workgroup_number(wg, grid);
    let m = number / tiles * TILE + lane.y;   // the pixel of y: row m of the product that a convolution is
    let n = number % tiles * TILE + lane.x;
    let i = m / p.out_w / p.out_h;

    let rows = p.window_h * p.window_w * p.c;   // of w
    var sum = 0.0;
    for (var r = 0u; r < p.window_h; r++) {
        for (var s = 0u; s < p.window_w; s++) {
            // what lies above or left of x has wrapped round to a large number
            let row = u32(i32(m / p.out_w % p.out_h * p.stride + r) - p.pad_top);
            let column = u32(i32(m % p.out_w * p.stride + s) - p.pad_left);
            let inside = m < pixels && row < p.h && column < p.w;
            let pixel = (i * p.h + row) * p.w + column;
            let tap = (r * p.window_w + s) * p.c;
            for (var c0 = 0u; c0 < p.c; c0 += TILE) {
                // each invocation brings one value of x and one of w, zero beyond the edges
                var input = 0.0;
                var weight = 0.0;
                if inside && c0 + lane.x < p.c { input = x[pixel * p.c + c0 + lane.x]; }
                if n < p.n && c0 + lane.y < p.c { weight = w[panel_index(tap + c0 + lane.y, n, rows, p.n)]; }
                inputs[lane.y * TILE + lane.x] = input;
                weights[lane.y * TILE + lane.x] = weight;
                workgroupBarrier();   // all have brought theirs
                for (var c = 0u; c < TILE; c++) {
                    sum += inputs[lane.y * TILE + c] * weights[c * TILE + lane.x];
                }
                workgroupBarrier();   // all have read, before the next values come
            }
        }
    }
    if m < pixels && n < p.n { y[m * p.n + n] = sum; }
}
