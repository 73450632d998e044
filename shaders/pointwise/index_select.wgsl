// index_select: y[i, c] = x[index[i], c]
//
//   x      (ROWS, C)    Elem
//   index  (COUNT)      u32    rows of x, from 0
//   y      (COUNT, C)   Elem
//
// Grid    one invocation per value of y
// Cost    0 flop; reads index and as many rows of x once, writes y once: bound by memory
// Source  torch.index_select
// Twin    crates/ratel-kernels/src/index_select.rs

import package::spec::{Elem};
import package::lib::grid::workgroup_number;

override WG: u32 = 64u;

struct Params { count: u32, c: u32, rows: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem>;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<Elem>;

@compute @workgroup_size(WG)
fn index_select(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_number(wg, grid) * WG + lane;
    if i >= p.count * p.c { return; }
    let row = min(index[i / p.c], p.rows - 1u);
    y[i] = x[row * p.c + i % p.c];
}
