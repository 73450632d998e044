// matmul_subgroup: y[m, n] = act( sum_k x[m, k] w[k, n]  +  bias[n]  +  image_bias[image of m, n] )  +  residual[m, n],
// one subgroup a tile of y; for drivers that run on a CPU
//
//   x           (M, K1)       Elem     x and x2 side by side are the input: x[m, k] for k < K1, x2[m, k - K1] beyond
//   x2          (M, K - K1)   Elem     the second half of a concatenation, when there is one
//   w           (K, N)        Weight   the transpose of PyTorch's Linear.weight
//   bias        (N)           f32      when there is one
//   image_bias  (images, N)   Elem     one row for each image_rows rows of y, when there is one
//   residual    (M, N)        Elem     when there is one
//   y           (M, N)        Elem
//
// Grid    one workgroup of one subgroup per GROUPS LANES rows and 2 PAIRS LANES columns of y; K1, K, N even
// Cost    2 M N K flop; reads x, x2, w, bias, image_bias, residual once, writes y once
// Source  torch.nn.functional.linear; register tiles as in Goto & van de Geijn 2008, doi:10.1145/1356052.1356053
// Twin    crates/ratel-kernels/src/matmul.rs

import package::spec::{ElemPair, WeightPair, GROUPS, LANES, PAIRS, ROWS};
import package::lib::act::act;
import package::lib::grid::workgroup_number;
import package::lib::subgroup_tile::tile_multiply_add;

override ACT: u32 = 0u;
override BIAS: bool = false;
override IMAGE_BIAS: bool = false;
override RESIDUAL: bool = false;
override TWO_INPUTS: bool = false;

struct Params { m: u32, n: u32, k: u32, k1: u32, image_rows: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<ElemPair>;
@group(0) @binding(1) var<storage, read> x2: array<ElemPair>;
@group(0) @binding(2) var<storage, read> w: array<WeightPair>;
@group(0) @binding(3) var<storage, read> bias: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> image_bias: array<ElemPair>;
@group(0) @binding(5) var<storage, read> residual: array<ElemPair>;
@group(0) @binding(6) var<storage, read_write> y: array<ElemPair>;

var<workgroup> sums: array<vec2<f32>, ROWS * PAIRS * LANES>;

// Everything below counts k and n in pairs.
@compute @workgroup_size(LANES)
fn matmul_subgroup(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let pairs = p.n / 2u;
    let blocks = (pairs + PAIRS * LANES - 1u) / (PAIRS * LANES);
    let number = workgroup_number(wg, grid);
    // neighbouring workgroups take the same columns, whose weights, far apart in memory, are in the cache by then
    let tiles = (p.m + ROWS - 1u) / ROWS;
    if number >= tiles * blocks { return; }
    let m0 = number % tiles * ROWS;
    let n0 = number / tiles * PAIRS * LANES + lane;

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
    var column: array<u32, PAIRS>;
    // unroll
    for (var j = 0u; j < PAIRS; j++) {
        column[j] = min(n0 + j * LANES, pairs - 1u);
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
            even[j] = weight_pair(w[2u * k * pairs + column[j]]);
            odd[j] = weight_pair(w[(2u * k + 1u) * pairs + column[j]]);
        }
        tile_multiply_add(&tile, inputs, even, odd);
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
    for (var i = 0u; i < ROWS * PAIRS; i++) {
        store(m0 + i / PAIRS, n0 + i % PAIRS * LANES, sums[i * LANES + lane]);
    }
}

// What is done to two sums of row m before they are written.
fn store(m: u32, n: u32, products: vec2<f32>) {
    let pairs = p.n / 2u;
    if m >= p.m || n >= pairs { return; }
    var sum = products;
    if BIAS { sum += bias[n]; }
    if IMAGE_BIAS { sum += pair_values(image_bias[m / p.image_rows * pairs + n]); }
    sum = vec2(act(ACT, sum.x), act(ACT, sum.y));
    if RESIDUAL { sum += pair_values(residual[m * pairs + n]); }
    y[m * pairs + n] = elem_pair(sum);
}
