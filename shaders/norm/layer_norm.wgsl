// layer_norm: y[r, c] = gamma[c] (x[r, c] - mean_r) / sqrt(var_r + eps) + beta[c]
//
//   x, y         (ROWS, C)   Elem
//   gamma, beta  (C)         f32
//   mean_r, var_r over the C values of row r
//
// Three passes over a row, of which the second and third find it in the cache.
//
// Grid    one workgroup per row; its WG lanes stride over the channels
// Cost    8 ROWS C flop; reads x once, writes y once: bound by memory
// Source  Ba, Kiros & Hinton 2016, arXiv:1607.06450; torch.nn.functional.layer_norm
// Twin    crates/ratel-kernels/src/layer_norm.rs

import package::spec::{Elem};
import package::lib::grid::workgroup_number;
import package::lib::workgroup_sum::workgroup_sum;

override WG: u32 = 64u;

struct Params { rows: u32, c: u32, eps: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem>;
@group(0) @binding(1) var<storage, read> gamma: array<f32>;
@group(0) @binding(2) var<storage, read> beta: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<Elem>;

@compute @workgroup_size(WG)
fn layer_norm(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let r = workgroup_number(wg, grid);
    if r >= p.rows { return; }
    let row = r * p.c;   // its first value

    var sum = 0.0;
    for (var c = lane; c < p.c; c += WG) { sum += f32(x[row + c]); }
    let mean = workgroup_sum(sum, lane) / f32(p.c);

    var square = 0.0;
    for (var c = lane; c < p.c; c += WG) {
        let d = f32(x[row + c]) - mean;
        square += d * d;
    }
    let scale = 1.0 / sqrt(workgroup_sum(square, lane) / f32(p.c) + p.eps);

    for (var c = lane; c < p.c; c += WG) {
        y[row + c] = Elem((f32(x[row + c]) - mean) * scale * gamma[c] + beta[c]);
    }
}
