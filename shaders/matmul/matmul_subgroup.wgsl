// matmul_subgroup: y[l, m, n] = act( sum_k x[m, k] w[l, k, n]  +  bias[l, n]  +  image_bias[image of m, n] )
//                                +  residual[m, n],
// one subgroup a tile of y; for drivers that run on a CPU
//
//   x           (M, K1)           Elem     x and x2 side by side are the input: x[m, k] for k < K1, x2[m, k - K1] beyond
//   x2          (M, K - K1)       Elem     the second half of a concatenation, when there is one
//   w           (LAYERS, K, W_N)  Weight   of LAYERS layers, each in panels: PyTorch's Linear.weight, transposed
//   bias        (LAYERS, W_N)     f32      when there is one
//   image_bias  (images, N)       Elem     one row for each image_rows rows of y, when there is one
//   residual    (M, N)            Elem     when there is one
//   y           (LAYERS, M, N)    Elem
//
// W_N is N, or twice that of a gated layer, whose columns are values and then gates: y is values times gelu(gates).
//
// Grid    one workgroup of one subgroup per layer, GROUPS LANES rows and 2 OWN LANES columns of y; K1, K, N even
// Cost    2 LAYERS M W_N K flop; reads x, x2, w, bias, image_bias, residual once, writes y once
// Source  torch.nn.functional.linear; register tiles as in Goto & van de Geijn 2008, doi:10.1145/1356052.1356053
// Twin    crates/ratel-kernels/src/matmul.rs

import package::spec::{ElemPair, WeightPair, GROUPS, LANES, OWN, PAIRS, ROWS};
import package::lib::act::act;
import package::lib::act::gelu;
import package::lib::grid::workgroup_number;
import package::lib::panels::panel_index;
import package::lib::panels::panel_width;
import package::lib::subgroup_tile::tile_multiply_add;

override ACT: u32 = 0u;
override BIAS: bool = false;
override IMAGE_BIAS: bool = false;
override RESIDUAL: bool = false;
override GATED: bool = false;
override TWO_INPUTS: bool = false;

struct Params { layers: u32, m: u32, n: u32, w_n: u32, k: u32, k1: u32, image_rows: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<ElemPair>;
@group(0) @binding(1) var<storage, read> x2: array<ElemPair>;
@group(0) @binding(2) var<storage, read> w: array<WeightPair>;
@group(0) @binding(3) var<storage, read> bias: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> image_bias: array<ElemPair>;
@group(0) @binding(5) var<storage, read> residual: array<ElemPair>;
@group(0) @binding(6) var<storage, read_write> y: array<ElemPair>;

var<workgroup> sums: array<vec2<f32>, ROWS * PAIRS * LANES>;

// Everything below counts k and n in pairs. A lane has OWN pairs of columns of y, for which it sums PAIRS of w's: as many,
// or, if they are gated, the values' and then the gates'.
@compute @workgroup_size(LANES)
fn matmul_subgroup(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let pairs = p.n / 2u;
    let blocks = (pairs + OWN * LANES - 1u) / (OWN * LANES);
    let number = workgroup_number(wg, grid);
    // neighbouring workgroups take the same columns, whose weights are in the cache by then
    let tiles = (p.m + ROWS - 1u) / ROWS;
    let layer = number / tiles / blocks;
    if layer >= p.layers { return; }
    let m0 = number % tiles * ROWS;
    let n0 = number / tiles % blocks * OWN * LANES + lane;

    // lanes beyond an edge compute on the last row or column, and store nothing
    let k1 = p.k1 / 2u;
    let k2 = p.k / 2u - k1;
    var row1: array<u32, GROUPS>;
    var row2: array<u32, GROUPS>;
    // unroll
    for (var g = 0u; g < GROUPS; g++) {
        let m = min(m0 + g * LANES + lane, p.m - 1u);
        row1[g] = m * k1;
        row2[g] = m * k2;
    }
    // where the next weights of each of the lane's pairs of columns are, and how far it is to those of the next row
    var at: array<u32, PAIRS>;
    var step: array<u32, PAIRS>;
    // unroll
    for (var j = 0u; j < PAIRS; j++) {
        let n = 2u * (j / OWN * pairs + min(n0 + j % OWN * LANES, pairs - 1u));
        at[j] = (layer * p.k * p.w_n + panel_index(0u, n, p.k, p.w_n)) / 2u;
        step[j] = panel_width(n, p.w_n) / 2u;
    }

    var tile: Tile;
    for (var k = 0u; k < k1 + k2; k++) {
        var inputs: array<ElemPair, GROUPS>;
        // unroll
        for (var g = 0u; g < GROUPS; g++) {
            if TWO_INPUTS && k >= k1 { inputs[g] = x2[row2[g] + k - k1]; } else { inputs[g] = x[row1[g] + k]; }
        }
        var even: array<vec2<f32>, PAIRS>;
        var odd: array<vec2<f32>, PAIRS>;
        // unroll
        for (var j = 0u; j < PAIRS; j++) {
            even[j] = weight_pair(w[at[j]]);
            odd[j] = weight_pair(w[at[j] + step[j]]);
            at[j] += 2u * step[j];
        }
        // unroll
        for (var g = 0u; g < GROUPS; g++) {
            tile_multiply_add(&tile, g, inputs[g], even, odd);
        }
    }

    // each lane stores its own sums, by way of workgroup memory: a tile indexed by a variable would not stay in registers,
    // and the stores written out would take longer to compile than all else
    // unroll
    for (var i = 0u; i < ROWS; i++) {
        // unroll
        for (var j = 0u; j < PAIRS; j++) {
            sums[(i * PAIRS + j) * LANES + lane] = tile[i * PAIRS + j];
        }
    }
    for (var j = 0u; j < OWN; j++) {
        let n = n0 + j * LANES;
        var term = vec2<f32>();
        var gate_term = vec2<f32>();
        if BIAS {
            let at = layer * (p.w_n / 2u) + min(n, pairs - 1u);
            term = bias[at];
            if GATED { gate_term = bias[at + pairs]; }
        }
        for (var i = 0u; i < ROWS; i++) {
            let at = (i * PAIRS + j) * LANES + lane;
            var sum = sums[at] + term;
            if GATED {
                let gate = sums[at + OWN * LANES] + gate_term;
                sum *= vec2(gelu(gate.x), gelu(gate.y));
            }
            store(layer, m0 + i, n, sum);
        }
    }
}

// What is done to two sums of row m, biased and gated, before they are written.
fn store(layer: u32, m: u32, n: u32, biased: vec2<f32>) {
    let pairs = p.n / 2u;
    if m >= p.m || n >= pairs { return; }
    var sum = biased;
    if IMAGE_BIAS { sum += pair_values(image_bias[m / p.image_rows * pairs + n]); }
    sum = vec2(act(ACT, sum.x), act(ACT, sum.y));
    if RESIDUAL { sum += pair_values(residual[m * pairs + n]); }
    y[(layer * p.m + m) * pairs + n] = elem_pair(sum);
}
