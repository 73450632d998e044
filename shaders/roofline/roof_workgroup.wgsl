// roof_workgroup: y[i] = sum_{r < ROUNDS / 8, s < 8} of the four values x[(i + 8 r) mod 512 + s], read of workgroup memory to
// learn how fast that is
//
//   x  (SIZE)    f32   SIZE = 4 (512 + 8)
//   y  (COUNT)   f32
//
// Neighbouring lanes read neighbouring places, 16 bytes each, so no two of a subgroup meet in a bank.
//
// Grid    one invocation per value of y; ROUNDS a multiple of 8
// Cost    4 ROUNDS COUNT flop; 16 ROUNDS COUNT bytes of workgroup memory
// Source  Jia et al. 2018, arXiv:1804.06826, on measuring shared memory
// Twin    crates/ratel-kernels/src/roof_workgroup.rs

import package::lib::grid::workgroup_number;

override WG: u32 = 256u;

const PERIOD = 512u;
const STEPS = 8u;

struct Params { count: u32, rounds: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

var<workgroup> tile: array<vec4<f32>, PERIOD + STEPS>;

@compute @workgroup_size(WG)
fn roof_workgroup(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var at = lane; at < PERIOD + STEPS; at += WG) {
        tile[at] = x[at];
    }
    workgroupBarrier();
    let i = workgroup_number(wg, grid) * WG + lane;
    if i >= p.count { return; }
    var sum = vec4<f32>();
    for (var round = 0u; round < p.rounds; round += 8u) {
        let at = (i + round) % PERIOD;
        // unroll
        for (var step = 0u; step < 8u; step++) {
            sum += tile[at + step];
        }
    }
    y[i] = sum.x + sum.y + sum.z + sum.w;
}
