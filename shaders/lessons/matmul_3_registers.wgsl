// matmul_3_registers: y[m, n] = sum_k x[m, k] w[k, n], a tile of y by one workgroup, OWN by OWN values an invocation
//
//   x  (M, K)   f32
//   w  (K, N)   f32   in panels
//   y  (M, N)   f32
//
// Grid    one workgroup of SIDE by SIDE invocations per TILE rows and TILE columns of y
// Cost    2 M N K flop; reads x and w once at least (here: x N / TILE times, w M / TILE times), writes y once
// Source  Volkov & Demmel 2008, doi:10.1109/SC.2008.5214359
// Twin    crates/ratel-kernels/src/matmul.rs

import package::spec::{OWN};
import package::lib::grid::workgroup_number;
import package::lib::panels::panel_index;

const SIDE = 16u;
const TILE = OWN * SIDE;   // an invocation's OWN rows and columns are SIDE apart
const STEP = SIDE;         // k at a time

struct Params { m: u32, n: u32, k: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

var<workgroup> inputs: array<f32, TILE * STEP>;    // (row, k)
var<workgroup> weights: array<f32, STEP * TILE>;   // (k, column)

@compute @workgroup_size(SIDE, SIDE)
fn matmul_3_registers(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_id) lane: vec3<u32>,
) {
    let tiles = (p.n + TILE - 1u) / TILE;   // from left to right
    let number = workgroup_number(wg, grid);
    let m = number / tiles * TILE + lane.y;
    let n = number % tiles * TILE + lane.x;

    var sums: array<f32, OWN * OWN>;        // OWN rows of OWN columns
    for (var k0 = 0u; k0 < p.k; k0 += STEP) {
        // each invocation brings OWN values of x and of w, zero beyond the edges
        // unroll
        for (var i = 0u; i < OWN; i++) {
            var input = 0.0;
            var weight = 0.0;
            if m + i * SIDE < p.m && k0 + lane.x < p.k { input = x[(m + i * SIDE) * p.k + k0 + lane.x]; }
            if n + i * SIDE < p.n && k0 + lane.y < p.k { weight = w[panel_index(k0 + lane.y, n + i * SIDE, p.k, p.n)]; }
            inputs[(lane.y + i * SIDE) * STEP + lane.x] = input;
            weights[lane.y * TILE + lane.x + i * SIDE] = weight;
        }
        workgroupBarrier();   // all have brought theirs
        for (var k = 0u; k < STEP; k++) {
            // OWN + OWN loads for OWN OWN multiply-adds
            var row: array<f32, OWN>;
            var column: array<f32, OWN>;
            // unroll
            for (var i = 0u; i < OWN; i++) {
                row[i] = inputs[(lane.y + i * SIDE) * STEP + k];
                column[i] = weights[k * TILE + lane.x + i * SIDE];
            }
            // unroll
            for (var i = 0u; i < OWN; i++) {
                // unroll
                for (var j = 0u; j < OWN; j++) {
                    sums[i * OWN + j] += row[i] * column[j];
                }
            }
        }
        workgroupBarrier();   // all have read, before the next values come
    }
    // unroll
    for (var i = 0u; i < OWN; i++) {
        // unroll
        for (var j = 0u; j < OWN; j++) {
            if m + i * SIDE < p.m && n + j * SIDE < p.n { y[(m + i * SIDE) * p.n + n + j * SIDE] = sums[i * OWN + j]; }
        }
    }
}
