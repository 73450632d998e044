// group_norm_1_naive: for chunk k of an image's pixels and group g of its channels, over the V values x_i of both
//
//   stats[image, k, g] = (mean, square)    mean = sum_i x_i / V    square = sum_i (x_i - mean)^2
//
//   x      (images, PIXELS, C)           f32
//   stats  (images, chunks, GROUPS, 2)   f32   chunks of CHUNK pixels, the last one of fewer
//
// Two passes over the values, one after the other by one invocation.
//
// Grid    one invocation per (image, chunk, group), WG of them a workgroup
// Cost    4 images PIXELS C flop; reads x once at least: bound by memory
// Source  Wu & He 2018, arXiv:1803.08494
// Twin    crates/ratel-kernels/src/group_norm_stats.rs

import package::lib::grid::workgroup_number;

const WG = 64u;

struct Params { batch: u32, pixels: u32, c: u32, groups: u32, chunk: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> stats: array<f32>;

@compute @workgroup_size(WG)
fn group_norm_1_naive(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(wg, grid) * WG + lane;   // of (image, chunk, group)
    let chunks = (p.pixels + p.chunk - 1u) / p.chunk;
    let g = number % p.groups;
    let k = number / p.groups % chunks;
    let image = number / p.groups / chunks;
    if image >= p.batch { return; }

    let width = p.c / p.groups;   // channels of a group
    let values = min(p.chunk, p.pixels - k * p.chunk) * width;
    let first = (image * p.pixels + k * p.chunk) * p.c + g * width;

    var sum = 0.0;
    for (var i = 0u; i < values; i++) { sum += x[first + i / width * p.c + i % width]; }
    let mean = sum / f32(values);

    var square = 0.0;
    for (var i = 0u; i < values; i++) {
        let d = x[first + i / width * p.c + i % width] - mean;
        square += d * d;
    }
    stats[number * 2u] = mean;
    stats[number * 2u + 1u] = square;
}
