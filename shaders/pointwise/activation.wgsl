// activation: y[i] = act(x[i]), one of SiLU, GELU, quick GELU
//
//   x, y  (count)  Elem
//
// Grid    one invocation per value
// Cost    8 count flop; reads x once, writes y once: bound by memory
// Source  torch.nn.functional.silu; .gelu (Hendrycks & Gimpel 2016, arXiv:1606.08415); transformers' QuickGELUActivation
// Twin    crates/ratel-kernels/src/activation.rs

import package::spec::{Elem};
import package::lib::act::act;
import package::lib::grid::workgroup_number;

override WG: u32 = 64u;
override ACT: u32 = 0u;

struct Params { count: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem>;
@group(0) @binding(1) var<storage, read_write> y: array<Elem>;

@compute @workgroup_size(WG)
fn activation(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_number(wg, grid) * WG + lane;
    if i >= p.count { return; }
    y[i] = Elem(act(ACT, f32(x[i])));
}
