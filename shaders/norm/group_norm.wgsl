// group_norm: y = act( gamma[c] (x - mean) / sqrt(square / V + eps) + beta[c] )
//
//   x      (images, ROWS, C1)            Elem   x and x2 side by side are the input: channel c of x for c < C1,
//   x2     (images, ROWS, C - C1)        Elem   channel c - C1 of x2 beyond, when there is one
//   stats  (images, chunks, GROUPS, 2)   f32    (mean, square) of each chunk of CHUNK pixels, from group_norm_stats
//   gamma  (C)                           f32
//   beta   (C)                           f32
//   y      (images, ROWS, C)             Elem   ROWS of an image's PIXELS
//
// mean and square are those of the V = PIXELS C / GROUPS values of a group of an image. Chunks k of n_k values merge
// without cancellation: mean = sum_k n_k mean_k / V, square = sum_k square_k + n_k (mean_k - mean)^2. The mean is kept
// as a base and a small rest, which holds it to more digits than one f32.
//
// Grid    one workgroup per (image, BLOCK pixels, group); its WG lanes stride over the values
// Cost    5 images ROWS C flop; reads x and x2 once, writes y once: bound by memory
// Source  Wu & He 2018, arXiv:1803.08494; torch.nn.functional.group_norm; Chan, Golub & LeVeque 1979 for the merging
// Twin    crates/ratel-kernels/src/group_norm.rs

import package::spec::{Elem};
import package::lib::act::act;
import package::lib::grid::workgroup_number;
import package::lib::workgroup_sum::workgroup_sum;

override WG: u32 = 64u;
override BLOCK: u32 = 256u;
override ACT: u32 = 0u;

struct Params { batch: u32, rows: u32, pixels: u32, c: u32, c1: u32, groups: u32, chunk: u32, eps: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem>;
@group(0) @binding(1) var<storage, read> x2: array<Elem>;
@group(0) @binding(2) var<storage, read> stats: array<f32>;
@group(0) @binding(3) var<storage, read> gamma: array<f32>;
@group(0) @binding(4) var<storage, read> beta: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<Elem>;

fn input(pixel: u32, c: u32) -> f32 {
    if c < p.c1 { return f32(x[pixel * p.c1 + c]); }
    return f32(x2[pixel * (p.c - p.c1) + c - p.c1]);
}

@compute @workgroup_size(WG)
fn group_norm(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(wg, grid);   // of (image, block, group)
    let blocks = (p.rows + BLOCK - 1u) / BLOCK;
    let g = number % p.groups;
    let block = number / p.groups % blocks;
    let image = number / p.groups / blocks;
    if image >= p.batch { return; }

    let width = p.c / p.groups;   // channels of a group
    let chunks = (p.pixels + p.chunk - 1u) / p.chunk;
    let first_chunk = image * chunks * p.groups + g;
    let base = stats[first_chunk * 2u];

    var sum = 0.0;
    for (var k = lane; k < chunks; k += WG) {
        let n = f32(min(p.chunk, p.pixels - k * p.chunk) * width);
        sum += n * (stats[(first_chunk + k * p.groups) * 2u] - base);
    }
    let mean = workgroup_sum(sum, lane) / f32(p.pixels * width);   // less base

    var square = 0.0;
    for (var k = lane; k < chunks; k += WG) {
        let n = f32(min(p.chunk, p.pixels - k * p.chunk) * width);
        let d = stats[(first_chunk + k * p.groups) * 2u] - base - mean;
        square += stats[(first_chunk + k * p.groups) * 2u + 1u] + n * d * d;
    }
    let scale = 1.0 / sqrt(workgroup_sum(square, lane) / f32(p.pixels * width) + p.eps);

    let first_pixel = image * p.rows + block * BLOCK;
    let values = min(BLOCK, p.rows - block * BLOCK) * width;
    for (var i = lane; i < values; i += WG) {
        let pixel = first_pixel + i / width;
        let c = g * width + i % width;
        y[pixel * p.c + c] = Elem(act(ACT, (input(pixel, c) - base - mean) * scale * gamma[c] + beta[c]));
    }
}
