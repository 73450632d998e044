// attention_tiled: y[i] = sum_j w_ij v[j] / sum_j w_ij    with    w_ij = exp(s_ij - m_i),    s_ij = scale q[i] . k[j]
//
//   q, y  (images, QUERIES, HEADS DIM / 4)   Elem4   values 4 c to 4 c + 3 of head h are column h DIM / 4 + c
//   k, v  (images, KEYS, HEADS DIM / 4)      Elem4
//
// in each image and head, over all keys j, or over j <= i when causal; m_i is the greatest score so far, and what was
// summed is rescaled when it grows. A workgroup has a block of 4 TY queries. For one block of TX OWN_KEYS keys after the
// other it computes the scores, DEPTH columns of queries and keys at a time; turns them into weights, which never leave
// the workgroup; and adds the weighted values, VALUES keys at a time. The lane at (x, y) of TX by TY has the queries
// 4 y to 4 y + 3, and of each block the keys x, x + TX ..., and of the results the columns x, x + TX ...
//
// Grid    one workgroup of TX TY lanes per (image, head, block of 4 TY queries)
// Cost    (4 DIM + 5) images HEADS QUERIES KEYS flop; reads q, k, v once, writes y once
// Source  Dao et al. 2022, arXiv:2205.14135; Milakov & Gimelshein 2018, arXiv:1805.02867
// Twin    crates/ratel-kernels/src/attention.rs

import package::spec::{Elem4, TX, TY, OWN_KEYS, OWN_COLUMNS, DEPTH, VALUES, TILE};
import package::lib::grid::workgroup_number;

const LOWEST = -3.4e38;
const LANES = TX * TY;
const BLOCK_QUERIES = 4u * TY;
const BLOCK_KEYS = TX * OWN_KEYS;
const WIDTH = TX * OWN_COLUMNS;   // columns of a head, filled up with zeros
const PITCH = DEPTH + 1u;         // of rows in the tile; one more than its columns, so that lanes meet different banks

struct Params { batch: u32, heads: u32, dim: u32, queries: u32, keys: u32, causal: u32, scale: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> q: array<Elem4>;
@group(0) @binding(1) var<storage, read> k: array<Elem4>;
@group(0) @binding(2) var<storage, read> v: array<Elem4>;
@group(0) @binding(3) var<storage, read_write> y: array<Elem4>;

var<workgroup> tile: array<vec4<f32>, TILE>;                   // rows of queries, then of keys; or rows of values
var<workgroup> weights: array<vec4<f32>, BLOCK_KEYS * TY>;     // of four queries each
var<workgroup> exchange: array<vec4<f32>, LANES>;              // what lanes of the same queries tell each other

fn dot_onto(sum: f32, a: vec4<f32>, b: vec4<f32>) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

@compute @workgroup_size(LANES)
fn attention_tiled(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(wg, grid);   // of (image, head, block of queries)
    let blocks = (p.queries + BLOCK_QUERIES - 1u) / BLOCK_QUERIES;
    let first_query = number % blocks * BLOCK_QUERIES;
    let h = number / blocks % p.heads;
    let image = number / blocks / p.heads;
    if image >= p.batch { return; }

    let columns = p.dim / 4u;
    let row = p.heads * columns;
    let query_at = image * p.queries * row + h * columns;   // where query 0 begins
    let key_at = image * p.keys * row + h * columns;        // where key and value 0 begin
    let keys = select(p.keys, min(first_query + BLOCK_QUERIES, p.keys), p.causal == 1u);
    let lane_x = lane % TX;
    let lane_y = lane / TX;
    let queries = first_query + 4u * lane_y + vec4(0u, 1u, 2u, 3u);
    let seen = select(vec4(p.keys), min(queries + 1u, vec4(p.keys)), p.causal == 1u);   // keys that the queries see

    var result: array<array<vec4<f32>, OWN_COLUMNS>, 4>;
    // unroll
    for (var n = 0u; n < 4u; n++) {
        // unroll
        for (var r = 0u; r < OWN_COLUMNS; r++) {
            result[n][r] = vec4(0.0);
        }
    }
    var greatest = vec4(LOWEST);
    var sum = vec4(0.0);   // over the lane's own keys

    for (var first = 0u; first < keys; first += BLOCK_KEYS) {
        var score: array<vec4<f32>, OWN_KEYS>;
        // unroll
        for (var r = 0u; r < OWN_KEYS; r++) {
            score[r] = vec4(0.0);
        }
        for (var column = 0u; column < columns; column += DEPTH) {
            for (var i = lane; i < (BLOCK_QUERIES + BLOCK_KEYS) * DEPTH; i += LANES) {
                let r = i / DEPTH;
                let c = column + i % DEPTH;
                var value = vec4(0.0);
                if c < columns {
                    if r < BLOCK_QUERIES {
                        value = p.scale * vec4<f32>(q[query_at + min(first_query + r, p.queries - 1u) * row + c]);
                    } else {
                        value = vec4<f32>(k[key_at + min(first + r - BLOCK_QUERIES, p.keys - 1u) * row + c]);
                    }
                }
                tile[r * PITCH + i % DEPTH] = value;
            }
            workgroupBarrier();
            for (var c = 0u; c < DEPTH; c++) {
                let own = 4u * lane_y * PITCH + c;
                let a = tile[own];
                let b = tile[own + PITCH];
                let d = tile[own + 2u * PITCH];
                let e = tile[own + 3u * PITCH];
                // unroll
                for (var r = 0u; r < OWN_KEYS; r++) {
                    let key = tile[(BLOCK_QUERIES + lane_x + r * TX) * PITCH + c];
                    score[r].x = dot_onto(score[r].x, a, key);
                    score[r].y = dot_onto(score[r].y, b, key);
                    score[r].z = dot_onto(score[r].z, d, key);
                    score[r].w = dot_onto(score[r].w, e, key);
                }
            }
            workgroupBarrier();
        }

        // scores to weights
        let before = greatest;
        // unroll
        for (var r = 0u; r < OWN_KEYS; r++) {
            score[r] = select(vec4(LOWEST), score[r], vec4(first + lane_x + r * TX) < seen);
            greatest = max(greatest, score[r]);
        }
        exchange[lane] = greatest;
        workgroupBarrier();
        // unroll
        for (var t = 0u; t < TX; t++) {
            greatest = max(greatest, exchange[lane_y * TX + t]);
        }
        let factor = exp(before - greatest);
        sum *= factor;
        // unroll
        for (var r = 0u; r < OWN_KEYS; r++) {
            let weight = exp(score[r] - greatest);
            sum += weight;
            weights[(lane_x + r * TX) * TY + lane_y] = weight;
        }
        // unroll
        for (var r = 0u; r < OWN_COLUMNS; r++) {
            // unroll
            for (var n = 0u; n < 4u; n++) {
                result[n][r] *= factor[n];
            }
        }

        for (var key = 0u; key < BLOCK_KEYS && first + key < keys; key += VALUES) {
            for (var i = lane; i < VALUES * WIDTH; i += LANES) {
                let c = i % WIDTH;
                var value = vec4(0.0);
                if c < columns {
                    value = vec4<f32>(v[key_at + min(first + key + i / WIDTH, p.keys - 1u) * row + c]);
                }
                tile[i] = value;
            }
            workgroupBarrier();
            for (var j = 0u; j < VALUES; j++) {
                let weight = weights[(key + j) * TY + lane_y];
                // unroll
                for (var r = 0u; r < OWN_COLUMNS; r++) {
                    let value = tile[j * WIDTH + lane_x + r * TX];
                    // unroll
                    for (var n = 0u; n < 4u; n++) {
                        result[n][r] = fma(vec4(weight[n]), value, result[n][r]);
                    }
                }
            }
            workgroupBarrier();
        }
    }

    exchange[lane] = sum;
    workgroupBarrier();
    var total = vec4(0.0);
    // unroll
    for (var t = 0u; t < TX; t++) {
        total += exchange[lane_y * TX + t];
    }
    // unroll
    for (var n = 0u; n < 4u; n++) {
        // unroll
        for (var r = 0u; r < OWN_COLUMNS; r++) {
            let c = lane_x + r * TX;
            if queries[n] < p.queries && c < columns {
                y[query_at + queries[n] * row + c] = Elem4(result[n][r] / total[n]);
            }
        }
    }
}
