// attention_5_subgroup: y[i] = sum_j w_ij v[j] / sum_j w_ij,    w_ij = exp(s_ij - m_i),    s_ij = scale q[i] . k[j]
//
//   q, y  (images, QUERIES, HEADS DIM)   f32   value d of head h is column h DIM + d
//   k, v  (images, KEYS, HEADS DIM)      f32
//
// in each image and head, over all keys j; m_i is the greatest score so far, and what was summed is
// rescaled when it grows. A subgroup loads a value of a key once for all of its queries, without workgroup memory.
//
// Grid    one workgroup of one subgroup per (image, head, block of LANES queries)
// Cost    (4 DIM + 5) images HEADS QUERIES KEYS flop; reads q, k, v once at least, writes y once
// Source  Milakov & Gimelshein 2018, arXiv:1805.02867
// Twin    crates/ratel-kernels/src/attention.rs

import package::spec::{CHUNKS, LANES, WIDTH};
import package::lib::grid::workgroup_number;

const LOWEST = -3.4e38;

struct Params { batch: u32, heads: u32, dim: u32, queries: u32, keys: u32, scale: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(LANES)
fn attention_5_subgroup(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let blocks = (p.queries + LANES - 1u) / LANES;
    let number = workgroup_number(wg, grid);   // of (image, head, block of LANES queries)
    let i = number % blocks * LANES + lane;
    let h = number / blocks % p.heads;
    let image = number / blocks / p.heads;
    if image >= p.batch { return; }

    let row = p.heads * p.dim;
    let query_at = (image * p.queries + min(i, p.queries - 1u)) * row + h * p.dim;   // where the query begins
    let key_at = image * p.keys * row + h * p.dim;                                   // where key 0 and value 0 begin

    // Value d = r LANES + t of the query is query[d]. Beyond the head's last value there are zeros in queries, that
    // last value again in keys and values, and results that are dropped.
    var query: array<f32, WIDTH>;
    var result: array<f32, WIDTH>;
    // unroll
    for (var d = 0u; d < WIDTH; d++) {
        query[d] = select(0.0, p.scale * q[query_at + min(d, p.dim - 1u)], d < p.dim);
        result[d] = 0.0;
    }
    var greatest = LOWEST;
    var sum = 0.0;
    for (var j = 0u; j < p.keys; j++) {
        var s = 0.0;
        // unroll
        for (var r = 0u; r < CHUNKS; r++) {
            // the lanes load LANES neighbouring values of the key at once, then hand each to all
            let loaded = k[key_at + j * row + min(r * LANES + lane, p.dim - 1u)];
            // unroll
            for (var t = 0u; t < LANES; t++) {
                s = fma(query[r * LANES + t], subgroupBroadcast(loaded, t), s);
            }
        }
        let before = greatest;
        greatest = max(greatest, s);
        let factor = exp(before - greatest);   // 1, unless a greater score came
        let weight = exp(s - greatest);
        sum = sum * factor + weight;
        // unroll
        for (var r = 0u; r < CHUNKS; r++) {
            let loaded = v[key_at + j * row + min(r * LANES + lane, p.dim - 1u)];
            // unroll
            for (var t = 0u; t < LANES; t++) {
                result[r * LANES + t] = fma(weight, subgroupBroadcast(loaded, t), result[r * LANES + t] * factor);
            }
        }
    }
    if i >= p.queries { return; }
    // unroll
    for (var d = 0u; d < WIDTH; d++) {
        if d < p.dim { y[query_at + d] = result[d] / sum; }
    }
}
