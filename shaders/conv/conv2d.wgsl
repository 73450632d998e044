// conv2d: y[i, v, u, n] = act( sum_{r, s, c} x[i, v stride + r - pad_top, u stride + s - pad_left, c] w[r, s, c, n]
//                              +  bias[n]  +  image_bias[i, n] )  +  residual[i, v, u, n]
//
//   x           (images, H, W, C1)          Elem     zero outside its bounds; enlarged to (UP_H, UP_W) first, row v of
//                                                    that being row v H / UP_H
//   x2          (images, H, W, C - C1)      Elem     channels from C1 on, when there are any
//   w           (WINDOW_H, WINDOW_W, C, N)  Weight   in panels: PyTorch's Conv2d.weight, turned
//   bias        (N)                         f32      when there is one
//   image_bias  (images, N)                 Elem     when there is one
//   residual    (images, OUT_H, OUT_W, N)   Elem     when there is one
//   y           (images, OUT_H, OUT_W, N)   Elem
//
// Grid    one invocation per value of y, WG consecutive values a workgroup
// Cost    2 images OUT_H OUT_W N WINDOW_H WINDOW_W C flop; reads every input once, writes y once
// Source  torch.nn.functional.conv2d; .interpolate(mode="nearest")
// Twin    crates/ratel-kernels/src/conv2d.rs

import package::spec::{Elem, WeightWord};
import package::lib::act::act;
import package::lib::grid::workgroup_number;
import package::lib::panels::panel_index;

override WG: u32 = 64u;
override ACT: u32 = 0u;
override BIAS: bool = false;
override IMAGE_BIAS: bool = false;
override RESIDUAL: bool = false;

struct Params {
    batch: u32, h: u32, w: u32, c: u32, c1: u32, n: u32,
    window_h: u32, window_w: u32, stride: u32, pad_top: i32, pad_left: i32,
    up_h: u32, up_w: u32, out_h: u32, out_w: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem>;
@group(0) @binding(1) var<storage, read> x2: array<Elem>;
@group(0) @binding(2) var<storage, read> w: array<WeightWord>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> image_bias: array<Elem>;
@group(0) @binding(5) var<storage, read> residual: array<Elem>;
@group(0) @binding(6) var<storage, read_write> y: array<Elem>;

@compute @workgroup_size(WG)
fn conv2d(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let value = workgroup_number(wg, grid) * WG + lane;   // y's value number
    let n = value % p.n;
    let u = value / p.n % p.out_w;
    let v = value / p.n / p.out_w % p.out_h;
    let i = value / p.n / p.out_w / p.out_h;
    if i >= p.batch { return; }

    let rows = p.window_h * p.window_w * p.c;
    var sum = 0.0;
    for (var r = 0u; r < p.window_h; r++) {
        for (var s = 0u; s < p.window_w; s++) {
            // what lies above or left of the input has wrapped round to a large number
            let row = u32(i32(v * p.stride + r) - p.pad_top);
            let column = u32(i32(u * p.stride + s) - p.pad_left);
            if row >= p.up_h || column >= p.up_w { continue; }
            let pixel = (i * p.h + row * p.h / p.up_h) * p.w + column * p.w / p.up_w;
            let tap = (r * p.window_w + s) * p.c;
            for (var c = 0u; c < p.c1; c++) {
                let at = panel_index(tap + c, n, rows, p.n);
                sum += f32(x[pixel * p.c1 + c]) * weight(w[at / WEIGHTS_PER_WORD], at);
            }
            for (var c = p.c1; c < p.c; c++) {
                let at = panel_index(tap + c, n, rows, p.n);
                sum += f32(x2[pixel * (p.c - p.c1) + c - p.c1]) * weight(w[at / WEIGHTS_PER_WORD], at);
            }
        }
    }
    if BIAS { sum += bias[n]; }
    if IMAGE_BIAS { sum += f32(image_bias[i * p.n + n]); }
    sum = act(ACT, sum);
    if RESIDUAL { sum += f32(residual[value]); }
    y[value] = Elem(sum);
}
