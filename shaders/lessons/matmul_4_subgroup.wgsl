// matmul_4_subgroup: y[m, n] = sum_k x[m, k] w[k, n], a tile of y by one subgroup, without workgroup memory
//
//   x  (M, K)   f32
//   w  (K, N)   f32   in panels
//   y  (M, N)   f32
//
// Grid    one workgroup of one subgroup per LANES rows and OWN LANES columns of y
// Cost    2 M N K flop; reads x and w once at least (here: x N / (OWN LANES) times, w M / LANES times), writes y once
// Source  register tiles as in Goto & van de Geijn 2008, doi:10.1145/1356052.1356053
// Twin    crates/ratel-kernels/src/matmul.rs

import package::spec::{LANES, OWN};
import package::lib::grid::workgroup_number;
import package::lib::panels::panel_index;

struct Params { m: u32, n: u32, k: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(LANES)
fn matmul_4_subgroup(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tiles = (p.n + OWN * LANES - 1u) / (OWN * LANES);   // from left to right
    let number = workgroup_number(wg, grid);
    let m = number / tiles * LANES;                         // the tile's first row
    let n = number % tiles * OWN * LANES + lane;            // the lane's first column; the others are LANES apart
    if m >= p.m { return; }

    // beyond the edges the last row and column are computed again, and not stored
    let row = min(m + lane, p.m - 1u);
    var sums: array<f32, LANES * OWN>;                      // all of the tile's rows in OWN columns
    for (var k = 0u; k < p.k; k++) {
        let input = x[row * p.k + k];                       // of the lane's own row
        var weights: array<f32, OWN>;
        // unroll
        for (var j = 0u; j < OWN; j++) {
            weights[j] = w[panel_index(k, min(n + j * LANES, p.n - 1u), p.k, p.n)];
        }
        // each lane's input goes to all lanes in turn: 1 + OWN loads for LANES OWN multiply-adds
        // unroll
        for (var i = 0u; i < LANES; i++) {
            let shared_input = subgroupBroadcast(input, i);
            // unroll
            for (var j = 0u; j < OWN; j++) {
                sums[i * OWN + j] = fma(shared_input, weights[j], sums[i * OWN + j]);
            }
        }
    }
    // unroll
    for (var i = 0u; i < LANES; i++) {
        // unroll
        for (var j = 0u; j < OWN; j++) {
            if m + i < p.m && n + j * LANES < p.n { y[(m + i) * p.n + n + j * LANES] = sums[i * OWN + j]; }
        }
    }
}
