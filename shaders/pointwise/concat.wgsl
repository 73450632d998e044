// concat: y[r, c] = a[r, c] for c < C1, b[r, c - C1] beyond
//
//   a  (ROWS, C1)        Elem
//   b  (ROWS, C2)        Elem
//   y  (ROWS, C1 + C2)   Elem
//
// Grid    one invocation per value of y
// Cost    0 flop; reads a and b once, writes y once: bound by memory
// Source  torch.cat
// Twin    crates/ratel-kernels/src/concat.rs

import package::spec::{Elem};
import package::lib::grid::workgroup_number;

override WG: u32 = 64u;

struct Params { rows: u32, c1: u32, c2: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> a: array<Elem>;
@group(0) @binding(1) var<storage, read> b: array<Elem>;
@group(0) @binding(2) var<storage, read_write> y: array<Elem>;

@compute @workgroup_size(WG)
fn concat(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_number(wg, grid) * WG + lane;
    let width = p.c1 + p.c2;
    if i >= p.rows * width { return; }
    let r = i / width;
    let c = i % width;
    if c < p.c1 {
        y[i] = a[r * p.c1 + c];
    } else {
        y[i] = b[r * p.c2 + c - p.c1];
    }
}
