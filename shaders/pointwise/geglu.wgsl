// geglu: y[r, c] = x[r, c] gelu(x[r, N + c]),    gelu(g) = g (1 + erf(g / sqrt 2)) / 2
//
//   x  (ROWS, 2 N)   Elem   the values, then their gates
//   y  (ROWS, N)     Elem
//
// Grid    one invocation per value of y
// Cost    9 ROWS N flop; reads x once, writes y once: bound by memory
// Source  Shazeer 2020, arXiv:2002.05202; diffusers' GEGLU
// Twin    crates/ratel-kernels/src/geglu.rs

import package::spec::{Elem};
import package::lib::act::gelu;
import package::lib::grid::workgroup_number;

override WG: u32 = 64u;

struct Params { rows: u32, n: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem>;
@group(0) @binding(1) var<storage, read_write> y: array<Elem>;

@compute @workgroup_size(WG)
fn geglu(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_number(wg, grid) * WG + lane;
    if i >= p.rows * p.n { return; }
    let value = i / p.n * 2u * p.n + i % p.n;
    y[i] = Elem(f32(x[value]) * gelu(f32(x[value + p.n])));
}
