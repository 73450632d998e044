// roof_matrix: y[s, c] = ROUNDS x[0] x[1 + c] for each subgroup s, matrices of EDGE by EDGE, summed up ROUNDS times over to
// learn how fast a device multiplies cooperative matrices in registers
//
//   x  (CHAINS + 1, EDGE, EDGE)     Elem
//   y  (COUNT, CHAINS, EDGE, EDGE)  f32
//
// Nothing is loaded meanwhile, and the chains don't wait for each other.
//
// Grid    one workgroup per SUBGROUPS subgroups; ROUNDS a multiple of 8
// Cost    2 CHAINS ROUNDS COUNT EDGE EDGE EDGE flop; reads x once, writes y once: bound by arithmetic
// Source  VK_KHR_cooperative_matrix
// Twin    crates/ratel-kernels/src/roof_matrix.rs

import package::spec::{Elem4, FragmentA, FragmentB, FragmentSum, CHAINS, EDGE, SUBGROUPS, WG};
import package::lib::grid::workgroup_number;

enable wgpu_cooperative_matrix;

const EDGE_QUADS = EDGE / 4u;
const FRAGMENT_QUADS = EDGE * EDGE_QUADS;

struct Params { count: u32, rounds: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem4>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

var<workgroup> factors: array<Elem4, (CHAINS + 1u) * FRAGMENT_QUADS>;
var<workgroup> sums: array<vec4<f32>, SUBGROUPS * FRAGMENT_QUADS>;   // (subgroup, row, quad of columns)

@compute @workgroup_size(WG)
fn roof_matrix(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    for (var i = lane; i < (CHAINS + 1u) * FRAGMENT_QUADS; i += WG) {
        factors[i] = x[i];
    }
    workgroupBarrier();
    let left = coopLoadT<FragmentA>(&factors[0], EDGE_QUADS);
    var right: array<FragmentB, CHAINS>;
    var tile: array<FragmentSum, CHAINS>;
    // unroll
    for (var c = 0u; c < CHAINS; c++) {
        right[c] = coopLoadT<FragmentB>(&factors[(c + 1u) * FRAGMENT_QUADS], EDGE_QUADS);
    }
    for (var round = 0u; round < p.rounds; round += 8u) {
        // unroll
        for (var step = 0u; step < 8u; step++) {
            // unroll
            for (var c = 0u; c < CHAINS; c++) {
                tile[c] = coopMultiplyAdd(left, right[c], tile[c]);
            }
        }
    }
    // unroll
    for (var c = 0u; c < CHAINS; c++) {
        coopStoreT(tile[c], &sums[subgroup * FRAGMENT_QUADS], EDGE_QUADS);
        workgroupBarrier();
        store(workgroup_number(wg, grid) * SUBGROUPS, c, lane);
        workgroupBarrier();
    }
}

// Writes chain c of each subgroup from number `first` on.
fn store(first: u32, c: u32, lane: u32) {
    for (var i = lane; i < SUBGROUPS * FRAGMENT_QUADS; i += WG) {
        let number = first + i / FRAGMENT_QUADS;
        if number < p.count {
            y[(number * CHAINS + c) * FRAGMENT_QUADS + i % FRAGMENT_QUADS] = sums[i];
        }
    }
}
