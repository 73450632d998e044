// embedding: y[t, c] = table[ids[t] - first, c] for ids of first .. first + ROWS - 1
//
//   ids    (COUNT)      u32
//   table  (ROWS, C)    Weight   some rows of the whole table, or all
//   y      (COUNT, C)   Elem     rows of other ids are left alone
//
// Grid    one invocation per value of y
// Cost    0 flop; reads ids and as many rows of table once, writes y once: bound by memory
// Source  torch.nn.functional.embedding
// Twin    crates/ratel-kernels/src/embedding.rs

import package::spec::{Elem, WeightWord};
import package::lib::grid::workgroup_number;

override WG: u32 = 64u;

struct Params { count: u32, c: u32, first: u32, rows: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read> table: array<WeightWord>;
@group(0) @binding(2) var<storage, read_write> y: array<Elem>;

@compute @workgroup_size(WG)
fn embedding(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_number(wg, grid) * WG + lane;
    if i >= p.count * p.c { return; }
    let row = ids[i / p.c] - p.first;   // wraps to more than any table has for ids below first
    if row >= p.rows { return; }
    let at = row * p.c + i % p.c;
    y[i] = Elem(weight(table[at / WEIGHTS_PER_WORD], at));
}
