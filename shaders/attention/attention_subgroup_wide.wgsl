// attention_subgroup_wide: y[i] = sum_j w_ij v[j] / sum_j w_ij    with    w_ij = exp(s_ij - m_i),    s_ij = scale q[i] . k[j]
//
//   q, y  (images, QUERIES, HEADS DIM)   Elem   value d of head h is column h DIM + d
//   k, v  (images, KEYS, HEADS DIM)      Elem
//
// in each image and head, over all keys j, or over j <= i when causal; m_i is the greatest score so far, and what was
// summed is rescaled when it grows. For drivers that load memory lane by lane, so that loads are dear and arithmetic is
// not: a lane has OWN queries, and the subgroup loads LANES consecutive values of a key at once, then hands each of them
// to all lanes. As attention_subgroup, but for heads too wide for registers: queries are loaded anew for each block of
// BLOCK keys, and results lie in workgroup memory, where each lane has its own.
//
// Grid    one subgroup of exactly LANES lanes per (image, head, block of OWN LANES queries)
// Cost    (4 DIM + 5) images HEADS QUERIES KEYS flop; reads q, k, v once, writes y once
// Source  Milakov & Gimelshein 2018, arXiv:1805.02867; torch.nn.functional.scaled_dot_product_attention
// Twin    crates/ratel-kernels/src/attention.rs

import package::spec::{Elem, LANES, OWN, BLOCK, RESULTS};
import package::lib::grid::workgroup_number;

const LOWEST = -3.4e38;

struct Params { batch: u32, heads: u32, dim: u32, queries: u32, keys: u32, causal: u32, scale: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> q: array<Elem>;
@group(0) @binding(1) var<storage, read> k: array<Elem>;
@group(0) @binding(2) var<storage, read> v: array<Elem>;
@group(0) @binding(3) var<storage, read_write> y: array<Elem>;

// value d of the lane's query n is at ((d OWN + n) LANES + lane); those beyond the head's last are dropped
var<workgroup> result: array<f32, RESULTS * LANES>;

@compute @workgroup_size(LANES)
fn attention_subgroup_wide(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(wg, grid);   // of (image, head, block of queries)
    let blocks = (p.queries + OWN * LANES - 1u) / (OWN * LANES);
    let first_query = number % blocks * (OWN * LANES);
    let h = number / blocks % p.heads;
    let image = number / blocks / p.heads;
    if image >= p.batch { return; }

    let row = p.heads * p.dim;
    let key_at = image * p.keys * row + h * p.dim;   // where key and value 0 begin
    let end = min(first_query + OWN * LANES, p.queries);
    let keys = select(p.keys, min(end, p.keys), p.causal == 1u);

    let chunks = (p.dim + LANES - 1u) / LANES;

    for (var d = 0u; d < RESULTS; d++) { result[d * LANES + lane] = 0.0; }
    var query_at: array<u32, OWN>;
    var greatest: array<f32, OWN>;
    var sum: array<f32, OWN>;
    // unroll
    for (var n = 0u; n < OWN; n++) {
        let i = min(first_query + n * LANES + lane, p.queries - 1u);
        query_at[n] = (image * p.queries + i) * row + h * p.dim;
        greatest[n] = LOWEST;
        sum[n] = 0.0;
    }

    for (var first = 0u; first < keys; first += BLOCK) {
        var weight: array<array<f32, OWN>, BLOCK>;
        // unroll
        for (var j = 0u; j < BLOCK; j++) {
            // unroll
            for (var n = 0u; n < OWN; n++) {
                weight[j][n] = 0.0;
            }
        }
        for (var r = 0u; r < chunks; r++) {
            // beyond the head's last value, zeros in queries, and that value again in keys
            var query: array<array<f32, LANES>, OWN>;
            // unroll
            for (var t = 0u; t < LANES; t++) {
                let d = min(r * LANES + t, p.dim - 1u);
                let factor = select(0.0, p.scale, r * LANES + t < p.dim);
                // unroll
                for (var n = 0u; n < OWN; n++) {
                    query[n][t] = factor * f32(q[query_at[n] + d]);
                }
            }
            let column = min(r * LANES + lane, p.dim - 1u);
            // unroll
            for (var j = 0u; j < BLOCK; j++) {
                let values = f32(k[key_at + min(first + j, p.keys - 1u) * row + column]);
                // unroll
                for (var t = 0u; t < LANES; t++) {
                    let value = subgroupBroadcast(values, t);
                    // unroll
                    for (var n = 0u; n < OWN; n++) {
                        weight[j][n] = fma(query[n][t], value, weight[j][n]);
                    }
                }
            }
        }

        // scores to weights
        var factor: array<f32, OWN>;
        // unroll
        for (var n = 0u; n < OWN; n++) {
            let before = greatest[n];
            let seen = select(p.keys, min(first_query + n * LANES + lane + 1u, p.keys), p.causal == 1u);
            // unroll
            for (var j = 0u; j < BLOCK; j++) {
                weight[j][n] = select(LOWEST, weight[j][n], first + j < seen);
                greatest[n] = max(greatest[n], weight[j][n]);
            }
            factor[n] = exp(before - greatest[n]);
            sum[n] *= factor[n];
            // unroll
            for (var j = 0u; j < BLOCK; j++) {
                weight[j][n] = exp(weight[j][n] - greatest[n]);
                sum[n] += weight[j][n];
            }
        }

        for (var r = 0u; r < chunks; r++) {
            let column = min(r * LANES + lane, p.dim - 1u);
            var values: array<f32, BLOCK>;
            // unroll
            for (var j = 0u; j < BLOCK; j++) {
                values[j] = f32(v[key_at + min(first + j, p.keys - 1u) * row + column]);
            }
            // unroll
            for (var t = 0u; t < LANES; t++) {
                var total: array<f32, OWN>;
                // unroll
                for (var n = 0u; n < OWN; n++) {
                    total[n] = result[((r * LANES + t) * OWN + n) * LANES + lane] * factor[n];
                }
                // unroll
                for (var j = 0u; j < BLOCK; j++) {
                    let value = subgroupBroadcast(values[j], t);
                    // unroll
                    for (var n = 0u; n < OWN; n++) {
                        total[n] = fma(weight[j][n], value, total[n]);
                    }
                }
                // unroll
                for (var n = 0u; n < OWN; n++) {
                    result[((r * LANES + t) * OWN + n) * LANES + lane] = total[n];
                }
            }
        }
    }

    // unroll
    for (var n = 0u; n < OWN; n++) {
        if first_query + n * LANES + lane < p.queries {
            for (var d = 0u; d < p.dim; d++) { y[query_at[n] + d] = Elem(result[(d * OWN + n) * LANES + lane] / sum[n]); }
        }
    }
}
