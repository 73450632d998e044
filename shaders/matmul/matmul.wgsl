// matmul: y[l, m, n] = act( sum_k x[m, k] w[l, k, n]  +  bias[l, n]  +  image_bias[image of m, n] )  +  residual[m, n]
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
// Grid    one invocation per value of y, WG consecutive values a workgroup
// Cost    2 LAYERS M W_N K flop; reads x, x2, w, bias, image_bias, residual once, writes y once
// Source  torch.nn.functional.linear
// Twin    crates/ratel-kernels/src/matmul.rs

import package::spec::{Elem, WeightWord};
import package::lib::act::act;
import package::lib::act::gelu;
import package::lib::grid::workgroup_number;
import package::lib::panels::panel_index;

override WG: u32 = 64u;
override ACT: u32 = 0u;
override BIAS: bool = false;
override IMAGE_BIAS: bool = false;
override RESIDUAL: bool = false;
override GATED: bool = false;

struct Params { layers: u32, m: u32, n: u32, w_n: u32, k: u32, k1: u32, image_rows: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem>;
@group(0) @binding(1) var<storage, read> x2: array<Elem>;
@group(0) @binding(2) var<storage, read> w: array<WeightWord>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> image_bias: array<Elem>;
@group(0) @binding(5) var<storage, read> residual: array<Elem>;
@group(0) @binding(6) var<storage, read_write> y: array<Elem>;

@compute @workgroup_size(WG)
fn matmul(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_number(wg, grid) * WG + lane;   // y's value number i
    if i >= p.layers * p.m * p.n { return; }
    let layer = i / p.n / p.m;
    let m = i / p.n % p.m;
    let n = i % p.n;

    var sum = product(layer, m, n);
    if GATED { sum *= gelu(product(layer, m, p.n + n)); }
    if IMAGE_BIAS { sum += f32(image_bias[m / p.image_rows * p.n + n]); }
    sum = act(ACT, sum);
    if RESIDUAL { sum += f32(residual[m * p.n + n]); }
    y[i] = Elem(sum);
}

// The sum of a row of x times a column of a layer's matrix, and the layer's bias.
fn product(layer: u32, m: u32, column: u32) -> f32 {
    let first = layer * p.k * p.w_n;
    var sum = 0.0;
    for (var k = 0u; k < p.k1; k++) {
        let at = first + panel_index(k, column, p.k, p.w_n);
        sum += f32(x[m * p.k1 + k]) * weight(w[at / WEIGHTS_PER_WORD], at);
    }
    for (var k = p.k1; k < p.k; k++) {
        let at = first + panel_index(k, column, p.k, p.w_n);
        sum += f32(x2[m * (p.k - p.k1) + k - p.k1]) * weight(w[at / WEIGHTS_PER_WORD], at);
    }
    if BIAS { sum += bias[layer * p.w_n + column]; }
    return sum;
}
