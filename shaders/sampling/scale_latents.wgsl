// scale_latents: y[i] = scale x[i % COUNT] + shift
//
//   x  (COUNT)           f32
//   y  (COPIES, COUNT)   Elem
//
// Grid    one invocation per value of y
// Cost    2 COPIES COUNT flop; reads x once, writes y once: bound by memory
// Source  diffusers' scale_model_input; the scaling and shift factors of AutoencoderKL
// Twin    crates/ratel-kernels/src/scale_latents.rs

import package::spec::{Elem};
import package::lib::grid::workgroup_number;

override WG: u32 = 64u;

struct Params { count: u32, copies: u32, scale: f32, shift: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<Elem>;

@compute @workgroup_size(WG)
fn scale_latents(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_number(wg, grid) * WG + lane;
    if i >= p.copies * p.count { return; }
    y[i] = Elem(p.scale * x[i % p.count] + p.shift);
}
