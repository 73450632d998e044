// upsample: y[i, v, u, c] = x[i, v H / OUT_H, u W / OUT_W, c], quotients rounded down
//
//   x  (images, H, W, C)           Elem
//   y  (images, OUT_H, OUT_W, C)   Elem
//
// Grid    one invocation per value of y
// Cost    0 flop; reads x once, writes y once: bound by memory
// Source  torch.nn.functional.interpolate(mode="nearest")
// Twin    crates/ratel-kernels/src/upsample.rs

import package::spec::{Elem};
import package::lib::grid::workgroup_number;

override WG: u32 = 64u;

struct Params { batch: u32, h: u32, w: u32, c: u32, out_h: u32, out_w: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem>;
@group(0) @binding(1) var<storage, read_write> y: array<Elem>;

@compute @workgroup_size(WG)
fn upsample(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(wg, grid) * WG + lane;
    let c = number % p.c;
    let u = number / p.c % p.out_w;
    let v = number / p.c / p.out_w % p.out_h;
    let i = number / p.c / p.out_w / p.out_h;
    if i >= p.batch { return; }
    y[number] = x[((i * p.h + v * p.h / p.out_h) * p.w + u * p.w / p.out_w) * p.c + c];
}
