// group_norm_4_subgroup: for chunk k of an image's pixels and group g of its channels, over the V values x_i of both
//
//   stats[image, k, g] = (mean, square)    mean = sum_i x_i / V    square = sum_i (x_i - mean)^2
//
//   x      (images, PIXELS, C)           f32
//   stats  (images, chunks, GROUPS, 2)   f32   chunks of CHUNK pixels, the last one of fewer
//
// One pass: sum_i (x_i - mean)^2 = sum_i d_i^2 - (sum_i d_i)^2 / V with d_i = x_i - base, for any base. The lanes are
// one subgroup, which adds up in one operation, without memory and without barriers.
//
// Grid    one workgroup of one subgroup per (image, chunk, group); its LANES lanes stride over the values
// Cost    4 images PIXELS C flop; reads x once at least: bound by memory
// Source  Wu & He 2018, arXiv:1803.08494; Chan, Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115
// Twin    crates/ratel-kernels/src/group_norm_stats.rs

import package::spec::{LANES};
import package::lib::grid::workgroup_number;

struct Params { batch: u32, pixels: u32, c: u32, groups: u32, chunk: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> stats: array<f32>;

@compute @workgroup_size(LANES)
fn group_norm_4_subgroup(
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
    let first = (image * p.pixels + k * p.chunk) * p.c + g * width;

    // of differences from one of the values, so that little cancels where the mean is far from zero
    let base = x[first];
    var both = vec2(0.0);   // the differences' sum, and their squares'
    for (var i = lane; i < values; i += LANES) {
        let d = x[first + i / width * p.c + i % width] - base;
        both += vec2(d, d * d);
    }
    both = subgroupAdd(both);
    if lane == 0u {
        stats[number * 2u] = base + both.x / f32(values);
        stats[number * 2u + 1u] = max(both.y - both.x * both.x / f32(values), 0.0);
    }
}
