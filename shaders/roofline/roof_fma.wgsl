// roof_fma: y[i] = sum_c z[c] with z[c] = c / 4, then ROUNDS times z[c] = z[c] x[i] / 2 + x[i], c < 4 CHAINS: to learn how
// fast a device multiplies and adds
//
//   x, y  (COUNT)   Elem   -1 to 1, so that no z grows beyond 2 once it has begun
//
// Nothing is loaded meanwhile, and the chains don't wait for each other: there are enough of them to cover the latency of
// one operation, and few enough to stay in registers.
//
// Grid    one invocation per value; ROUNDS a multiple of 8
// Cost    8 CHAINS ROUNDS COUNT flop; reads x once, writes y once: bound by arithmetic
// Source  Konstantinidis & Cotronis 2017, doi:10.1016/j.jpdc.2017.04.002 (mixbench)
// Twin    crates/ratel-kernels/src/roof_fma.rs

import package::spec::{Elem, Elem4, CHAINS};
import package::lib::grid::workgroup_number;

override WG: u32 = 256u;

struct Params { count: u32, rounds: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem>;
@group(0) @binding(1) var<storage, read_write> y: array<Elem>;

@compute @workgroup_size(WG)
fn roof_fma(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_number(wg, grid) * WG + lane;
    if i >= p.count { return; }
    let term = Elem4(x[i]);
    let factor = term * Elem(0.5);
    var z: array<Elem4, CHAINS>;
    // unroll
    for (var c = 0u; c < CHAINS; c++) {
        z[c] = Elem4(Elem(c)) + Elem4(0.0, 0.25, 0.5, 0.75);
    }
    for (var round = 0u; round < p.rounds; round += 8u) {
        // unroll
        for (var step = 0u; step < 8u; step++) {
            // unroll
            for (var c = 0u; c < CHAINS; c++) {
                z[c] = fma(z[c], factor, term);
            }
        }
    }
    var sum = Elem4();
    // unroll
    for (var c = 0u; c < CHAINS; c++) {
        sum += z[c];
    }
    y[i] = sum.x + sum.y + sum.z + sum.w;
}
