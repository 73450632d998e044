// roof_copy: y[i] = x[i], to learn how fast memory is read and written
//
//   x, y  (COUNT)   f32
//
// Grid    one invocation per four values; COUNT a multiple of 4
// Cost    0 flop; reads x once, writes y once: bound by memory once both are far larger than any cache
// Source  McCalpin 1995, Memory Bandwidth and Machine Balance: STREAM's Copy
// Twin    crates/ratel-kernels/src/roof_copy.rs

import package::lib::grid::workgroup_number;

override WG: u32 = 256u;

struct Params { count: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn roof_copy(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_number(wg, grid) * WG + lane;
    if i >= p.count / 4u { return; }
    y[i] = x[i];
}
