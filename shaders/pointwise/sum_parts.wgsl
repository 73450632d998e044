// sum_parts: y[m, n] = act( sum_s parts[s, m, n]  +  bias[n]  +  image_bias[image of m, n] )  +  residual[m, n],
// the end of a matrix product or convolution whose sums over k were computed in PARTS parts
//
//   parts       (PARTS, M, N)  f32
//   bias        (N)            f32   when there is one
//   image_bias  (images, N)    Elem  one row for each image_rows rows of y, when there is one
//   residual    (M, N)         Elem  when there is one
//   y           (M, N)         Elem
//
// Grid    one invocation per value of y, WG consecutive values a workgroup
// Cost    PARTS M N flop; reads parts, bias, image_bias, residual once, writes y once
// Source  split-K, as in NVIDIA's CUTLASS, media/docs/efficient_gemm.md
// Twin    crates/ratel-kernels/src/sum_parts.rs

import package::spec::{Elem};
import package::lib::act::act;
import package::lib::grid::workgroup_number;

override WG: u32 = 64u;
override ACT: u32 = 0u;
override BIAS: bool = false;
override IMAGE_BIAS: bool = false;
override RESIDUAL: bool = false;

struct Params { parts: u32, m: u32, n: u32, image_rows: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> parts: array<f32>;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read> image_bias: array<Elem>;
@group(0) @binding(3) var<storage, read> residual: array<Elem>;
@group(0) @binding(4) var<storage, read_write> y: array<Elem>;

@compute @workgroup_size(WG)
fn sum_parts(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_number(wg, grid) * WG + lane;   // y's value number i
    if i >= p.m * p.n { return; }
    let m = i / p.n;
    let n = i % p.n;

    var sum = 0.0;
    for (var part = 0u; part < p.parts; part++) {
        sum += parts[part * p.m * p.n + i];
    }
    if BIAS { sum += bias[n]; }
    if IMAGE_BIAS { sum += f32(image_bias[m / p.image_rows * p.n + n]); }
    sum = act(ACT, sum);
    if RESIDUAL { sum += f32(residual[i]); }
    y[i] = Elem(sum);
}
