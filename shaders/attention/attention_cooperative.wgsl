// attention_cooperative: y[i] = sum_j w_ij v[j] / sum_j w_ij    with    w_ij = exp(s_ij - max_j s_ij),
// s_ij = scale q[i] . k[j], by cooperative matrices; halves in, f32 sums
//
//   q, y  (images, QUERIES, HEADS DIM / 4)   Elem4   values 4 c to 4 c + 3 of head h are column h DIM / 4 + c
//   k, v  (images, KEYS, HEADS DIM / 4)      Elem4
//
// in each image and head, over all keys j, or over j <= i when causal. Sums in a subgroup's matrices can't be rescaled,
// so the scores are computed twice: once for the greatest of each query, once for the weights. A subgroup has ROWS
// times EDGE queries, whose matrices (DIMS of them side by side make a head, filled up with zeros) it holds in
// registers, as it does the results. The scores of each block of BLOCK_KEYS keys go through workgroup memory, where
// lane (x, y) of TX by TY turns some of the scores of queries y, y + TY ... (HELD of them) into weights, rounded to
// halves; what results are divided by is the sum of those.
//
// Grid    one workgroup of SUBGROUPS subgroups per (image, head, block of BLOCK_QUERIES queries)
// Cost    (4 DIM + 5) images HEADS QUERIES KEYS flop; reads q, k, v once, writes y once
// Source  Dao et al. 2022, arXiv:2205.14135, in two passes; VK_KHR_cooperative_matrix
// Twin    crates/ratel-kernels/src/attention.rs

import package::spec::{Elem4, FragmentA, FragmentB, FragmentSum, BLOCK_KEYS, BLOCK_QUERIES, DIMS, EDGE, HELD};
import package::spec::{KEY_EDGES, OWN, ROWS, TX, WG};
import package::lib::grid::workgroup_number;

enable wgpu_cooperative_matrix;

const LOWEST = -3.4e38;
const TY = WG / TX;
const EDGE_QUADS = EDGE / 4u;
const WIDTH = DIMS * EDGE_QUADS;             // quads of a head, filled up
const PITCH = WIDTH + 2u;                    // of rows in memory; longer than a row, so that rows meet different banks
const SCORE_PITCH = BLOCK_KEYS / 4u + 1u;
const WEIGHT_PITCH = BLOCK_KEYS / 4u + 2u;

struct Params { batch: u32, heads: u32, dim: u32, queries: u32, keys: u32, causal: u32, scale: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> q: array<Elem4>;
@group(0) @binding(1) var<storage, read> k: array<Elem4>;
@group(0) @binding(2) var<storage, read> v: array<Elem4>;
@group(0) @binding(3) var<storage, read_write> y: array<Elem4>;

var<workgroup> tile: array<vec4<f16>, max(BLOCK_QUERIES, BLOCK_KEYS) * PITCH>;   // rows of queries, keys, or values
var<workgroup> scores: array<vec4<f32>, BLOCK_QUERIES * SCORE_PITCH>;            // (query, quad of keys)
var<workgroup> weights: array<vec4<f16>, BLOCK_QUERIES * WEIGHT_PITCH>;          // (query, quad of keys)

// The matrix in row r and column d of a subgroup's is at r * DIMS + d.
alias Queries = array<FragmentA, ROWS * DIMS>;
alias Results = array<FragmentSum, ROWS * DIMS>;

@compute @workgroup_size(WG)
fn attention_cooperative(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let number = workgroup_number(wg, grid);   // of (image, head, block of queries)
    let blocks = (p.queries + BLOCK_QUERIES - 1u) / BLOCK_QUERIES;
    let first_query = number % blocks * BLOCK_QUERIES;
    let head = number / blocks % p.heads;
    let image = number / blocks / p.heads;
    if image >= p.batch { return; }

    let columns = p.dim / 4u;
    let row = p.heads * columns;
    let query_at = image * p.queries * row + head * columns;   // where query 0 begins
    let key_at = image * p.keys * row + head * columns;        // where key and value 0 begin
    let keys = select(p.keys, min(first_query + BLOCK_QUERIES, p.keys), p.causal == 1u);
    let lane_x = lane % TX;
    let lane_y = lane / TX;
    let first_row = subgroup * (ROWS * EDGE);               // of the subgroup's queries in the block

    for (var i = lane; i < BLOCK_QUERIES * WIDTH; i += WG) {
        let c = i % WIDTH;
        var value = Elem4();
        if c < columns { value = q[query_at + min(first_query + i / WIDTH, p.queries - 1u) * row + c]; }
        tile[i / WIDTH * PITCH + c] = vec4<f16>(value);
    }
    workgroupBarrier();
    var queries: Queries;
    load_queries(&queries, first_row);
    workgroupBarrier();

    // first pass: the greatest score of each query
    var greatest: array<f32, HELD>;   // of the lane's own scores
    // unroll
    for (var h = 0u; h < HELD; h++) {
        greatest[h] = LOWEST;
    }
    for (var first = 0u; first < keys; first += BLOCK_KEYS) {
        stage_keys(key_at, first, lane);
        workgroupBarrier();
        write_scores(&queries, first_row);
        workgroupBarrier();
        // unroll
        for (var h = 0u; h < HELD; h++) {
            // unroll
            for (var r = 0u; r < OWN; r++) {
                let own = masked_scores(lane_y + h * TY, lane_x + r * TX, first_query, first);
                greatest[h] = max(greatest[h], max(max(own.x, own.y), max(own.z, own.w)));
            }
        }
    }
    workgroupBarrier();
    // unroll
    for (var h = 0u; h < HELD; h++) {
        scores[lane + h * WG].x = greatest[h];
    }
    workgroupBarrier();
    // unroll
    for (var h = 0u; h < HELD; h++) {
        // unroll
        for (var t = 0u; t < TX; t++) {
            greatest[h] = max(greatest[h], scores[lane_y * TX + t + h * WG].x);
        }
    }

    // second pass: weights and weighted values
    var results: Results;
    var sum: array<f32, HELD>;   // of the lane's own weights
    for (var first = 0u; first < keys; first += BLOCK_KEYS) {
        stage_keys(key_at, first, lane);
        workgroupBarrier();
        write_scores(&queries, first_row);
        workgroupBarrier();
        // unroll
        for (var h = 0u; h < HELD; h++) {
            // unroll
            for (var r = 0u; r < OWN; r++) {
                let own = masked_scores(lane_y + h * TY, lane_x + r * TX, first_query, first);
                let weight = vec4<f16>(exp(own - greatest[h]));
                sum[h] += dot(vec4<f32>(weight), vec4(1.0));
                weights[(lane_y + h * TY) * WEIGHT_PITCH + lane_x + r * TX] = weight;
            }
        }
        stage_values(key_at, first, lane);
        workgroupBarrier();
        add_values(&results, first_row);
        workgroupBarrier();
    }

    // unroll
    for (var h = 0u; h < HELD; h++) {
        scores[lane + h * WG].x = sum[h];
    }
    workgroupBarrier();
    var total: array<f32, HELD>;
    // unroll
    for (var h = 0u; h < HELD; h++) {
        // unroll
        for (var t = 0u; t < TX; t++) {
            total[h] += scores[lane_y * TX + t + h * WG].x;
        }
    }
    workgroupBarrier();
    // unroll
    for (var d = 0u; d < DIMS; d++) {
        // unroll
        for (var r = 0u; r < ROWS; r++) {
            coopStoreT(results[r * DIMS + d], &scores[(first_row + r * EDGE) * SCORE_PITCH], SCORE_PITCH);
        }
        workgroupBarrier();
        // unroll
        for (var h = 0u; h < HELD; h++) {
            let query = first_query + lane_y + h * TY;
            for (var c = lane_x; c < EDGE_QUADS; c += TX) {
                let column = d * EDGE_QUADS + c;
                if query < p.queries && column < columns {
                    y[query_at + query * row + column] = Elem4(scores[(lane_y + h * TY) * SCORE_PITCH + c] / total[h]);
                }
            }
        }
        workgroupBarrier();
    }
}

// Brings a block of keys, or of values, into workgroup memory; beyond the last the last again, which gets no weight.
fn stage_keys(key_at: u32, first: u32, lane: u32) {
    let columns = p.dim / 4u;
    for (var i = lane; i < BLOCK_KEYS * WIDTH; i += WG) {
        let c = i % WIDTH;
        var value = Elem4();
        if c < columns { value = k[key_at + min(first + i / WIDTH, p.keys - 1u) * (p.heads * columns) + c]; }
        tile[i / WIDTH * PITCH + c] = vec4<f16>(value);
    }
}

fn stage_values(key_at: u32, first: u32, lane: u32) {
    let columns = p.dim / 4u;
    for (var i = lane; i < BLOCK_KEYS * WIDTH; i += WG) {
        let c = i % WIDTH;
        var value = Elem4();
        if c < columns { value = v[key_at + min(first + i / WIDTH, p.keys - 1u) * (p.heads * columns) + c]; }
        tile[i / WIDTH * PITCH + c] = vec4<f16>(value);
    }
}

// The subgroup's queries, from the tile.
fn load_queries(queries: ptr<function, Queries>, first_row: u32) {
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        // unroll
        for (var d = 0u; d < DIMS; d++) {
            let at = (first_row + r * EDGE) * PITCH + d * EDGE_QUADS;
            (*queries)[r * DIMS + d] = coopLoadT<FragmentA>(&tile[at], PITCH);
        }
    }
}

// The products of the subgroup's queries with the block's keys. A key is a row in memory and a column of its matrix, so
// the matrix is loaded column by column.
fn write_scores(queries: ptr<function, Queries>, first_row: u32) {
    // unroll
    for (var j = 0u; j < KEY_EDGES; j++) {
        var sums: array<FragmentSum, ROWS>;
        // unroll
        for (var d = 0u; d < DIMS; d++) {
            let keys = coopLoad<FragmentB>(&tile[j * EDGE * PITCH + d * EDGE_QUADS], PITCH);
            // unroll
            for (var r = 0u; r < ROWS; r++) {
                sums[r] = coopMultiplyAdd((*queries)[r * DIMS + d], keys, sums[r]);
            }
        }
        // unroll
        for (var r = 0u; r < ROWS; r++) {
            coopStoreT(sums[r], &scores[(first_row + r * EDGE) * SCORE_PITCH + j * EDGE_QUADS], SCORE_PITCH);
        }
    }
}

// Adds the block's values, weighted, to the subgroup's results.
fn add_values(results: ptr<function, Results>, first_row: u32) {
    // unroll
    for (var j = 0u; j < KEY_EDGES; j++) {
        var factors: array<FragmentA, ROWS>;
        // unroll
        for (var r = 0u; r < ROWS; r++) {
            let at = (first_row + r * EDGE) * WEIGHT_PITCH + j * EDGE_QUADS;
            factors[r] = coopLoadT<FragmentA>(&weights[at], WEIGHT_PITCH);
        }
        // unroll
        for (var d = 0u; d < DIMS; d++) {
            let values = coopLoadT<FragmentB>(&tile[j * EDGE * PITCH + d * EDGE_QUADS], PITCH);
            // unroll
            for (var r = 0u; r < ROWS; r++) {
                (*results)[r * DIMS + d] = coopMultiplyAdd(factors[r], values, (*results)[r * DIMS + d]);
            }
        }
    }
}

// The scores of a quad of the block's keys, the first of which is `first`; as low as can be where the query does not
// see the key.
fn masked_scores(row: u32, quad: u32, first_query: u32, first: u32) -> vec4<f32> {
    let seen = select(p.keys, min(first_query + row + 1u, p.keys), p.causal == 1u);
    let keys = first + 4u * quad + vec4(0u, 1u, 2u, 3u);
    return select(vec4(LOWEST), p.scale * scores[row * SCORE_PITCH + quad], keys < vec4(seen));
}
