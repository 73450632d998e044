// matmul_2_shared: y[m, n] = sum_k x[m, k] w[k, n], a tile of y by one workgroup, which shares what it loads
//
//   x  (M, K)   f32
//   w  (K, N)   f32   in panels
//   y  (M, N)   f32
//
// Grid    one workgroup of TILE by TILE invocations per TILE rows and TILE columns of y, one value an invocation
// Cost    2 M N K flop; reads x and w once at least (here: x N / TILE times, w M / TILE times), writes y once
// Source  tiles as in NVIDIA's CUDA C++ Programming Guide, "Shared Memory"
// Twin    crates/ratel-kernels/src/matmul.rs

import package::lib::grid::workgroup_number;
import package::lib::panels::panel_index;

const TILE = 16u;

struct Params { m: u32, n: u32, k: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

var<workgroup> inputs: array<f32, TILE * TILE>;    // (row, k)
var<workgroup> weights: array<f32, TILE * TILE>;   // (k, column)

@compute @workgroup_size(TILE, TILE)
fn matmul_2_shared(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_id) lane: vec3<u32>,
) {
    let tiles = (p.n + TILE - 1u) / TILE;   // from left to right
    let number = workgroup_number(wg, grid);
    let m = number / tiles * TILE + lane.y;
    let n = number % tiles * TILE + lane.x;

    var sum = 0.0;
    for (var k0 = 0u; k0 < p.k; k0 += TILE) {
        // each invocation brings one value of x and one of w, zero beyond the edges
        var input = 0.0;
        var weight = 0.0;
        if m < p.m && k0 + lane.x < p.k { input = x[m * p.k + k0 + lane.x]; }
        if n < p.n && k0 + lane.y < p.k { weight = w[panel_index(k0 + lane.y, n, p.k, p.n)]; }
        inputs[lane.y * TILE + lane.x] = input;
        weights[lane.y * TILE + lane.x] = weight;
        workgroupBarrier();   // all have brought theirs
        for (var k = 0u; k < TILE; k++) {
            sum += inputs[lane.y * TILE + k] * weights[k * TILE + lane.x];
        }
        workgroupBarrier();   // all have read, before the next values come
    }
    if m < p.m && n < p.n { y[m * p.n + n] = sum; }
}
