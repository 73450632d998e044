// attention_3_registers: y[i] = sum_j w_ij v[j] / sum_j w_ij,    w_ij = exp(s_ij - m_i),    s_ij = scale q[i] . k[j]
//
//   q, y  (images, QUERIES, HEADS DIM)   f32   value d of head h is column h DIM + d
//   k, v  (images, KEYS, HEADS DIM)      f32
//
// in each image and head, over all keys j; m_i is the greatest score so far, and what was summed is
// rescaled when it grows. The loops over d are written out, so that the query and its result stay in registers.
//
// Grid    one invocation per (image, head, query), WG of them a workgroup
// Cost    (4 DIM + 5) images HEADS QUERIES KEYS flop; reads q, k, v once at least, writes y once
// Source  Milakov & Gimelshein 2018, arXiv:1805.02867
// Twin    crates/ratel-kernels/src/attention.rs

import package::spec::{DIM};
import package::lib::grid::workgroup_number;

const WG = 64u;
const LOWEST = -3.4e38;

struct Params { batch: u32, heads: u32, dim: u32, queries: u32, keys: u32, scale: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn attention_3_registers(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(wg, grid) * WG + lane;   // of (image, head, query)
    let i = number % p.queries;
    let h = number / p.queries % p.heads;
    let image = number / p.queries / p.heads;
    if image >= p.batch { return; }

    let row = p.heads * p.dim;
    let query_at = (image * p.queries + i) * row + h * p.dim;   // where the query begins
    let key_at = image * p.keys * row + h * p.dim;              // where key 0 and value 0 begin

    var query: array<f32, DIM>;
    var result: array<f32, DIM>;
    // unroll
    for (var d = 0u; d < DIM; d++) {
        query[d] = p.scale * q[query_at + d];
        result[d] = 0.0;
    }
    var greatest = LOWEST;
    var sum = 0.0;
    for (var j = 0u; j < p.keys; j++) {
        var s = 0.0;
        // unroll
        for (var d = 0u; d < DIM; d++) {
            s = fma(query[d], k[key_at + j * row + d], s);
        }
        let before = greatest;
        greatest = max(greatest, s);
        let factor = exp(before - greatest);   // 1, unless a greater score came
        let weight = exp(s - greatest);
        sum = sum * factor + weight;
        // unroll
        for (var d = 0u; d < DIM; d++) {
            result[d] = fma(weight, v[key_at + j * row + d], result[d] * factor);
        }
    }
    // unroll
    for (var d = 0u; d < DIM; d++) {
        y[query_at + d] = result[d] / sum;
    }
}
