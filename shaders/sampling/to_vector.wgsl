// to_vector: y[i] = x[i]
//
//   x  (COUNT)   Elem
//   y  (COUNT)   f32
//
// Grid    one invocation per value
// Cost    0 flop; reads x once, writes y once: bound by memory
// Source  torch.Tensor.float
// Twin    crates/ratel-kernels/src/to_vector.rs

import package::spec::{Elem};
import package::lib::grid::workgroup_number;

override WG: u32 = 64u;

struct Params { count: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn to_vector(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_number(wg, grid) * WG + lane;
    if i >= p.count { return; }
    y[i] = f32(x[i]);
}
