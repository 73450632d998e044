// attention: y[i] = sum_j w_ij v[j] / sum_j w_ij    with    w_ij = exp(s_ij - max_j s_ij),    s_ij = scale q[i] . k[j]
//
//   q, y  (images, QUERIES, HEADS DIM)   Elem   value d of head h is column h DIM + d
//   k, v  (images, KEYS, HEADS DIM)      Elem
//
// in each image and head, over all keys j, or over j <= i when causal. The greatest score is found first, so that
// nothing has to be rescaled; then WG keys at a time the lanes compute a weight each, and from all weights DIMS values
// of y each.
//
// Grid    one workgroup per (image, query, head); lanes are keys, then values of the head
// Cost    (4 DIM + 5) images HEADS QUERIES KEYS flop; reads q, k, v once, writes y once
// Source  Vaswani et al. 2017, arXiv:1706.03762; torch.nn.functional.scaled_dot_product_attention
// Twin    crates/ratel-kernels/src/attention.rs

import package::spec::{Elem, DIMS};
import package::lib::grid::workgroup_number;
import package::lib::workgroup_max::workgroup_max;
import package::lib::workgroup_sum::workgroup_sum;

override WG: u32 = 64u;

const LOWEST = -3.4e38;

struct Params { batch: u32, heads: u32, dim: u32, queries: u32, keys: u32, causal: u32, scale: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> q: array<Elem>;
@group(0) @binding(1) var<storage, read> k: array<Elem>;
@group(0) @binding(2) var<storage, read> v: array<Elem>;
@group(0) @binding(3) var<storage, read_write> y: array<Elem>;

var<workgroup> weights: array<f32, WG>;

fn score(query: u32, key: u32) -> f32 {
    var sum = 0.0;
    for (var d = 0u; d < p.dim; d++) { sum += f32(q[query + d]) * f32(k[key + d]); }
    return sum * p.scale;
}

@compute @workgroup_size(WG)
fn attention(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(wg, grid);   // of (image, query, head)
    let h = number % p.heads;
    let i = number / p.heads % p.queries;
    let image = number / p.heads / p.queries;
    if image >= p.batch { return; }

    let row = p.heads * p.dim;
    let query = number * p.dim;                           // its first value
    let first_key = image * p.keys * row + h * p.dim;     // the first value of key and value 0
    let keys = select(p.keys, min(i + 1u, p.keys), p.causal == 1u);

    var greatest = LOWEST;
    for (var j = lane; j < keys; j += WG) { greatest = max(greatest, score(query, first_key + j * row)); }
    greatest = workgroup_max(greatest, lane);

    var sum = 0.0;
    var sums: array<f32, DIMS>;
    for (var r = 0u; r < DIMS; r++) { sums[r] = 0.0; }
    for (var first = 0u; first < keys; first += WG) {
        var weight = 0.0;
        if first + lane < keys { weight = exp(score(query, first_key + (first + lane) * row) - greatest); }
        sum += weight;
        weights[lane] = weight;
        workgroupBarrier();
        let count = min(WG, keys - first);
        for (var r = 0u; r < DIMS; r++) {
            let d = lane + r * WG;
            if d >= p.dim { break; }
            for (var j = 0u; j < count; j++) { sums[r] += weights[j] * f32(v[first_key + (first + j) * row + d]); }
        }
        workgroupBarrier();
    }
    let share = 1.0 / workgroup_sum(sum, lane);
    for (var r = 0u; r < DIMS; r++) {
        let d = lane + r * WG;
        if d < p.dim { y[query + d] = Elem(sums[r] * share); }
    }
}
