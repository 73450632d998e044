// matmul_1_naive: y[m, n] = sum_k x[m, k] w[k, n]
//
//   x  (M, K)   f32
//   w  (K, N)   f32   in panels
//   y  (M, N)   f32
//
// Grid    one invocation per value of y, WG consecutive values a workgroup
// Cost    2 M N K flop; reads x and w once at least (here: x N times, w M times), writes y once
// Source  the definition
// Twin    crates/ratel-kernels/src/matmul.rs

import package::lib::grid::workgroup_number;
import package::lib::panels::panel_index;

const WG = 64u;

struct Params { m: u32, n: u32, k: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn matmul_1_naive(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_number(wg, grid) * WG + lane;
    if i >= p.m * p.n { return; }
    let m = i / p.n;
    let n = i % p.n;

    var sum = 0.0;
    for (var k = 0u; k < p.k; k++) {
        sum += x[m * p.k + k] * w[panel_index(k, n, p.k, p.n)];
    }
    y[m * p.n + n] = sum;
}
