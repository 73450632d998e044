// combine: y[i] = clamp( sum_j c_j x_j[i] ), over the first TERMS of c0 x0 ... c5 x5
//
//   x0, x1, x2, x3, x4, x5  (COUNT)  f32   those from TERMS on are not read
//   y                       (COUNT)  f32   within -limit .. limit when CLAMP
//
// The host works out a sampler's coefficients; its steps are then a few of these.
//
// Grid    one invocation per value
// Cost    2 TERMS COUNT flop; reads TERMS inputs once, writes y once: bound by memory
// Source  the samplers of crates/ratel-diffusion/src/sampling
// Twin    crates/ratel-kernels/src/combine.rs

import package::lib::grid::workgroup_number;

override WG: u32 = 64u;
override TERMS: u32 = 1u;
override CLAMP: bool = false;

struct Params { count: u32, c0: f32, c1: f32, c2: f32, c3: f32, c4: f32, c5: f32, limit: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x0: array<f32>;
@group(0) @binding(1) var<storage, read> x1: array<f32>;
@group(0) @binding(2) var<storage, read> x2: array<f32>;
@group(0) @binding(3) var<storage, read> x3: array<f32>;
@group(0) @binding(4) var<storage, read> x4: array<f32>;
@group(0) @binding(5) var<storage, read> x5: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn combine(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_number(wg, grid) * WG + lane;
    if i >= p.count { return; }
    var sum = p.c0 * x0[i];
    if TERMS > 1u { sum += p.c1 * x1[i]; }
    if TERMS > 2u { sum += p.c2 * x2[i]; }
    if TERMS > 3u { sum += p.c3 * x3[i]; }
    if TERMS > 4u { sum += p.c4 * x4[i]; }
    if TERMS > 5u { sum += p.c5 * x5[i]; }
    if CLAMP { sum = clamp(sum, -p.limit, p.limit); }
    y[i] = sum;
}
