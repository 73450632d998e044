// attention_4_shared: y[i] = sum_j w_ij v[j] / sum_j w_ij,    w_ij = exp(s_ij - m_i),    s_ij = scale q[i] . k[j]
//
//   q, y  (images, QUERIES, HEADS DIM)   f32   value d of head h is column h DIM + d
//   k, v  (images, KEYS, HEADS DIM)      f32
//
// in each image and head, over all keys j; m_i is the greatest score so far, and what was summed is
// rescaled when it grows. A workgroup brings BLOCK keys and values to workgroup memory at a time, for all
// of its queries.
//
// Grid    one workgroup per (image, head, block of WG queries)
// Cost    (4 DIM + 5) images HEADS QUERIES KEYS flop; reads q, k, v once at least, writes y once
// Source  Dao et al. 2022, arXiv:2205.14135; Milakov & Gimelshein 2018, arXiv:1805.02867
// Twin    crates/ratel-kernels/src/attention.rs

import package::spec::{DIM};
import package::lib::grid::workgroup_number;

const WG = 64u;
const BLOCK = 16u;   // keys and values in workgroup memory at a time
const LOWEST = -3.4e38;

struct Params { batch: u32, heads: u32, dim: u32, queries: u32, keys: u32, scale: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

var<workgroup> keys: array<f32, BLOCK * DIM>;
var<workgroup> values: array<f32, BLOCK * DIM>;

@compute @workgroup_size(WG)
fn attention_4_shared(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let blocks = (p.queries + WG - 1u) / WG;
    let number = workgroup_number(wg, grid);   // of (image, head, block of WG queries)
    let i = number % blocks * WG + lane;
    let h = number / blocks % p.heads;
    let image = number / blocks / p.heads;
    if image >= p.batch { return; }

    let row = p.heads * p.dim;
    let query_at = (image * p.queries + min(i, p.queries - 1u)) * row + h * p.dim;   // where the query begins
    let key_at = image * p.keys * row + h * p.dim;                                   // where key 0 and value 0 begin

    var query: array<f32, DIM>;
    var result: array<f32, DIM>;
    // unroll
    for (var d = 0u; d < DIM; d++) {
        query[d] = p.scale * q[query_at + d];
        result[d] = 0.0;
    }
    var greatest = LOWEST;
    var sum = 0.0;
    for (var first = 0u; first < p.keys; first += BLOCK) {
        let count = min(BLOCK, p.keys - first);
        workgroupBarrier();   // all have read the last block
        for (var at = lane; at < count * DIM; at += WG) {
            keys[at] = k[key_at + (first + at / DIM) * row + at % DIM];
            values[at] = v[key_at + (first + at / DIM) * row + at % DIM];
        }
        workgroupBarrier();   // this block is there
        for (var j = 0u; j < count; j++) {
            var s = 0.0;
            // unroll
            for (var d = 0u; d < DIM; d++) {
                s = fma(query[d], keys[j * DIM + d], s);
            }
            let before = greatest;
            greatest = max(greatest, s);
            let factor = exp(before - greatest);   // 1, unless a greater score came
            let weight = exp(s - greatest);
            sum = sum * factor + weight;
            // unroll
            for (var d = 0u; d < DIM; d++) {
                result[d] = fma(weight, values[j * DIM + d], result[d] * factor);
            }
        }
    }
    if i >= p.queries { return; }
    // unroll
    for (var d = 0u; d < DIM; d++) {
        y[query_at + d] = result[d] / sum;
    }
}
