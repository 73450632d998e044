// group_norm_stats: for chunk k of an image's pixels and group g of its channels, over the V values x_i of both
//
//   stats[image, k, g] = (mean, square)    mean = sum_i x_i / V    square = sum_i (x_i - mean)^2
//
//   x      (images, PIXELS, C1)          Elem   x and x2 side by side are the input: channel c of x for c < C1,
//   x2     (images, PIXELS, C - C1)      Elem   channel c - C1 of x2 beyond, when there is one
//   stats  (images, chunks, GROUPS, 2)   f32    chunks of CHUNK pixels, the last one of fewer
//
// Two passes over the chunk, which the second one finds in the cache. Both work on differences from one of the values,
// so that nothing cancels however far the mean lies from zero.
//
// Grid    one workgroup per (image, chunk, group); its WG lanes stride over the values
// Cost    4 images PIXELS C flop; reads x and x2 once: bound by memory
// Source  Wu & He 2018, arXiv:1803.08494; torch.nn.functional.group_norm
// Twin    crates/ratel-kernels/src/group_norm_stats.rs

import package::spec::{Elem};
import package::lib::grid::workgroup_number;
import package::lib::workgroup_sum::workgroup_sum;

override WG: u32 = 64u;

struct Params { batch: u32, pixels: u32, c: u32, c1: u32, groups: u32, chunk: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem>;
@group(0) @binding(1) var<storage, read> x2: array<Elem>;
@group(0) @binding(2) var<storage, read_write> stats: array<f32>;

fn input(pixel: u32, c: u32) -> f32 {
    if c < p.c1 { return f32(x[pixel * p.c1 + c]); }
    return f32(x2[pixel * (p.c - p.c1) + c - p.c1]);
}

@compute @workgroup_size(WG)
fn group_norm_stats(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(wg, grid);   // of (image, chunk, group)
    let chunks = (p.pixels + p.chunk - 1u) / p.chunk;
    let g = number % p.groups;
    let k = number / p.groups % chunks;
    let image = number / p.groups / chunks;
    if image >= p.batch { return; }

    let width = p.c / p.groups;   // channels of a group
    let values = min(p.chunk, p.pixels - k * p.chunk) * width;
    let first_pixel = image * p.pixels + k * p.chunk;
    let base = input(first_pixel, g * width);

    var sum = 0.0;
    for (var i = lane; i < values; i += WG) { sum += input(first_pixel + i / width, g * width + i % width) - base; }
    let mean = workgroup_sum(sum, lane) / f32(values);   // less base

    var square = 0.0;
    for (var i = lane; i < values; i += WG) {
        let d = input(first_pixel + i / width, g * width + i % width) - base - mean;
        square += d * d;
    }
    square = workgroup_sum(square, lane);
    if lane == 0u {
        stats[number * 2u] = base + mean;
        stats[number * 2u + 1u] = square;
    }
}
