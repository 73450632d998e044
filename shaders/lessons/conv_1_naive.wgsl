// conv_1_naive: y[i, v, u, n] = sum_{r, s, c} x[i, v stride + r - pad_top, u stride + s - pad_left, c]
//     w[r, s, c, n]
//
//   x  (images, H, W, C)              f32   zero outside its bounds
//   w  (WINDOW_H, WINDOW_W, C, N)     f32   in panels: PyTorch's Conv2d.weight, turned
//   y  (images, OUT_H, OUT_W, N)      f32
//
// Grid    one invocation per value of y, WG consecutive values a workgroup
// Cost    2 images OUT_H OUT_W N WINDOW_H WINDOW_W C flop; reads x and w once at least, writes y once
// Source  torch.nn.functional.conv2d
// Twin    crates/ratel-kernels/src/conv2d.rs

import package::lib::grid::workgroup_number;
import package::lib::panels::panel_index;

const WG = 64u;

struct Params {
    batch: u32, h: u32, w: u32, c: u32, n: u32,
    window_h: u32, window_w: u32, stride: u32, pad_top: i32, pad_left: i32, out_h: u32, out_w: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn conv_1_naive(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let value = workgroup_number(wg, grid) * WG + lane;
    let n = value % p.n;
    let u = value / p.n % p.out_w;
    let v = value / p.n / p.out_w % p.out_h;
    let i = value / p.n / p.out_w / p.out_h;
    if i >= p.batch { return; }

    let rows = p.window_h * p.window_w * p.c;   // of w
    var sum = 0.0;
    for (var r = 0u; r < p.window_h; r++) {
        for (var s = 0u; s < p.window_w; s++) {
            // what lies above or left of x has wrapped round to a large number
            let row = u32(i32(v * p.stride + r) - p.pad_top);
            let column = u32(i32(u * p.stride + s) - p.pad_left);
            if row >= p.h || column >= p.w { continue; }
            let pixel = (i * p.h + row) * p.w + column;
            let tap = (r * p.window_w + s) * p.c;
            for (var c = 0u; c < p.c; c++) {
                sum += x[pixel * p.c + c] * w[panel_index(tap + c, n, rows, p.n)];
            }
        }
    }
    y[value] = sum;
}
