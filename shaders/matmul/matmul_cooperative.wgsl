// matmul_cooperative: y[l, m, n] = act( sum_k x[m, k] w[l, k, n]  +  bias[l, n]  +  image_bias[image of m, n] )
//                               +  residual[m, n],
// a block of y by one workgroup whose subgroups multiply cooperative matrices; halves in, f32 sums
//
//   x           (M, K1)                Elem     the input is x beside x2: x[m, k] for k < K1, x2[m, k - K1] beyond
//   x2          (M, K - K1)            Elem     the second half of a concatenation, when there is one
//   w           (LAYERS, K, W_N)       Weight   of LAYERS layers, each in panels: PyTorch's Linear.weight, transposed
//   bias        (LAYERS, W_N)          f32      when there is one
//   image_bias  (images, N)            Elem     one row for each image_rows rows of y, when there is one
//   residual    (M, N)                 Elem     when there is one
//   y           (LAYERS, PARTS, M, N)  Out      Elem; f32 if sums over PARTS parts of k are written instead, each of
//                                               K_PART, which sum_parts adds up
//
// W_N is N, or twice that of a gated layer, whose columns are values and then gates: y is values times gelu(gates).
//
// Grid    one workgroup per layer, part and BLOCK_ROWS rows and 4 OWN_QUADS columns of y; K1, K, N multiples of 4
// Cost    2 LAYERS M W_N K flop; reads x, x2, w, bias, image_bias, residual once, writes y once
// Source  torch.nn.functional.linear; VK_KHR_cooperative_matrix
// Twin    crates/ratel-kernels/src/matmul.rs

import package::spec::{Elem4, Out4, Weight4, BLOCK_QUADS, BLOCK_ROWS, COLUMNS, EDGE, GATES, INPUT_LOADS, OWN, PARTS};
import package::spec::{ROWS, STAGES, SUBGROUPS, WEIGHT_LOADS, WG};
import package::lib::act::act4;
import package::lib::act::gelu4;
import package::lib::cooperative_tile::block_multiply_add;
import package::lib::grid::workgroup_number;
import package::lib::panels::panel_index;

enable wgpu_cooperative_matrix;

const OWN_QUADS = BLOCK_QUADS / GATES;           // of y
const SUBGROUP_QUADS = OWN * EDGE_QUADS;         // of y, in each subgroup

override ACT: u32 = 0u;
override BIAS: bool = false;
override IMAGE_BIAS: bool = false;
override RESIDUAL: bool = false;
override GATED: bool = false;

struct Params { layers: u32, m: u32, n: u32, w_n: u32, k: u32, k1: u32, k_part: u32, image_rows: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem4>;
@group(0) @binding(1) var<storage, read> x2: array<Elem4>;
@group(0) @binding(2) var<storage, read> w: array<Weight4>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> image_bias: array<Elem4>;
@group(0) @binding(5) var<storage, read> residual: array<Elem4>;
@group(0) @binding(6) var<storage, read_write> y: array<Out4>;

@compute @workgroup_size(WG)
fn matmul_cooperative(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let n_quads = p.n / 4u;
    let blocks = (n_quads + OWN_QUADS - 1u) / OWN_QUADS;
    let number = workgroup_number(wg, grid);
    let m_blocks = (p.m + BLOCK_ROWS - 1u) / BLOCK_ROWS;
    let slab = number / blocks / m_blocks;   // of y: a layer's part
    let layer = slab / PARTS;
    let m0 = number / blocks % m_blocks * BLOCK_ROWS;
    let n0 = number % blocks * OWN_QUADS;
    if layer >= p.layers { return; }

    // While one step is computed on, the next is on its way from memory to registers. With two stages a step is written
    // beside the one that slower subgroups still compute on, and one barrier a step is enough.
    var tile: Tile;
    let k_first = slab % PARTS * p.k_part / 4u;
    let k_end = min(k_first + p.k_part / 4u, p.k / 4u);
    var inputs = load_inputs(m0, k_first, lane);
    var weights = load_weights(layer, n0, k_first, lane);
    for (var k = k_first; k < k_end; k += STEP) {
        let stage = k / STEP % STAGES;
        // unroll
        for (var i = 0u; i < INPUT_LOADS; i++) {
            stage_input(stage, lane + i * WG, inputs[i]);
        }
        // unroll
        for (var i = 0u; i < WEIGHT_LOADS; i++) {
            stage_weight(stage, lane + i * WG, weights[i]);
        }
        workgroupBarrier();
        if k + STEP < k_end {
            inputs = load_inputs(m0, k + STEP, lane);
            weights = load_weights(layer, n0, k + STEP, lane);
        }
        block_multiply_add(&tile, stage, subgroup);
        if STAGES == 1u { workgroupBarrier(); }
    }

    // unroll
    for (var i = 0u; i < ROWS; i++) {
        // unroll
        for (var j = 0u; j < OWN; j++) {
            coopStoreT(tile[i * COLUMNS + j], &block_sums[subgroup * FRAGMENT_QUADS], EDGE_QUADS);
            if GATES == 2u {
                let gates_at = (SUBGROUPS + subgroup) * FRAGMENT_QUADS;
                coopStoreT(tile[(i + 1u) * COLUMNS - OWN + j], &block_sums[gates_at], EDGE_QUADS);
            }
            workgroupBarrier();
            store_fragments(slab, m0 + i * EDGE, n0 + j * EDGE_QUADS, lane);
            workgroupBarrier();
        }
    }
}

// The invocation's share of the inputs of a step, zero beyond K.
fn load_inputs(m0: u32, k0: u32, lane: u32) -> array<Elem4, INPUT_LOADS> {
    let k1 = p.k1 / 4u;
    let k2 = p.k / 4u - k1;
    let k = k0 + lane % STEP;
    var inputs: array<Elem4, INPUT_LOADS>;
    // unroll
    for (var i = 0u; i < INPUT_LOADS; i++) {
        let m = min(m0 + (lane + i * WG) / STEP, p.m - 1u);
        if k < k1 {
            inputs[i] = x[m * k1 + k];
        } else if k < k1 + k2 {
            inputs[i] = x2[m * k2 + k - k1];
        }
    }
    return inputs;
}

// The invocation's share of the weights of a step. Beyond the edges it is the last row or column's, which meet inputs
// that are zero or sums that are not stored.
fn load_weights(layer: u32, n0: u32, k0: u32, lane: u32) -> array<Weight4, WEIGHT_LOADS> {
    let n_quads = p.n / 4u;
    var weights: array<Weight4, WEIGHT_LOADS>;
    // unroll
    for (var i = 0u; i < WEIGHT_LOADS; i++) {
        let k = min(k0 * 4u + (lane + i * WG) / BLOCK_QUADS, p.k - 1u);
        // a subgroup's quads of gates are behind those of values
        let quad = (lane + i * WG) % BLOCK_QUADS;
        let n = quad / (GATES * SUBGROUP_QUADS) * SUBGROUP_QUADS + quad % SUBGROUP_QUADS;
        let gate = quad / SUBGROUP_QUADS % GATES;
        let column = 4u * (gate * n_quads + min(n0 + n, n_quads - 1u));
        weights[i] = w[(layer * p.k * p.w_n + panel_index(k, column, p.k, p.w_n)) / 4u];
    }
    return weights;
}

// Stores one fragment of each subgroup; m0 and n0 are the place of the first subgroup's.
fn store_fragments(slab: u32, m0: u32, n0: u32, lane: u32) {
    for (var i = lane; i < SUBGROUPS * FRAGMENT_QUADS; i += WG) {
        let gate = block_sums[i + (GATES - 1u) * SUBGROUPS * FRAGMENT_QUADS];
        store(slab, m0 + sum_row(i), n0 + sum_quad(i), block_sums[i], gate);
    }
}

// What is done to four sums of row m, and to those of their gates, before they are written; n counts quads.
fn store(slab: u32, m: u32, n: u32, products: vec4<f32>, gates: vec4<f32>) {
    let n_quads = p.n / 4u;
    if m >= p.m || n >= n_quads { return; }
    var sum = products;
    let first = slab / PARTS * (p.w_n / 4u);
    if BIAS { sum += bias[first + n]; }
    if GATED {
        var gate = gates;
        if BIAS { gate += bias[first + n_quads + n]; }
        sum *= gelu4(gate);
    }
    if IMAGE_BIAS { sum += vec4<f32>(image_bias[m / p.image_rows * n_quads + n]); }
    sum = act4(ACT, sum);
    if RESIDUAL { sum += vec4<f32>(residual[m * n_quads + n]); }
    y[(slab * p.m + m) * n_quads + n] = Out4(sum);
}
