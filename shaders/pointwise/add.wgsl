// add: y[i] = a[i] + b[i / span * period + i % period]: b is repeated as its shape asks
//
//   a, y  (count)                   Elem
//   b     (count / span * period)   Elem
//
// A bias on the channels repeats with period C and never moves on (span = count); a time embedding moves on to its
// next row of C values after each image (span = H W C); a residual repeats nothing (period = span = count).
//
// Grid    one invocation per value
// Cost    count flop; reads a and b once, writes y once: bound by memory
// Source  torch.add
// Twin    crates/ratel-kernels/src/add.rs

import package::spec::{Elem};
import package::lib::grid::workgroup_number;

override WG: u32 = 64u;

struct Params { count: u32, span: u32, period: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> a: array<Elem>;
@group(0) @binding(1) var<storage, read> b: array<Elem>;
@group(0) @binding(2) var<storage, read_write> y: array<Elem>;

@compute @workgroup_size(WG)
fn add(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_number(wg, grid) * WG + lane;
    if i >= p.count { return; }
    y[i] = Elem(f32(a[i]) + f32(b[i / p.span * p.period + i % p.period]));
}
